"""What an operator may do to a bed, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from models.manifest import AlarmRule, Thresholds
from stream.alarms.baseline import personal_threshold
from stream.alarms.conditions import ANOMALY, ASYSTOLE, CONFIRM_PATIENT
from stream.alarms.criteria import Criteria
from stream.alarms.machine import Seen, observe
from stream.alarms.operator import Answer, Case, RefusedError, obey
from stream.alarms.state import BedState, Moment, Said
from stream.contract import Command, CommandKind, Presence
from tests.stream.synthetic import T0

NORMALS = Thresholds(record=1.6, window=4.0, quantiles=tuple(np.linspace(-2.0, 3.0, 101).tolist()))

CRITERIA = Criteria("own", NORMALS, AlarmRule(k=3, n=5, clear=1))


def moment_at(seconds: float) -> Moment:
    return Moment("bed-1", round(seconds * 100), T0 + round(seconds * 1e9), 100.0, 0)


def no_such_limit(limits: Mapping[str, float]) -> None:
    if limits.keys() - {"tachy_bpm"}:
        raise ValueError("no such limit")


def do(
    state: BedState,
    kind: CommandKind,
    value: Any = None,
    *,
    who: str = "nurse",
    at: float = 10.0,
    scores: tuple[float, ...] = (),
    scored_s: float = 0.0,
    number: int = 0,
) -> Answer:
    models = ["own", "other"]
    case = Case(state, moment_at(at), scores, scored_s, CRITERIA, "own", models, no_such_limit)
    name = f"{kind}-{at}-{number}"
    return obey(case, Command(id=name, bed="bed-1", kind=kind, value=value, who=who, at=0, expires=1))


@pytest.fixture
def alarmed() -> BedState:
    state = BedState(session="s", model="own")
    for condition in (ASYSTOLE, ANOMALY):
        observe(state, condition, moment_at(1), Seen(True, 100, "it"))
    return state


def test_one_alarm_is_acknowledged_or_all(alarmed: BedState) -> None:
    name = alarmed.open["asystole"].alarm
    (event,) = do(alarmed, CommandKind.ACKNOWLEDGE, name).events
    assert (event.alarm, event.presence, event.who) == (name, Presence.ACKNOWLEDGED, "nurse")
    (event,) = do(alarmed, CommandKind.ACKNOWLEDGE, at=11.0).events
    assert event.rule == "anomaly"
    with pytest.raises(RefusedError, match="acknowledged already"):
        do(alarmed, CommandKind.ACKNOWLEDGE, name, at=12.0)
    with pytest.raises(RefusedError, match="no alarm to acknowledge"):
        do(alarmed, CommandKind.ACKNOWLEDGE, at=13.0)


def test_an_alarm_that_never_was_and_one_that_has_ended_are_told_apart(alarmed: BedState) -> None:
    name = alarmed.open["anomaly"].alarm
    observe(alarmed, ANOMALY, moment_at(5), Seen(False, message="usual again"))
    with pytest.raises(RefusedError, match=f"alarm {name} has ended"):
        do(alarmed, CommandKind.ACKNOWLEDGE, name)
    with pytest.raises(RefusedError, match="alarm nonsense: no such alarm in this bed"):
        do(alarmed, CommandKind.ACKNOWLEDGE, "nonsense")


def test_a_command_that_comes_twice_is_done_once(alarmed: BedState) -> None:
    assert do(alarmed, CommandKind.PAUSE, 60).events
    before = alarmed.model_copy(deep=True)
    assert do(alarmed, CommandKind.PAUSE, 60) == Answer("done already")
    assert alarmed == before


@pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan"), float("inf"), True, "60", [60]])
def test_no_pause_is_endless_or_senseless(alarmed: BedState, seconds: Any) -> None:
    before = alarmed.model_copy(deep=True)
    with pytest.raises(RefusedError, match="seconds"):
        do(alarmed, CommandKind.PAUSE, seconds)
    assert alarmed == before


def test_resuming_what_is_not_paused_is_refused(alarmed: BedState) -> None:
    with pytest.raises(RefusedError, match="not paused"):
        do(alarmed, CommandKind.RESUME)
    do(alarmed, CommandKind.PAUSE)
    assert alarmed.paused_until == moment_at(130).sample
    assert "resumed by nurse" in do(alarmed, CommandKind.RESUME).events[0].message


@pytest.mark.parametrize("kind", list(CommandKind))
def test_nobody_may_do_nothing(alarmed: BedState, kind: CommandKind) -> None:
    with pytest.raises(RefusedError, match="nobody is named"):
        do(alarmed, kind, who=" ")


def test_what_is_not_for_the_state_machine_is_refused(alarmed: BedState) -> None:
    with pytest.raises(RefusedError, match="not supported"):
        do(alarmed, CommandKind.WATCH)


def test_limits_are_set_one_by_one_and_taken_back() -> None:
    state = BedState(session="s")
    answer = do(state, CommandKind.SET_LIMITS, {"tachy_bpm": 150})
    assert (answer.before, answer.after) == ({}, {"tachy_bpm": 150.0})
    assert state.stay.limits == {"tachy_bpm": 150.0}
    with pytest.raises(RefusedError, match="no such limit"):
        do(state, CommandKind.SET_LIMITS, {"nonsense": 1}, number=1)
    with pytest.raises(RefusedError, match="needs a number"):
        do(state, CommandKind.SET_LIMITS, {"tachy_bpm": "fast"}, number=2)
    with pytest.raises(RefusedError, match="needs a mapping"):
        do(state, CommandKind.SET_LIMITS, 150, number=3)
    assert state.stay.limits == {"tachy_bpm": 150.0}
    do(state, CommandKind.SET_LIMITS, {"tachy_bpm": None}, number=4)
    assert state.stay.limits == {}


def test_a_baseline_needs_five_minutes_and_can_be_taken_back() -> None:
    state = BedState(session="s")
    with pytest.raises(RefusedError, match="needs 300 s of scored signal; there are 299 s"):
        do(state, CommandKind.CONFIRM_BASELINE, scores=(5.0,) * 598, scored_s=299.0)
    scores = tuple(np.random.default_rng(0).normal(3.0, 1.0, 600).tolist())
    answer = do(state, CommandKind.CONFIRM_BASELINE, scores=scores, scored_s=300.0, number=1)
    assert answer.before is None
    assert answer.after == state.stay.threshold == personal_threshold(scores, NORMALS)
    # Normals have their median at 0.5 and the threshold 3.5 above it.
    assert 6.0 < answer.after < 7.0
    answer = do(state, CommandKind.SET_THRESHOLD, None, number=2)
    assert (answer.after, state.stay.threshold) == (None, None)


def test_a_baseline_stays_within_bounds() -> None:
    assert personal_threshold([100.0] * 600, NORMALS) == 10.0
    # Not below what one normal in twenty exceeds.
    assert personal_threshold([-50.0] * 600, NORMALS) == pytest.approx(2.75)
    # A patient like the normals gets their threshold.
    assert personal_threshold(list(np.linspace(-2, 3, 600)), NORMALS) == pytest.approx(4.0, abs=0.01)


def test_discharge_ends_everything_of_a_patient(alarmed: BedState) -> None:
    do(alarmed, CommandKind.SET_LIMITS, {"tachy_bpm": 150})
    do(alarmed, CommandKind.SET_THRESHOLD, 7.0)
    do(alarmed, CommandKind.PAUSE, 600)
    events = do(alarmed, CommandKind.DISCHARGE).events
    assert {event.presence for event in events} == {Presence.OFF}
    assert not alarmed.open
    assert alarmed.paused_until is None
    assert not alarmed.stay.personal


def test_admission_is_a_new_patient_unless_it_is_said_to_be_the_same(alarmed: BedState) -> None:
    do(alarmed, CommandKind.SET_THRESHOLD, 7.0)
    alarmed.session = "another"
    assert not alarmed.confirmed
    observe(alarmed, CONFIRM_PATIENT, moment_at(2), Seen(True, 200, "who is it?"))
    (event,) = do(alarmed, CommandKind.ADMIT, "same").events
    assert (event.rule, event.presence) == ("confirm-patient", Presence.OFF)
    assert alarmed.confirmed
    assert alarmed.stay.threshold == 7.0
    assert "asystole" in alarmed.open
    with pytest.raises(RefusedError, match="name is not for this system"):
        do(alarmed, CommandKind.ADMIT, "Jane Doe", number=1)
    do(alarmed, CommandKind.ADMIT, number=2)
    assert not alarmed.open
    assert alarmed.stay.threshold is None
    assert alarmed.stay.admitted_t == moment_at(10).t
    assert alarmed.stay.said == {"admitted": Said(who="nurse", t=moment_at(10).t)}


# ---- the model ---------------------------------------------------------------------------------------------


def test_a_change_of_the_model_drops_what_was_the_other_ones(alarmed: BedState) -> None:
    alarmed.history = [(1, True, 0), (2, False, 50)]
    do(alarmed, CommandKind.SET_LIMITS, {"tachy_bpm": 150})
    do(alarmed, CommandKind.SET_THRESHOLD, 7.0)
    answer = do(alarmed, CommandKind.SET_MODEL, "other")
    assert (alarmed.model, alarmed.stay.model, alarmed.history) == ("other", "other", [])
    assert (answer.before, answer.after) == ("own", "other")
    assert answer.message == (
        "other judges from now on; the threshold 7 was for own and is dropped; the alarm of own has ended"
    )
    (event,) = answer.events
    assert (event.rule, event.presence, event.who) == ("anomaly", Presence.OFF, "nurse")
    assert event.message == "the model was changed by nurse: other judges from now on"
    # What the model has no part in stays.
    assert "asystole" in alarmed.open
    assert (alarmed.stay.threshold, alarmed.stay.limits) == (None, {"tachy_bpm": 150.0})
    assert set(alarmed.stay.said) == {"limits", "model"}
    answer = do(alarmed, CommandKind.SET_MODEL, None, number=1)
    assert (alarmed.model, alarmed.stay.model, answer.message) == ("own", None, "own judges from now on")
    assert set(alarmed.stay.said) == {"limits"}


def test_the_same_model_changes_nothing(alarmed: BedState) -> None:
    do(alarmed, CommandKind.SET_THRESHOLD, 7.0)
    answer = do(alarmed, CommandKind.SET_MODEL, "own")
    # It is the bed's own choice now, whatever model a worker has.
    assert (alarmed.stay.model, answer.message, answer.events) == ("own", "own judges already", [])
    assert alarmed.stay.threshold == 7.0
    assert "anomaly" in alarmed.open


@pytest.mark.parametrize("value", ["third", "", 7, ["other"], {"other": 1}])
def test_a_model_that_is_not_loaded_is_refused(alarmed: BedState, value: Any) -> None:
    before = alarmed.model_copy(deep=True)
    with pytest.raises(RefusedError, match="not loaded"):
        do(alarmed, CommandKind.SET_MODEL, value)
    assert alarmed == before


@pytest.mark.parametrize("kind", [CommandKind.ADMIT, CommandKind.DISCHARGE])
def test_the_next_patient_is_judged_by_the_workers_own_model(alarmed: BedState, kind: CommandKind) -> None:
    do(alarmed, CommandKind.SET_MODEL, "other")
    answer = do(alarmed, kind)
    assert answer.message == f"{kind}{'ted' if kind == 'admit' else 'd'}; own judges from now on"
    assert (alarmed.model, alarmed.stay.model) == ("own", None)


def test_a_model_is_nothing_that_another_patient_could_be_harmed_by(alarmed: BedState) -> None:
    do(alarmed, CommandKind.SET_MODEL, "other")
    alarmed.session = "another"
    assert alarmed.confirmed
    do(alarmed, CommandKind.SET_THRESHOLD, 7.0)
    alarmed.session = "a third"
    observe(alarmed, CONFIRM_PATIENT, moment_at(2), Seen(True, 200, "who is it?"))
    # Only the threshold was in question, and it goes.
    (event,) = do(alarmed, CommandKind.SET_MODEL, None, number=1).events
    assert (event.rule, event.presence) == ("confirm-patient", Presence.OFF)


def test_who_said_what_is_kept(alarmed: BedState) -> None:
    do(alarmed, CommandKind.SET_LIMITS, {"tachy_bpm": 150}, who="a")
    do(alarmed, CommandKind.CONFIRM_BASELINE, who="b", scores=(1.0, 2.0) * 300, scored_s=300.0)
    do(alarmed, CommandKind.SET_MODEL, "own", who="c", at=12.0)
    said = {what: one.who for what, one in alarmed.stay.said.items()}
    assert said == {"limits": "a", "baseline": "b", "model": "c"}
    assert alarmed.stay.said["model"].t == moment_at(12.0).t
    do(alarmed, CommandKind.SET_THRESHOLD, 7.0, who="d")
    do(alarmed, CommandKind.SET_LIMITS, None, who="e", number=1)
    assert {what: one.who for what, one in alarmed.stay.said.items()} == {"threshold": "d", "model": "c"}
