"""Our own commands, as ``bedside analyze``, in processes that can take only so much memory and time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from stream.children import spawn
from stream.console import PROGRESS_LINES

# Of our environment it gets what finds programs and caches: no address of a server, no secret.
_KEPT = ("PATH", "HOME", "LANG", "PYTHONPATH", "TZ")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class LimitedError(RuntimeError):
    """A run that failed; the text says why, in one line."""


class LimitedRun:
    """A command of ours within the limits of `monitor.uploads.limits`. Begin it from the main thread.

    Parameters
    ----------
    arguments : sequence of str or pathlib.Path
        As for ``bedside``.
    folder : pathlib.Path
        In which it runs.
    on_progress : callable
        Told, from a thread, which share is done.
    hidden : sequence of pathlib.Path
        Folders that are ours, and tell nobody anything: errors do not name them.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        folder: Path,
        on_progress: Callable[[float], None],
        *,
        hidden: Sequence[Path] = (),
    ) -> None:
        self._on_progress, self._hidden = on_progress, hidden
        self._said: list[str] = []
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = spawn(
            [sys.executable, "-m", "monitor.uploads.limits", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**kept, **_ONE_THREAD, PROGRESS_LINES: "1"},
            cwd=folder,
        )
        self._reading = threading.Thread(target=self._listen, daemon=True)
        self._reading.start()

    async def done(self, timeout_s: float) -> None:
        """Return when it has done what it was told.

        Raises
        ------
        LimitedError
            If it has not, or took longer.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.to_thread(self._process.wait)
        except TimeoutError:
            raise LimitedError(
                f"it took longer than {timeout_s / 60:.0f} min: cut the recording into pieces"
            ) from None
        finally:
            self.stop()
        await asyncio.to_thread(self._reading.join)
        if self._process.returncode:
            raise LimitedError(self._in_words())

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        # Until the process has ended: lines of progress, and what it has to say.
        assert self._process.stderr is not None
        with self._process.stderr:
            for raw in self._process.stderr:
                line = raw.decode(errors="replace").strip()
                try:
                    self._on_progress(float(json.loads(line)["progress"]))
                except (ValueError, KeyError, TypeError):
                    if line:
                        self._said.append(line)

    def _in_words(self) -> str:
        code, said = self._process.returncode, self._said[-1] if self._said else ""
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return "it took more time or memory than it may: cut the recording into pieces"
        if "MemoryError" in said or "bad_alloc" in said:
            return "the recording needs more memory than it may: cut it into pieces"
        if code < 0:
            return f"the analysis was ended by {signal.Signals(-code).name}"
        text = said.removeprefix("bedside: ").removeprefix("Error: ")
        for folder in self._hidden:
            text = text.replace(f"{folder}/", "")
        return text or "the analysis failed without a word"
