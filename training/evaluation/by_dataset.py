"""Figures for a model's manifest: the few that it keeps, by data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.bootstrap import RESAMPLES
from training.evaluation.figures import figures
from training.recordings import Entry

Float64Array = npt.NDArray[np.float64]

LEAD_SETS: Mapping[str, tuple[str, ...] | None] = {
    "all": None,
    "I,II,V2": ("I", "II", "V2"),
    "II": ("II",),
}
"""Leads that a bed may have: all that the recording has, a common monitor's three, one."""

# What a manifest keeps of `training.evaluation.results.Figures`.
_KEPT = {
    "n_normal",
    "n_abnormal",
    "auroc",
    "auroc_ci",
    "auprc",
    "auprc_ci",
    "sensitivity",
    "sensitivity_ci",
    "specificity",
    "specificity_ci",
    "f1",
}


def figures_by_dataset(scores: Float64Array, entries: Sequence[Entry], threshold: float) -> dict[str, Any]:
    """Return the figures of record scores, of each data set and of ``"all"``.

    Parameters
    ----------
    scores : numpy.ndarray of float64, shape (recordings,)
        NaN for one that has none: left out.
    entries : sequence of Entry
        All labelled.
    threshold : float
        A recording with a higher score is called abnormal.

    Returns
    -------
    dict
        Abnormal recordings whose only finding is one of rhythm stand apart, under ``"rhythm_only"``, against
        the same normals.
    """
    abnormal = np.array([entry.label == 1 for entry in entries], np.bool_)
    rhythm = np.array([entry.label == 1 and entry.rhythm_only for entry in entries], np.bool_)
    dataset = np.array([entry.dataset for entry in entries], np.str_)
    patients = np.array([entry.person for entry in entries], np.str_)
    scored = ~np.isnan(scores)

    def found(at: npt.NDArray[np.bool_]) -> dict[str, Any]:
        of = figures(scores[at], abnormal[at], patients[at], threshold, resamples=RESAMPLES, seed=0)
        return of.model_dump(include=_KEPT)

    result: dict[str, Any] = {}
    for name in ["all", *sorted(set(dataset.tolist()))]:
        group = scored if name == "all" else scored & (dataset == name)
        result[name] = found(group & ~rhythm)
        if (group & rhythm).any():
            result[name]["rhythm_only"] = found(group & (rhythm | ~abnormal))
    return result
