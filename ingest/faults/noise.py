"""Noise of a frequency band: a piece of it, or as much as wanted, the same wherever reading begins."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfiltfilt

Float64Array = npt.NDArray[np.float64]

WANDER_HZ = (0.05, 0.5)
MUSCLE_HZ = (20.0, 150.0)
"""Surface EMG has most of its power here; below lies the ECG itself."""
BANDS_HZ = {"white": (0.0, math.inf), "wander": WANDER_HZ, "muscle": MUSCLE_HZ}
"""By the name that a fault script gives it."""

# Three periods of the slowest frequency, and not so short that the overlap blurs the band.
_PERIODS = 3
_SHORTEST_S = 2.0
# What a model looks at of an ECG: without the drift below and the noise above.
_ECG_HZ = (0.5, 40.0)


def band_noise(
    n: int, leads: int, fs: float, band_hz: tuple[float, float], rng: np.random.Generator
) -> Float64Array:
    """Return Gaussian noise of unit variance and even spectrum between two frequencies, shape (n, leads).

    All zero if the rate is too low for the band.
    """
    hz = np.fft.rfftfreq(n, 1 / fs)
    inside = (hz >= band_hz[0]) & (hz <= band_hz[1]) & (hz > 0)
    spectrum = np.zeros((len(hz), leads), np.complex128)
    spectrum[inside] = rng.standard_normal((inside.sum(), leads)) + 1j * rng.standard_normal(
        (inside.sum(), leads)
    )
    return unit_variance(np.fft.irfft(spectrum, n, axis=0))


def unit_variance(x: Float64Array) -> Float64Array:
    """Return a signal of shape (n, leads) with mean 0 and variance 1 in each lead; zero where it has none."""
    centred = x - x.mean(axis=0)
    # A source too slow for a band has none of its noise.
    unit: Float64Array = centred / np.maximum(centred.std(axis=0), np.finfo(np.float64).tiny)
    return unit


def endless_noise(
    start: int, stop: int, leads: int, fs: float, band_hz: tuple[float, float], key: int
) -> Float64Array:
    """Return a stretch of noise without end.

    Blocks overlap by half; their weights are a sine's and a cosine's, so that the variance is 1
    throughout, and nothing jumps.

    Parameters
    ----------
    start, stop : int
        Samples, not negative.
    leads : int
    fs : float
        Hz.
    band_hz : tuple of (float, float)
    key : int
        Noise of another key is another one.

    Returns
    -------
    numpy.ndarray of float64, shape (stop - start, leads)
        The same for each sample, however it is cut.
    """
    block_s = max(_SHORTEST_S, _PERIODS / band_hz[0]) if band_hz[0] else _SHORTEST_S
    half = max(1, round(block_s * fs / 2))
    noise = np.zeros((stop - start, leads))
    for number in range(start // half - 1, (stop - 1) // half + 1):
        begin = number * half
        a, b = max(start, begin), min(stop, begin + 2 * half)
        noise[a - start : b - start] += _block(number + 1, half, leads, fs, band_hz, key)[
            a - begin : b - begin
        ]
    return noise


# Those under a few faults at once; a minute of 12 leads at 500 Hz is 3 MB.
@lru_cache(maxsize=8)
def _block(
    number: int, half: int, leads: int, fs: float, band_hz: tuple[float, float], key: int
) -> Float64Array:
    rng = np.random.default_rng([key, number])
    weight = np.sin(np.pi * (np.arange(2 * half) + 0.5) / (2 * half))
    block: Float64Array = weight[:, np.newaxis] * band_noise(2 * half, leads, fs, band_hz, rng)
    return block


def ecg_deviation(values: Float64Array, fs: float) -> Float64Array:
    """Return the standard deviation of the ECG in each lead, to which a signal-to-noise ratio refers.

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (n, leads)
        NaN where a sample is missing.
    fs : float
        Hz.

    Returns
    -------
    numpy.ndarray of float64, shape (leads,)
        Within 0.5 to 40 Hz, so that the drift and hum of a recording do not pass for signal; in its unit.
    """
    filled = np.where(np.isnan(values), 0.0, values - _medians(values))
    band = (_ECG_HZ[0], min(_ECG_HZ[1], 0.45 * fs))
    sos = butter(2, band, "bandpass", fs=fs, output="sos")
    pad = min(len(filled) - 1, 3 * (2 * len(sos) + 1))
    deviation: Float64Array = sosfiltfilt(sos, filled, axis=0, padlen=pad).std(axis=0)
    return deviation


def _medians(values: Float64Array) -> Float64Array:
    there = ~np.isnan(values)
    return np.array(
        [np.median(lead[ok]) if ok.any() else 0.0 for lead, ok in zip(values.T, there.T, strict=True)]
    )
