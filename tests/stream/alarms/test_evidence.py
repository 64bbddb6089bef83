"""When windows and silence are a condition: a state machine against what is written about them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.manifest import AlarmRule
from stream.alarms.conditions import ANOMALY, NOT_SCORED, UNSCORED_S
from stream.alarms.evidence import judge_silence, judge_window
from stream.alarms.machine import end_all
from stream.alarms.state import BedState, Moment
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority, alarm_id
from tests.stream.synthetic import T0

FS = 100.0
HOP = 100
LENGTH = 400


def moment_at(sample: int) -> Moment:
    return Moment("bed-1", sample, T0 + sample * 10_000_000, FS, T0 + sample * 10_000_000 + 7)


class Alarms(RuleBasedStateMachine):
    """Windows of 4 s each second, scored or not, with holes, breaks and hand-overs in between."""

    @initialize(
        numbers=st.integers(1, 7).flatmap(
            lambda n: st.integers(1, n).flatmap(
                lambda k: st.tuples(st.just(k), st.just(n), st.integers(0, k - 1))
            )
        ),
        start=st.integers(0, 3),
    )
    def begin(self, numbers: tuple[int, int, int], start: int) -> None:
        k, n, clear = numbers
        self.rule = AlarmRule(k=k, n=n, clear=clear)
        self.window = start
        self.state = BedState(session="s", scored_to=start * HOP)
        # Goes through JSON before every step: it must never be the worse for it.
        self.handed_over = self.state.model_copy(deep=True)
        self.events: list[AlarmEvent] = []
        self.scored: dict[int, bool] = {}
        self.scored_to = start * HOP

    def first_new(self, window: int) -> int:
        return (window - 1) * HOP + LENGTH if window else 0

    def took(self, ours: list[AlarmEvent], handed_over: list[AlarmEvent]) -> list[AlarmEvent]:
        assert ours == handed_over
        assert self.state == self.handed_over
        self.events += ours
        return ours

    def restored(self) -> BedState:
        self.handed_over = BedState.model_validate_json(self.handed_over.model_dump_json())
        return self.handed_over

    @rule(over=st.booleans())
    def scored_window(self, over: bool) -> None:
        was_open = set(self.state.open)
        moment = moment_at(self.window * HOP + LENGTH)
        score = 4.0 if over else 1.0
        events = self.took(
            *(
                judge_window(
                    state,
                    self.rule,
                    moment,
                    window=self.window,
                    first_new=self.first_new(self.window),
                    over=over,
                    score=score,
                )
                for state in (self.state, self.restored())
            )
        )
        self.scored[self.window] = over
        self.scored_to = moment.sample
        recent = {w: flag for w, flag in self.scored.items() if w > self.window - self.rule.n}
        flagged = [w for w, flag in recent.items() if flag]
        usual = len(recent) - len(flagged)
        if len(flagged) >= self.rule.k:
            expected = True
        elif usual >= self.rule.n - self.rule.clear:
            expected = False
        else:
            expected = "anomaly" in was_open
        assert ("anomaly" in self.state.open) == expected
        assert "not-scored" not in self.state.open
        changed = expected != ("anomaly" in was_open)
        assert [event.rule for event in events] == ["not-scored"] * ("not-scored" in was_open) + [
            "anomaly"
        ] * changed
        for event in events:
            if event.presence is Presence.ON:
                assert event.onset == self.first_new(min(flagged))
            if event.rule == "anomaly":
                assert event.score == score
        self.window += 1

    @rule(reason=st.sampled_from(["gap", "flat"]))
    def unscored_window(self, reason: str) -> None:
        moment = moment_at(self.window * HOP + LENGTH)
        self.silence(moment, reason)
        self.window += 1

    @rule(seconds=st.integers(0, 25))
    def clock_ticks_on_a_silent_feed(self, seconds: int) -> None:
        self.silence(moment_at(self.window * HOP + LENGTH + int(seconds * FS)), "no signal")

    def silence(self, moment: Moment, reason: str) -> None:
        was_open = set(self.state.open)
        events = self.took(*(judge_silence(state, moment, reason) for state in (self.state, self.restored())))
        too_long = moment.sample - self.scored_to > UNSCORED_S * FS
        raised = too_long and "not-scored" not in was_open
        assert [(event.rule, event.presence) for event in events] == [("not-scored", Presence.ON)] * raised
        for event in events:
            assert event.onset == self.scored_to
            assert reason in event.message
        # Whatever is lost, no alarm ends by it.
        assert was_open <= set(self.state.open)

    @rule(windows=st.integers(1, 30))
    def windows_are_left_out(self, windows: int) -> None:
        self.window += windows

    @precondition(lambda self: self.state.open)
    @rule()
    def everything_ends(self) -> None:
        was_open = set(self.state.open)
        moment = moment_at(self.window * HOP + LENGTH)
        ended = self.took(*(end_all(state, moment, "over") for state in (self.state, self.restored())))
        assert {event.rule for event in ended} == was_open
        assert not self.state.open
        # A feed that is over is followed by another session.
        self.state = BedState(session=self.state.session + "'", scored_to=moment.sample)
        self.handed_over = self.state.model_copy(deep=True)
        self.scored, self.scored_to = {}, moment.sample
        self.window += LENGTH // HOP

    @invariant()
    def transitions_alternate_and_are_named_by_what_happened(self) -> None:
        assert len({event.event for event in self.events}) == len(self.events)
        for condition in (ANOMALY, NOT_SCORED):
            mine = [event for event in self.events if event.rule == condition.rule]
            assert [event.presence for event in mine] == [Presence.ON, Presence.OFF] * (len(mine) // 2) + [
                Presence.ON
            ] * (len(mine) % 2)
            for number, event in enumerate(mine):
                assert event.alarm == alarm_id(event.bed, event.session, event.rule, event.onset)
                assert event.event == f"{event.alarm}-{number % 2}"
                assert (event.kind, event.code, event.priority) == (
                    condition.kind,
                    condition.code,
                    condition.priority,
                )
                assert event.onset_t <= event.since
                assert event.ingest_ns == event.since + 7
            for on, off in pairwise(mine):
                if on.presence is Presence.ON:
                    assert (on.alarm, on.onset, on.onset_t) == (off.alarm, off.onset, off.onset_t)
            assert len({event.alarm for event in mine}) == (len(mine) + 1) // 2
            now_open = {mine[-1].alarm} if len(mine) % 2 else set()
            assert now_open == {
                alarm.alarm for name, alarm in self.state.open.items() if name == condition.rule
            }

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.state.history) <= self.rule.n


TestAlarms = Alarms.TestCase
TestAlarms.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def judge(state: BedState, rule: AlarmRule, flags: str) -> list[tuple[int, str]]:
    # "x" over, "." usual, "?" not scored; what happened at which window.
    happened = []
    for window, flag in enumerate(flags):
        moment = moment_at(window * HOP + LENGTH)
        if flag == "?":
            events = judge_silence(state, moment, "gap")
        else:
            events = judge_window(
                state, rule, moment, window=window, first_new=window, over=flag == "x", score=0.0
            )
        happened += [(window, f"{event.rule} {event.presence}") for event in events]
    return happened


@pytest.mark.parametrize(
    ("flags", "happened"),
    [
        ("x.x.x", [(4, "anomaly on")]),
        ("x..xx", [(4, "anomaly on")]),
        # Five windows, not five scored ones.
        ("x?????xx", []),
        ("xxx....", [(2, "anomaly on"), (6, "anomaly off")]),
        # One of the last five may still be over when it ends.
        ("xxx....x.", [(2, "anomaly on"), (6, "anomaly off")]),
        ("xxx..x..x..", [(2, "anomaly on"), (7, "anomaly off")]),
        # A lost signal ends nothing, and what was before it no longer counts.
        ("xxx????????.", [(2, "anomaly on")]),
        ("xxx????????....", [(2, "anomaly on"), (14, "anomaly off")]),
        (
            "." + "?" * 12 + ".",
            [(11, "not-scored on"), (13, "not-scored off")],
        ),
    ],
)
def test_three_of_five_with_one_to_clear(flags: str, happened: list[tuple[int, str]]) -> None:
    assert judge(BedState(session="s"), AlarmRule(k=3, n=5, clear=1), flags) == happened


def test_ten_seconds_are_not_yet_too_long() -> None:
    state = BedState(session="s", scored_to=500)
    assert judge_silence(state, moment_at(1500), "gap") == []
    (event,) = judge_silence(state, moment_at(1501), "gap")
    assert event.onset == 500
    assert event.onset_t == T0 + 5_000_000_000
    assert event.since == T0 + 15_010_000_000
    assert (event.kind, event.priority) == (AlarmKind.TECHNICAL, Priority.MEDIUM)
