"""A part of a recording as a recording of its own: WFDB records that hold it and nothing else."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from stream.contract import Validity
from stream.recording.alarms import add_alarms
from stream.recording.segment import Segment
from stream.recording.store import Recordings
from stream.recording.writer import SegmentWriter

# What is read at once, seconds.
_PIECE_S = 60.0


class ExportError(ValueError):
    """Nothing to export; the text says why, in one line."""


def export(recordings: Recordings, bed: str, t0: int, t1: int, folder: Path) -> list[Path]:
    """Write what was recorded of a bed from a device time on, up to another.

    Samples, flags and times are those of the recording, and so are the alarms that were open between.

    Parameters
    ----------
    recordings : Recordings
    bed : str
    t0, t1 : int
        Device times, ns since the epoch.
    folder : pathlib.Path
        It is made if it is not there.

    Returns
    -------
    list of pathlib.Path
        The records, without extension, by time: one, unless there is a gap between, another session, or other
        leads, rates or gains.

    Raises
    ------
    ExportError
        If nothing was recorded between.
    OSError
        If it cannot be read or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    writers: list[SegmentWriter] = []
    for segment in recordings.segments(bed):
        start, stop = segment.samples_between(t0, t1)
        if start >= stop:
            continue
        before = writers[-1] if writers else None
        if before is None or not _goes_on(before, segment, start):
            before = SegmentWriter(
                folder,
                segment.begin.model_copy(update={"n0": start, "t0": int(segment.times(start, start + 1)[0])}),
            )
            writers.append(before)
        _copy(segment, start, stop, before)
    if not writers:
        raise ExportError(f"nothing was recorded of {bed} in this time")
    records = []
    for writer in writers:
        writer.sync(writer.begin.begun_ns)
        assert writer.record is not None
        records.append(writer.record)
    lasting = {event.alarm for event in recordings.alarms(bed, t0, t1)}
    for writer, record in zip(writers, records, strict=True):
        # Of an alarm that is told of in this time all is told.
        events = [
            event
            for event in recordings.alarms(bed, 0, t1)
            if event.alarm in lasting and event.session == writer.begin.session
        ]
        if events:
            add_alarms(record, events)
    return records


def _goes_on(writer: SegmentWriter, segment: Segment, start: int) -> bool:
    alike = ("session", "fs", "leads", "gain")
    return writer.end == start and all(
        getattr(writer.begin, name) == getattr(segment.begin, name) for name in alike
    )


def _copy(segment: Segment, start: int, stop: int, writer: SegmentWriter) -> None:
    good = (Validity.OK,) * len(segment.begin.leads)
    edges = {start, stop, *range(start, stop, round(_PIECE_S * segment.begin.fs))}
    flags = segment.flags_between(start, stop)
    edges |= {edge for first, until, _ in flags for edge in (first, until)}
    ordered = sorted(edges)
    for first, until in pairwise(ordered):
        said = next((flag for begin, end, flag in flags if begin <= first < end), good)
        writer.append(
            first, int(segment.times(first, first + 1)[0]), segment.read(first, until), said or good
        )
