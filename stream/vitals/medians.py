"""The median where something may be unknown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]


def lower_median(values: Float64Array, *, least: int = 1) -> Float64Array:
    """Return the median along the axis before the last, the lower one of two in the middle.

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (..., n, leads)
        NaN where nothing is known.
    least : int
        How many must be known.

    Returns
    -------
    numpy.ndarray of float64, shape (..., leads)
        NaN where fewer are.
    """
    # The sort puts NaN last.
    ordered = np.sort(values, axis=-2)
    count = values.shape[-2]
    if count >= least and not np.isnan(ordered[..., -1, :]).any():
        # Nearly always, and in a third of the time.
        return np.asarray(ordered[..., (count - 1) // 2, :])
    known = (~np.isnan(values)).sum(axis=-2, keepdims=True)
    middle = np.take_along_axis(ordered, np.maximum(known - 1, 0) // 2, axis=-2)
    return np.asarray(np.where(known >= least, middle, np.nan)[..., 0, :])
