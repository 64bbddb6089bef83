"""What training does to its windows: the input is disturbed, the target stays clean.

A gain is not among them: every lead is divided by its own standard deviation before the network sees it.
What a gain would change is the size of the noise relative to the ECG, therefore the strength of each
disturbance is drawn anew for every lead.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.config import Augmentation

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
StateArray = npt.NDArray[np.uint8]

WANDER_HZ = (0.2, 0.8)
"""Breathing and movement, as far as the 0.5 Hz high-pass in front of the model leaves them."""
MUSCLE_HZ = (15.0, 45.0)
"""The part of the electromyogram that passes the 50 Hz low-pass and lies above the T wave."""
BURST_S = (1.0, 4.0)
"""Duration of a contraction."""

# Noise is made over at least so long a time, so that a window of one second can hold the part of a wave
# that is slower than it: frequencies then lie 0.1 Hz apart.
_NOISE_S = 10.0


def stretch(values: FloatArray, state: StateArray, samples: int) -> tuple[FloatArray, StateArray]:
    """Bring a stretch of signal to another number of samples: the heart beats faster or slower.

    A cubic through the four samples around each point (Lagrange), as in `stream.preprocess`, because a
    straight line between two would blunt the QRS complex.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (leads, n)
        At least two samples.
    state : numpy.ndarray of uint8, shape (leads, n)
        How well each sample is known; higher is worse. A new sample is as good as the worse one of its
        two neighbours.
    samples : int

    Returns
    -------
    values : numpy.ndarray of float32, shape (leads, samples)
    state : numpy.ndarray of uint8, shape (leads, samples)
    """
    last = values.shape[1] - 1
    position = np.linspace(0.0, last, samples)
    base = np.minimum(position.astype(np.intp), last - 1)
    t = position - base
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    stretched = np.zeros((len(values), samples), np.float32)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        stretched += values[:, np.clip(base + offset, 0, last)] * weight.astype(np.float32)
    return stretched, np.maximum(state[:, base], state[:, base + 1])


def random_masks(present: FloatArray, all_leads_share: float, rng: np.random.Generator) -> BoolArray:
    """Choose the leads to keep: a share of windows keeps all, the others any number, each as likely.

    Parameters
    ----------
    present : numpy.ndarray, shape (windows, leads)
        Non-zero for a lead that the window has; at least one of them is kept.
    all_leads_share : float
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray of bool, shape (windows, leads)
    """
    has = np.asarray(present) != 0
    available = np.maximum(has.sum(axis=1), 1)
    whole = rng.random(len(has)) < all_leads_share
    count = np.where(whole, available, rng.integers(1, available + 1))
    # Leads that are there come first, in random order.
    order = np.argsort(rng.random(has.shape) + ~has, axis=1)
    rank = np.argsort(order, axis=1)
    kept: BoolArray = (rank < count[:, np.newaxis]) & has
    return kept


def disturb(x: FloatArray, config: Augmentation, fs: float, rng: np.random.Generator) -> FloatArray:
    """Return the input that a network is given in place of clean windows.

    Parameters
    ----------
    x : numpy.ndarray of float32, shape (windows, leads, samples)
        Normalised windows; left as they are.
    config : Augmentation
        What has strength 0 is not done.
    fs : float
        Hz.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray of float32, shape (windows, leads, samples)
    """
    given = x.copy()
    if config.noise:
        given += np.float32(config.noise) * rng.standard_normal(x.shape, dtype=np.float32)
    if config.wander:
        given += _strengths(x, config.wander, rng) * band_noise(x.shape, fs, WANDER_HZ, rng)
    if config.muscle:
        noise = band_noise(x.shape, fs, MUSCLE_HZ, rng)
        given += _strengths(x, config.muscle, rng) * noise * bursts(x.shape, fs, rng)
    if config.time_mask:
        given[blocks(x.shape, config.time_mask, rng)] = 0.0
    return given


def _strengths(x: FloatArray, strongest: float, rng: np.random.Generator) -> FloatArray:
    return rng.uniform(0.0, strongest, (*x.shape[:2], 1)).astype(np.float32)


def band_noise(
    shape: tuple[int, ...], fs: float, band_hz: tuple[float, float], rng: np.random.Generator
) -> FloatArray:
    """Return Gaussian noise between two frequencies, of standard deviation 1.

    Parameters
    ----------
    shape : tuple of int
        (windows, leads, samples)
    fs : float
        Hz.
    band_hz : tuple of float
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray of float32
        Zero where the band lies above half of `fs`.
    """
    n = max(shape[-1], int(np.ceil(_NOISE_S * fs)))
    frequencies = np.fft.rfftfreq(n, 1 / fs)
    # Neither the constant nor, at an even n, the highest frequency: they have no phase.
    inside = np.flatnonzero((frequencies >= band_hz[0]) & (frequencies <= band_hz[1]))
    inside = inside[(inside > 0) & (2 * inside < n)]
    spectrum = np.zeros((*shape[:-1], len(frequencies)), np.complex64)
    parts = rng.standard_normal((2, *shape[:-1], len(inside)), dtype=np.float32)
    spectrum[..., inside] = parts[0] + 1j * parts[1]
    noise = np.fft.irfft(spectrum, n)[..., : shape[-1]]
    # A spectral line of a + ib contributes 2 (a² + b²) / n² to the mean square.
    return np.asarray(noise * (n / (2 * np.sqrt(max(len(inside), 1)))), np.float32)


def bursts(shape: tuple[int, ...], fs: float, rng: np.random.Generator) -> FloatArray:
    """Return how strongly a muscle is tense: one contraction in each lead, rising and falling smoothly.

    Returns
    -------
    numpy.ndarray of float32, shape (windows, leads, samples)
        A raised cosine between 0 and 1, 0 outside the contraction.
    """
    samples = shape[-1]
    half = (rng.uniform(*BURST_S, (*shape[:-1], 1)) * fs / 2).astype(np.float32)
    middle = rng.uniform(0, samples, (*shape[:-1], 1)).astype(np.float32)
    phase = np.clip((np.arange(samples, dtype=np.float32) - middle) / half, -1.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.float32(np.pi) * phase), np.float32)


def blocks(shape: tuple[int, ...], longest: float, rng: np.random.Generator) -> BoolArray:
    """Choose samples to take away: one block in each window, in all leads or in some of them.

    Parameters
    ----------
    shape : tuple of int
        (windows, leads, samples)
    longest : float
        Share of the window.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray of bool, shape (windows, leads, samples)
    """
    windows, leads, samples = shape
    length = np.rint(rng.uniform(0.0, longest, windows) * samples)
    start = np.floor(rng.random(windows) * (samples - length + 1))
    at = np.arange(samples)
    inside = (at >= start[:, np.newaxis]) & (at < (start + length)[:, np.newaxis])
    # Half of the windows lose the block in all leads, as when a transmission fails; the others in each lead
    # with a chance of one half, as when an electrode does.
    everywhere = rng.random((windows, 1)) < 0.5
    hit = everywhere | (rng.random((windows, leads)) < 0.5)
    gone: BoolArray = inside[:, np.newaxis, :] & hit[:, :, np.newaxis]
    return gone
