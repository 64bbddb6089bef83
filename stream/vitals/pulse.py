"""Pulses of a pleth or an arterial pressure, and whether each looks like one.

Onsets are the steepest rises: the slope sum function of Zong W, Heldt T, Moody GB, Mark RG. An open-source
algorithm to detect onset of arterial blood pressure pulses. Comput Cardiol 2003;30:259-262. A pulse is
trusted if it has about the usual height and the usual shape. Whatever the unit of the channel is, nothing
here depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

Float64Array = npt.NDArray[np.float64]

# What is left of a channel: the wave of the pulse, without breathing and without its dicrotic detail.
_BAND_HZ = (0.5, 8.0)
# The upstroke of a pulse lasts about so long.
_UPSTROKE_S = 0.16
# Windows for the usual height of the slope sum: each holds a pulse of 25/min or more.
_WINDOW_S = 2.5
# A rise of less than this part of the usual one is none; between two there is so much time.
_LEAST, _REFRACTORY_S = 0.35, 0.27
# The dicrotic wave comes so soon after the pulse, and rises by less than this part of it.
_DICROTIC_S, _DICROTIC = 0.5, 0.6
# What is compared of each pulse, seconds before and after the steepest rise.
_BEFORE_S, _AFTER_S = 0.15, 0.35
# A trusted pulse is so much like the usual one, and so high.
_ALIKE, _HEIGHTS = 0.85, (0.5, 2.0)
# Among fewer pulses none is usual.
_FEWEST = 8
# A channel that stands still for so much of its time is clipped or off, seconds.
_STILL_S = 0.2


@dataclass(frozen=True, slots=True)
class Pulses:
    """Pulses of one channel.

    Attributes
    ----------
    at_s : numpy.ndarray of float64, shape (pulses,)
        Steepest rises, seconds from the first sample.
    trusted : numpy.ndarray of bool, shape (pulses,)
        Whether it looks like the channel's usual pulse.
    """

    at_s: Float64Array
    trusted: npt.NDArray[np.bool_]


_NONE = Pulses(np.zeros(0), np.zeros(0, np.bool_))


def find_pulses(x: Float64Array, fs: float) -> Pulses:
    """Return the pulses in a stretch of a pleth or arterial pressure.

    Parameters
    ----------
    x : numpy.ndarray, shape (n,)
        In any unit, rising with the blood; NaN where there is no valid sample. Half a minute or more, so
        that there is a usual pulse.
    fs : float
        Hz.

    Returns
    -------
    Pulses
        None where fewer than eight are found.
    """
    absent = np.isnan(x)
    if absent.all() or len(x) < 10 * fs:
        return _NONE
    position = np.arange(len(x))
    x = np.interp(position, position[~absent], x[~absent])
    sos = signal.butter(2, _BAND_HZ, "bandpass", fs=fs, output="sos")
    wave = signal.sosfiltfilt(sos, x)
    width = round(_UPSTROKE_S * fs)
    rises = np.convolve(np.maximum(np.diff(wave, prepend=wave[0]), 0.0), np.ones(width), "same")
    size = round(_WINDOW_S * fs)
    windows = rises[: len(rises) // size * size].reshape(-1, size).max(axis=1)
    usual = float(np.median(windows))
    if usual <= 0.0:
        return _NONE
    found, _ = signal.find_peaks(rises, height=_LEAST * usual, distance=max(1, round(_REFRACTORY_S * fs)))
    found = _without_dicrotic(found, rises, fs)
    before, after = round(_BEFORE_S * fs), round(_AFTER_S * fs)
    # The newest pulse has not yet shown its whole shape.
    found = found[(found >= before) & (found < len(x) - after)]
    if len(found) < _FEWEST:
        return _NONE
    shapes = np.stack([wave[at - before : at + after] for at in found.tolist()])
    shapes -= shapes.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.square(shapes).sum(axis=1))
    template = np.median(shapes / np.maximum(norms, 1e-12)[:, np.newaxis], axis=0)
    likeness = shapes @ template / np.maximum(norms * np.sqrt(np.square(template).sum()), 1e-12)
    heights = rises[found] / np.median(rises[found])
    bad = absent | _still(x, round(_STILL_S * fs))
    whole = np.array([not bad[at - before : at + after].any() for at in found.tolist()])
    trusted = (likeness >= _ALIKE) & (heights >= _HEIGHTS[0]) & (heights <= _HEIGHTS[1]) & whole
    return Pulses(found / fs, trusted)


def _without_dicrotic(found: npt.NDArray[np.intp], rises: Float64Array, fs: float) -> npt.NDArray[np.intp]:
    kept: list[int] = []
    for at in found.tolist():
        if kept and at - kept[-1] < _DICROTIC_S * fs and rises[at] < _DICROTIC * rises[kept[-1]]:
            continue
        kept.append(at)
    return np.array(kept, np.intp)


def _still(x: Float64Array, length: int) -> npt.NDArray[np.bool_]:
    # Samples of runs of at least `length` equal ones.
    edges = np.flatnonzero(np.diff(x, prepend=np.nan, append=np.nan) != 0)
    runs = np.diff(edges)
    return np.repeat(runs >= length, runs)
