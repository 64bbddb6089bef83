"""From a trained network to scores that mean something: statistics on normals, and thresholds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from models.manifest import ScoreSpec, Thresholds
from models.scoring import Outputs, Scores, lead_log_mse, score, standardise_leads
from training.dataset import WindowSet

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

Run = Callable[[FloatArray, FloatArray], Outputs]
"""x (batch, leads, samples) and mask (batch, leads) to what the network makes of them."""

RECORD_PERCENTILE = 95.0
"""Screening: one normal recording in twenty is called abnormal."""
WINDOW_PERCENTILE = 99.0
"""Alarms: one normal window in a hundred is over the threshold; an alarm needs many of them."""

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
    run: Run, normals: WindowSet, *, draws: int = 3, seed: int = 0, batch: int = 64
) -> ScoreSpec:
    """Measure how training normals score with any number of leads.

    For each number *m* of leads, every window is reconstructed from `draws` random sets of *m* of its
    leads (once for all leads).

    Parameters
    ----------
    run : callable
    normals : WindowSet
        Windows of training normals with all leads present.
    draws : int
    seed : int
    batch : int

    Returns
    -------
    ScoreSpec

    Raises
    ------
    ValueError
        If a window lacks a lead, or there are too few windows to have seen each lead with each number.
    """
    leads = normals.x.shape[1]
    if not normals.mask.all():
        raise ValueError("score statistics need windows with all leads")
    errors = [_errors(run, normals, m, draws, seed, batch) for m in range(1, leads + 1)]
    drawn = min(int(np.count_nonzero(~np.isnan(log_mse), axis=0).min()) for log_mse in errors)
    if drawn < 2:
        raise ValueError(f"too few windows ({len(normals)}) for score statistics")
    spec = ScoreSpec(
        lead_mean=tuple(_rounded(np.nanmean(log_mse, axis=0)) for log_mse in errors),
        lead_std=tuple(_rounded(np.nanstd(log_mse, axis=0)) for log_mse in errors),
        count_mean=(0.0,) * leads,
        count_std=(1.0,) * leads,
    )
    raw = [np.nanmean(standardise_leads(log_mse, spec), axis=1) for log_mse in errors]
    return spec.model_copy(
        update={
            "count_mean": _rounded(np.array([scores.mean() for scores in raw])),
            "count_std": _rounded(np.array([scores.std() for scores in raw])),
        }
    )


def _errors(run: Run, normals: WindowSet, m: int, draws: int, seed: int, batch: int) -> Float64Array:
    # Log errors of the leads of all windows, each given `draws` times by m random leads.
    leads = normals.x.shape[1]
    rng = np.random.default_rng([seed, m])
    errors = []
    for _ in range(draws if m < leads else 1):
        order = np.argsort(rng.random((len(normals), leads)), axis=1)
        given = normals.keep_leads(np.argsort(order, axis=1) < m)
        for at in range(0, len(given), batch):
            x, mask = given.x[at : at + batch], given.mask[at : at + batch]
            errors.append(lead_log_mse(x, run(x, mask)["recon_mean"], given.counted[at : at + batch], mask))
    return np.concatenate(errors)


def _rounded(values: Float64Array) -> tuple[float, ...]:
    return tuple(round(float(value), _DECIMALS) for value in values)


def thresholds(window_scores: Float64Array, record: npt.NDArray[np.intp], n_records: int) -> Thresholds:
    """Set the operating points from the scores of validation normals.

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
