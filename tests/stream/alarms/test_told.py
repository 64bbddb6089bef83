"""Alarms that were told, and of which the row knew nothing when their worker died."""

from __future__ import annotations

import pytest

from stream.alarms.conditions import (
    ESCALATE_S,
    FEED_LOST,
    NOT_SCORED,
    UNSCORED_S,
    VENTRICULAR_TACHYCARDIA,
    Condition,
)
from stream.alarms.evidence import judge_silence
from stream.alarms.machine import Seen, observe, pass_time
from stream.alarms.state import BedState, Moment
from stream.alarms.told import catch_up
from stream.contract import AlarmEvent, Presence

FS = 100.0


def at(second: float) -> Moment:
    return Moment("bed-1", round(second * FS), round(second * 1e9), FS, 0)


def there(state: BedState, second: float, condition: Condition = FEED_LOST) -> list[AlarmEvent]:
    return observe(state, condition, at(second), Seen(True, 500, "it is there"))


def gone(state: BedState, second: float, condition: Condition = FEED_LOST) -> list[AlarmEvent]:
    return observe(state, condition, at(second), Seen(False, message="it is gone"))


def copy(state: BedState) -> BedState:
    return state.model_copy(deep=True)


def course(events: list[AlarmEvent]) -> list[tuple[int, Presence]]:
    return [(event.number, event.presence) for event in events]


def test_an_alarm_that_only_its_event_tells_of_ends_when_it_is_over() -> None:
    state = BedState(session="s")
    row = copy(state)
    events = there(state, 5)
    assert gone(copy(row), 9) == []
    catch_up(row, events)
    assert row.open == state.open
    assert course(gone(row, 9)) == [(1, Presence.OFF)]


def test_signal_from_before_an_alarm_does_not_end_it() -> None:
    state = BedState(session="s")
    row = copy(state)
    catch_up(row, there(state, 8))
    # Its onset is 5 s.
    assert gone(row, 4.9) == []
    assert course(gone(row, 5)) == [(1, Presence.OFF)]


def test_silence_without_a_verdict_is_not_found_again_in_samples_that_came_late() -> None:
    state = BedState(session="s", scored_to=500)
    row = copy(state)
    silent = judge_silence(state, at(5 + UNSCORED_S + 0.1), "no signal")
    assert course(silent) == [(0, Presence.ON)]
    catch_up(row, silent)
    assert course(gone(row, 6, NOT_SCORED)) == [(1, Presence.OFF)]


def test_an_alarm_that_was_told_again_keeps_its_numbers() -> None:
    state = BedState(session="s")
    events = there(state, 5)
    row = copy(state)
    events += pass_time(state, at(6 + ESCALATE_S[FEED_LOST.priority]), [FEED_LOST])
    catch_up(row, events)
    assert course(events + gone(row, 200)) == [(0, Presence.ON), (1, Presence.ON), (2, Presence.OFF)]


@pytest.mark.parametrize("known", [True, False])
def test_an_alarm_that_is_over_stays_so(known: bool) -> None:
    state = BedState(session="s")
    row = copy(state)
    events = there(state, 5)
    if known:
        row = copy(state)
    events += gone(state, 9)
    catch_up(row, events)
    assert row.open == {}
    assert gone(row, 10) == []


def test_what_the_row_knows_better_or_samples_tell_is_left_as_it_is() -> None:
    state = BedState(session="s")
    events = there(state, 5) + gone(state, 9) + there(state, 12, VENTRICULAR_TACHYCARDIA)
    later = copy(state)
    catch_up(state, events)
    assert state == later
    other = BedState(session="another")
    catch_up(other, there(BedState(session="s"), 5))
    assert other.open == {}
    fresh = BedState(session="s")
    catch_up(fresh, events[2:])
    assert fresh.open == {}


def test_an_end_that_nobody_heard_is_told_again() -> None:
    # By a worker that had lost the bed: its own row says that it is over.
    state = BedState(session="s")
    events = there(state, 5)
    gone(state, 9)
    catch_up(state, events)
    assert course(gone(state, 10)) == [(1, Presence.OFF)]
    assert state.open == {}
    assert state.ended_alarms == [events[0].alarm]
