"""When findings become alarms: pure functions of a bed's state and what happened.

The rules:

``anomaly``
    `k` of the last `n` windows over the model's alarm threshold raise it; it ends when all but `clear` of the
    last `n` are scored and below. Windows that could not be scored count for neither side, so an alarm does
    not end because the signal was lost.
``not-scored``
    More than `UNSCORED_S` of signal without a scored window: nobody is watching this bed.
``overload``
    The worker does less for this bed than it should, for lack of time.
``fallback``
    The model runs on another backend than the one that was chosen for this machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, Field

from models.manifest import AlarmRule
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority, alarm_id

UNSCORED_S = 10.0
"""Longest stretch without a verdict before the bed says so (the alarm delay that IEC 60601-2-27 allows)."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What an alarm rule stands for. Priority comes from here, never from a score."""

    rule: str
    kind: AlarmKind
    code: str
    priority: Priority


ANOMALY = Condition("anomaly", AlarmKind.PHYSIOLOGICAL, "ECG_ANOMALY", Priority.MEDIUM)
# A bed that nobody scores is no less urgent than one with an unusual ECG.
NOT_SCORED = Condition("not-scored", AlarmKind.TECHNICAL, "NOT_SCORED", Priority.MEDIUM)
# Both are watched, if less closely or in another way: a person should know, and need not run.
OVERLOAD = Condition("overload", AlarmKind.TECHNICAL, "OVERLOAD", Priority.LOW)
FALLBACK = Condition("fallback", AlarmKind.TECHNICAL, "BACKEND_FALLBACK", Priority.INFO)
CONDITIONS = (ANOMALY, NOT_SCORED, OVERLOAD, FALLBACK)


class OpenAlarm(BaseModel):
    """An alarm that has been raised and has not ended."""

    alarm: str
    onset: int
    onset_t: int
    transitions: int = 0
    """Transitions published so far: the number of the next one."""


class BedState(BaseModel):
    """What must outlive the worker that holds a bed: kept in a Faust table, rebuilt by nobody."""

    session: str
    next_window: int = 0
    """Windows below this are done: a redelivered chunk does not bring them up again."""
    history: list[tuple[int, bool, int]] = Field(default_factory=list)
    """Number, over the threshold, and first new sample of each of the last `n` scored windows."""
    scored_to: int = 0
    """Sample up to which the signal has been scored."""
    open: dict[str, OpenAlarm] = Field(default_factory=dict)
    """Open alarms by rule."""
    ended: bool = False
    """The newest chunk said that this session is over."""
    former: list[str] = Field(default_factory=list)
    """Sessions that this bed has left behind, newest last."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in a feed, and what brought the system to look at it.

    Attributes
    ----------
    bed : str
    sample : int
        Index since the start of the session.
    t : int
        Its device time, ns.
    fs : float
        Sampling frequency of the feed, Hz.
    ingest_ns : int
        Ingest time of the chunk that is being looked at.
    """

    bed: str
    sample: int
    t: int
    fs: float
    ingest_ns: int

    def time_of(self, sample: int) -> int:
        """Return the device time of another sample of the feed, in ns."""
        return self.t + round((sample - self.sample) * 1e9 / self.fs)


def judge_window(
    state: BedState,
    rule: AlarmRule,
    moment: Moment,
    *,
    window: int,
    first_new: int,
    over: bool,
    score: float,
    hops: int = 1,
) -> list[AlarmEvent]:
    """Take the verdict on one scored window into account.

    Parameters
    ----------
    state : BedState
        Changed in place.
    rule : AlarmRule
    moment : Moment
        The end of the window.
    window : int
        Its number on the grid; numbers rise.
    first_new : int
        First sample of it that no earlier window held: an alarm's onset is never dated before what was new.
    over : bool
        Over the alarm threshold.
    score : float
    hops : int
        How many windows it stands for, itself and those before it that were shed: the same share of the last
        `n` raises an alarm when fewer are scored.

    Returns
    -------
    list of AlarmEvent
        Transitions, in order.
    """
    recent = [past for past in state.history if past[0] > window - rule.n]
    stands_for = [(number, over, first_new) for number in range(window - hops + 1, window + 1)]
    state.history = [*recent, *stands_for]
    state.scored_to = moment.sample
    events = _end(state, NOT_SCORED, moment, "scored again")
    flagged = [first for _, was_over, first in state.history if was_over]
    if len(flagged) >= rule.k:
        message = f"unusual ECG in {len(flagged)} of the last {rule.n} windows"
        events += _raise(state, ANOMALY, moment, flagged[0], message, score)
    elif len(state.history) - len(flagged) >= rule.n - rule.clear:
        events += _end(state, ANOMALY, moment, "ECG as usual again", score)
    return events


def judge_silence(state: BedState, moment: Moment, reason: str) -> list[AlarmEvent]:
    """Raise `not-scored` when the signal up to `moment` has gone without a verdict for too long."""
    if moment.sample - state.scored_to <= UNSCORED_S * moment.fs:
        return []
    return _raise(state, NOT_SCORED, moment, state.scored_to, f"not scored: {reason}")


def judge_service(
    state: BedState, condition: Condition, moment: Moment, message: str | None
) -> list[AlarmEvent]:
    """Raise a condition of the worker itself while it has something to say, and end it after that."""
    if message is None:
        return _end(state, condition, moment, "over")
    return _raise(state, condition, moment, moment.sample, message)


def end_all(state: BedState, moment: Moment, message: str) -> list[AlarmEvent]:
    """End every open alarm of a bed."""
    return [event for condition in CONDITIONS for event in _end(state, condition, moment, message)]


def _raise(
    state: BedState,
    condition: Condition,
    moment: Moment,
    onset: int,
    message: str,
    score: float | None = None,
) -> list[AlarmEvent]:
    if condition.rule in state.open:
        return []
    identity = alarm_id(moment.bed, state.session, condition.rule, onset)
    state.open[condition.rule] = OpenAlarm(alarm=identity, onset=onset, onset_t=moment.time_of(onset))
    return [_transition(state, condition, moment, Presence.ON, message, score)]


def _end(
    state: BedState, condition: Condition, moment: Moment, message: str, score: float | None = None
) -> list[AlarmEvent]:
    if condition.rule not in state.open:
        return []
    event = _transition(state, condition, moment, Presence.OFF, message, score)
    del state.open[condition.rule]
    return [event]


def _transition(
    state: BedState,
    condition: Condition,
    moment: Moment,
    presence: Presence,
    message: str,
    score: float | None,
) -> AlarmEvent:
    alarm = state.open[condition.rule]
    number = alarm.transitions
    alarm.transitions += 1
    return AlarmEvent(
        alarm=alarm.alarm,
        event=f"{alarm.alarm}-{number}",
        bed=moment.bed,
        session=state.session,
        rule=condition.rule,
        kind=condition.kind,
        code=condition.code,
        priority=condition.priority,
        presence=presence,
        onset=alarm.onset,
        onset_t=alarm.onset_t,
        since=moment.t,
        score=score,
        message=message,
        ingest_ns=moment.ingest_ns,
    )
