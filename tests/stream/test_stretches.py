"""Which parts of a recording to look at."""

from __future__ import annotations

import pytest

from stream.offline import Analysis
from stream.results import WindowResult
from stream.stretches import most_anomalous, not_scored, over_threshold


def analysis(scores: dict[float, float], duration_s: float = 60.0, length_s: float = 8.0) -> Analysis:
    return Analysis(
        record="r",
        model="m",
        fs=250.0,
        leads=("II",),
        duration_s=duration_s,
        record_score=1.0 if scores else None,
        threshold=1.0,
        window_threshold=2.0,
        anomalous=None,
        windows=[
            WindowResult(
                start_s=at, end_s=at + length_s, score=score, anomalous=score > 2, lead_scores={"II": score}
            )
            for at, score in scores.items()
        ],
        not_scored={},
        alarms=[],
    )


def test_overlapping_windows_over_the_threshold_are_one_stretch() -> None:
    found = analysis({0.0: 3, 0.5: 1, 7.0: 3, 20.0: 1, 30.0: 4})
    assert over_threshold(found) == [(0.0, 15.0), (30.0, 38.0)]
    assert over_threshold(analysis({0.0: 1})) == []


def test_what_no_window_covers_was_not_scored() -> None:
    assert not_scored(analysis({2.0: 1, 10.0: 1, 30.0: 1})) == [(0.0, 2.0), (18.0, 30.0), (38.0, 60.0)]
    assert not_scored(analysis({})) == [(0.0, 60.0)]
    assert not_scored(analysis({0.0: 1}, 8.0)) == []


def test_the_most_anomalous_stretch_has_the_highest_mean() -> None:
    found = analysis({at / 2: 5.0 if at == 40 else 3.0 if 60 <= at < 70 else 1.0 for at in range(105)})
    stretch, mean = most_anomalous(found, 10.0)
    assert stretch == (30.0, 40.0)
    assert mean == pytest.approx(3.0)


def test_it_does_not_reach_beyond_the_recording() -> None:
    stretch, mean = most_anomalous(analysis({0.0: 1, 52.0: 9.0}), 10.0)
    assert (stretch, mean) == ((50.0, 60.0), 9.0)
    assert most_anomalous(analysis({}), 10.0) == ((0.0, 10.0), None)
    assert most_anomalous(analysis({0.0: 1}, 8.5), 10.0) == ((0.0, 8.5), 1.0)
