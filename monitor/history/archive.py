"""What is recorded of the beds: from when to when, and their alarms. Signals are not read for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from stream.recording.segment import Segment
from stream.recording.store import Recordings

# A pause as short is none that anybody sees on a line of hours.
_SEAM_NS = 1_000_000_000
# Transitions of alarms, the newest: more than anybody looks through, and half a megabyte.
_EVENTS = 4_000
ENVELOPE_S = 900.0
"""The longest stretch whose signal is drawn in little: a lead of it is read in a tenth of a second."""


class Piece(NamedTuple):
    """Segments of one session, in the order of their samples, that are alike."""

    segments: tuple[Segment, ...]

    @property
    def start(self) -> int:
        """First sample of the session."""
        return self.segments[0].begin.n0

    @property
    def stop(self) -> int:
        """Sample after the last one."""
        return self.segments[-1].end

    def time_of(self, sample: int) -> int:
        """Return the device time of a sample, ns."""
        held = [segment for segment in self.segments if segment.begin.n0 <= sample]
        segment = held[-1] if held else self.segments[0]
        return int(segment.times(sample, sample + 1)[0])


def beds(recordings: Recordings) -> list[dict[str, Any]]:
    """Return the beds of which something is recorded, with the time that it spans, ms since the epoch."""
    found = []
    for bed in recordings.beds():
        span = recordings.span(bed)
        if span is not None:
            found.append({"bed": bed, "from": span[0] / 1e6, "to": span[1] / 1e6})
    return found


def overview(recordings: Recordings, bed: str, now_ns: int) -> dict[str, Any] | None:
    """Return what there is of a bed, without its signal; None if there is nothing.

    Returns
    -------
    dict or None
        ``from``, ``to``: ms since the epoch, device time, as all times here; ``stretches``: what is recorded
        between; ``leads`` of the newest; ``growing``: whether it is being written; ``alarms``: their
        transitions as `stream.contract.AlarmEvent`, ``cut``: whether older ones were left out, and ``told``:
        what changes when they do.
    """
    segments = recordings.segments(bed)
    if not segments:
        return None
    stretches = _joined((segment.begin.t0, segment.t_end) for segment in segments)
    first, last = stretches[0][0], max(end for _, end in stretches)
    # An alarm may be answered when the feed is over.
    events = recordings.alarms(bed, first, last + 7 * 86_400 * 10**9)
    return {
        "bed": bed,
        "from": first / 1e6,
        "to": last / 1e6,
        "stretches": [[start / 1e6, end / 1e6] for start, end in stretches],
        "leads": list(segments[-1].begin.leads),
        "growing": any(segment.is_growing(now_ns) for segment in segments),
        "alarms": [event.model_dump(mode="json") for event in events[-_EVENTS:]],
        "cut": len(events) > _EVENTS,
        "told": f"{len(events)}-{events[-1].event}" if events else "",
    }


def envelope(
    recordings: Recordings, bed: str, t0: int, t1: int, lead: str, width: int
) -> list[list[int | None]]:
    """Return lowest and highest value of a lead, microvolts, in each of `width` equal parts of a stretch."""
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for stretch in recordings.read(bed, t0, t1, [lead]):
        values = stretch.millivolts[:, 0]
        there = np.isfinite(values)
        place = ((stretch.t_ns[there] - t0) * width // (t1 - t0)).clip(0, width - 1)
        np.minimum.at(low, place, values[there])
        np.maximum.at(high, place, values[there])
    known = np.isfinite(low)
    return [
        [round(1000 * float(value)) if there else None for value, there in zip(edge, known, strict=True)]
        for edge in (low, high)
    ]


def pieces(recordings: Recordings, bed: str) -> list[Piece]:
    """Return the sessions of a bed, each cut where its rate or its leads change, by time."""
    alike: dict[tuple[str, float, tuple[str, ...]], list[Segment]] = {}
    for segment in recordings.segments(bed):
        begin = segment.begin
        alike.setdefault((begin.session, begin.fs, begin.leads), []).append(segment)
    return [Piece(tuple(sorted(some, key=lambda one: one.begin.n0))) for some in alike.values()]


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= _SEAM_NS:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined
