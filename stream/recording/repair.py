"""Putting a folder right after a recorder that was killed, or a machine that lost power."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from stream.contract import MalformedMessageError
from stream.recording import files
from stream.recording.alarms import WRITTEN
from stream.recording.compression import blocks
from stream.recording.header import Summary, header_text
from stream.recording.names import bed_folders
from stream.recording.segment import (
    FLAC,
    HEADER,
    RAW,
    SIDE,
    Begin,
    End,
    Side,
    beside,
    files_of,
    flac_files,
    line,
)

log = logging.getLogger(__name__)

DELETED = ".deleted-"
"""How folders begin of which only the rest is to be deleted."""


@dataclass(frozen=True, slots=True)
class Found:
    """A segment that was there when the recorder began.

    Attributes
    ----------
    record : pathlib.Path
    begin : Begin
    end : End
    is_raw : bool
        Whether it has to be compressed yet.
    """

    record: Path
    begin: Begin
    end: End
    is_raw: bool


def repair(root: Path) -> list[Found]:
    """End all segments that were left open, and clear away what was half made.

    Only for the one recorder that holds the folder's lock.

    Returns
    -------
    list of Found
        All segments that can be used, of all beds, in the order in which they were recorded.

    Raises
    ------
    OSError
        If something cannot be written.
    """
    for path in root.glob(f"{DELETED}*"):
        shutil.rmtree(path, ignore_errors=True)
    found: list[Found] = []
    for _, folder in bed_folders(root):
        for path in [*folder.glob(f"*{files.TEMPORARY}"), *folder.glob(f"*{WRITTEN}")]:
            path.unlink()
        for path in sorted(folder.glob(f"*{SIDE}")):
            segment = repair_segment(path.with_name(path.name.removesuffix(SIDE)))
            if segment is not None:
                found.append(segment)
    return sorted(found, key=lambda one: (one.begin.begun_ns, one.begin.n0))


def repair_segment(record: Path) -> Found | None:
    """End one segment that was left open, whatever its files were cut off to.

    Returns
    -------
    Found or None
        None if it holds no samples, in which case it is removed, or cannot be understood, in which case it is
        left as it is.
    """
    side_path, raw = beside(record, SIDE), beside(record, RAW)
    raw_size = raw.stat().st_size if raw.exists() else 0
    try:
        side = Side.parse(side_path.read_bytes())
    except MalformedMessageError as error:
        if raw_size or any(record.parent.glob(f"{record.name}[._]*{FLAC[1:]}")):
            log.warning("%s: cannot be repaired, left as it is: %s", side_path, error)
            return None
        # Its recorder was killed before it had written a sample.
        remove_segment(record, 1)
        return None
    if side.end is None:
        side.end = _ended(record, side, raw_size)
    elif raw.exists() and _is_compressed(record):
        raw.unlink()
    if not side.end.frames:
        if any(path.exists() for path, _ in flac_files(record, len(side.begin.leads))):
            log.warning("%s: its header is lost, left as it is", record)
            return None
        remove_segment(record, len(side.begin.leads))
        return None
    return Found(record, side.begin, side.end, raw.exists())


def remove_segment(record: Path, leads: int) -> int:
    """Delete a segment of so many leads and return how many bytes that were."""
    freed = 0
    for path in files_of(record, leads):
        try:
            size = path.stat().st_size
            path.unlink()
            freed += size
        except FileNotFoundError:
            continue
    return freed


def _ended(record: Path, side: Side, raw_size: int) -> End:
    # Writes the end of a segment that has none, and makes all files agree with it.
    side_path, raw, begin = beside(record, SIDE), beside(record, RAW), side.begin
    if raw.exists() or not _is_compressed(record):
        frames = raw_size // begin.row
    else:
        frames = int(beside(record, HEADER).read_bytes().split()[3])
    if not frames:
        return End(0, 0)
    newest = raw if raw.exists() else side_path
    end = End(frames, newest.stat().st_mtime_ns)
    said = side_path.read_bytes()
    # The first line is whole, or we would not be here; of those behind it the last may be cut off.
    first, _, rest = said.partition(b"\n")
    whole = first + b"\n" + rest[: rest.rfind(b"\n") + 1]
    files.replace(side_path, whole + line(frames=end.frames, ended_ns=end.ended_ns), durable=True)
    if raw.exists():
        os.truncate(raw, frames * begin.row)
        summary = Summary(len(begin.leads))
        for block in blocks(record, begin, frames):
            summary.add(block)
        files.replace(beside(record, HEADER), header_text(record, begin, frames, summary, flac=False))
    log.info("%s: was left open, ends now with %d samples", record, frames)
    return end


def _is_compressed(record: Path) -> bool:
    # The header is the last that changes when a segment is compressed, and the first that a reader sees.
    try:
        return f"{FLAC} 516 ".encode() in beside(record, HEADER).read_bytes()
    except FileNotFoundError:
        return False
