"""When windows, and silence, amount to a condition.

``anomaly``
    `k` of the last `n` windows over the model's alarm threshold make it; it is over when all but `clear` of
    the last `n` are scored and below. Windows that could not be scored count for neither side, so an alarm
    does not end because the signal was lost.
``not-scored``
    More than `UNSCORED_S` of signal without a scored window: nobody is watching this bed.
"""

from __future__ import annotations

from models.manifest import AlarmRule
from stream.alarms.conditions import ANOMALY, NOT_SCORED, UNSCORED_S
from stream.alarms.machine import Seen, observe
from stream.alarms.state import BedState, Moment
from stream.contract import AlarmEvent


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
    events = observe(state, NOT_SCORED, moment, Seen(False, message="scored again"))
    flagged = [first for _, was_over, first in state.history if was_over]
    if len(flagged) >= rule.k:
        message = f"unusual ECG in {len(flagged)} of the last {rule.n} windows"
        events += observe(state, ANOMALY, moment, Seen(True, flagged[0], message, score))
    elif len(state.history) - len(flagged) >= rule.n - rule.clear:
        events += observe(state, ANOMALY, moment, Seen(False, message="ECG as usual again", score=score))
    return events


def judge_silence(state: BedState, moment: Moment, reason: str) -> list[AlarmEvent]:
    """Raise `not-scored` when the signal up to `moment` has gone without a verdict for too long."""
    if moment.sample - state.scored_to <= UNSCORED_S * moment.fs:
        return []
    return observe(state, NOT_SCORED, moment, Seen(True, state.scored_to, f"not scored: {reason}"))
