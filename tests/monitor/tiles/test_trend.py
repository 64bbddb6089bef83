from __future__ import annotations

import math

import pytest

from monitor.live.ward import ScorePoint
from monitor.tiles.trend import STEP_S, TREND_S, score_trend
from tests.monitor.messages import S

STEPS = round(TREND_S / STEP_S)
NOW = 1_000 * round(STEP_S * S)


def point(seconds_ago: float, score: float, threshold: float = 2.0) -> ScorePoint:
    end = NOW - round(seconds_ago * S)
    return ScorePoint(end - 8 * S, end, score, threshold, score > threshold, None)


def test_the_highest_score_of_each_step_counts_from_its_threshold() -> None:
    scores = [point(9.0, 1.0), point(8.0, 3.5), point(6.0, 2.0), point(4.0, 0.4), point(0.0, 2.5)]
    trend = score_trend(scores, NOW)
    assert len(trend) == STEPS
    assert trend[-3:] == [pytest.approx(1.5), pytest.approx(-1.6), pytest.approx(0.5)]
    assert trend[:-3] == [None] * (STEPS - 3)


def test_a_step_without_a_score_is_empty() -> None:
    assert score_trend([point(3.0, math.nan)], NOW) == [None] * STEPS
    assert score_trend([], NOW) == [None] * STEPS


def test_what_is_older_or_newer_than_the_screen_is_left_out() -> None:
    assert score_trend([point(TREND_S + STEP_S, 9.0), point(-2 * STEP_S, 9.0)], NOW) == [None] * STEPS


def test_a_step_that_is_past_does_not_change_any_more() -> None:
    scores = [point(ago / 2, ago % 7) for ago in range(200, 0, -1)]
    first = score_trend(scores, NOW)
    for later in range(1, 5):
        assert score_trend(scores, NOW + later * S)[:-1] == first[:-1], "the step of now goes on"
    assert score_trend(scores, NOW + round(STEP_S * S))[:-2] == first[1:-1]
