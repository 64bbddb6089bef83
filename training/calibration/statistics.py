"""From a trained network to scores that mean something: statistics on normals, and thresholds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from models.manifest import ScoreSpec, Thresholds
from models.scoring import Outputs, Scores, lead_errors, raw_scores, score, standardise_leads
from training.dataset import WindowSet

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

Run = Callable[[FloatArray, FloatArray], Outputs]
"""x (batch, leads, samples) and mask (batch, leads) to what the network makes of them."""

RECORD_PERCENTILE = 95.0
"""Screening: one normal recording in twenty is called abnormal."""
WINDOW_PERCENTILE = 99.0
"""Alarms: one normal window in a hundred is over the threshold; an alarm needs many of them."""

MOST_WINDOWS = 3000
"""Score statistics are measured on no more windows than this: the mean of a lead is then known to 2 % of its
standard deviation, and a recurrent network needs minutes and not hours."""

_DECIMALS = 6
_QUANTILES = 101


def score_windows(run: Run, windows: WindowSet, spec: ScoreSpec, batch: int = 64) -> Scores:
    """Score windows in batches.

    Parameters
    ----------
    run : callable
    windows : WindowSet
    spec : ScoreSpec
    batch : int

    Returns
    -------
    Scores
    """
    pieces = [
        score(
            windows.x[at : at + batch],
            run(windows.x[at : at + batch], windows.mask[at : at + batch]),
            windows.counted[at : at + batch],
            windows.mask[at : at + batch],
            spec,
        )
        for at in range(0, len(windows), batch)
    ]
    return Scores(
        window=np.concatenate([piece.window for piece in pieces]),
        lead=np.concatenate([piece.lead for piece in pieces]),
    )


def record_scores(window_scores: Float64Array, record: npt.NDArray[np.intp], n_records: int) -> Float64Array:
    """Return each recording's score: the mean over its windows, NaN where it has none."""
    total = np.bincount(record, window_scores, n_records)
    count = np.bincount(record, minlength=n_records)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def score_statistics(
    run: Run,
    normals: WindowSet,
    *,
    kind: str = "log_mse",
    alpha: float | None = None,
    beta: float | None = None,
    distance_weight: float = 0.0,
    draws: int = 3,
    seed: int = 0,
    batch: int = 64,
) -> ScoreSpec:
    """Measure how training normals score with any number of leads.

    For each number *m* of leads, every window is reconstructed from `draws` random sets of *m* of its
    leads (once for all leads). At most `MOST_WINDOWS` windows are taken, evenly spaced.

    Parameters
    ----------
    run : callable
    normals : WindowSet
        Windows of training normals with all leads present.
    kind : str
    alpha, beta : float, optional
        As in `ScoreSpec`, whose defaults they have.
    distance_weight : float
        Of the feature distance; 0 for a network without one.
    draws : int
    seed : int
    batch : int

    Returns
    -------
    ScoreSpec

    Raises
    ------
    ValueError
        If a window lacks a lead, there are too few windows to have seen each lead with each number, the
        network lacks what the kind of score needs, or there is no such kind.
    """
    leads = normals.x.shape[1]
    if not normals.mask.all():
        raise ValueError("score statistics need windows with all leads")
    given = {name: value for name, value in (("alpha", alpha), ("beta", beta)) if value is not None}
    spec = ScoreSpec.model_validate(
        {
            "kind": kind,
            **given,
            "lead_mean": ((0.0,) * leads,) * leads,
            "lead_std": ((1.0,) * leads,) * leads,
            "count_mean": (0.0,) * leads,
            "count_std": (1.0,) * leads,
        }
    )
    chosen = np.arange(len(normals))
    if len(chosen) > MOST_WINDOWS:
        chosen = chosen[:: -(-len(chosen) // MOST_WINDOWS)]
    said = [_said(run, normals, chosen, m, draws, seed, batch, spec) for m in range(1, leads + 1)]
    errors = [lead for lead, _ in said]
    drawn = min(int(np.count_nonzero(~np.isnan(lead), axis=0).min()) for lead in errors)
    if drawn < 2:
        raise ValueError(f"too few windows ({len(normals)}) for score statistics")
    spec = spec.model_copy(
        update={
            "lead_mean": tuple(_rounded(np.nanmean(lead, axis=0)) for lead in errors),
            "lead_std": tuple(_rounded(np.nanstd(lead, axis=0)) for lead in errors),
        }
    )
    if distance_weight:
        distances = [outputs["distance"].astype(np.float64) for _, outputs in said]
        spec = spec.model_copy(
            update={
                "distance_weight": distance_weight,
                "distance_mean": _rounded(np.array([distance.mean() for distance in distances])),
                "distance_std": _rounded(np.array([distance.std() for distance in distances])),
            }
        )
    raw = [raw_scores(standardise_leads(lead, spec), outputs, spec) for lead, outputs in said]
    return ScoreSpec.model_validate(
        spec.model_dump()
        | {
            "count_mean": _rounded(np.array([scores.mean() for scores in raw])),
            "count_std": _rounded(np.array([scores.std() for scores in raw])),
        }
    )


def _said(
    run: Run,
    normals: WindowSet,
    chosen: npt.NDArray[np.intp],
    m: int,
    draws: int,
    seed: int,
    batch: int,
    spec: ScoreSpec,
) -> tuple[Float64Array, dict[str, FloatArray]]:
    # Errors of the leads, and feature distances if there are any, of the windows chosen, each given `draws`
    # times by m random leads. Leads are taken away batch by batch: the whole set exists once.
    leads = normals.x.shape[1]
    rng = np.random.default_rng([seed, m])
    errors: list[Float64Array] = []
    distances: list[FloatArray] = []
    for _ in range(draws if m < leads else 1):
        order = np.argsort(rng.random((len(chosen), leads)), axis=1)
        kept = np.argsort(order, axis=1) < m
        for at in range(0, len(chosen), batch):
            some = chosen[at : at + batch]
            windows = WindowSet(
                normals.x[some], normals.mask[some], normals.counted[some], normals.record[some]
            ).keep_leads(kept[at : at + batch])
            outputs = run(windows.x, windows.mask)
            errors.append(lead_errors(windows.x, outputs, windows.counted, windows.mask, spec))
            if "distance" in outputs:
                distances.append(outputs["distance"])
    return np.concatenate(errors), {"distance": np.concatenate(distances)} if distances else {}


def _rounded(values: Float64Array) -> tuple[float, ...]:
    return tuple(round(float(value), _DECIMALS) for value in values)


def thresholds(window_scores: Float64Array, record: npt.NDArray[np.intp], n_records: int) -> Thresholds:
    """Set the thresholds that need nothing but window scores of validation normals.

    Parameters
    ----------
    window_scores : numpy.ndarray of float64, shape (windows,)
    record : numpy.ndarray of int, shape (windows,)
        Number of the recording of each window.
    n_records : int

    Returns
    -------
    Thresholds
        Percentiles interpolate linearly between order statistics.
    """
    records = record_scores(window_scores, record, n_records)
    quantiles = np.quantile(window_scores, np.linspace(0.0, 1.0, _QUANTILES))
    return Thresholds(
        record=round(float(np.nanpercentile(records, RECORD_PERCENTILE)), _DECIMALS),
        window=round(float(np.percentile(window_scores, WINDOW_PERCENTILE)), _DECIMALS),
        quantiles=_rounded(quantiles),
    )
