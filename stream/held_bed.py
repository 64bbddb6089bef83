"""A bed that a worker holds, and what there is to tell of its feed.

None of this is about the patient: a feed that is lost, refused, claimed by two devices, or whose clock or
rate is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from stream.alarms.conditions import (
    BED_CLAIMED,
    CLOCK_SKEW,
    FALLBACK,
    FEED_LOST,
    FEED_LOST_S,
    FEED_REFUSED,
    OVERLOAD,
    WRONG_RATE,
    Condition,
)
from stream.alarms.machine import Seen, observe
from stream.alarms.state import BedState, Moment
from stream.contract import AlarmEvent, SampleChunk
from stream.holding import Holding
from stream.reorder import InOrder
from stream.skew import SKEW_S, SkewMeter
from stream.vitals.bed import BedVitals
from stream.windows import BedWindow

# What a publisher had under way when its device began a new session has come by then; what it sends again has
# the ingest time of the first time.
_CLAIMED_NS = 1_000_000_000
_OVER, _BACK = Seen(False, message="over"), Seen(False, message="the feed is back")


@dataclass(slots=True)
class HeldBed:
    """Everything of one bed, whose feed has been heard."""

    state: BedState
    windows: BedWindow
    held: Holding
    vitals: BedVitals
    leads: tuple[str, ...]
    fs: float
    pace: float
    order: InOrder
    moment: Moment
    heard_ns: int
    """When its last chunk was taken, by the worker's clock."""
    opening: int
    """Number of its taking up; see `stream.engine.Pending.opening`."""
    opened_ns: int
    """Ingest time of the first chunk that was heard of the session."""
    source: str
    """Of that chunk."""
    skew: SkewMeter
    scores: npt.NDArray[np.float64]
    """Of the newest windows, in no order: a new one takes the place of the oldest."""
    scored: int = 0
    """How many windows have had a score."""
    beats: list[int] = field(default_factory=list)
    """Source samples of beats that no message of vitals has told yet."""
    pending: int = 0
    """Windows on their way through the model."""
    newest: int | None = None
    """Number of the last window that was handed out."""
    remembered: int = 0
    """Grid sample of the last memory."""


def service(state: BedState, condition: Condition, moment: Moment, message: str | None) -> list[AlarmEvent]:
    """Return the transitions of a condition of the system: it lasts while there is something to say of it."""
    seen = _OVER if message is None else Seen(True, moment.sample, message)
    return observe(state, condition, moment, seen)


def heard(bed: HeldBed, source: str, overload: str | None, fallback: str | None) -> list[AlarmEvent]:
    """Return what there is to tell of a feed whose chunk was used.

    Parameters
    ----------
    bed : HeldBed
    source : str
        Which adapter it comes from; empty for none.
    overload, fallback : str, optional
        What the worker does not do for it, and in which other way than wanted the model runs.
    """
    state, moment = bed.state, bed.moment
    # An adapter has told of a wrong rate already, and named the device.
    wrong_rate = None if source else _wrong_rate(bed)
    return [
        *observe(state, FEED_LOST, moment, _BACK),
        *service(state, OVERLOAD, moment, overload),
        *service(state, FALLBACK, moment, fallback),
        *service(state, CLOCK_SKEW, moment, _skewed(bed)),
        *service(state, WRONG_RATE, moment, wrong_rate),
        *service(state, FEED_REFUSED, moment, None),
        *service(state, BED_CLAIMED, moment, None),
    ]


def lost(bed: HeldBed, moment: Moment, since: int) -> list[AlarmEvent]:
    """Return what there is to tell at a moment of a feed that has been silent since a sample."""
    seen = Seen(True, since, f"feed lost: silent for more than {FEED_LOST_S:g} s")
    return observe(bed.state, FEED_LOST, moment, seen)


def refused(bed: HeldBed, chunk: SampleChunk) -> tuple[str, list[AlarmEvent]]:
    """Return why a chunk is refused that contradicts the bed's session, and what there is to tell of that."""
    # Left to itself such a feed would be heard, never scored and never reported.
    header = chunk.header
    if header.fs != bed.fs:
        why = f"fs: changed within a session from {bed.fs:g} to {header.fs:g} Hz"
    elif header.leads != bed.leads:
        why = f"leads: changed within a session from {' '.join(bed.leads)} to {' '.join(header.leads)}"
    else:
        why = "n0: runs back although seq goes on"
    at = replace(bed.moment, ingest_ns=header.ingest_ns)
    who = _who(header.session, header.source)
    message = f"feed refused: {who}: {why}; it has to begin a new session"
    return why, observe(bed.state, FEED_REFUSED, at, Seen(True, bed.moment.sample, message))


def claimed(bed: HeldBed, chunk: SampleChunk) -> list[AlarmEvent]:
    """Return what there is to tell of a chunk of a session that the bed has left behind."""
    header = chunk.header
    if not header.pace or header.ingest_ns - bed.opened_ns < _CLAIMED_NS:
        return []
    at = replace(bed.moment, ingest_ns=header.ingest_ns)
    first, other = _who(bed.state.session, bed.source), _who(header.session, header.source)
    message = f"two devices claim the bed: {first} is heard, {other} sends, too"
    return observe(bed.state, BED_CLAIMED, at, Seen(True, bed.moment.sample, message))


def _who(session: str, source: str) -> str:
    # Whom to look for; a source is what the publisher says, so whatever it is becomes one line.
    stated = " ".join("".join(c if c.isprintable() else " " for c in source).split())
    return f"session {session} from {stated}" if stated else f"session {session}"


def _skewed(bed: HeldBed) -> str | None:
    skew_s = bed.skew.skew_s
    if skew_s is None or abs(skew_s) <= SKEW_S:
        return None
    return f"device clock {'behind' if skew_s > 0 else 'ahead'} by {abs(skew_s):.0f} s since the feed began"


def _wrong_rate(bed: HeldBed) -> str | None:
    if bed.skew.wrong_rate is None:
        return None
    came = f"{bed.skew.wrong_rate:.0f} samples a second came"
    return f"wrong rate of bed {bed.moment.bed}: session {bed.state.session} states {bed.fs:g} Hz, {came}"
