"""Confidence intervals by resampling patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
"""Enough for the ends of a 95 % interval to be steady in the second decimal."""

# Weights of one piece of the resamples: 16 MiB, which the arrays made from them multiply by about ten.
_PIECE = 1 << 22


def resampled_weights(
    patients: Sequence[str] | npt.NDArray[np.str_], *, resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[npt.NDArray[np.float32]]:
    """Draw patients with replacement and yield how often each recording is in each resample.

    Recordings of one patient are drawn together, because they are alike: an interval that takes them for
    independent is too narrow.

    Parameters
    ----------
    patients : sequence of str
        Of each recording.
    resamples : int
    seed : int

    Yields
    ------
    numpy.ndarray of float32, shape (some resamples, recordings)
        Whole numbers; all pieces together have `resamples` rows.
    """
    names, patient = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    n = len(names)
    rng = np.random.default_rng(seed)
    size = max(1, _PIECE // max(len(patients), 1))
    for begin in range(0, resamples, size):
        rows = min(size, resamples - begin)
        drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        yield counts.astype(np.float32)[:, patient]


def interval(values: npt.NDArray[np.floating]) -> tuple[float, float] | None:
    """Return the 2.5th and the 97.5th percentile of a figure over its resamples.

    Parameters
    ----------
    values : numpy.ndarray of float, shape (resamples,)
        NaN where a resample lacked one of the classes: left out.

    Returns
    -------
    tuple of float or None
        None where no resample has the figure.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
