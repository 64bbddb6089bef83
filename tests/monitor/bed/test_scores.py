from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.bed.scores import score_chart, with_crossings
from monitor.live.ward import ScorePoint
from tests.monitor.messages import S


def points(
    scores: list[float], *, hop_s: float = 0.5, threshold: float = 2.0, at_s: float = 1000.0
) -> list[ScorePoint]:
    return [
        ScorePoint(
            round((at_s + i * hop_s - 8) * S),
            round((at_s + i * hop_s) * S),
            score,
            threshold,
            score > threshold,
            None,
        )
        for i, score in enumerate(scores)
    ]


def test_a_chart_without_scores_is_empty() -> None:
    chart = score_chart([], 1e6, 0.0, 600.0)
    assert not len(chart.t)
    assert chart.unscored == []
    assert chart.span == (1e6 - 60_000, 1e6)
    assert chart.limits[0] < 0 < chart.limits[1]


def test_only_what_is_over_the_threshold_is_marked() -> None:
    chart = score_chart(points([1.0, 3.0, 1.0]), 1_001_000.0, 0.0, 600.0)
    assert list(chart.score) == [1.0, 2.0, 3.0, 2.0, 1.0]
    assert list(chart.over) == [2.0, 2.0, 3.0, 2.0, 2.0]
    assert list(chart.t) == [1_000_000, 1_000_250, 1_000_500, 1_000_750, 1_001_000]


@given(st.lists(st.one_of(st.floats(-5, 5), st.just(np.nan)), min_size=1, max_size=60))
def test_the_line_passes_through_every_score(scores: list[float]) -> None:
    t = np.arange(len(scores), dtype=float)
    at, drawn, threshold = with_crossings(t, np.array(scores), np.full(len(scores), 2.0))
    np.testing.assert_array_equal(drawn[np.isin(at, t)][: len(scores)], scores) if len(at) == len(t) else None
    assert (np.diff(at) >= 0).all()
    for a, b in pairwise(drawn - threshold):
        assert np.isnan(a) or np.isnan(b) or a * b >= 0


def test_windows_without_a_score_and_holes_in_time_are_stretches() -> None:
    scores = points([1.0, np.nan, np.nan, 1.0]) + points([1.0, 1.0], at_s=1010.0)
    chart = score_chart(scores, 1_010_500.0, 0.0, 600.0)
    assert chart.unscored == [(1_000_000.0, 1_001_000.0), (1_001_500.0, 1_010_000.0)]
    # The line breaks at both, and the area over the threshold does not reach across.
    between = (chart.t > 1_001_500) & (chart.t < 1_010_000)
    assert not between.any()
    assert np.isnan(chart.score).sum() == 2 + 2
    assert not np.isnan(chart.over).any()


def test_a_chart_that_has_stopped_shows_it() -> None:
    chart = score_chart(points([1.0, 1.0]), 1_020_000.0, 0.0, 600.0)
    assert chart.unscored == [(1_000_500.0, 1_020_000.0)]


def test_the_time_axis_grows_from_a_minute_to_the_history() -> None:
    short = score_chart(points([1.0] * 20), 1_010_000.0, 0.0, 600.0)
    assert short.span == (950_000.0, 1_010_000.0)
    long = score_chart(points([1.0] * 2000), 2_000_000.0, 0.0, 600.0)
    assert long.span == (1_400_000.0, 2_000_000.0)


@pytest.mark.parametrize("score", [-4.0, 0.0, 9.0])
def test_threshold_and_scores_are_always_within_the_limits(score: float) -> None:
    chart = score_chart(points([score]), 1_000_000.0, 0.0, 600.0)
    low, high = chart.limits
    assert low < min(score, 0.0)
    assert high > max(score, 2.0)


def test_times_are_shifted_to_the_wall_clock() -> None:
    chart = score_chart(points([1.0]), 1_000_000.0 + 7_200_000, 7_200_000.0, 600.0)
    assert chart.t[0] == 1_000_000.0 + 7_200_000
