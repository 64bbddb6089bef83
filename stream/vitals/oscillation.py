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

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

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


def oscillation(x: Float32Array | Float64Array) -> float:
    """Return how much a stretch of signal is an oscillation.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, shape (leads, n)
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
    waving, resting = _kinds(mean, power)
    waves, rests = np.flatnonzero(waving), int(np.count_nonzero(resting))
    doubts = (len(waves) + rests) // _DOUBT
    # Mostly so: there are beats to be seen.
    if rests > doubts or not len(waves):
        return 0.0
    x, size = x[waves], size[waves]
    steepness = np.abs(np.diff(x, axis=1)).sum(axis=1) / n * FS
    # A sine's mean slope is its frequency times four amplitudes, its mean magnitude 2/pi of one.
    frequencies = steepness / (2 * np.pi * mean[waves])
    able = (frequencies >= _SLOWEST_HZ) & (frequencies <= _FASTEST_HZ)
    share = np.zeros(len(waves))
    if able.any():
        leakage = _leakage(x[able], size[able], np.rint(FS / frequencies[able] / 2).astype(np.intp))
        form = power[waves][able] / mean[waves][able]
        share[able] = _falling(form, _FORM) * _falling(leakage, _LEAKAGE)
    return sorted([0.0] * rests + share.tolist())[doubts]


def _leakage(x: Float64Array, size: Float64Array, half: npt.NDArray[np.intp]) -> Float64Array:
    # Each lead and itself so many samples ago.
    n = x.shape[1]
    leads, ago = np.arange(len(x))[:, np.newaxis], np.arange(n) - half[:, np.newaxis]
    sums = np.where(ago >= 0, np.abs(x + x[leads, np.maximum(ago, 0)]), 0.0).sum(axis=1)
    upto = np.cumsum(size, axis=1)
    leads = leads[:, 0]
    sizes = upto[:, -1] - upto[leads, half - 1] + upto[leads, n - 1 - half]
    return np.asarray(sums / sizes)


def may_oscillate(mean: Float64Array, power: Float64Array, whole: BoolArray) -> BoolArray:
    """Tell the beds in which there may be an oscillation from those in which beats are to be seen.

    Parameters
    ----------
    mean, power : numpy.ndarray, shape (beds, leads)
        Mean magnitude and root mean square of the stretch that `oscillation` would look at, mV.
    whole : numpy.ndarray of bool, shape (beds, leads)
        Which leads it would look at.

    Returns
    -------
    numpy.ndarray of bool, shape (beds,)
        Where it is False, `oscillation` is 0.
    """
    waving, resting = _kinds(mean, power)
    waves, rests = (waving & whole).sum(axis=1), (resting & whole).sum(axis=1)
    return np.asarray((waves > 0) & (rests <= (waves + rests) // _DOUBT))


def _kinds(mean: Float64Array, power: Float64Array) -> tuple[BoolArray, BoolArray]:
    # Which leads swing, and which rest between their deflections; the others say nothing.
    rests = power >= _FORM[1] * mean
    return (power >= _LEAST_MV) & ~rests, rests & (power >= _NOTHING_MV)


def _falling(value: Float64Array, ends: tuple[float, float]) -> Float64Array:
    return np.clip((ends[1] - value) / (ends[1] - ends[0]), 0.0, 1.0)
