"""From a source's samples to the model's: filter, resample, mark what is missing. All of it causal.

The output is a pure function of the samples up to each point: cutting the same feed into other chunks
changes nothing. Training runs this very code.

The chain, per lead, at the source's rate: hold the last value over missing samples; Butterworth high-pass
(baseline wander); Chebyshev type II low-pass, which is the anti-alias filter and takes out 50 and 60 Hz
hum; then, on the grid of the model's rate anchored at sample 0 of the session, the sample itself where the
grids meet and a four-point cubic (Lagrange) in between.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import signal

from models.manifest import FilterSpec

BRIDGE_S = 0.2
"""A gap up to this long is bridged: its samples do not count, the window around them does."""

SETTLING_S = 15.0
"""After so much signal the 0.5 Hz high-pass has forgotten how it started, to below float32 resolution."""

# Sampling frequencies are taken as the nearest fraction with a denominator up to this: exact for every
# rate in use (257, 128, 999.56 …), and index arithmetic stays in integers, so that a feed does not drift.
_MAX_DENOMINATOR = 1000
# The low-pass needs its stop band below the source's Nyquist frequency, with a little room for the design.
_NYQUIST_MARGIN = 0.96

Float64Array = npt.NDArray[np.float64]


@lru_cache(maxsize=64)
def design(spec: FilterSpec, fs: float) -> Float64Array:
    """Return the band-pass for a source of `fs` Hz as second-order sections, shape (sections, 6).

    A source too slow to carry the stop band (under about 104 Hz for 50 Hz) gets the high-pass alone: its
    own Nyquist frequency already ends the band.
    """
    sections = [signal.butter(2, spec.highpass_hz, "highpass", fs=fs, output="sos")]
    if spec.stop_hz < _NYQUIST_MARGIN * fs / 2:
        sections.append(signal.cheby2(spec.order, spec.stop_db, spec.stop_hz, fs=fs, output="sos"))
    return np.concatenate(sections)


def group_delay_ms(spec: FilterSpec, fs: float = 500.0, at_hz: float = 10.0) -> float:
    """Return the filter's delay in ms at one frequency (10 Hz: the middle of a QRS complex's energy)."""
    around = np.array([at_hz - 0.05, at_hz + 0.05])
    _, response = signal.freqz_sos(design(spec, fs), worN=around, fs=fs)
    phase = np.unwrap(np.angle(response))
    return float(-(phase[1] - phase[0]) / (2 * np.pi * (around[1] - around[0])) * 1000)


@dataclass(frozen=True, slots=True)
class Resampled:
    """A stretch of conditioned signal on the model's grid.

    Attributes
    ----------
    first : int
        Grid index of the first sample.
    values : numpy.ndarray of float32, shape (leads, n)
        Millivolts, band-passed.
    missing : numpy.ndarray of float32, shape (leads, n)
        For how many seconds, up to and including this point, the source has had no valid sample; 0 where
        it has one.
    """

    first: int
    values: npt.NDArray[np.float32]
    missing: npt.NDArray[np.float32]


class Conditioner:
    """Filter and resampler of one feed, with carried state.

    Parameters
    ----------
    spec : FilterSpec
    fs : float
        Sampling frequency of the source, Hz.
    fs_out : float
        Sampling frequency of the model, Hz.
    n_leads : int
    start : int
        Index, since the start of the session, of the first sample that `push` will bring.
    """

    # The cubic looks one sample back and two ahead.
    _BEFORE, _AFTER = 1, 2

    def __init__(self, spec: FilterSpec, fs: float, fs_out: float, n_leads: int, start: int = 0) -> None:
        ratio = Fraction(fs).limit_denominator(_MAX_DENOMINATOR) / Fraction(fs_out).limit_denominator(
            _MAX_DENOMINATOR
        )
        self._step, self._per = ratio.numerator, ratio.denominator
        self._sos = design(spec, fs)
        self._fs = fs
        self._zi = np.zeros((len(self._sos), n_leads, 2))
        self._held = np.zeros(n_leads)
        # Samples since the last valid one; infinite before the first one ever. Counted, not summed up in
        # seconds, so that a gap of just BRIDGE_S is no longer in one chunking than in another.
        self._run = np.full(n_leads, np.inf)
        # Filtered samples (and their run lengths) that grid points to come still need.
        self._tail = np.zeros((n_leads, 0))
        self._tail_run = np.zeros((n_leads, 0))
        self.next_in = start
        """Index of the sample that `push` expects next."""
        self.next_out = self.first_out_from(start)
        """Grid index of the sample that comes out next."""
        self._kind = (spec, fs, ratio)

    def first_out_from(self, sample: int) -> int:
        """Return the first grid index that can be computed from samples `sample` and later."""
        index = -(-sample * self._per // self._step)
        if index * self._step % self._per:
            # Not on a sample: the cubic also needs the one before.
            index = -(-(sample + self._BEFORE) * self._per // self._step)
        return index

    def source_index(self, out: int) -> int:
        """Return the source sample at or after a grid index."""
        return -(-out * self._step // self._per)

    def out_before(self, sample: int) -> int:
        """Return the grid index of the first sample that comes out no earlier than source sample `sample`."""
        return max(self.next_out, -(-(sample - self._look_ahead) * self._per // self._step))

    @property
    def _look_ahead(self) -> int:
        # Where the grids meet at every point nothing is interpolated.
        return 0 if self._per == 1 else self._AFTER

    @property
    def alike(self) -> Hashable:
        """Equal for feeds that stand at the same point of the same grid: `condition` takes them together."""
        return (*self._kind, self._tail.shape[1], self._ahead)

    @property
    def _ahead(self) -> int:
        # From the first sample of the tail to the next grid point, in parts of a sample.
        tail_first = self.next_in - self._tail.shape[1]
        return self.next_out * self._step - tail_first * self._per

    def push(self, millivolts: Float64Array) -> Resampled:
        """Take the next samples and return the grid samples that they complete.

        Parameters
        ----------
        millivolts : numpy.ndarray of float64, shape (leads, n)
            NaN where there is no valid sample.

        Returns
        -------
        Resampled
        """
        return condition([self], millivolts)[0]


def condition(feeds: Sequence[Conditioner], millivolts: Float64Array) -> list[Resampled]:
    """Take the next samples of several feeds at once.

    Every lead is computed as if it were alone, to the last bit. What it saves is the calls: filtering takes
    many times as long for each of 64 feeds as for all of them together.

    Parameters
    ----------
    feeds : sequence of Conditioner
        With the same `Conditioner.alike`.
    millivolts : numpy.ndarray of float64, shape (leads, n)
        The leads of all feeds, one feed after the other; NaN where there is no valid sample.

    Returns
    -------
    list of Resampled
    """
    first = feeds[0]
    sizes = [len(feed._held) for feed in feeds]
    held, run = _joined([feed._held for feed in feeds]), _joined([feed._run for feed in feeds])
    filled, runs, resets = _hold(millivolts, held, run, first._fs)
    filtered, zi = _filter(first._sos, filled, resets, _joined([feed._zi for feed in feeds], axis=1))
    if millivolts.shape[1]:
        held, run = filled[:, -1].copy(), runs[:, -1].copy()
    signal_ = np.concatenate([_joined([feed._tail for feed in feeds]), filtered], axis=1)
    signal_runs = np.concatenate([_joined([feed._tail_run for feed in feeds]), runs], axis=1)
    values, missing, keep = _interpolate(signal_, signal_runs, first._ahead, first._step, first._per)
    narrow, seconds = values.astype(np.float32), (missing / first._fs).astype(np.float32)
    # Copies: views would keep the whole stretch alive.
    tail, tail_run = signal_[:, keep:].copy(), signal_runs[:, keep:].copy()

    done, at = [], 0
    for feed, size in zip(feeds, sizes, strict=True):
        rows = slice(at, at + size)
        feed._zi, feed._held, feed._run = zi[:, rows], held[rows], run[rows]
        feed._tail, feed._tail_run = tail[rows], tail_run[rows]
        done.append(Resampled(feed.next_out, narrow[rows], seconds[rows]))
        feed.next_in += millivolts.shape[1]
        feed.next_out += values.shape[1]
        at += size
    return done


def _joined(arrays: list[Float64Array], axis: int = 0) -> Float64Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)


def _hold(
    x: Float64Array, held: Float64Array, run: Float64Array, fs: float
) -> tuple[Float64Array, Float64Array, npt.NDArray[np.bool_] | None]:
    # Per lead: last valid value carried forward, length of the absence up to each sample, and the samples
    # at which the filter starts anew (the first valid one after more than BRIDGE_S without), None for none.
    valid = ~np.isnan(x)
    # A lead that is off stays off for hours: it must not make the others slow.
    gaps = np.flatnonzero(~valid.all(axis=1) | (run != 0))
    runs = np.zeros_like(x)
    if not len(gaps):
        return x, runs, None
    there, position = valid[gaps], np.arange(x.shape[1])
    last_valid = np.maximum.accumulate(np.where(there, position, -1), axis=1)
    since_start = last_valid < 0
    filled = x.copy()
    filled[gaps] = np.where(
        since_start,
        held[gaps, np.newaxis],
        np.take_along_axis(x[gaps], np.maximum(last_valid, 0), axis=1),
    )
    runs[gaps] = np.where(since_start, run[gaps, np.newaxis] + position + 1, position - last_valid)
    before = np.concatenate([run[gaps, np.newaxis], runs[gaps, :-1]], axis=1)
    resets = there & (before / fs > BRIDGE_S)
    if not resets.any():
        return filled, runs, None
    everywhere = np.zeros(x.shape, np.bool_)
    everywhere[gaps] = resets
    return filled, runs, everywhere


def _filter(
    sos: Float64Array, x: Float64Array, resets: npt.NDArray[np.bool_] | None, zi: Float64Array
) -> tuple[Float64Array, Float64Array]:
    # A filter that starts anew starts settled, as if its first value had been there for ever.
    if not x.shape[1]:
        return x, zi
    if resets is None:
        return signal.sosfilt(sos, x, axis=1, zi=zi)
    settled = signal.sosfilt_zi(sos)[:, np.newaxis, :]
    out, zi = np.empty_like(x), zi.copy()
    cuts = np.flatnonzero(resets.any(axis=0))
    edges = [0, *cuts.tolist(), x.shape[1]]
    for begin, end in pairwise(edges):
        if begin == end:
            continue
        fresh = resets[:, begin]
        if fresh.any():
            zi[:, fresh] = settled * x[np.newaxis, fresh, begin, np.newaxis]
        out[:, begin:end], zi = signal.sosfilt(sos, x[:, begin:end], axis=1, zi=zi)
    return out, zi


def _interpolate(
    signal_: Float64Array, runs: Float64Array, ahead: int, step: int, per: int
) -> tuple[Float64Array, Float64Array, int]:
    # Values and run lengths at the grid points that have what they look ahead to, and how many samples
    # no later point needs. The next grid point is `ahead` parts from the first sample, the others follow at
    # `step` parts; `per` parts are a sample.
    on_grid = per == 1
    ready = signal_.shape[1] - (0 if on_grid else Conditioner._AFTER)
    count = max(0, -(-(ready * per - ahead) // step))
    if on_grid:
        values, missing = signal_[:, ahead::step], runs[:, ahead::step]
    else:
        at = ahead + np.arange(count, dtype=np.int64) * step
        base = at // per
        neighbours = base[:, np.newaxis] + np.arange(-Conditioner._BEFORE, Conditioner._AFTER + 1)
        # Where the grid meets a sample, the weights of its neighbours are zero; before the feed's first
        # sample there is none to take, so any will do.
        neighbours = np.maximum(neighbours, 0)
        weights = _lagrange((at % per) / per)
        values = np.einsum("lnk,nk->ln", signal_[:, neighbours], weights)
        missing = np.where(weights != 0, runs[:, neighbours], 0.0).max(axis=2)
    needed = (ahead + count * step) // per - Conditioner._BEFORE
    return values, missing, max(0, min(needed, signal_.shape[1]))


def _lagrange(t: Float64Array) -> Float64Array:
    # Cubic through samples at -1, 0, 1, 2, evaluated at t in [0, 1): Lagrange's weights, shape (n, 4).
    return np.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ],
        axis=1,
    )
