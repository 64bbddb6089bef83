"""Signal quality of each lead in each second, from the samples as they come from the source.

Measured before any filter, because what a filter takes away (the mains, the baseline, what lies above 50 Hz)
is what tells a bad electrode from a good one. Seconds are anchored at sample 0 of the session, so that the
result does not depend on how the feed is cut.

What is measured, and how much of it halves the index of a lead:

``gap``
    Share of samples that are missing in all leads at once, 0.3.
``off``
    Share of samples that are missing in this lead alone, 0.3; or the source says so.
``flat``
    Peak to peak below 10 µV, in this second and in the one before.
``saturated``
    Share of samples at the highest or the lowest value, 0.1, if more than 4 mV lie between the two; or the
    source says so.
``baseline``
    Change of the mean from the second before, 1 mV.
``powerline``
    Amplitude of 50 or 60 Hz, 0.5 mV.
``noise``
    What is left above some 25 Hz between the QRS complexes, as a share of the lead's peak to peak, 0.08.
``motion``
    How many times its usual extent a lead swings in the ECG's own band, beside what the other leads do, 5: an
    electrode that moves changes some leads, a heart that changes its rhythm all of them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stream.contract import Validity
from stream.vitals.medians import lower_median
from stream.vitals.memory import Arrays

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Issue(StrEnum):
    """What is wrong with a lead."""

    GAP = "gap"
    OFF = "off"
    FLAT = "flat"
    SATURATED = "saturated"
    BASELINE = "baseline"
    POWERLINE = "powerline"
    NOISE = "noise"
    MOTION = "motion"


LEAD_OFF = frozenset({Issue.OFF, Issue.FLAT, Issue.SATURATED})
"""With one of these a lead carries nothing; with ``gap`` nothing has come of any lead."""

_AT_NOISE = list(Issue).index(Issue.NOISE)
# Issues of a signal that is there, by their place. Not motion: the model's alarm rule outlasts a movement,
# and what one lead alone does may be what the model is there to see.
_SIGNAL = [
    place
    for place, issue in enumerate(Issue)
    if issue not in (Issue.GAP, Issue.OFF, Issue.FLAT, Issue.MOTION)
]

# A front end alone makes more noise than this: what is flatter is no electrode on a skin.
_FLAT_MV = 0.01
# Monitors' inputs reach 5 mV and more to either side: a plateau within a smaller range is no rail.
_RAIL_MV = 4.0
# Above what these bounds say of the electrode, the band-pass behind them still removes nearly all of it.
_BASELINE_MV, _POWERLINE_MV = 1.0, 0.5
_MISSING, _PLATEAU = 0.3, 0.1
# White noise alone has a sixth; clean leads have a hundredth. The beat detector, which listens around 12 Hz,
# is less disturbed by what lies above: of 0.08, 0.16, 0.24 and no bound at all, the second finds nearly all
# beats in muscle noise of 6 dB and invents few in noise of 0 dB (MIT-BIH records of train and val).
_NOISE, _NOISE_OF_BEATS = 0.08, 0.16
# Below this noise nothing is doubtful, however small the lead.
_QUIET_MV = 0.02
# Half the distance over which curvature is taken: it passes what lies above some 25 Hz and of a wide complex,
# up to 15 Hz, a tenth.
_CURVATURE_S = 0.005
# The same for swings: it passes what lies between some 3 and 17 Hz; samples that are taken of it, Hz.
_SWING_S, _SWING_HZ = 0.05, 125.0
# Of fewer leads there is no telling which one is unlike the others: where a ventricular beat turns the axis
# of the heart, one of two leads may swing ten times as much as before, and the other less.
_MOTION, _MOTION_LEADS = 5.0, 4
# What a lead usually does is the median of so many seconds, of so many at least. Those in which it moved do
# not count, unless it has done so for this long: then that is what it does.
_PAST_S, _PAST_LEAST, _MOVED_S = 8, 3, 30
# 1.4826 median absolute values are a standard deviation (of Gaussian noise).
_SIGMA = 1.4826
# An issue is named from here on. Of the index with `_NOISE_OF_BEATS`, an unusable lead is one below, and it
# has to be above the last for two seconds before it is usable again.
_NAMED, _USABLE, _AGAIN, _AGAIN_S = 0.6, 0.4, 0.6, 2
# What was known after each of so many seconds is kept. The next block of signal may still take its quality
# from the second before the last: who goes on from here has to judge both again.
_REMEMBERED = 3
# A longer hole is not filled with missing seconds: the feed begins anew behind it.
_HOLE_S = 30


@dataclass(frozen=True, slots=True)
class SecondQuality:
    """One second of one feed.

    Attributes
    ----------
    second : int
        Number since the start of the session.
    start, end : int
        Source samples that it covers, end exclusive.
    index : numpy.ndarray of float64, shape (leads,)
        1 good, 0 useless.
    issues : tuple of frozenset of Issue
        By lead.
    usable : numpy.ndarray of bool, shape (leads,)
        Whether beats should be looked for in a lead: with hysteresis, so that it does not flutter.
    noisy : numpy.ndarray of bool, shape (leads,)
        Whether there is a signal in this second, and it is too poor.
    """

    second: int
    start: int
    end: int
    index: Float64Array
    issues: tuple[frozenset[Issue], ...]
    usable: BoolArray
    noisy: BoolArray

    @property
    def flat_lines(self) -> BoolArray:
        """Leads that are flat and nothing else; none if there is any that is neither flat nor off."""
        flat = np.array([issues == {Issue.FLAT} for issues in self.issues])
        off = np.array([Issue.OFF in issues for issues in self.issues])
        return flat if (flat | off).all() else np.zeros_like(flat)

    def index_of(self, leads: Sequence[str]) -> dict[str, float]:
        """Return the index by lead, as fine as anybody needs it."""
        return {lead: round(float(value), 2) for lead, value in zip(leads, self.index, strict=True)}

    def issues_of(self, leads: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the issues of the leads that have any."""
        return {
            lead: tuple(sorted(issues)) for lead, issues in zip(leads, self.issues, strict=True) if issues
        }


@dataclass(frozen=True, slots=True)
class _Second:
    # Samples of a whole second, shape (leads, n), and what the source says of each lead.
    second: int
    start: int
    x: Float64Array
    off: BoolArray
    saturated: BoolArray


@dataclass(frozen=True, slots=True)
class _Measures:
    # Of the leads of several seconds; each of shape (seconds, leads).
    gap: Float64Array
    missing: Float64Array
    range_mv: Float64Array
    plateau: Float64Array
    mean_mv: Float64Array
    powerline_mv: Float64Array
    noise_mv: Float64Array
    swing_mv: Float64Array


class QualityMeter:
    """Signal quality of one session of one bed.

    Parameters
    ----------
    n_leads : int
    fs : float
        Sampling frequency, Hz.
    start : int
        Index of the first sample that will come.
    """

    def __init__(self, n_leads: int, fs: float, start: int = 0) -> None:
        self.fs = fs
        self.n_leads = n_leads
        self._ok = (Validity.OK,) * n_leads
        self._recalled: tuple[int, Float64Array] | None = None
        self._restart(start)

    def _restart(self, start: int) -> None:
        self._second = int(start // self.fs)
        if self._begin(self._second + 1) <= start:
            # A rate that is no whole number.
            self._second += 1
        self._pieces: list[Float64Array] = []
        self._have = start
        """Sample after the last one that has been taken."""
        self._from = start
        self._off = np.zeros(self.n_leads, np.bool_)
        self._saturated = np.zeros(self.n_leads, np.bool_)
        self._mean_mv = np.full(self.n_leads, np.nan)
        self._flat = np.zeros(self.n_leads, np.bool_)
        self._usable = np.ones(self.n_leads, np.bool_)
        self._good = np.full(self.n_leads, _AGAIN_S)
        # Swings of the last seconds, in no order, and for how many seconds each lead has moved.
        self._past = np.full((_PAST_S, self.n_leads), np.nan)
        self._moved = np.zeros(self.n_leads, np.intp)
        self._known: deque[tuple[int, Float64Array]] = deque(maxlen=_REMEMBERED)

    def remember(self) -> Arrays | None:
        """Return the state a moment ago, None if there was none."""
        if len(self._known) < _REMEMBERED:
            return None
        second, known = self._known[0]
        return {"quality": known, "second": np.array([second])}

    def recall(self, state: Arrays) -> None:
        """Take the state that another one had, once the signal has come up to there."""
        self._recalled = int(state["second"][0]), state["quality"]

    def _note(self, second: int) -> None:
        known = [self._mean_mv, self._flat, self._usable, self._good, self._moved, *self._past]
        self._known.append((second, np.array(known)))

    def _go_on(self, second: int) -> None:
        # Before a second is judged: from what is recalled, if that was so far.
        if self._recalled is None or second <= self._recalled[0]:
            return
        (before, known), self._recalled = self._recalled, None
        if second == before + 1:
            self._mean_mv, flat, usable, good, moved, *past = known
            self._flat, self._usable = flat.astype(np.bool_), usable.astype(np.bool_)
            self._good, self._moved = good.astype(np.intp), moved.astype(np.intp)
            self._past = np.array(past)

    @property
    def second_end(self) -> int:
        """Sample after the last one of the second that is under way."""
        return self._begin(self._second + 1)

    def _begin(self, second: int) -> int:
        return int(-(-second * self.fs // 1))

    def push(
        self, n0: int, millivolts: Float64Array, valid: Sequence[Validity] | None = None
    ) -> list[SecondQuality]:
        """Take samples and return the seconds that they complete.

        Parameters
        ----------
        n0 : int
            Index of the first sample; a hole before it counts as missing.
        millivolts : numpy.ndarray of float64, shape (n, leads)
            NaN where there is no valid sample.
        valid : sequence of Validity, optional
            What the source says of each lead.
        """
        return measure_together([(self, n0, millivolts, valid)])[0]

    def _take(self, n0: int, millivolts: Float64Array, valid: Sequence[Validity] | None) -> list[_Second]:
        if n0 - self._have > _HOLE_S * self.fs:
            self._restart(n0)
        seconds: list[_Second] = []
        if n0 > self._have:
            seconds += self._cut(np.full((n0 - self._have, self.n_leads), np.nan), None)
        return seconds + self._cut(millivolts[max(0, self._have - n0) :], valid)

    def _cut(self, x: Float64Array, valid: Sequence[Validity] | None) -> list[_Second]:
        seconds: list[_Second] = []
        while len(x):
            end = self.second_end
            piece, x = x[: end - self._have], x[end - self._have :]
            if valid is not None and valid != self._ok:
                self._off |= [flag is Validity.OFF for flag in valid]
                self._saturated |= [flag is Validity.SATURATED for flag in valid]
            self._pieces.append(piece)
            self._have += len(piece)
            if self._have < end:
                break
            whole = np.concatenate(self._pieces).T
            start = self._begin(self._second)
            if whole.shape[1] == end - start:
                # The first second of a feed that began in the middle of one is left out.
                seconds.append(_Second(self._second, start, whole, self._off.copy(), self._saturated.copy()))
            self._pieces = []
            self._off[:], self._saturated[:] = False, False
            self._second += 1
        return seconds


def measure_together(
    pushes: Sequence[tuple[QualityMeter, int, Float64Array, Sequence[Validity] | None]],
) -> list[list[SecondQuality]]:
    """Take samples of many beds at once.

    Parameters
    ----------
    pushes : sequence of tuple
        Of different beds: meter, and what its `QualityMeter.push` takes.

    Returns
    -------
    list of list of SecondQuality
        For each what `push` would return, to the last bit.
    """
    taken = [meter._take(n0, x, valid) for meter, n0, x, valid in pushes]
    rated: list[list[SecondQuality]] = [[] for _ in pushes]
    for turn in range(max(map(len, taken), default=0)):
        alike: defaultdict[tuple[float, int, int], list[int]] = defaultdict(list)
        for place, seconds in enumerate(taken):
            if turn < len(seconds):
                alike[pushes[place][0].fs, *seconds[turn].x.shape].append(place)
        for places in alike.values():
            meters, seconds = [pushes[place][0] for place in places], [taken[place][turn] for place in places]
            for place, second in zip(places, _judge(meters, seconds), strict=True):
                rated[place].append(second)
    return rated


def _judge(meters: Sequence[QualityMeter], seconds: Sequence[_Second]) -> list[SecondQuality]:
    # The next second of each of several beds, of the same shape.
    for meter, second in zip(meters, seconds, strict=True):
        meter._go_on(second.second)
    measured = _measure(np.stack([second.x for second in seconds]), meters[0].fs)
    absent = measured.gap + measured.missing > _MISSING
    # The mean of few samples says nothing of the baseline.
    mean_mv = np.where(absent, np.nan, measured.mean_mv)
    step = np.abs(mean_mv - np.array([meter._mean_mv for meter in meters]))
    flat = (measured.range_mv < _FLAT_MV) & ~absent
    was_flat = np.array([meter._flat for meter in meters])
    noise = np.where(
        measured.noise_mv < _QUIET_MV, 0.0, measured.noise_mv / np.maximum(measured.range_mv, _FLAT_MV)
    )
    motion = _motion(meters, seconds, np.where(absent | flat, np.nan, measured.swing_mv))
    off = np.array([second.off for second in seconds])
    saturated = np.array([second.saturated for second in seconds])
    # How much of what makes a lead doubtful there is of each issue; in the order of `Issue`.
    shares = np.stack(
        [
            measured.gap / _MISSING,
            np.where(off, np.inf, measured.missing / _MISSING),
            np.where(flat & was_flat, np.inf, 0.0),
            np.where(saturated, np.inf, measured.plateau / _PLATEAU),
            np.nan_to_num(step / _BASELINE_MV),
            measured.powerline_mv / _POWERLINE_MV,
            noise / _NOISE,
            # As much as usual is no motion.
            np.maximum(motion - 1, 0) / (_MOTION - 1),
        ]
    )
    each = 1 / (1 + np.square(shares))
    index = each.prod(axis=0)
    noisy = each[_SIGNAL].prod(axis=0) < _USABLE
    named = each < _NAMED
    some_named = named.any(axis=(0, 2)).tolist()
    of_beats = index / each[_AT_NOISE] / (1 + np.square(noise / _NOISE_OF_BEATS))
    good = np.where(of_beats >= _AGAIN, np.array([meter._good for meter in meters]) + 1, 0)
    was_usable = np.array([meter._usable for meter in meters])
    usable = np.where(was_usable, of_beats >= _USABLE, good >= _AGAIN_S)
    rated = []
    for place, (meter, second) in enumerate(zip(meters, seconds, strict=True)):
        meter._mean_mv, meter._flat = mean_mv[place], flat[place]
        meter._good, meter._usable = good[place], usable[place]
        meter._note(second.second)
        issues = (frozenset[Issue](),) * meter.n_leads
        if some_named[place]:
            issues = tuple(
                frozenset(issue for issue, there in zip(Issue, of_lead, strict=True) if there)
                for of_lead in named[:, place].T.tolist()
            )
        end = second.start + second.x.shape[1]
        rated.append(
            SecondQuality(second.second, second.start, end, index[place], issues, meter._usable, noisy[place])
        )
    return rated


def _motion(
    meters: Sequence[QualityMeter], seconds: Sequence[_Second], swing_mv: Float64Array
) -> Float64Array:
    # How many times its usual extent each lead swings, beside the median of the others. It is noted. NaN is a
    # lead without a signal.
    if swing_mv.shape[1] < _MOTION_LEADS:
        return np.zeros(swing_mv.shape)
    usual = lower_median(np.array([meter._past for meter in meters]), least=_PAST_LEAST)
    times = swing_mv / usual
    order = np.argsort(times, axis=1)
    rank = np.argsort(order, axis=1)
    known = (~np.isnan(times)).sum(axis=1, keepdims=True)
    # Without itself; the lower one of two in the middle.
    middle = np.maximum(known - 2, 0) // 2
    others = np.take_along_axis(np.take_along_axis(times, order, axis=1), middle + (rank <= middle), axis=1)
    motion = np.where((known >= _MOTION_LEADS) & (swing_mv >= _QUIET_MV), times / others, 0.0)
    motion = np.nan_to_num(motion)
    moved = motion >= _MOTION
    for_s = np.where(moved, np.array([meter._moved for meter in meters]) + 1, 0)
    noted = np.where(~moved | (for_s > _MOVED_S), swing_mv, usual)
    for place, (meter, second) in enumerate(zip(meters, seconds, strict=True)):
        meter._moved = for_s[place]
        meter._past[second.second % _PAST_S] = noted[place]
    return motion


def _measure(x: Float64Array, fs: float) -> _Measures:
    # x: shape (seconds, leads, n); every number is computed from its own lead's samples alone.
    n = x.shape[2]
    mean = x.sum(axis=2) / n
    gap, missing = np.zeros(mean.shape), np.zeros(mean.shape)
    if np.isnan(mean).any():
        absent = np.isnan(x)
        x = np.where(absent, 0.0, x)
        mean = x.sum(axis=2) / np.maximum(n - absent.sum(axis=2), 1)
        x = np.where(absent, mean[:, :, np.newaxis], x)
        gap += absent.all(axis=1).sum(axis=1)[:, np.newaxis] / n
        missing = absent.sum(axis=2) / n - gap
    # The mean is taken off in double precision; what is left of an ECG needs no more than single.
    around = np.empty(x.shape, np.float32)
    np.subtract(x, mean[:, :, np.newaxis], out=around, casting="same_kind")
    high, low = around.max(axis=2), around.min(axis=2)
    ranges = (high - low).astype(np.float64)
    plateau = np.zeros(mean.shape)
    if (ranges > _RAIL_MV).any():
        at_rail = np.maximum(
            (around >= high[:, :, np.newaxis]).sum(axis=2), (around <= low[:, :, np.newaxis]).sum(axis=2)
        )
        plateau = np.where(ranges > _RAIL_MV, at_rail / n, 0.0)
    powerline = np.zeros(mean.shape)
    mains = _mains(fs, n)
    if len(mains):
        parts = around @ mains.T * np.float32(2 / n)
        powerline = np.hypot(parts[:, :, ::2], parts[:, :, 1::2]).max(axis=2).astype(np.float64)
        around -= parts @ mains
    noise = _SIGMA * _curvature(around, max(1, round(_CURVATURE_S * fs)))
    every = max(1, round(fs / _SWING_HZ))
    swing = _curvature(around[:, :, ::every], max(1, round(_SWING_S * fs / every)))
    return _Measures(gap, missing, ranges, plateau, mean, powerline, noise, swing)


def _curvature(x: Float32Array, lag: int) -> Float64Array:
    # Median distance of the samples from the middle of those so far before and behind them.
    if x.shape[2] <= 2 * lag:
        return np.zeros(x.shape[:2])
    distance = x[:, :, : -2 * lag] + x[:, :, 2 * lag :]
    distance *= np.float32(-0.5)
    distance += x[:, :, lag:-lag]
    np.abs(distance, out=distance)
    middle = distance.shape[2] // 2
    distance.partition(middle, axis=2)
    return distance[:, :, middle].astype(np.float64)


@lru_cache(maxsize=64)
def _mains(fs: float, n: int) -> Float32Array:
    # Cosine and sine of each mains frequency, shape (0, 2 or 4, n). A source of less than 125 Hz does not
    # show its mains as such.
    t = 2 * np.pi * np.arange(n) / fs
    waves = [wave(hz * t) for hz in (50.0, 60.0) if hz < 0.48 * fs for wave in (np.cos, np.sin)]
    return np.asarray(waves, np.float32).reshape(len(waves), n)
