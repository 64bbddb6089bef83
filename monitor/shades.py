"""How dark a point's error and attention are drawn: the same on the live page and in reports.

Both have one fixed scale, so that pictures can be compared and an even attention looks even. Each is of a
single hue, so that it reads the same in print and to every eye.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

BAND_SDS = 2
"""Half the width of the band of a model's spread: 95 % of a normal distribution lie in it."""

MOST = 4.0
"""Attention, in multiples of an even share, of the darkest shade; its inverse has the lightest one."""

ERROR_MV, ERROR_SDS = 0.5, 4.0
"""Error of the darkest shade: in millivolts, and of models that expect a spread in its standard deviations.
Of normal recordings (40 of the validation split, each of the shipped models) three to four points in a
thousand go beyond."""


def shade(attention: Float32Array) -> Float32Array:
    """Return how dark attention is drawn: 0 for a quarter of an even share, 1/2 for an even one, 1 for four.

    Equal steps for equal factors: half as much is as far from even as twice as much. NaN remains.

    Parameters
    ----------
    attention : numpy.ndarray of float32
        In multiples of an even share.
    """
    factor = np.clip(attention, 1 / MOST, MOST)
    dark = np.log(factor) / np.float32(2 * np.log(MOST)) + np.float32(0.5)
    return dark.astype(np.float32, copy=False)


def error_shade(error: Float32Array, most: float) -> Float32Array:
    """Return how dark an error is drawn: 0 for none, 1 for `most` and beyond. NaN remains.

    Parameters
    ----------
    error : numpy.ndarray of float32
    most : float
        `ERROR_MV` or `ERROR_SDS`.
    """
    dark: Float32Array = np.clip(np.abs(error) / np.float32(most), np.float32(0), np.float32(1))
    return dark
