"""Writing files that only their owner may read, so that each is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = ".tmp"
"""What the names of files end with that are being written; one left behind means nothing."""

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def make_folder(path: Path) -> None:
    """Make a private folder; the ones above it have to be there, but for those that split a long name."""
    if not path.is_dir():
        if path.parent.name.endswith("+"):
            make_folder(path.parent)
        path.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def create(path: Path, data: bytes = b"") -> None:
    """Make a new private file; when this returns its content is on the disk.

    Raises
    ------
    FileExistsError
        If there is one already; it stays as it is.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    try:
        _write(fd, data, 0)
        os.fsync(fd)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def write_at(path: Path, data: bytes | memoryview, offset: int) -> None:
    """Write to a file that is there, from `offset` on, and return when it is on the disk.

    If it cannot be written whole, nothing of it stays.

    Raises
    ------
    FileNotFoundError
        If the file has been deleted.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _write(fd, data, offset)
        os.fdatasync(fd)
    except OSError:
        os.ftruncate(fd, offset)
        raise
    finally:
        os.close(fd)


def append(path: Path, data: bytes) -> None:
    """Write at the end of a file that is there, as `write_at`."""
    write_at(path, data, path.stat().st_size)


def replace(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file in one step: a reader sees the old one or the new one.

    Parameters
    ----------
    path : pathlib.Path
    data : bytes
    durable : bool
        Whether to return only when it is on the disk.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
    try:
        _write(fd, data, 0)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(fd: int, data: bytes | memoryview, offset: int) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
