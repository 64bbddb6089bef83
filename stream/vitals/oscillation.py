"""How much a lead swings like a wave, as in ventricular flutter and fibrillation, and has no beats.

Two measures, both without a spectrum:

- the form factor, root mean square over mean magnitude: 1.11 for a sine, 1.25 for Gaussian noise, and the
  higher the more a signal rests between its deflections (about 2 for sinus rhythm);
- the leakage of a band-stop filter at the signal's mean period, after Kuo S, Dillman R. Computer detection of
  ventricular fibrillation. Comput Cardiol 1978: a signal plus itself half a period ago, over the sum of their
  magnitudes; 0 for a sine, about 0.7 to 0.9 for beats or noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.vitals.grid import FS

Float64Array = npt.NDArray[np.float64]

# Between these the share falls from 1 to 0.
_FORM = (1.35, 1.6)
_LEAKAGE = (0.55, 0.75)
# Below the second root mean square, mV, it may be the noise of the electrode, and says nothing unless it
# rests between its deflections; below the first it says nothing at all.
_NOTHING_MV, _LEAST_MV = 0.015, 0.05
# Mean frequencies of flutter and fibrillation, Hz; noise swings faster, movement more slowly.
_SLOWEST_HZ, _FASTEST_HZ = 1.5, 9.0


def oscillation(x: Float64Array) -> Float64Array:
    """Return how much each lead is an oscillation.

    Parameters
    ----------
    x : numpy.ndarray, shape (leads, n)
        Millivolts, some seconds.

    Returns
    -------
    numpy.ndarray, shape (leads,)
        0 for beats or noise, 1 for a wave; NaN for a lead that does not say.
    """
    size = np.abs(x)
    mean = size.mean(axis=1)
    power = np.sqrt(np.square(x).mean(axis=1))
    rests = power >= _FORM[1] * mean
    share = np.where((power >= _LEAST_MV) | (rests & (power >= _NOTHING_MV)), 0.0, np.nan)
    for lead in np.flatnonzero((power >= _LEAST_MV) & ~rests).tolist():
        steepness = float(np.abs(np.diff(x[lead])).mean()) * FS
        # A sine's mean slope is its frequency times four amplitudes, its mean magnitude 2/pi of one.
        frequency = steepness / (2 * np.pi * float(mean[lead]))
        if not _SLOWEST_HZ <= frequency <= _FASTEST_HZ:
            continue
        half = round(FS / frequency / 2)
        sums = np.abs(x[lead, half:] + x[lead, :-half]).sum()
        leakage = sums / (size[lead, half:] + size[lead, :-half]).sum()
        share[lead] = _falling(power[lead] / mean[lead], _FORM) * _falling(leakage, _LEAKAGE)
    return share


def _falling(value: float, ends: tuple[float, float]) -> float:
    return float(np.clip((ends[1] - value) / (ends[1] - ends[0]), 0.0, 1.0))
