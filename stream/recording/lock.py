"""One recorder in a folder, and no more."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".lock"


class LockedError(RuntimeError):
    """Another recorder writes into the folder, or it cannot be used; the text says so in one line."""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a folder of recordings, which is made if it is not there.

    The kernel lets go of it when the process ends, however it ends.

    Raises
    ------
    LockedError
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LockedError(f"cannot record into {root}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            raise LockedError(
                f"another recorder{f' (process {holder})' if holder else ''} records into {root}:"
                " stop it, or name another folder with --out"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
