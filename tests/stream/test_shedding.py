"""Shedding: a step at a time, only while nothing is gained, and all of it taken back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.shedding import CALM_S, CAUGHT_UP_S, EVERY, LATE_S, Shedding

LOOK_S = 0.5


def run(behind_s: list[float]) -> list[int]:
    shedding, steps = Shedding(), []
    for number, behind in enumerate(behind_s):
        shedding.look(behind, number * LOOK_S)
        steps.append(shedding.step)
    return steps


def test_a_worker_that_keeps_up_leaves_nothing_out() -> None:
    assert set(run([0.05] * 100)) == {0}


def test_explanations_go_first_and_windows_after_them() -> None:
    shedding = Shedding()
    seen = []
    for number in range(40):
        shedding.look(3.0, number * LOOK_S)
        seen.append((shedding.step, shedding.every))
    assert list(dict.fromkeys(seen)) == [(0, 1), (1, 1), (2, 2), (3, 4)]


def test_one_that_catches_up_after_an_outage_leaves_nothing_out() -> None:
    assert set(run([0.0, 0.0, *(20.0 * 0.8**number for number in range(40))])) == {0}


def test_everything_is_taken_back_after_a_calm() -> None:
    calm = round(CALM_S / LOOK_S) + 1
    steps = run([3.0] * 20 + [0.05] * (calm * len(EVERY)))
    assert steps[19] == len(EVERY) - 1
    assert steps[-1] == 0
    assert steps[19 + calm - 2] == len(EVERY) - 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 10), max_size=200))
def test_steps_follow_the_lag(behind_s: list[float]) -> None:
    steps = [0, *run(behind_s)]
    for number in range(1, len(steps)):
        change = steps[number] - steps[number - 1]
        assert abs(change) <= 1
        assert 0 <= steps[number] < len(EVERY)
        if change > 0:
            assert behind_s[number - 1] > LATE_S
        if change < 0:
            calm = behind_s[max(0, number - 1 - round(CALM_S / LOOK_S)) : number]
            assert max(calm) <= CAUGHT_UP_S
