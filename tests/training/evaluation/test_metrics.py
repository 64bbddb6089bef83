from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.metrics import RECALL, Ranking, auroc, precision_recall_points, roc_points

# Few distinct scores, so that there are many ties.
RECORDINGS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=14)


def by_hand(scores: list[float], abnormal: list[bool], threshold: float) -> dict[str, float]:
    """The definitions, one recording after the other."""
    found = [score for score, bad in zip(scores, abnormal, strict=True) if bad]
    normal = [score for score, bad in zip(scores, abnormal, strict=True) if not bad]
    nan = math.nan
    hits, alarms = sum(a > threshold for a in found), sum(n > threshold for n in normal)
    figures = {
        "sensitivity": hits / len(found) if found else nan,
        "specificity": 1 - alarms / len(normal) if normal else nan,
    }
    if not found or not normal:
        return figures | dict.fromkeys(("auroc", "auprc", "f1", "precision_at_recall_90"), nan)
    pairs = [1.0 if a > n else 0.5 if a == n else 0.0 for a in found for n in normal]
    average = recall = 0.0
    at_recall = None
    for level in sorted(set(scores), reverse=True):
        true, false = sum(a >= level for a in found), sum(n >= level for n in normal)
        precision = true / (true + false)
        average += (true / len(found) - recall) * precision
        recall = true / len(found)
        if at_recall is None and recall >= RECALL - 1e-9:
            at_recall = precision
    assert at_recall is not None
    return figures | {
        "auroc": sum(pairs) / len(pairs),
        "auprc": average,
        "f1": 2 * hits / (2 * hits + alarms + len(found) - hits),
        "precision_at_recall_90": at_recall,
    }


@given(RECORDINGS, st.sampled_from([-1.0, 0.0, 1.5, 3.0, 9.0]))
def test_figures_of_weights_are_those_of_repeated_recordings(
    recordings: list[tuple[int, bool, int]], threshold: float
) -> None:
    scores, abnormal, weights = (np.array(column) for column in zip(*recordings, strict=True))
    ranking = Ranking(scores.astype(float), abnormal.astype(bool), threshold)
    both = np.stack([np.ones(len(scores)), weights.astype(float)])
    figures = ranking.figures(both)
    for row, counts in enumerate(both.astype(int)):
        expected = by_hand(
            np.repeat(scores, counts).tolist(), np.repeat(abnormal, counts).tolist(), threshold
        )
        assert figures.keys() == expected.keys()
        for name, value in expected.items():
            assert figures[name][row] == pytest.approx(value, nan_ok=True), name


@given(RECORDINGS, st.lists(st.booleans(), min_size=14, max_size=14))
def test_a_subset_of_abnormal_recordings_is_measured_against_all_normals(
    recordings: list[tuple[int, bool, int]], drawn: list[bool]
) -> None:
    scores, abnormal, _ = (np.array(column) for column in zip(*recordings, strict=True))
    scores, abnormal = scores.astype(float), abnormal.astype(bool)
    member = np.array(drawn[: len(scores)])
    found = Ranking(scores, abnormal, 2.5).by_subset(np.ones((1, len(scores))), member[:, np.newaxis])
    kept = ~abnormal | member
    alone = Ranking(scores[kept], abnormal[kept], 2.5).figures(np.ones((1, int(kept.sum()))))
    for name in ("auroc", "sensitivity"):
        assert found[name][0, 0] == pytest.approx(alone[name][0], nan_ok=True)


@given(RECORDINGS)
def test_the_areas_under_the_curves_are_the_figures(recordings: list[tuple[int, bool, int]]) -> None:
    scores, abnormal, _ = (np.array(column) for column in zip(*recordings, strict=True))
    scores, abnormal = scores.astype(float), abnormal.astype(bool)
    if abnormal.all() or not abnormal.any():
        assert auroc(scores, abnormal) is None
        return
    false, true = roc_points(scores, abnormal)
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(true, false) == pytest.approx(auroc(scores, abnormal))
    recall, precision = precision_recall_points(scores, abnormal)
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    figures = Ranking(scores, abnormal, 0.0).figures(np.ones((1, len(scores))))
    assert area == pytest.approx(figures["auprc"][0])


def test_a_score_at_the_threshold_is_not_abnormal() -> None:
    figures = Ranking(np.array([1.0, 1.0]), np.array([False, True]), 1.0).figures(np.ones((1, 2)))
    assert (figures["sensitivity"][0], figures["specificity"][0]) == (0.0, 1.0)


def test_ninety_per_cent_of_ten_are_nine() -> None:
    # 0.9 * 10 is not 9 in binary; the tenth abnormal recording is below all normals.
    scores = np.array([*range(10, 19), 0, *range(1, 6)], float)
    abnormal = np.arange(15) < 10
    figures = Ranking(scores, abnormal, 0.0).figures(np.ones((1, 15), np.float32))
    assert figures["precision_at_recall_90"][0] == 1.0
