"""Finding the two places at which a recording can be joined to itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, find_peaks, sosfiltfilt
from scipy.spatial.distance import cdist

# QRS complexes have most of their power around 8 to 20 Hz, T waves below, muscles above. Two beats are
# 0.25 s apart or more (240 beats/min); the envelope is smoothed over the length of a QRS complex.
_QRS_BAND_HZ = (8.0, 20.0)
_REFRACTORY_S = 0.25
_QRS_S = 0.1
# A beat reaches this share of the highest ones, which a T wave does not; and the highest ones stand out of
# the middle of the envelope by this factor, which noise and fibrillation do not.
_BEAT_SHARE = 0.4
_BEAT_CONTRAST = 2.5

# Between the end of a T wave and the next P wave, relative to the two R peaks.
_AFTER_BEAT_S, _AFTER_BEAT_SHARE = 0.2, 0.42
_BEFORE_BEAT_S, _BEFORE_BEAT_SHARE = 0.2, 0.25
# Places in there are tried at this distance, if they are not much less quiet than the quietest.
_STEP_S = 0.02
_QUIET = 1.5

# What has to look alike on either side of a cut: the T wave before it, the QRS complex after it. Compared
# at 100 Hz, which still shows the width of a QRS complex.
_MATCH_S = 0.5
_MATCH_HZ = 100.0

# Costs beside the mismatch (which is about 0.3 for two good beats and 1.4 for unlike ones): an RR interval
# over the seam far from the usual one, and what of the recording is lost.
_INTERVAL_COST = 1.0
_LOSS_COST = 0.1

_Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Place:
    at: int
    since: int = 0
    """Samples since the beat before; 0 where beats do not matter."""
    until: int = 0
    """Samples until the beat after."""


def find_beats(values: _Values, fs: float) -> npt.NDArray[np.intp]:
    """Return the samples of the QRS complexes; none where nothing stands out.

    Parameters
    ----------
    values : numpy.ndarray of float, shape (n, leads)
        Without NaN; leads of like amplitude count alike.
    fs : float
        Hz.

    Notes
    -----
    For placing a cut, not for measuring a rate: it looks at the whole stretch, forwards and backwards.
    """
    low, high = _QRS_BAND_HZ
    if fs < 2.5 * low:
        # A rate at which no QRS complex can be seen.
        return np.empty(0, np.intp)
    sos = butter(2, (low, min(high, 0.45 * fs)), "bandpass", fs=fs, output="sos")
    envelope = np.abs(sosfiltfilt(sos, values, axis=0)).sum(axis=1)
    envelope = uniform_filter1d(envelope, max(1, round(_QRS_S * fs)))
    highest = float(np.percentile(envelope, 98))
    if highest <= _BEAT_CONTRAST * float(np.median(envelope)):
        return np.empty(0, np.intp)
    distance = max(1, round(_REFRACTORY_S * fs))
    peaks, _ = find_peaks(envelope, height=_BEAT_SHARE * highest, distance=distance)
    return np.asarray(peaks, np.intp)


def find_seam(head: _Values, tail: _Values, fs: float, fade: int) -> tuple[int, int]:
    """Return where in `head` to go on, and where in `tail` to leave.

    Parameters
    ----------
    head, tail : numpy.ndarray of float, shape (n, leads)
        The beginning and the end of a recording, without NaN.
    fs : float
        Hz.
    fade : int
        Samples before either place that are faded into one another.

    Returns
    -------
    join, leave : int
        Samples of `head` and of `tail`. Both lie between two beats, and the interval from the last beat
        before `leave` to the first one after `join` is one that occurs in `head` or `tail`; where no
        beats can be found, or no such pair, the two places around which the signal is most alike.
    """
    scale = np.maximum(np.concatenate([head, tail]).std(axis=0), 1e-9)
    head, tail = head / scale, tail / scale
    match = min(round(_MATCH_S * fs), min(len(head), len(tail)) // 4)
    beats = find_beats(head, fs), find_beats(tail, fs)
    intervals = np.concatenate([np.diff(found) for found in beats])
    parts = (head, tail)
    usable = [range(max(match, fade), len(part) - match) for part in parts]
    best = None
    if len(intervals):
        places = [
            [place for place in _between_beats(part, found, fs, fade) if place.at in allowed]
            for part, found, allowed in zip(parts, beats, usable, strict=True)
        ]
        best = _best_pair(parts, places, fs, match, fade, intervals)
    if best is None:
        step = max(1, round(2 * _STEP_S * fs))
        anywhere = [[_Place(at) for at in allowed[::step]] for allowed in usable]
        best = _best_pair(parts, anywhere, fs, match, fade, np.zeros(1, np.intp))
    return best if best is not None else (fade, len(tail))


def _between_beats(values: _Values, beats: npt.NDArray[np.intp], fs: float, fade: int) -> list[_Place]:
    # Places before which, for the length of a fade, little happens.
    places: list[_Place] = []
    for beat, following in pairwise(int(found) for found in beats):
        interval = following - beat
        low = beat + max(round(_AFTER_BEAT_S * fs), round(_AFTER_BEAT_SHARE * interval)) + fade
        high = following - min(round(_BEFORE_BEAT_S * fs), round(_BEFORE_BEAT_SHARE * interval))
        candidates = [at for at in range(low, high, max(1, round(_STEP_S * fs))) if at >= fade] or [high]
        activity = [float(values[max(0, at - fade) : at].std(axis=0).mean()) for at in candidates]
        limit = _QUIET * min(activity)
        places += [
            _Place(at, at - beat, following - at)
            for at, moving in zip(candidates, activity, strict=True)
            if moving <= limit
        ]
    return places


def _best_pair(
    parts: tuple[_Values, _Values],
    places: Sequence[Sequence[_Place]],
    fs: float,
    match: int,
    fade: int,
    intervals: npt.NDArray[np.intp],
) -> tuple[int, int] | None:
    joins, leaves = places
    if not joins or not leaves:
        return None
    step = max(1, round(fs / _MATCH_HZ))
    before, after = (
        np.array([_shape(part, place.at, match, fade, step) for place in chosen])
        for part, chosen in zip(parts, places, strict=True)
    )
    cost = cdist(before, after) / np.sqrt(before.shape[1])
    seams = np.add.outer([join.until for join in joins], [leave.since for leave in leaves])
    usual = float(np.median(intervals))
    if usual:
        cost += _INTERVAL_COST * np.abs(seams - usual) / usual
    length = len(parts[1])
    lost = np.subtract.outer([join.at for join in joins], [leave.at - length for leave in leaves])
    cost += _LOSS_COST * lost / length
    cost[(seams < intervals.min()) | (seams > intervals.max())] = np.inf
    row, column = divmod(int(np.argmin(cost)), len(leaves))
    if not np.isfinite(cost[row, column]):
        return None
    return joins[row].at, leaves[column].at


def _shape(values: _Values, at: int, match: int, fade: int, step: int) -> _Values:
    around = values[at - match : at + match : step] - values[at - fade : at].mean(axis=0)
    flat: _Values = around.ravel()
    return flat
