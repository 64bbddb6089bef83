"""Alarms beside a recording: every transition as it came, and as WFDB annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stream.contract import AlarmEvent, Presence
from stream.recording import files
from stream.recording.segment import ALARMS, SIDE, Begin, Side, beside, frames_of, line

WRITTEN = ".almnew"
"""What the file is called while it is written: the name of an annotator is made of letters."""


def add_alarms(record: Path, events: Sequence[AlarmEvent]) -> None:
    """Note alarm transitions beside a segment; those that are noted already are passed over.

    Raises
    ------
    FileNotFoundError
        If the segment has been deleted.
    OSError
        If they cannot be written. It may be repeated.
    """
    path = beside(record, SIDE)
    side = Side.parse(path.read_bytes())
    noted = {event.event for event in side.alarms}
    new = list({event.event: event for event in events if event.event not in noted}.values())
    if new:
        files.append(path, b"".join(line(alarm=event.model_dump(mode="json")) for event in new))
    if new or not beside(record, ALARMS).exists():
        write_alarms(record, side.begin, [*side.alarms, *new], frames_of(record, side))


def write_alarms(record: Path, begin: Begin, events: Sequence[AlarmEvent], frames: int) -> None:
    """Write the alarm transitions of a segment as WFDB annotations.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    # Imported when there is an alarm: wfdb takes a second to load, and a hundred megabytes.
    from stream.annotations import write_annotations

    written = beside(record, WRITTEN)
    written.unlink(missing_ok=True)
    files.create(written)
    write_annotations(written, _notes(begin, events, frames / begin.fs), [], begin.fs)
    written.replace(beside(record, ALARMS))


def _notes(begin: Begin, events: Sequence[AlarmEvent], length_s: float) -> list[tuple[float, str]]:
    notes = [(0.0, f"bedside recording of bed {begin.bed}")]
    for event in events:
        onset_s = (event.onset - begin.n0) / begin.fs
        at_s = onset_s + (event.since - event.onset_t) / 1e9
        if event.presence is Presence.ON and not event.number:
            notes.append((onset_s, f"(alarm {event.alarm}, {event.priority} priority: {event.message}"))
            notes.append((at_s, f"raised {event.alarm}"))
        elif event.presence is Presence.OFF:
            notes.append((at_s, f"alarm) {event.alarm}"))
        else:
            by = f" by {event.who}" if event.who else ""
            again = f", escalation {event.escalation}" if event.escalation else ""
            notes.append((at_s, f"{event.presence} {event.alarm}{by}{again}"))
    # An alarm may begin before its segment, and be answered when the feed is long over.
    return [(min(max(0.0, at_s), length_s), text) for at_s, text in notes]
