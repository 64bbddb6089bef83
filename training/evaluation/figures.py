"""From scores to figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from models.manifest import Thresholds
from training.evaluation.bootstrap import interval, resampled_weights
from training.evaluation.diagnoses import diagnoses, diagnosis_name
from training.evaluation.metrics import FloatArray, Ranking
from training.evaluation.results import (
    FEW,
    Calibration,
    Diagnosis,
    Figures,
    Group,
    Interval,
    Level,
    Robustness,
)
from training.evaluation.scored import Change, Scored

BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]

PERCENTILES = (50, 75, 90, 95, 99)
"""At which calibration is told: what screening and alarms use lies in the upper half."""
RECORD_EXPECTED = 0.05
"""The stored record threshold is the 95th percentile of validation normals (`Thresholds.record`)."""

_DECIMALS = 4


def group(
    scored: Scored,
    members: BoolArray,
    operating: Thresholds,
    changes: Sequence[Change] | None,
    *,
    resamples: int,
    seed: int,
) -> Group:
    """Return the figures of some of the recordings.

    Parameters
    ----------
    scored : Scored
    members : numpy.ndarray of bool, shape (recordings,)
    operating : Thresholds
    changes : sequence of Change or None
        Those that were scored; None if robustness was not asked for.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    Group
    """
    abnormal, rhythm = scored.abnormal, scored.rhythm_only
    main, apart = members & ~rhythm, members & (rhythm | ~abnormal)
    drawing = {"resamples": resamples, "seed": seed}

    def figures_of(chosen: BoolArray) -> Figures:
        return figures(
            scored.score[chosen], abnormal[chosen], scored.patients[chosen], operating.record, **drawing
        )

    return Group(
        **figures_of(main).model_dump(),
        rhythm_only=figures_of(apart) if (members & rhythm).any() else None,
        calibration=_calibration(scored, members & ~abnormal, operating, **drawing),
        diagnoses=_diagnoses(scored, members, operating, **drawing),
        robustness=None if changes is None else _robustness(scored, main, operating, changes, **drawing),
    )


def figures(
    scores: Float64Array,
    abnormal: BoolArray,
    patients: Sequence[str] | npt.NDArray[np.str_],
    threshold: float,
    *,
    resamples: int,
    seed: int,
) -> Figures:
    """Return every figure of `Ranking.figures` with its interval.

    Parameters
    ----------
    scores : numpy.ndarray of float64, shape (recordings,)
    abnormal : numpy.ndarray of bool, shape (recordings,)
    patients : sequence of str
        Recordings of one patient are drawn together.
    threshold : float
    resamples, seed : int

    Returns
    -------
    Figures
    """
    n, n_abnormal = len(scores), int(abnormal.sum())
    ranking = Ranking(scores, abnormal, threshold)
    drawn: list[Mapping[str, FloatArray]] = []
    if n:
        drawn = [
            ranking.figures(weights)
            for weights in resampled_weights(patients, resamples=resamples, seed=seed)
        ]
    found: dict[str, float | Interval | None] = {}
    for name, value in ranking.figures(np.ones((1, n))).items():
        found[name] = _rounded(value[0])
        found[f"{name}_ci"] = None
        if found[name] is not None:
            found[f"{name}_ci"] = _interval(np.concatenate([piece[name] for piece in drawn]))
    return Figures(
        n=n,
        n_normal=n - n_abnormal,
        n_abnormal=n_abnormal,
        n_patients=len(np.unique(patients)),
        prevalence=_rounded(n_abnormal / n) if n else None,
        threshold=threshold,
        missing=_missing(n - n_abnormal, n_abnormal),
        **found,
    )


def _missing(n_normal: int, n_abnormal: int) -> str | None:
    if n_normal and n_abnormal:
        return None
    if not n_normal and not n_abnormal:
        return "no recordings"
    return "no abnormal recordings" if n_normal else "no normal recordings"


def _calibration(
    scored: Scored, normals: BoolArray, operating: Thresholds, *, resamples: int, seed: int
) -> Calibration | None:
    if not normals.any():
        return None
    steps = len(operating.quantiles) - 1
    columns = np.array([round(percentile / 100 * steps) for percentile in PERCENTILES])
    shares = np.column_stack(
        [scored.above[normals][:, columns], scored.score[normals] > operating.record]
    ).astype(np.float32)
    drawn = np.concatenate(
        [
            weights @ shares / weights.sum(axis=1, keepdims=True)
            for weights in resampled_weights(scored.patients[normals], resamples=resamples, seed=seed)
        ]
    )
    levels = [
        Level(
            percentile=percentile,
            expected=expected,
            observed=_rounded(float(share)) or 0.0,
            observed_ci=_interval(drawn[:, column]),
        )
        for column, (percentile, expected, share) in enumerate(
            zip(
                (*PERCENTILES, 100 * (1 - RECORD_EXPECTED)),
                (*(round(1 - percentile / 100, _DECIMALS) for percentile in PERCENTILES), RECORD_EXPECTED),
                shares.mean(axis=0, dtype=np.float64),
                strict=True,
            )
        )
    ]
    *windows, record = levels
    error = np.mean([abs(level.observed - level.expected) for level in windows])
    return Calibration(windows=tuple(windows), record=record, error=round(float(error), _DECIMALS))


def _diagnoses(
    scored: Scored, members: BoolArray, operating: Thresholds, *, resamples: int, seed: int
) -> tuple[Diagnosis, ...]:
    places = np.flatnonzero(members)
    abnormal, rhythm = scored.abnormal[places], scored.rhythm_only[places]
    codes = [diagnoses(scored.entries[place].codes) for place in places]
    known = sorted(set().union(*codes))
    has = np.array([[code in of for code in known] for of in codes], np.bool_).reshape(
        len(places), len(known)
    )
    n, n_normals = has[abnormal].sum(axis=0), has[~abnormal].sum(axis=0)
    # What is at least as common among normals (sinus rhythm, "normal ECG") names no abnormality.
    tells = n * max(int((~abnormal).sum()), 1) > n_normals * max(int(abnormal.sum()), 1)
    kept = np.flatnonzero((n >= FEW) & tells)
    if not len(kept):
        return ()
    has = has[:, kept]
    ranking = Ranking(scored.score[places], abnormal, operating.record)
    whole = ranking.by_subset(np.ones((1, len(places))), has)
    drawn = [
        ranking.by_subset(weights, has)
        for weights in resampled_weights(scored.patients[places], resamples=resamples, seed=seed)
    ]
    spread = {name: np.concatenate([piece[name] for piece in drawn]) for name in whole}
    found = [
        Diagnosis(
            code=known[code],
            name=diagnosis_name(known[code]),
            n=int(n[code]),
            n_rhythm_only=int((has[:, column] & rhythm).sum()),
            auroc=_rounded(whole["auroc"][0, column]),
            auroc_ci=_interval(spread["auroc"][:, column]),
            sensitivity=_rounded(whole["sensitivity"][0, column]) or 0.0,
            sensitivity_ci=_interval(spread["sensitivity"][:, column]),
        )
        for column, code in enumerate(kept)
    ]
    return tuple(sorted(found, key=lambda row: (-row.n, row.code)))


_MOVED = ("auroc", "auprc", "sensitivity", "specificity")


def _robustness(
    scored: Scored,
    members: BoolArray,
    operating: Thresholds,
    changes: Sequence[Change],
    *,
    resamples: int,
    seed: int,
) -> tuple[Robustness, ...]:
    # Changes that can be made to the same recordings share one drawing, and the figures to compare with.
    alike: dict[bytes, list[Change]] = {}
    for change in changes:
        alike.setdefault((members & ~np.isnan(scored.changed[change.name])).tobytes(), []).append(change)
    rows: dict[str, Robustness] = {}
    for mask, together in alike.items():
        places = np.flatnonzero(np.frombuffer(mask, np.bool_))
        abnormal = scored.abnormal[places]
        before = Ranking(scored.score[places], abnormal, operating.record)
        after = [
            Ranking(scored.changed[change.name][places], abnormal, operating.record) for change in together
        ]
        one = np.ones((1, len(places)))
        was = before.figures(one)
        drawn: list[list[tuple[FloatArray, FloatArray]]] = [[] for _ in together]
        if len(places):
            for weights in resampled_weights(scored.patients[places], resamples=resamples, seed=seed):
                usual = before.figures(weights)["auroc"]
                for pieces, ranking in zip(drawn, after, strict=True):
                    moved = ranking.figures(weights)["auroc"]
                    pieces.append((moved, moved - usual))
        for change, ranking, pieces in zip(together, after, drawn, strict=True):
            now = ranking.figures(one)
            value = {name: _rounded(now[name][0]) for name in _MOVED}
            delta = {f"{name}_delta": _rounded(now[name][0] - was[name][0]) for name in _MOVED}
            there = value["auroc"] is not None
            rows[change.name] = Robustness(
                name=change.name,
                kind=change.kind,
                n=len(places),
                n_abnormal=int(abnormal.sum()),
                auroc_ci=_interval(np.concatenate([piece[0] for piece in pieces])) if there else None,
                auroc_delta_ci=_interval(np.concatenate([piece[1] for piece in pieces])) if there else None,
                **value,
                **delta,
            )
    return tuple(rows[change.name] for change in changes)


def _rounded(value: float) -> float | None:
    # Plus zero: what rounds to -0.0 reads as if it meant something.
    return None if np.isnan(value) else round(float(value), _DECIMALS) + 0.0


def _interval(values: FloatArray) -> Interval | None:
    found = interval(values)
    return None if found is None else (round(found[0], _DECIMALS) + 0.0, round(found[1], _DECIMALS) + 0.0)
