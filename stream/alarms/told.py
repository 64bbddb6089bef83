"""What was told of a bed by a worker that did not get to write it down."""

from __future__ import annotations

from collections.abc import Iterable

from stream.alarms.conditions import (
    BED_CLAIMED,
    CLOCK_SKEW,
    FALLBACK,
    FEED_LOST,
    FEED_REFUSED,
    MODEL_FAILED,
    NOT_SCORED,
    OVERLOAD,
    WRONG_RATE,
)
from stream.alarms.machine import remember_ended
from stream.alarms.state import BedState, OpenAlarm
from stream.contract import AlarmEvent, Presence

# What the samples bring about the next worker finds again, by the same name. These are by a clock, or by the
# worker itself: one who does not know of them would leave them open for ever.
_NOT_FOUND_AGAIN = frozenset(
    condition.rule
    for condition in (
        BED_CLAIMED,
        CLOCK_SKEW,
        FALLBACK,
        FEED_LOST,
        FEED_REFUSED,
        MODEL_FAILED,
        NOT_SCORED,
        OVERLOAD,
        WRONG_RATE,
    )
)


def catch_up(state: BedState, events: Iterable[AlarmEvent]) -> None:
    """Have a bed's state know of alarms that are told between an event and the row that knows of it.

    Parameters
    ----------
    state : BedState
        Changed in place.
    events : iterable of AlarmEvent
        The newest of the bed, in order.
    """
    newest = {event.alarm: event for event in events if event.rule in _NOT_FOUND_AGAIN}
    for event in newest.values():
        if event.session != state.session:
            continue
        if event.alarm in state.ended_alarms:
            if event.presence is Presence.OFF:
                continue
            # Whoever ended it had lost the bed by then, and was not heard.
            state.ended_alarms = [alarm for alarm in state.ended_alarms if alarm != event.alarm]
        known = state.open.get(event.rule)
        if known is not None and (known.alarm != event.alarm or event.number < known.transitions):
            continue
        if event.presence is Presence.OFF:
            if known is not None:
                del state.open[event.rule]
                remember_ended(state, event.alarm)
            continue
        state.open[event.rule] = OpenAlarm(
            alarm=event.alarm,
            onset=event.onset,
            onset_t=event.onset_t,
            transitions=event.number + 1,
            presence=event.presence,
            signalled_at=event.onset if known is None else known.signalled_at,
            escalation=event.escalation,
            message=event.message,
            score=event.score,
        )
