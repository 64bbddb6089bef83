"""Development figures: recordings in folds by patient, and what the scores of all folds come to together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.bootstrap import interval, resampled_weights
from training.evaluation.metrics import Ranking, auroc
from training.evaluation.results import FEW
from training.recordings import Entry

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]
Float64Array = npt.NDArray[np.float64]

_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of the recordings.

    Attributes
    ----------
    normal, rhythm_only : numpy.ndarray of bool, shape (recordings,)
    dataset, person : numpy.ndarray of str, shape (recordings,)
    """

    normal: BoolArray
    rhythm_only: BoolArray
    dataset: npt.NDArray[np.str_]
    person: npt.NDArray[np.str_]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Labels:
        """Gather them from entries, all labelled."""
        return cls(
            np.array([entry.label == 0 for entry in entries], np.bool_),
            np.array([entry.rhythm_only for entry in entries], np.bool_),
            np.array([entry.dataset for entry in entries], np.str_),
            np.array([entry.person for entry in entries], np.str_),
        )


@dataclass(frozen=True, slots=True)
class Fold:
    """One division of the recordings.

    Attributes
    ----------
    train : numpy.ndarray of bool, shape (recordings,)
        Normals to train on.
    held : numpy.ndarray of bool, shape (recordings,)
        Normals of other patients, to be scored.
    abnormal : numpy.ndarray of bool, shape (recordings,)
        Abnormal recordings to be scored, none of a patient trained on.
    own : numpy.ndarray of bool, shape (recordings,)
        Of `held` and `abnormal`, those that no other fold owns: pooled over all folds, every recording then
        has one score.
    """

    train: BoolArray
    held: BoolArray
    abnormal: BoolArray
    own: BoolArray


def patient_folds(labels: Labels, folds: int) -> list[Fold]:
    """Divide the recordings by patient, every data set as evenly as can be.

    Parameters
    ----------
    labels : Labels
    folds : int
        At least two.

    Returns
    -------
    list of Fold
        The same for the same patients, in whatever order they come.
    """
    # Patients with a normal recording and those without are dealt apart, so that folds differ little in
    # the number of either.
    fold_of: dict[str, int] = {}
    dealt = 0
    strata: dict[tuple[str, bool], list[str]] = {}
    for person in sorted(set(labels.person.tolist())):
        at = labels.person == person
        strata.setdefault((str(labels.dataset[at][0]), bool(labels.normal[at].any())), []).append(person)
    for _, people in sorted(strata.items()):
        for person in sorted(people, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
            fold_of[person] = dealt % folds
            dealt += 1
    fold = np.array([fold_of[person] for person in labels.person.tolist()], np.intp)
    return [_fold(labels, (fold != number) & labels.normal, fold == number) for number in range(folds)]


def fixed_fold(labels: Labels, split: npt.NDArray[np.str_]) -> list[Fold]:
    """Return one division: normals of split ``train`` to train on, those of ``val`` to be scored."""
    return [_fold(labels, (split == "train") & labels.normal, (split == "val") | ~labels.normal)]


def hospital_folds(labels: Labels) -> list[Fold]:
    """Return a division for each data set: its recordings are scored by a model that saw none of its normals.

    Parameters
    ----------
    labels : Labels

    Returns
    -------
    list of Fold
        By name of the data set; those with fewer than five normals have none, and only help to train.
    """
    folds = []
    for name in sorted(set(labels.dataset.tolist())):
        own = labels.dataset == name
        if (own & labels.normal).sum() >= FEW:
            folds.append(Fold(labels.normal & ~own, labels.normal & own, ~labels.normal & own, own))
    return folds


def _fold(labels: Labels, train: BoolArray, own: BoolArray) -> Fold:
    strange = ~np.isin(labels.person, labels.person[train])
    held = labels.normal & ~train & own & strange
    abnormal = ~labels.normal & strange
    return Fold(train, held, abnormal, own & (held | abnormal))


def summarise(
    labels: Labels, folds: Sequence[Fold], scores: Mapping[tuple[int, int], Float64Array]
) -> dict[str, Any]:
    """Return how well held-out normals and abnormal recordings are told apart, of one set of leads.

    Parameters
    ----------
    labels : Labels
    folds : sequence of Fold
    scores : mapping of (int, int) to numpy.ndarray of float64, shape (recordings,)
        By seed and number of the fold; NaN for what was not scored.

    Returns
    -------
    dict
        By data set and ``"all"``; abnormal recordings whose only finding is one of rhythm apart, under
        ``"rhythm_only"``. ``mean`` is the mean AUROC of all folds and seeds, ``sd_folds`` its standard
        deviation over folds (of the seeds' mean), ``sd_seeds`` over seeds (of the folds' mean);
        ``pooled`` is the AUROC of all held-out scores together, the mean over seeds, with its 95 %
        bootstrap interval over patients.
    """
    found: dict[str, Any] = {}
    for name in ["all", *sorted(set(labels.dataset.tolist()))]:
        members = (labels.dataset == name) | (name == "all")
        found[name] = _figures(labels, folds, scores, members & ~(labels.rhythm_only & ~labels.normal))
        apart = members & (labels.rhythm_only | labels.normal)
        if (apart & ~labels.normal).any():
            found[name]["rhythm_only"] = _figures(labels, folds, scores, apart)
    return found


def _figures(
    labels: Labels, folds: Sequence[Fold], scores: Mapping[tuple[int, int], Float64Array], members: BoolArray
) -> dict[str, Any]:
    seeds, numbers = (sorted({key[part] for key in scores}) for part in (0, 1))
    table = np.full((len(seeds), len(numbers)), np.nan)
    pooled = np.full((len(seeds), len(members)), np.nan)
    for (seed, number), values in scores.items():
        fold, row = folds[number], seeds.index(seed)
        at = members & (fold.held | fold.abnormal) & ~np.isnan(values)
        area = auroc(values[at], ~labels.normal[at])
        table[row, numbers.index(number)] = np.nan if area is None else area
        own = members & fold.own
        pooled[row, own] = values[own]
    at = ~np.isnan(pooled).any(axis=0)
    return {
        "n_normal": int((at & labels.normal).sum()),
        "n_abnormal": int((at & ~labels.normal).sum()),
        "mean": _rounded(_mean(table)),
        "sd_folds": _spread([_mean(table[:, column]) for column in range(len(numbers))]),
        "sd_seeds": _spread([_mean(row) for row in table]),
        **_pooled(pooled[:, at], ~labels.normal[at], labels.person[at]),
    }


def _pooled(scores: Float64Array, abnormal: BoolArray, people: npt.NDArray[np.str_]) -> dict[str, Any]:
    if abnormal.all() or not abnormal.any():
        return {"pooled": None, "pooled_ci": None}
    rankings = [Ranking(row, abnormal, np.inf) for row in scores]
    areas = [ranking.figures(np.ones((1, len(abnormal))))["auroc"][0] for ranking in rankings]
    # The same patients for every seed: a seed is no patient.
    drawn = [
        np.mean([ranking.figures(weights)["auroc"] for ranking in rankings], axis=0)
        for weights in resampled_weights(people)
    ]
    ends = interval(np.concatenate(drawn))
    return {
        "pooled": _rounded(float(np.mean(areas))),
        "pooled_ci": None if ends is None else [round(end, _DECIMALS) for end in ends],
    }


def _mean(values: npt.ArrayLike) -> float:
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else np.nan


def _spread(values: Sequence[float]) -> float | None:
    known = [value for value in values if not np.isnan(value)]
    return _rounded(float(np.std(known, ddof=1))) if len(known) > 1 else None


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, _DECIMALS)
