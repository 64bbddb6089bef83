"""How well scores separate abnormal recordings from normal ones, per data set and per set of leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from models.manifest import ScoreSpec, Thresholds
from training.calibrate import Run, record_scores, score_windows
from training.dataset import WindowSet
from training.recordings import Entry

BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]

LEAD_SETS: Mapping[str, tuple[str, ...] | None] = {
    "all": None,
    "I,II,V2": ("I", "II", "V2"),
    "II": ("II",),
}
"""Leads that a bed may have: all that the recording has, a common monitor's three, one."""

_RESAMPLES = 2000
_DECIMALS = 4


def auroc(scores: Float64Array, abnormal: BoolArray) -> float | None:
    """Return the area under the ROC curve, None where one of the classes is empty.

    The probability that an abnormal recording scores higher than a normal one, ties counting half
    (Mann and Whitney, Ann. Math. Statist. 18, 1947).
    """
    n_abnormal = int(abnormal.sum())
    n_normal = len(scores) - n_abnormal
    if not n_abnormal or not n_normal:
        return None
    ranks = rankdata(scores)[abnormal].sum() - n_abnormal * (n_abnormal + 1) / 2
    return float(ranks / (n_abnormal * n_normal))


def auroc_interval(
    scores: Float64Array, abnormal: BoolArray, patients: Sequence[str], *, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of the AUROC, resampling patients.

    Parameters
    ----------
    scores : numpy.ndarray of float64, shape (recordings,)
    abnormal : numpy.ndarray of bool, shape (recordings,)
    patients : sequence of str
        Of each recording; recordings of one patient are drawn together.
    seed : int

    Returns
    -------
    tuple of float or None
        None where one of the classes is empty.
    """
    if auroc(scores, abnormal) is None:
        return None
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    members = [np.flatnonzero(group == number) for number in range(group.max() + 1)]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        value = auroc(scores[drawn], abnormal[drawn])
        if value is not None:
            values.append(value)
    low, high = np.percentile(values, [2.5, 97.5])
    return round(float(low), _DECIMALS), round(float(high), _DECIMALS)


def evaluate(
    run: Run,
    windows: WindowSet,
    entries: Sequence[Entry],
    leads: Sequence[str],
    spec: ScoreSpec,
    operating: Thresholds,
) -> dict[str, Any]:
    """Evaluate a model on labelled recordings.

    Parameters
    ----------
    run : callable
    windows : WindowSet
    entries : sequence of Entry
        The recordings that `WindowSet.record` numbers; all labelled.
    leads : sequence of str
        The model's.
    spec : ScoreSpec
    operating : Thresholds

    Returns
    -------
    dict
        By set of leads, then by data set and ``"all"``: numbers of normal and abnormal recordings, AUROC
        with its interval, sensitivity and specificity at the record threshold. Recordings whose only
        finding is one of rhythm stand apart, under ``"rhythm_only"``, against the same normals.
    """
    found: dict[str, Any] = {}
    for name, chosen in LEAD_SETS.items():
        kept = np.array([chosen is None or lead in chosen for lead in leads])
        given = windows.keep_leads(kept)
        scores = record_scores(score_windows(run, given, spec).window, given.record, len(entries))
        found[name] = _by_dataset(scores, entries, operating)
    return found


def _by_dataset(scores: Float64Array, entries: Sequence[Entry], operating: Thresholds) -> dict[str, Any]:
    label = np.array([entry.label == 1 for entry in entries])
    rhythm_only = np.array([entry.rhythm_only for entry in entries])
    dataset = np.array([entry.dataset for entry in entries])
    # A recording of an unknown patient stands for itself.
    patients = np.array([entry.patient or str(entry.path) for entry in entries])
    scored = ~np.isnan(scores)
    result: dict[str, Any] = {}
    for name in ["all", *sorted(set(dataset.tolist()))]:
        group = scored if name == "all" else scored & (dataset == name)
        result[name] = {}
        for part, chosen in (("", ~rhythm_only), ("rhythm_only", rhythm_only | ~label)):
            at = group & chosen
            if part and not (label & at).any():
                continue
            figures = _figures(scores[at], label[at], patients[at].tolist(), operating)
            result[name].update({part: figures} if part else figures)
    return result


def _figures(
    scores: Float64Array, abnormal: BoolArray, patients: Sequence[str], operating: Thresholds
) -> dict[str, Any]:
    flagged = scores > operating.record
    area = auroc(scores, abnormal)
    return {
        "n_normal": int((~abnormal).sum()),
        "n_abnormal": int(abnormal.sum()),
        "auroc": None if area is None else round(area, _DECIMALS),
        "auroc_ci": auroc_interval(scores, abnormal, patients),
        "sensitivity": round(float(flagged[abnormal].mean()), _DECIMALS) if abnormal.any() else None,
        "specificity": round(float((~flagged)[~abnormal].mean()), _DECIMALS) if not abnormal.all() else None,
    }
