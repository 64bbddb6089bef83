"""The alarm state machine against its written invariants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stream.alarms.conditions import (
    ANOMALY,
    ASYSTOLE,
    ATRIAL_FIBRILLATION,
    CONDITIONS,
    ESCALATE_S,
    LEAD_OFF,
    PAUSED,
    VENTRICULAR_TACHYCARDIA,
    Condition,
)
from stream.alarms.machine import Seen, acknowledge, end_all, observe, pass_time, pause, resume
from stream.alarms.state import BedState, Moment
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority, alarm_id
from tests.stream.synthetic import T0

# Latching and not, with and without delay and hold, of both kinds.
USED = (ASYSTOLE, VENTRICULAR_TACHYCARDIA, ATRIAL_FIBRILLATION, ANOMALY, LEAD_OFF)
FS = 100.0


def moment_at(seconds: float) -> Moment:
    sample = round(seconds * FS)
    return Moment("bed-1", sample, T0 + sample * 10_000_000, FS, T0 + sample * 10_000_000 + 7)


class Alarms(RuleBasedStateMachine):
    """Conditions that come and go, operators, and time, each half second."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.state = BedState(session="s")
        # Goes through JSON before every step: it must never be the worse for it.
        self.handed_over = BedState(session="s")
        self.events: list[AlarmEvent] = []
        self.paused_until: float | None = None
        # What really is, by rule: seconds for which it has been seen without a break.
        self.seen: dict[str, tuple[bool | None, float]] = {}

    def do(self, step: Callable[[BedState], list[AlarmEvent]]) -> list[AlarmEvent]:
        self.handed_over = BedState.model_validate_json(self.handed_over.model_dump_json())
        events = step(self.state)
        assert step(self.handed_over) == events
        assert self.handed_over == self.state
        self.events += events
        return events

    def presence(self, condition: Condition) -> Presence | None:
        alarm = self.state.open.get(condition.rule)
        return alarm.presence if alarm else None

    @rule(
        condition=st.sampled_from(USED),
        present=st.sampled_from([True, False, None]),
        halves=st.integers(1, 40),
    )
    def half_seconds_of(self, condition: Condition, present: bool | None, halves: int) -> None:
        for _ in range(halves):
            self.now += 0.5
            before, moment = self.presence(condition), moment_at(self.now)
            was, since = self.seen.get(condition.rule, (None, 0.0))
            since = self.now if was is not present else since
            self.seen[condition.rule] = (present, since)
            seen = Seen(present, moment.sample, "what it is")
            events = self.do(lambda state, at=moment, what=seen: observe(state, condition, at, what))
            after = self.presence(condition)
            assert all(event.rule == condition.rule for event in events)
            lasted = self.now - since
            quiet = condition.kind is AlarmKind.PHYSIOLOGICAL and self.paused_until is not None
            if present is None:
                assert (events, after) == ([], before)
            elif present:
                if before is None and lasted >= condition.delay_s:
                    assert after is (Presence.OFF if quiet else Presence.ON)
                elif before is None:
                    assert (events, after) == ([], None)
                elif before is Presence.LATCHED or (before is Presence.OFF and not quiet):
                    assert after is Presence.ON
                else:
                    assert (events, after) == ([], before)
            elif before is None or before is Presence.LATCHED or lasted < condition.hold_s:
                assert (events, after) == ([], before)
            elif before is Presence.ON and condition.latching:
                assert after is Presence.LATCHED
            else:
                assert after is None
            self.time_passes(0.0)

    @rule(condition=st.sampled_from(USED))
    def somebody_acknowledges(self, condition: Condition) -> None:
        before = self.presence(condition)
        told = before is not None and self.state.open[condition.rule].transitions > 0
        moment = moment_at(self.now)
        events = self.do(lambda state: acknowledge(state, condition, moment, "nurse"))
        if before in (None, Presence.ACKNOWLEDGED) or not told:
            assert events == []
        else:
            (event,) = events
            assert event.who == "nurse"
            wanted = Presence.OFF if before is Presence.LATCHED else Presence.ACKNOWLEDGED
            assert event.presence is wanted

    @rule(seconds=st.integers(1, 60))
    def somebody_pauses(self, seconds: int) -> None:
        moment = moment_at(self.now)
        self.do(lambda state: pause(state, moment, seconds, "nurse"))
        self.paused_until = moment.sample + seconds * FS
        assert self.presence(PAUSED) is Presence.ON

    @rule()
    def somebody_resumes(self) -> None:
        moment = moment_at(self.now)
        events = self.do(lambda state: resume(state, moment, "resumed by nurse", "nurse"))
        assert bool(events) == (self.paused_until is not None)
        self.paused_until = None

    # Whole numbers of samples that floats hold exactly: how long anything lasts is compared with limits.
    @rule(seconds=st.integers(0, 520).map(lambda quarters: quarters / 4))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        moment = moment_at(self.now)
        due = {
            name: alarm.alarm
            for name, alarm in self.state.open.items()
            if alarm.presence in (Presence.ON, Presence.LATCHED)
            and not alarm.escalation
            and moment.sample - alarm.signalled_at >= ESCALATE_S.get(CONDITIONS[name].priority, 1e9) * FS
        }
        events = self.do(lambda state: pass_time(state, moment, CONDITIONS.values()))
        if self.paused_until is not None and moment.sample >= self.paused_until:
            self.paused_until = None
        assert {event.alarm for event in events if event.escalation} == set(due.values())
        if seconds:
            # Nobody looked meanwhile: nothing is known to have lasted.
            for condition in USED:
                self.half_second_unknown(condition)

    def half_second_unknown(self, condition: Condition) -> None:
        self.seen[condition.rule] = (None, self.now)
        moment = moment_at(self.now)
        assert self.do(lambda state: observe(state, condition, moment, Seen(None))) == []

    @rule()
    def the_feed_ends(self) -> None:
        moment = moment_at(self.now)
        self.do(lambda state: end_all(state, moment, "the feed ended"))
        assert not self.state.open
        self.paused_until, self.seen = None, {}
        # An alarm is named by where it began: the next one begins later.
        self.now += 0.5

    @invariant()
    def events_tell_what_is(self) -> None:
        by_alarm: defaultdict[str, list[AlarmEvent]] = defaultdict(list)
        for event in self.events:
            by_alarm[event.alarm].append(event)
        now_on = {}
        for name, events in by_alarm.items():
            assert [event.number for event in events] == list(range(len(events)))
            assert events[0].presence is Presence.ON
            last = events[0].presence
            acknowledged = False
            first = events[0]
            assert name == alarm_id(first.bed, first.session, first.rule, first.onset)
            for event in events:
                assert event.priority is CONDITIONS[event.rule].priority
                # A name that was taken makes the next sample the onset, at the most a few on.
                assert event.onset_t <= event.since + 10_000_000 * len(by_alarm)
                assert not (acknowledged and event.presence in (Presence.ON, Presence.LATCHED))
                if event.presence is Presence.LATCHED:
                    assert CONDITIONS[event.rule].latching
                acknowledged |= event.presence is Presence.ACKNOWLEDGED
                last = event.presence
            if last is not Presence.OFF:
                now_on[name] = last
        told = {
            alarm.alarm: alarm.presence
            for alarm in self.state.open.values()
            if alarm.presence is not Presence.OFF
        }
        assert now_on == told

    @invariant()
    def a_pause_is_kept_and_seen(self) -> None:
        paused = self.paused_until is not None
        assert (self.state.paused_until is not None) == paused == (PAUSED.rule in self.state.open)
        if paused:
            for name, alarm in self.state.open.items():
                if CONDITIONS[name].kind is AlarmKind.PHYSIOLOGICAL:
                    assert alarm.presence in (Presence.OFF, Presence.ACKNOWLEDGED)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.state.ended_alarms) <= 16
        assert self.state.open.keys() | self.state.waiting.keys() <= CONDITIONS.keys()


TestAlarms = Alarms.TestCase
TestAlarms.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def told(events: list[AlarmEvent]) -> list[str]:
    return [f"{event.presence} {event.message}" for event in events]


def there(state: BedState, condition: Condition, seconds: float, present: bool | None) -> list[AlarmEvent]:
    return observe(state, condition, moment_at(seconds), Seen(present, round(seconds * FS), "it"))


def test_a_short_asystole_stays_until_somebody_has_seen_it() -> None:
    state = BedState(session="s")
    assert told(there(state, ASYSTOLE, 0, True)) == ["on it"]
    assert there(state, ASYSTOLE, 5, False) == []
    # One beat, and nothing again: the same alarm.
    assert there(state, ASYSTOLE, 6, True) == []
    assert there(state, ASYSTOLE, 10, False) == []
    assert told(there(state, ASYSTOLE, 13, False)) == ["latched it"]
    assert told(acknowledge(state, ASYSTOLE, moment_at(20), "nurse")) == ["off acknowledged by nurse"]
    assert not state.open


def test_a_poor_signal_neither_ends_an_alarm_nor_counts_for_its_end() -> None:
    state = BedState(session="s")
    there(state, ASYSTOLE, 0, True)
    assert there(state, ASYSTOLE, 1, False) == []
    assert there(state, ASYSTOLE, 2, None) == []
    assert there(state, ASYSTOLE, 5, False) == []
    assert len(there(state, ASYSTOLE, 8, False)) == 1


def test_what_is_still_there_after_a_pause_is_raised_again_and_what_came_in_it_for_the_first_time() -> None:
    state = BedState(session="s")
    there(state, ASYSTOLE, 0, True)
    events = pause(state, moment_at(1), 30, "nurse")
    assert told(events) == [
        "off alarms paused for 30 s by nurse",
        "on alarms paused for 30 s by nurse",
    ]
    assert there(state, VENTRICULAR_TACHYCARDIA, 5, True) == []
    # A technical one is told all the same.
    assert there(state, LEAD_OFF, 6, True) == []
    assert told(there(state, LEAD_OFF, 8, True)) == ["on it"]
    assert pass_time(state, moment_at(30.5), CONDITIONS.values()) == []
    events = pass_time(state, moment_at(31), CONDITIONS.values())
    assert [(event.rule, event.presence, event.number) for event in events] == [
        ("paused", Presence.OFF, 1),
        ("asystole", Presence.ON, 2),
        ("ventricular-tachycardia", Presence.ON, 0),
    ]


def test_what_ended_within_a_pause_is_not_told() -> None:
    state = BedState(session="s")
    pause(state, moment_at(0), 30, "nurse")
    assert there(state, ASYSTOLE, 1, True) == []
    there(state, ASYSTOLE, 10, False)
    assert there(state, ASYSTOLE, 14, False) == []
    (event,) = resume(state, moment_at(20), "resumed", "nurse")
    assert event.rule == "paused"


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=lambda condition: condition.rule)
def test_only_urgent_alarms_are_told_again_and_once(condition: Condition) -> None:
    state = BedState(session="s")
    for seconds in (0, condition.delay_s):
        there(state, condition, seconds, True)
    assert condition.rule in state.open
    limit_s = ESCALATE_S.get(condition.priority)
    events = [
        (seconds, event)
        for seconds in range(600)
        for event in pass_time(state, moment_at(condition.delay_s + seconds), CONDITIONS.values())
    ]
    if limit_s is None:
        assert condition.priority in (Priority.LOW, Priority.INFO)
        assert events == []
    else:
        ((seconds, event),) = events
        assert seconds == limit_s
        assert (event.presence, event.escalation) == (Presence.ON, 1)


def test_what_an_admission_ended_and_is_still_there_is_another_alarm() -> None:
    state = BedState(session="s")
    (first,) = observe(state, ASYSTOLE, moment_at(5), Seen(True, 100, "it"))
    end_all(state, moment_at(6), "admitted")
    # The condition has the onset that it always had.
    (second,) = observe(state, ASYSTOLE, moment_at(6.5), Seen(True, 100, "it"))
    assert second.alarm != first.alarm
    assert second.event != first.event
    assert second.onset == 650
