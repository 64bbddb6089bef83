"""Small made-up anomalies at a known place of real normal windows: what a map of a window has to point at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, find_peaks, sosfilt

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Sizes are in standard deviations of the lead, of which a QRS complex has five or so and a T wave one or two.
_ST_SHIFT = 1.5
_WIDE_BEAT = 4.0
_NOISE = 1.5
# Seconds from the R peak: where the parts of a beat lie at rest.
_BEAT = (-0.25, 0.45)
_QRS_END = 0.06
_ST_END = 0.24
_T_WAVE = (0.14, 0.44)
_WIDE_S = 0.09
_BURST_S = 0.5
_BURST_BAND = (15.0, 35.0)
# Two beats are no nearer than 0.3 s, and the smallest QRS complex has a third of the slope of a large one.
_REFRACTORY_S, _SMALLEST = 0.3, 0.33


@dataclass(frozen=True, slots=True)
class Altered:
    """A window with an anomaly in it.

    Attributes
    ----------
    x : numpy.ndarray of float32, shape (leads, samples)
        Normalised again, as serving would.
    inside : numpy.ndarray of bool, shape (leads, samples)
        Where the anomaly is.
    """

    x: FloatArray
    inside: BoolArray


def beats(x: FloatArray, fs: float) -> list[int]:
    """Return the samples at which a window's leads are steepest together: about the R peaks.

    Parameters
    ----------
    x : numpy.ndarray of float32, shape (leads, samples)
    fs : float
        Hz.
    """
    steepness = gaussian_filter1d(np.square(np.gradient(x, axis=1)).sum(axis=0), 0.03 * fs)
    usual = float(np.percentile(steepness, 98))
    found, _ = find_peaks(steepness, height=_SMALLEST * usual, distance=max(1, round(_REFRACTORY_S * fs)))
    return [int(at) for at in found]


def insert(
    kind: str, x: FloatArray, counted: BoolArray, fs: float, rng: np.random.Generator
) -> Altered | None:
    """Insert an anomaly in one lead of a window, or in two that are exchanged.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    x : numpy.ndarray of float32, shape (leads, samples)
        A normal window, normalised.
    counted : numpy.ndarray of bool, shape (leads, samples)
        False for points, and leads, that are missing.
    fs : float
        Hz.
    rng : numpy.random.Generator

    Returns
    -------
    Altered or None
        None if the window has no beat well inside it, or too few leads.
    """
    samples = x.shape[1]
    inner = [
        at for at in beats(x, fs) if _BEAT[0] * fs + at >= 0 and at + (_BEAT[1] + _WIDE_S) * fs < samples
    ]
    leads = np.flatnonzero(counted.all(axis=1))
    if not inner or len(leads) < 2:
        return None
    beat = int(rng.choice(inner))
    lead, other = (int(chosen) for chosen in rng.choice(leads, 2, replace=False))
    values = x.astype(np.float64)
    span = KINDS[kind](values, lead, other, beat, fs, rng)
    inside = np.zeros(x.shape, np.bool_)
    inside[[lead, other] if kind == "exchanged leads" else lead, span] = True
    changed = inside.any(axis=1)
    values[changed] -= values[changed].mean(axis=1, keepdims=True)
    values[changed] /= values[changed].std(axis=1, keepdims=True)
    return Altered(values.astype(np.float32), inside)


def _st_shift(
    x: Float64Array, lead: int, other: int, beat: int, fs: float, rng: np.random.Generator
) -> slice:
    # One beat's ST segment up or down, with soft edges.
    span = _span(beat, (_QRS_END, _ST_END), fs)
    n = span.stop - span.start
    x[lead, span] += rng.choice([-1.0, 1.0]) * _ST_SHIFT * np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 0.5
    return span


def _inverted_t(
    x: Float64Array, lead: int, other: int, beat: int, fs: float, rng: np.random.Generator
) -> slice:
    span = _span(beat, _T_WAVE, fs)
    line = _line(x[lead, span])
    x[lead, span] = 2 * line - x[lead, span]
    return span


def _wide_beat(
    x: Float64Array, lead: int, other: int, beat: int, fs: float, rng: np.random.Generator
) -> slice:
    # An extra one, broad, in one phase or two, in diastole.
    centre = beat + round(_BEAT[1] * fs)
    time = (np.arange(x.shape[1]) - centre) / fs / (_WIDE_S / 2)
    shape = np.exp(-(time**2) / 2) * (1.0 if rng.random() < 0.5 else 1.6 * time)
    x[lead] += rng.choice([-1.0, 1.0]) * _WIDE_BEAT * shape
    return _span(centre, (-_WIDE_S, _WIDE_S), fs)


def _missing_beat(
    x: Float64Array, lead: int, other: int, beat: int, fs: float, rng: np.random.Generator
) -> slice:
    span = _span(beat, _BEAT, fs)
    x[lead, span] = _line(x[lead, span])
    return span


def _noise(x: Float64Array, lead: int, other: int, beat: int, fs: float, rng: np.random.Generator) -> slice:
    span = _span(beat, (-_BURST_S / 2, _BURST_S / 2), fs)
    n = span.stop - span.start
    high = min(_BURST_BAND[1], 0.45 * fs)
    white = rng.standard_normal(4 * n)
    muscle = sosfilt(butter(2, (_BURST_BAND[0], high), "bandpass", fs=fs, output="sos"), white)[-n:]
    x[lead, span] += _NOISE * muscle / muscle.std() * np.hanning(n + 2)[1:-1] ** 0.5
    return span


def _exchanged(
    x: Float64Array, lead: int, other: int, beat: int, fs: float, rng: np.random.Generator
) -> slice:
    # For one beat, as if two cables had been swapped.
    span = _span(beat, _BEAT, fs)
    x[[lead, other], span] = x[[other, lead], span]
    return span


def _span(beat: int, seconds: tuple[float, float], fs: float) -> slice:
    return slice(beat + round(seconds[0] * fs), beat + round(seconds[1] * fs) + 1)


def _line(values: Float64Array) -> Float64Array:
    return np.linspace(values[0], values[-1], len(values))


KINDS: dict[str, Callable[[Float64Array, int, int, int, float, np.random.Generator], slice]] = {
    "ST shift": _st_shift,
    "inverted T wave": _inverted_t,
    "wide beat": _wide_beat,
    "missing beat": _missing_beat,
    "noise": _noise,
    "exchanged leads": _exchanged,
}
"""Anomalies, each a function that alters a window in place and returns the samples."""
