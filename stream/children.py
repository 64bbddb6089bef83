"""Child processes that do not outlive their parent.

A parent that is killed with SIGKILL cannot clean up. On Linux the kernel does it: each child asks to be
signalled when its parent dies (``PR_SET_PDEATHSIG``). Elsewhere a child of a killed parent runs on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

# Runs in the child before the program itself. A separate interpreter rather than `preexec_fn`, which may
# deadlock in a process with threads (NumPy and ONNX Runtime start some). The comparison closes the race in
# which the parent dies before prctl is called.
_LAUNCHER = """\
import ctypes, os, sys
parent, death_signal, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0 or os.getppid() != parent:
    sys.exit(1)
try:
    os.execvp(argv[0], argv)
except OSError as error:
    sys.exit(f"{argv[0]}: {error.strerror}")
"""


def spawn(
    argv: Sequence[str | Path],
    *,
    death_signal: signal.Signals = signal.SIGKILL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Iterable[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program that dies with this process.

    The child gets a session of its own, so that Ctrl-C in the terminal reaches this process only, which
    then stops its children in the right order.

    Parameters
    ----------
    argv : sequence of str or Path
        Program, looked up on PATH, and its arguments.
    death_signal : signal.Signals
        What the child receives when this process dies (Linux).
    stdout, stderr : int or file, optional
        As for `subprocess.Popen`.
    env : mapping, optional
        Whole environment of the child; ours by default.
    cwd : Path, optional
    pass_fds : iterable of int
        File descriptors to keep open in the child.

    Returns
    -------
    subprocess.Popen
        The program itself: its pid, its exit status.

    Raises
    ------
    RuntimeError
        Outside the main thread: the kernel signals the child when the *thread* that started it ends.
    """
    command = [os.fspath(part) for part in argv]
    if sys.platform == "linux":
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("children must be started from the main thread: they die with their thread")
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(death_signal))]
        command = launcher + command
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=None if env is None else dict(env),
        cwd=cwd,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )
