"""Whether the maps of a window show where its unusual part is.

A map is a number for each point of a window: the error, or an attention. It looks as if it explained the
score whether it does or not (Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018), therefore every
map is put to two tests, on real normal windows with small anomalies in them whose place is known
(`training.anomalies`):

localisation
    Does the highest point of the map lie in the anomaly, more often than that of the map of the same window
    without it?
deletion and insertion
    Does the score fall faster when what the map points at is replaced by what the network expected than when
    something else of the same shape and size is, and does it rise faster when that is put back
    (Petsiuk et al., RISE, BMVC 2018)?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, gaussian_filter1d

from models.manifest import MapCheck, ScoreSpec
from models.scoring import Outputs, point_error, score
from training.anomalies import KINDS, insert
from training.calibration.statistics import Run
from training.dataset import WindowSet
from training.evaluation.metrics import auroc

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MOST_RECORDINGS = 60
"""One window each is taken of at most so many: the localisation is then known to about 5 %."""

# Standard deviation of the smoothing: the width of a QRS complex at half its height. The error of a single
# point says nothing, the eye sees humps.
_SMOOTH_S = 0.04
# A map that is off by no more than a QRS complex still shows the place.
_TOLERANCE_S = 0.1
# Shares of the window that are deleted or inserted. An anomaly is less than 1 % of twelve leads, but may be
# spread over all of them in a map that knows only time.
_SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
# For comparison the same map is moved by at least this, so that it points at other waves.
_MOVED_S = 1.0
_RESAMPLES = 2000
_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class _Case:
    # An altered window, and the one that it was made of.
    recording: int
    before: FloatArray
    after: FloatArray
    inside: BoolArray
    counted: BoolArray
    mask: FloatArray


def window_maps(x: FloatArray, outputs: Outputs, counted: BoolArray, fs: float) -> dict[str, FloatArray]:
    """Return every map of a batch of windows.

    Parameters
    ----------
    x : numpy.ndarray of float32, shape (batch, leads, samples)
    outputs : mapping of str to numpy.ndarray of float32
    counted : numpy.ndarray of bool, shape (batch, leads, samples)
    fs : float
        Hz.

    Returns
    -------
    dict of str to numpy.ndarray of float32, shape (batch, leads, samples)
        ``error``, the squared error, a little smoothed; ``normalised_error``, of networks that expect a
        variance, divided by it; ``restored_error``, of networks that restore leads from the others;
        ``temporal_attention``, the same in all leads; ``lead_attention``. Zero where nothing counts.
    """

    def smooth(error: FloatArray) -> FloatArray:
        return gaussian_filter1d(np.nan_to_num(error), _SMOOTH_S * fs, axis=-1)

    maps = {"error": smooth(point_error(x, outputs["recon_mean"], counted))}
    if "recon_logvar" in outputs:
        normalised = point_error(x, outputs["recon_mean"], counted, outputs["recon_logvar"])
        maps["normalised_error"] = smooth(normalised)
    if "recon_restored" in outputs:
        maps["restored_error"] = smooth(point_error(x, outputs["recon_restored"], counted))
    for name in ("temporal_attention", "lead_attention"):
        if name in outputs:
            attention = outputs[name] if outputs[name].ndim == 3 else outputs[name][:, np.newaxis, :]
            step = np.arange(x.shape[-1]) * attention.shape[-1] // x.shape[-1]
            maps[name] = np.broadcast_to(attention[:, :, step], x.shape) * counted
    return maps


def check_maps(
    run: Run,
    spec: ScoreSpec,
    windows: WindowSet,
    fs: float,
    *,
    seed: int = 0,
    batch: int = 32,
    on_done: Callable[[float], None] | None = None,
) -> dict[str, MapCheck]:
    """Put every map of a model to both tests.

    Parameters
    ----------
    run : callable
    spec : ScoreSpec
    windows : WindowSet
        Of normals; never of the test split.
    fs : float
        The model's rate, Hz.
    seed : int
    batch : int
    on_done : callable, optional
        Called with the share that is done, 0 to 1.

    Returns
    -------
    dict of str to MapCheck
        By map (see `window_maps`). A map is informative if the 95 % intervals of how much better than chance
        it localises, and of what its deletion gains, both lie above zero. Intervals are of a bootstrap over
        recordings.

    Raises
    ------
    ValueError
        If an anomaly cannot be inserted in any window.
    """
    rng = np.random.default_rng(seed)
    cases = _cases(windows, fs, rng)
    if not cases:
        raise ValueError("none of the windows has two leads and a beat in which an anomaly can be inserted")
    parts: list[dict[str, Float64Array]] = []
    for at in range(0, len(cases), batch):
        parts.append(_measure(run, spec, cases[at : at + batch], fs, rng))
        if on_done is not None:
            on_done(min(at + batch, len(cases)) / len(cases))
    recording = np.array([case.recording for case in cases])
    return {
        name: _check(np.concatenate([part[name] for part in parts], axis=1), recording, seed)
        for name in parts[0]
    }


def _cases(windows: WindowSet, fs: float, rng: np.random.Generator) -> list[_Case]:
    recordings = np.unique(windows.record)
    if len(recordings) > MOST_RECORDINGS:
        recordings = rng.choice(recordings, MOST_RECORDINGS, replace=False)
    cases = []
    for recording in np.sort(recordings).tolist():
        at = int(rng.choice(np.flatnonzero(windows.record == recording)))
        x, counted, mask = windows.x[at], windows.counted[at], windows.mask[at]
        for kind in KINDS:
            altered = insert(kind, x, counted, fs, rng)
            if altered is not None:
                cases.append(_Case(recording, x, altered.x, altered.inside, counted, mask))
    return cases


def _measure(
    run: Run, spec: ScoreSpec, cases: list[_Case], fs: float, rng: np.random.Generator
) -> dict[str, Float64Array]:
    # For each map: hits, hits by chance, AUROC, gain of deletion and of insertion, shape (5, cases).
    counted, mask = np.stack([case.counted for case in cases]), np.stack([case.mask for case in cases])
    before, after = np.stack([case.before for case in cases]), np.stack([case.after for case in cases])
    inside = np.stack([case.inside for case in cases])
    outputs = run(after, mask)
    expected = outputs["recon_mean"]
    maps = window_maps(after, outputs, counted, fs)
    chance = window_maps(before, run(before, mask), counted, fs)

    def scores(x: FloatArray) -> Float64Array:
        return score(x, run(x, mask), counted, mask, spec).window

    found = {}
    for name, values in maps.items():
        place = _places(values, counted)
        elsewhere = _places(_moved(values, counted, fs, rng), counted)
        points = np.count_nonzero(counted, axis=(1, 2))[:, np.newaxis, np.newaxis]
        gains = np.zeros((2, len(cases)))
        for share in _SHARES:
            chosen, other = place < share * points, elsewhere < share * points
            gains[0] += scores(np.where(other, expected, after)) - scores(np.where(chosen, expected, after))
            gains[1] += scores(np.where(chosen, after, expected)) - scores(np.where(other, after, expected))
        found[name] = np.array(
            [
                _hits(name, values, inside, fs),
                _hits(name, chance[name], inside, fs),
                _areas(name, values, inside, counted),
                *(gains / len(_SHARES)),
            ]
        )
    return found


def _hits(name: str, values: FloatArray, inside: BoolArray, fs: float) -> Float64Array:
    # Does the highest point lie in the anomaly, as far as the map knows leads and times?
    reach = np.ones((1, 2 * round(_TOLERANCE_S * fs) + 1), np.bool_)
    hits = []
    for one, where in zip(values, inside, strict=True):
        lead, sample = np.unravel_index(int(np.argmax(one)), one.shape)
        near = binary_dilation(where, reach)
        if name == "temporal_attention":
            hits.append(near[:, sample].any())
        elif name == "lead_attention":
            hits.append(near[lead].any())
        else:
            hits.append(near[lead, sample])
    return np.array(hits, float)


def _areas(name: str, values: FloatArray, inside: BoolArray, counted: BoolArray) -> list[float]:
    areas = []
    for one, where, here in zip(values, inside, counted, strict=True):
        if name == "temporal_attention":
            area = auroc(one.max(axis=0).astype(float), where.any(axis=0))
        else:
            area = auroc(one[here].astype(float), where[here])
        areas.append(0.5 if area is None else area)
    return areas


def _moved(values: FloatArray, counted: BoolArray, fs: float, rng: np.random.Generator) -> FloatArray:
    # The same map with other leads and at another time: as coherent, but it points elsewhere.
    moved = np.zeros_like(values)
    least, samples = round(_MOVED_S * fs), values.shape[-1]
    for one, here, to in zip(values, counted, moved, strict=True):
        leads = np.flatnonzero(here.any(axis=1))
        shift = int(rng.integers(least, max(samples - least, least + 1)))
        to[leads] = np.roll(one[rng.permutation(leads)], shift, axis=1)
    return moved


def _places(values: FloatArray, counted: BoolArray) -> npt.NDArray[np.intp]:
    # The place of every point of a window among its points by value, 0 the highest. The first of equals.
    ranked = np.where(counted, -values, np.inf).reshape(len(values), -1)
    order = np.argsort(ranked, axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(order.shape[1])[np.newaxis], axis=1)
    return places.reshape(values.shape)


def _check(figures: Float64Array, recording: npt.NDArray[np.intp], seed: int) -> MapCheck:
    hits, chance, area, deletion, insertion = figures
    better = _interval(hits - chance, recording, seed)
    gain = _interval(deletion, recording, seed)
    return MapCheck(
        localisation=round(float(hits.mean()), _DECIMALS),
        chance=round(float(chance.mean()), _DECIMALS),
        localisation_interval=better,
        auroc=round(float(area.mean()), _DECIMALS),
        deletion_gain=round(float(deletion.mean()), _DECIMALS),
        interval=gain,
        insertion_gain=round(float(insertion.mean()), _DECIMALS),
        recordings=len(np.unique(recording)),
        anomalies=len(recording),
        informative=better[0] > 0 and gain[0] > 0,
    )


def _interval(values: Float64Array, recording: npt.NDArray[np.intp], seed: int) -> tuple[float, float]:
    _, number = np.unique(recording, return_inverse=True)
    total, count = np.bincount(number, values), np.bincount(number)
    drawn = np.random.default_rng(seed).integers(0, len(count), (_RESAMPLES, len(count)))
    means = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return round(float(low), _DECIMALS), round(float(high), _DECIMALS)
