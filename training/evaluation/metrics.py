"""How well scores separate abnormal recordings from normal ones, for one weighting of the recordings or many.

A bootstrap resample is a weighting: how often each recording was drawn. All figures are computed from weights
over recordings that were sorted once, so that thousands of resamples are a few matrix operations.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

RECALL = 0.9
"""The share of abnormal recordings to be found, at which precision is reported."""

# 0.9 of a whole number of recordings is not exact in binary: one part in 10^6 of them decides nothing.
_SLACK = 1e-6


class Ranking:
    """Recordings sorted by their scores, ready for any weighting of them.

    Parameters
    ----------
    scores : numpy.ndarray of float64, shape (recordings,)
        No NaN.
    abnormal : numpy.ndarray of bool, shape (recordings,)
    threshold : float
        A recording with a higher score is called abnormal.

    Attributes
    ----------
    normals, abnormals : numpy.ndarray of int
        Places of the normal and of the abnormal recordings, by ascending score.
    """

    def __init__(self, scores: Float64Array, abnormal: BoolArray, threshold: float) -> None:
        order = np.argsort(scores, kind="stable")
        self.normals: IndexArray = order[~abnormal[order]]
        self.abnormals: IndexArray = order[abnormal[order]]
        normal, found = scores[self.normals], scores[self.abnormals]
        # For each abnormal recording, how many normals score lower, and how many no higher.
        self._lower = np.searchsorted(normal, found, "left")
        self._no_higher = np.searchsorted(normal, found, "right")
        # The first abnormal recording with the same score.
        self._tie = np.searchsorted(found, found, "left")
        self._flagged_normals = normal > threshold
        self._flagged = found > threshold

    def figures(self, weights: FloatArray) -> Mapping[str, FloatArray]:
        r"""Return every figure for every weighting.

        With weights :math:`w`, abnormal recordings :math:`a` and normal ones :math:`n`, scores :math:`s` and
        the number found :math:`TP(t) = \sum_{s_a \ge t} w_a`, falsely called :math:`FP(t)` alike:

        - ``auroc``: :math:`\sum_a \sum_n w_a w_n ([s_a > s_n] + [s_a = s_n]/2) / \sum_a \sum_n w_a w_n`, the
          probability that an abnormal recording scores higher than a normal one (Mann and Whitney, Ann. Math.
          Statist. 18, 1947).
        - ``auprc``: average precision, :math:`\sum_a w_a P(s_a) / \sum_a w_a` with precision
          :math:`P(t) = TP(t) / (TP(t) + FP(t))`. No interpolation, which would flatter (Davis and Goadrich,
          ICML 2006).
        - ``precision_at_recall_90``: :math:`P(t)` at the highest :math:`t` that finds 90 % of the abnormal.
        - ``sensitivity``, ``specificity``, ``f1``: at the stored threshold.

        Parameters
        ----------
        weights : numpy.ndarray of float, shape (weightings, recordings)
            Not negative.

        Returns
        -------
        mapping of str to numpy.ndarray of float, shape (weightings,)
            NaN where a figure needs recordings of which there are none: of abnormal ones for sensitivity, of
            normal ones for specificity, of both for the rest.
        """
        w_normal, w_abnormal = weights[:, self.normals], weights[:, self.abnormals]
        n_normal, n_abnormal = w_normal.sum(axis=1), w_abnormal.sum(axis=1)
        below = _running(w_normal)
        before = _running(w_abnormal)[:, self._tie]
        true = n_abnormal[:, np.newaxis] - before
        false = n_normal[:, np.newaxis] - below[:, self._lower]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = true / (true + false)
            share = (below[:, self._lower] + below[:, self._no_higher]) / (2 * n_normal[:, np.newaxis])
            hit, alarm = w_abnormal @ self._flagged, w_normal @ self._flagged_normals
            figures = {
                "auroc": (w_abnormal * share).sum(axis=1) / n_abnormal,
                # A recording of weight zero has no precision of its own where nothing scores as high.
                "auprc": np.where(w_abnormal > 0, w_abnormal * precision, 0.0).sum(axis=1) / n_abnormal,
                "precision_at_recall_90": self._precision_at_recall(precision, before, n_abnormal),
                "sensitivity": hit / n_abnormal,
                "specificity": 1 - alarm / n_normal,
                "f1": 2 * hit / (n_abnormal + hit + alarm),
            }
        one_class = (n_normal == 0) | (n_abnormal == 0)
        for name in ("auroc", "auprc", "precision_at_recall_90", "f1"):
            figures[name] = np.where(one_class, np.nan, figures[name])
        return figures

    def _precision_at_recall(
        self, precision: FloatArray, before: FloatArray, n_abnormal: FloatArray
    ) -> FloatArray:
        if not len(self.abnormals):
            return np.full(len(precision), np.nan)
        missed = (1 - RECALL + _SLACK) * n_abnormal
        # `before` ascends: the last place at which not too many lie lower.
        last = np.count_nonzero(before <= missed[:, np.newaxis], axis=1) - 1
        return np.take_along_axis(precision, last[:, np.newaxis], axis=1)[:, 0]

    def by_subset(self, weights: FloatArray, members: BoolArray) -> Mapping[str, FloatArray]:
        """Return AUROC and sensitivity of subsets of the abnormal recordings, each against all normals.

        Parameters
        ----------
        weights : numpy.ndarray of float, shape (weightings, recordings)
        members : numpy.ndarray of bool, shape (recordings, subsets)

        Returns
        -------
        mapping of str to numpy.ndarray of float, shape (weightings, subsets)
            NaN where a subset is empty, or there are no normals.
        """
        chosen = members[self.abnormals].astype(weights.dtype)
        w_normal, w_abnormal = weights[:, self.normals], weights[:, self.abnormals]
        below = _running(w_normal)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (below[:, self._lower] + below[:, self._no_higher]) / (2 * below[:, -1:])
            n = w_abnormal @ chosen
            return {
                "auroc": (w_abnormal * share) @ chosen / n,
                "sensitivity": (w_abnormal * self._flagged) @ chosen / n,
            }


def _running(weights: FloatArray) -> FloatArray:
    # Sum of the weights before each place, and of all at the end. Weights of resamples are whole numbers,
    # whose sums float32 holds exactly up to 16 million.
    sums = np.zeros((len(weights), weights.shape[1] + 1), weights.dtype)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def auroc(scores: Float64Array, abnormal: BoolArray) -> float | None:
    """Return the area under the ROC curve (see `Ranking.figures`), None where one of the classes is empty."""
    value = float(Ranking(scores, abnormal, np.inf).figures(np.ones((1, len(scores))))["auroc"][0])
    return None if np.isnan(value) else value


def roc_points(scores: Float64Array, abnormal: BoolArray) -> tuple[Float64Array, Float64Array]:
    """Return the corners of the ROC curve: share of normals called abnormal, share of abnormals found.

    Both classes must be there. From (0, 0) to (1, 1), one point for each distinct score.
    """
    true, false = _counts(scores, abnormal)
    return (
        np.concatenate([[0.0], false / false[-1]]),
        np.concatenate([[0.0], true / true[-1]]),
    )


def precision_recall_points(scores: Float64Array, abnormal: BoolArray) -> tuple[Float64Array, Float64Array]:
    """Return recall and precision at each distinct score, recall ascending; both classes must be there."""
    true, false = _counts(scores, abnormal)
    return true / true[-1], true / (true + false)


def _counts(scores: Float64Array, abnormal: BoolArray) -> tuple[Float64Array, Float64Array]:
    # Abnormal and normal recordings with at least a score, for each distinct score, descending.
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(abnormal[order], dtype=np.float64)[last]
    return true, last + 1 - true
