"""Keeping a folder of recordings in bounds: compression, retention, quota, deletion."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stream.contract import MalformedMessageError
from stream.recording.compression import CompressionError, compress
from stream.recording.names import bed_folders, folder_of
from stream.recording.repair import DELETED, remove_segment
from stream.recording.segment import SIDE, Begin, End, Side

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long recordings are kept, and how much of them.

    Attributes
    ----------
    retention_ns : int, optional
        Segments whose end was recorded longer ago are deleted.
    quota : int, optional
        Bytes of all recordings together.
    """

    retention_ns: int | None = None
    quota: int | None = None


class Upkeep:
    """What is done with segments once they have ended.

    Parameters
    ----------
    root : pathlib.Path
        Folder of all recordings.
    limits : Limits
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        self._root = root
        self._limits = limits
        self._waiting: list[tuple[Path, Begin, End]] = []
        # What lies beside a segment that has ended is read once.
        self._known: dict[Path, tuple[Begin, End]] = {}
        self._said: set[str] = set()

    def add(self, ended: Iterable[tuple[Path, Begin, End]]) -> None:
        """Take segments that are to be compressed. May be called from another thread."""
        self._waiting += ended

    @property
    def waiting(self) -> int:
        """How many segments wait to be compressed."""
        return len(self._waiting)

    def compress_next(self) -> str | None:
        """Compress the segment that has waited longest.

        Returns
        -------
        str or None
            Why it was not, for people, where they have not been told before.

        Raises
        ------
        OSError
            If the disk does not take it; it goes on waiting.
        """
        record, begin, end = self._waiting[0]
        why = None
        try:
            compress(record, begin, end.frames)
        except CompressionError as error:
            why = str(error)
        except FileNotFoundError:
            # Deleted meanwhile.
            log.info("%s: is not there any more", record)
        self._waiting.pop(0)
        if why is None or why in self._said:
            return None
        self._said.add(why)
        return why

    def tidy(self, now_ns: int) -> tuple[int, str | None]:
        """Delete what is too old or too much: the oldest first, and never what is being written.

        Returns
        -------
        int
            Bytes of all recordings that are left.
        str or None
            What cannot be kept to, for people.
        """
        ended, total = self._look()
        limits = self._limits
        for record, begin, end in ended:
            too_old = limits.retention_ns is not None and end.ended_ns < now_ns - limits.retention_ns
            if too_old or (limits.quota is not None and total > limits.quota):
                total -= remove_segment(record, len(begin.leads))
                log.info("%s: deleted, %s", record, "too old" if too_old else "beyond the quota")
        if limits.quota is not None and total > limits.quota:
            return total, (
                f"the quota of {limits.quota / 1e9:g} GB is less than what is being recorded:"
                " nothing older is left to be deleted"
            )
        return total, None

    def _look(self) -> tuple[list[tuple[Path, Begin, End]], int]:
        # All segments that have ended, oldest first, and the bytes of everything.
        known: dict[Path, tuple[Begin, End]] = {}
        total = 0
        for _, folder in bed_folders(self._root):
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
                if not entry.name.endswith(SIDE):
                    continue
                record = folder / entry.name.removesuffix(SIDE)
                found = self._known.get(record) or _ended(Path(entry.path))
                if found is not None:
                    known[record] = found
        self._known = known
        segments = [(record, begin, end) for record, (begin, end) in known.items()]
        return sorted(segments, key=lambda segment: segment[2].ended_ns), total


def _ended(path: Path) -> tuple[Begin, End] | None:
    try:
        side = Side.parse(path.read_bytes())
    except (MalformedMessageError, FileNotFoundError):
        return None
    return None if side.end is None else (side.begin, side.end)


def delete_bed(root: Path, bed: str) -> int:
    """Delete all recordings of a bed, for good; a recorder that records it goes on with a new segment.

    Returns
    -------
    int
        How many segments there were.

    Raises
    ------
    FileNotFoundError
        If there are none.
    OSError
        If they cannot be deleted.
    """
    folder = root / folder_of(bed)
    # Out of sight in one step; a recorder clears away what a crash leaves of it.
    gone = root / f"{DELETED}{uuid.uuid4().hex}"
    folder.rename(gone)
    segments = len(list(gone.glob(f"*{SIDE}")))
    shutil.rmtree(gone)
    for parent in folder.parents:
        if parent == root:
            break
        # The rest of a long name; another bed may begin alike.
        with suppress(OSError):
            parent.rmdir()
    return segments
