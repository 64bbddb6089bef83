"""How much the leads swing like a wave, as in ventricular flutter and fibrillation, and have no beats.

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
# One in so many leads may have its doubts.
_DOUBT = 4
# Mean frequencies of flutter and fibrillation, Hz; noise swings faster, movement more slowly.
_SLOWEST_HZ, _FASTEST_HZ = 1.5, 9.0


def oscillation(x: Float64Array) -> float:
    """Return how much a stretch of signal is an oscillation.

    Parameters
    ----------
    x : numpy.ndarray, shape (leads, n)
        Millivolts, some seconds.

    Returns
    -------
    float
        0 for beats or noise, 1 for a wave: the lowest of the leads, but of every four one may be lower.
        0 without a lead that says anything.
    """
    n = x.shape[1]
    size = np.abs(x)
    mean = size.sum(axis=1) / n
    power = np.sqrt(np.einsum("ln,ln->l", x, x) / n)
    rests = power >= _FORM[1] * mean
    waves = np.flatnonzero((power >= _LEAST_MV) & ~rests)
    resting = int(np.count_nonzero(rests & (power >= _NOTHING_MV)))
    doubts = (len(waves) + resting) // _DOUBT
    # Mostly so: there are beats to be seen.
    if resting > doubts or not len(waves):
        return 0.0
    steepness = np.abs(np.diff(x[waves], axis=1)).sum(axis=1) / n * FS
    # A sine's mean slope is its frequency times four amplitudes, its mean magnitude 2/pi of one.
    frequencies = steepness / (2 * np.pi * mean[waves])
    shares = [0.0] * resting
    for lead, frequency in zip(waves.tolist(), frequencies.tolist(), strict=True):
        share = 0.0
        if _SLOWEST_HZ <= frequency <= _FASTEST_HZ:
            half = round(FS / frequency / 2)
            sums = float(np.abs(x[lead, half:] + x[lead, :-half]).sum())
            leakage = sums / float(size[lead, half:].sum() + size[lead, :-half].sum())
            share = _falling(float(power[lead] / mean[lead]), _FORM) * _falling(leakage, _LEAKAGE)
        shares.append(share)
        if shares.count(0.0) > doubts:
            return 0.0
    return sorted(shares)[doubts]


def _falling(value: float, ends: tuple[float, float]) -> float:
    return min(1.0, max(0.0, (ends[1] - value) / (ends[1] - ends[0])))
