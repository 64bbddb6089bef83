"""A whole deployment on this machine: server, worker and live page as child processes.

What `bedside demo`, the benchmarks and the acceptance tests start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from stream.bus import Bus
from stream.children import spawn
from stream.embedded import EmbeddedServer
from stream.heartbeat import HEARTBEAT
from stream.settings import Settings

# Importing Faust, SciPy and ONNX Runtime takes two to four seconds on a busy machine, joining the group one.
_READY_TIMEOUT_S = 60.0
_POLL_S = 0.05
# A worker finishes its batch and leaves the group, the page closes its sessions.
_STOP_TIMEOUT_S = 15.0
# What `bedside record` says once it misses nothing more.
_RECORDING = "bedside: recording"
# Enough for a dead child's error line and the traceback before it, and for all that is said of an outage.
_LAST_WORDS = 20_000


class WardError(RuntimeError):
    """A part of the deployment did not start or died; the text says which and its last words."""


class Ward:
    """Server, workers and live page, started in this order and stopped in the reverse one.

    Parameters
    ----------
    directory : Path, optional
        Of the embedded server's socket; default the user's own, where other commands find it.
    worker_options : sequence of str
        More options of ``bedside worker``.
    workers : int
        How many; the first is called ``worker``, the next ``worker-2``.
    pinned : bool
        Whether each of them is kept to one core, in turn, as a container with one processor is. Linux only.
    scorer : sequence of str, optional
        What scores in the place of Bedside's worker: arguments of a Python that is called with ``--redis
        URL`` after them, and keeps a heartbeat as a worker does.
    page_port : int, optional
        Port of the live page; none is started without it.
    recordings : Path, optional
        Folder into which everything is recorded; nothing is without it.
    kafka : str, optional
        URL of a cluster that has the topics: the workers run there, and a bridge stands between it and the
        server.

    Examples
    --------
    >>> async def run():  # doctest: +SKIP
    ...     with Ward() as ward:
    ...         await ward.ready()
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        worker_options: tuple[str, ...] = (),
        workers: int = 1,
        pinned: bool = False,
        scorer: tuple[str, ...] | None = None,
        page_port: int | None = None,
        recordings: Path | None = None,
        kafka: str | None = None,
    ) -> None:
        self.server = EmbeddedServer(directory)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, IO[bytes]] = {}
        self._worker_options = worker_options
        self.workers = ("worker", *(f"worker-{number + 1}" for number in range(1, workers)))
        self._pinned = pinned
        self._scorer = scorer
        self._page_port = page_port
        self.recordings = recordings
        self._kafka = kafka
        # The children take it from the environment, as we do.
        self._prefix = Settings().prefix

    async def connect(self) -> Bus:
        """Open a connection to this deployment's topics."""
        return await Bus.connect(self.url, prefix=self._prefix)

    @property
    def url(self) -> str:
        """URL of the server."""
        return self.server.url

    def __enter__(self) -> Self:
        self.server.start()
        try:
            if self._kafka is not None:
                self.start_bridge("bridge")
            for number, name in enumerate(self.workers):
                worker = self.start_worker(name)
                if self._pinned:
                    # At once, while it has no threads: they get what it has.
                    cores = sorted(os.sched_getaffinity(0))
                    os.sched_setaffinity(worker.pid, {cores[number % len(cores)]})
            if self._page_port is not None:
                recordings = ("--recordings", str(self.recordings)) if self.recordings else ()
                self._start("page", "dashboard", "--port", str(self._page_port), *recordings)
            if self.recordings is not None:
                self._start("recorder", "record", "--out", str(self.recordings))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        """Start one more worker under a name of its own."""
        if self._scorer is not None:
            return self._spawn(name, *self._scorer, "--redis", self.url)
        # Both named: a broker in the environment is another deployment's.
        return self._start(name, "worker", "--broker", self._kafka or self.url, *self._worker_options)

    def start_bridge(self, name: str) -> subprocess.Popen[bytes]:
        """Start one more bridge under a name of its own."""
        assert self._kafka is not None, "a bridge stands between two servers"
        return self._start(name, "bridge", "--broker", self._kafka)

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._spawn(name, "-m", "bedside", arguments[0], "--redis", self.url, *arguments[1:])

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._logs[name] = log
        self.children[name] = spawn([sys.executable, *arguments], stdout=log, stderr=log)
        return self.children[name]

    def check(self) -> None:
        """Raise `WardError` if a child has died."""
        for name, child in self.children.items():
            if child.poll() is not None:
                words = self.log(name).rpartition("\n")[2] or "without a word"
                raise WardError(f"the {name} stopped with exit code {child.returncode}: {words}")

    def log(self, name: str) -> str:
        """Return the end of what a child has printed."""
        # Not read from the file object: its place in the file is the child's, too.
        log = self._logs[name].fileno()
        start = max(0, os.fstat(log).st_size - _LAST_WORDS)
        return os.pread(log, _LAST_WORDS, start).decode(errors="replace").strip()

    async def ready(self) -> None:
        """Return when the workers hold their partitions and the page, if there is one, answers.

        Raises
        ------
        WardError
            If a child dies or the time is up.
        """
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S), await self.connect() as bus:
                while len(await bus.client.keys(f"{self._prefix}{HEARTBEAT}*")) < len(self.workers):
                    self.check()
                    await asyncio.sleep(_POLL_S)
                while self._page_port is not None and not await _answers(self._page_port):
                    self.check()
                    await asyncio.sleep(_POLL_S)
                # What came before it says so is not recorded.
                while self.recordings is not None and _RECORDING not in self.log("recorder"):
                    self.check()
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise WardError(f"not ready after {_READY_TIMEOUT_S:g} s") from error

    def stop(self) -> None:
        """Stop everything; nothing is left behind."""
        for child in self.children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self.children.values():
            try:
                child.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for log in self._logs.values():
            log.close()
        self.children.clear()
        self._logs.clear()
        self.server.stop()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
