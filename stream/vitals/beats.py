"""Heart beats in any number of leads, found as the signal comes.

Per lead, an analytic filter (a Mexican-hat wavelet and its Hilbert transform) gives the envelope of what
oscillates at about 12 Hz, where QRS complexes differ most from P and T waves. Each lead's envelope is divided
by the level that it usually reaches in a beat, and the leads are joined by their signal-to-noise ratios: the
joined envelope is about 1 in a beat, whatever the leads are. A peak of it that nothing within 200 ms exceeds
is a candidate. High ones are beats, unless they come before their time in a steady rhythm, look like no kind
of beat and leave the rhythm undisturbed; lower ones are beats if one is missing there.

The index of a beat is where its energy is centred, on the grid of conditioned samples. Grid time contains the
conditioner's delay, about 10 ms at 10 Hz (`stream.preprocess.group_delay_ms`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.preprocess import BRIDGE_S
from stream.vitals.grid import BLOCK, FS
from stream.vitals.morphology import Morphology, Shape
from stream.vitals.oscillation import oscillation

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# The wavelet's middle frequency. On MIT-BIH the gap between the lowest beats and the highest T waves is
# widest at 12 Hz, of 8, 10 and 12; above, the conditioner's low-pass and muscle noise set in.
_CENTRE_HZ = 12.0
# Half its length in samples: what lies further out is below a hundredth of its peak.
_REACH = 12
# Two beats are at least this far apart, samples: 300 beats/min.
_REFRACTORY = 20
# A shorter interval, samples, is one of a tachycardia: 100 beats/min.
_FAST = 60
# T waves come within this time after the beat, samples.
_T_WAVE = 36

# Samples kept: 4 s to tell whether there is an oscillation. A pending candidate with its shape needs 2 s.
_HISTORY = 8 * BLOCK
# Blocks that are looked at before the first verdict: one beat and another for 40 beats/min.
_LEARNING = 6
# Beats from whose median the usual level of each lead is taken.
_LEVELS = 8
_LEVELS_LEAST = 3
# Blocks over which a lead's noise is taken.
_NOISE_BLOCKS = 5

# Joined envelope, in parts of the usual beat's, from which a candidate is a beat by itself; and from which
# it is one if a beat is missing.
_CLEAR, _MISSED = 0.4, 0.25
# What looks like no kind of beat and does not stand out has to be this high: below it three of four are
# artefacts on MIT-BIH.
_CLEAR_NEW = 0.5
# A lead counts at most so many times its usual level: an artefact in one lead stays an artefact in one lead.
_CEILING = 3.0
# Largest weight of a lead, as the square of its signal-to-noise ratio.
_WEIGHT_MAX = 400.0
# A lead that for so many blocks has stayed below this part of its level is silent; a lead of this
# signal-to-noise ratio shows beats and not noise.
_SILENT_BLOCKS, _SILENT, _QUIET = 3, 0.15, 3.0
# Below this envelope, mV, nothing is a beat: a QRS complex of 0.1 mV from peak to peak has about 0.04.
_FLOOR_MV = 0.03

# Before this part of the usual interval has passed, a beat of no known kind is not due; unless it is so high.
_DUE, _SURE = 0.85, 2.0
# A beat that comes within this part of the usual interval of its time is punctual.
_PUNCTUAL = 0.15
# A rhythm is steady when so many of the last intervals are the usual one.
_STEADY = 6
# An interval longer than so many usual ones lacks a beat.
_LONG = 1.5
# How long a low candidate waits for a clear beat behind it, samples: with the filter's reach, the refractory
# time and a block the delay is below 1.5 s.
_PATIENCE = 60
# Without a beat for so long (samples) the thresholds come down, with this time constant, to this part.
_CALM, _DECAY, _LOWEST = 150, 100.0, 0.25
# For what looks like no kind of beat, to this part.
_LOWEST_NEW = 0.75
# What is found then looks like a kind of beat, or exceeds the median of the joined envelope so many times.
# Gaussian noise does so 3.5 times.
_OUTSTANDING = 5.0


def _wavelet() -> npt.NDArray[np.complex128]:
    n = 4096
    relative = np.fft.fftfreq(n, 1 / FS) / _CENTRE_HZ
    # The Mexican hat's spectrum, its peak at 1; twice the positive frequencies make it analytic.
    spectrum = np.where(relative > 0, 2 * relative**2 * np.exp(1 - relative**2), 0.0)
    full = np.fft.ifft(spectrum)
    taps = np.concatenate([full[-_REACH:], full[: _REACH + 1]])
    # Cut to its length it would let baseline through.
    return np.asarray(taps - taps.mean())


def _block_filter() -> Float64Array:
    # The wavelet as a matrix that takes the samples of a block, and _REACH on both sides, to real and
    # imaginary parts: shape (BLOCK + 2 _REACH, 2 BLOCK).
    taps = _wavelet()[::-1]
    matrix = np.zeros((BLOCK + 2 * _REACH, 2 * BLOCK))
    for column in range(BLOCK):
        matrix[column : column + len(taps), column] = taps.real
        matrix[column : column + len(taps), BLOCK + column] = taps.imag
    return matrix


_FILTER = _block_filter()


@dataclass(frozen=True, slots=True)
class Beat:
    """One heart beat.

    Attributes
    ----------
    index : int
        Grid sample at which the energy of the QRS complex is centred.
    height : float
        Joined envelope, 1 for the bed's usual beat.
    width_s : float
        Duration of the QRS complex.
    amplitude_mv : float
        Largest deflection from the mean of the surrounding 0.3 s in the best lead, with its sign.
    similarity : float or None
        Correlation with the bed's dominant beat, -1 to 1; None before there is one.
    kind : int
        Number of the kind of beats that it belongs to. Rare kinds are forgotten; numbers do not come again.
    ventricular : bool
        Whether it looks as if it came from the ventricles: unlike the dominant beat, and wide.
    """

    index: int
    height: float
    width_s: float
    amplitude_mv: float
    similarity: float | None
    kind: int
    ventricular: bool


@dataclass(frozen=True, slots=True)
class Beats:
    """What one block of signal brought.

    Attributes
    ----------
    first : int
        Grid index of the block's first sample; the block has `stream.vitals.grid.BLOCK`.
    found : tuple of Beat
        In order, after all that came before; never taken back.
    settled : int
        All beats before this grid index have been given.
    leads : int
        How many leads were there and usable; with none, no beat can be found.
    oscillation : float
        How much the last 4 s of these leads are a wave without beats, 0 to 1; see
        `stream.vitals.oscillation`.
    """

    first: int
    found: tuple[Beat, ...]
    settled: int
    leads: int
    oscillation: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    index: int
    height: float
    # Looks like a kind of beat, or stands out of what surrounds it.
    sure: bool
    shape: Shape
    # High enough for a beat, but before its time and of no known kind.
    doubtful: bool


class BeatDetector:
    """Finds the beats of one bed.

    Parameters
    ----------
    n_leads : int
    first : int
        Grid index of the first sample that `push` will bring. Blocks are anchored at grid index 0: what
        comes before the first whole block is not looked at.

    Notes
    -----
    A beat is final 0.3 to 0.8 s after its R peak, 1.5 s at most; the first beats after 3 s. The result is
    a function of the samples alone, however they are cut.
    """

    def __init__(self, n_leads: int, first: int = 0) -> None:
        self._n = n_leads
        self._next = first
        self._skip = -first % BLOCK
        self._pieces: list[npt.NDArray[np.float32]] = []
        self._pieces_missing: list[npt.NDArray[np.float32]] = []
        self._waiting = 0

        # Everything below is indexed alike: the last column is the newest sample of the last whole block.
        self._stop = first + self._skip
        self._x = np.zeros((n_leads, _HISTORY))
        self._gone = np.ones((n_leads, _HISTORY), np.bool_)
        self._envelope = np.zeros((n_leads, _HISTORY))
        self._joined = np.zeros(_HISTORY)

        self._noise: deque[Float64Array] = deque(maxlen=_NOISE_BLOCKS)
        self._peaks: deque[Float64Array] = deque(maxlen=_LEARNING)
        self._levels: deque[Float64Array] = deque(maxlen=_LEVELS)
        self._level = np.full(n_leads, np.nan)
        self._learned = False
        self._usable = np.ones(n_leads, np.bool_)
        self._weight = np.zeros(n_leads)

        self._pending: list[_Candidate] = []
        self._decided = self._stop
        self._last: tuple[int, float] | None = None
        self._intervals: deque[int] = deque(maxlen=_LEVELS)
        self._morphology = Morphology()

    @property
    def next(self) -> int:
        """Grid index of the sample that `push` expects next."""
        return self._next

    def push(
        self,
        first: int,
        values: npt.NDArray[np.float32],
        missing: npt.NDArray[np.float32],
        usable: BoolArray,
    ) -> list[Beats]:
        """Take the next samples and return what the blocks that they complete bring.

        Parameters
        ----------
        first : int
            Grid index of the first sample; must be `next`.
        values, missing : numpy.ndarray of float32, shape (leads, n)
            As in `stream.preprocess.Resampled`.
        usable : numpy.ndarray of bool, shape (leads,)
            Which leads may be used. Counts for whole blocks, and for each the one given with its last sample.

        Returns
        -------
        list of Beats
            One for each block that is complete.

        Raises
        ------
        ValueError
            If samples do not follow those before.
        """
        if first != self._next:
            raise ValueError(f"sample {self._next} is next, not {first}")
        n = values.shape[1]
        self._next += n
        dropped = min(self._skip, n)
        self._skip -= dropped
        self._pieces.append(values[:, dropped:])
        self._pieces_missing.append(missing[:, dropped:])
        self._waiting += n - dropped
        if self._waiting < BLOCK:
            return []
        x = np.concatenate(self._pieces, axis=1)
        gaps = np.concatenate(self._pieces_missing, axis=1)
        whole = self._waiting // BLOCK * BLOCK
        self._pieces, self._pieces_missing = [x[:, whole:].copy()], [gaps[:, whole:].copy()]
        self._waiting -= whole
        return [
            self._block(x[:, at : at + BLOCK], gaps[:, at : at + BLOCK], usable)
            for at in range(0, whole, BLOCK)
        ]

    def _block(
        self, x: npt.NDArray[np.float32], missing: npt.NDArray[np.float32], usable: BoolArray
    ) -> Beats:
        self._append(x, missing)
        present = usable & ~self._gone[:, -BLOCK:].all(axis=1)
        self._usable = present
        found: list[Beat] = []
        if self._learned or self._learn():
            self._join()
            self._decide(found)
        return Beats(
            first=self._stop - BLOCK,
            found=tuple(found),
            settled=min([self._decided, *(candidate.index for candidate in self._pending[:1])]),
            leads=int(np.count_nonzero(present)),
            oscillation=self._oscillation(present),
        )

    def _append(self, x: npt.NDArray[np.float32], missing: npt.NDArray[np.float32]) -> None:
        # The newest envelope belongs _REACH samples before the newest sample.
        for ring in (self._x, self._gone, self._envelope):
            ring[:, :-BLOCK] = ring[:, BLOCK:]
        self._joined[:-BLOCK] = self._joined[BLOCK:]
        self._stop += BLOCK
        self._x[:, -BLOCK:] = x
        self._gone[:, -BLOCK:] = missing > BRIDGE_S
        parts = self._x[:, -BLOCK - 2 * _REACH :] @ _FILTER
        envelope = np.hypot(parts[:, :BLOCK], parts[:, BLOCK:])
        gone = self._gone[:, -BLOCK - 2 * _REACH :]
        if gone.any():
            # A gap, and the jump at its end, reach as far as the filter.
            reached = np.lib.stride_tricks.sliding_window_view(gone, 2 * _REACH + 1, axis=1).any(axis=2)
            envelope[reached] = 0.0
        self._envelope[:, -BLOCK:] = envelope
        self._noise.append(np.partition(envelope, BLOCK // 2, axis=1)[:, BLOCK // 2])
        self._peaks.append(envelope.max(axis=1))

    def _learn(self) -> bool:
        # Levels of the leads from the first blocks, without knowing where the beats are: the second highest
        # block, so that one artefact does no harm.
        self._decided = max(self._decided, self._stop - _LEARNING * BLOCK)
        if len(self._peaks) < _LEARNING:
            return False
        level = np.sort(np.stack(self._peaks), axis=0)[-2]
        good = self._usable & (level >= _FLOOR_MV)
        if not good.any():
            return False
        self._level = np.where(good, level, np.nan)
        self._levels.clear()
        self._levels.extend([self._level] * _LEVELS_LEAST)
        self._learned = True
        self._join(_LEARNING)
        return True

    def _join(self, blocks: int = 1) -> None:
        # The joined envelope of the newest blocks.
        noise = np.sort(np.stack(self._noise), axis=0)[len(self._noise) // 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.minimum((self._level / noise) ** 2, _WEIGHT_MAX)
        weight[~(self._usable & (self._level >= _FLOOR_MV))] = 0.0
        self._leave_out_silent(weight, noise)
        self._weight = weight
        newest = slice(-blocks * BLOCK, None)
        envelope = self._envelope[:, newest]
        relative = envelope / np.where(weight > 0, self._level, 1.0)[:, np.newaxis]
        # Where a lead is gone its envelope is exactly 0, and it does not count.
        total = weight @ (envelope > 0)
        power = weight @ np.minimum(relative, _CEILING) ** 2
        self._joined[newest] = np.sqrt(power / np.where(total > 0, total, 1.0))

    def _leave_out_silent(self, weight: Float64Array, noise: Float64Array) -> None:
        # A lead that has come off may just be flat. Where another one, and no noisy one, goes on, it does not
        # count; where none does, there are no beats.
        recent = np.stack(self._peaks)[-_SILENT_BLOCKS:].max(axis=0)
        silent = recent < _SILENT * self._level
        lively = (weight > 0) & (recent >= _CLEAR * self._level) & (self._level >= _QUIET * noise)
        if lively.any():
            weight[silent] = 0.0

    def _decide(self, found: list[Beat]) -> None:
        joined, offset = self._joined, self._stop - _HISTORY - _REACH
        # Columns of joined: what has the refractory time behind it can be judged.
        begin = max(self._decided - offset, 2 * _REFRACTORY)
        end = _HISTORY - _REFRACTORY
        calm = float(np.partition(joined[-4 * BLOCK :], 2 * BLOCK)[2 * BLOCK])
        inner = joined[begin:end]
        peaks = np.flatnonzero(
            (inner > joined[begin - 1 : end - 1])
            & (inner >= joined[begin + 1 : end + 1])
            & (inner >= _MISSED * _LOWEST)
        )
        for column in (peaks + begin).tolist():
            height = float(joined[column])
            if height < joined[column - _REFRACTORY : column + _REFRACTORY + 1].max():
                continue
            index = column + offset
            self._expire(index, found)
            self._judge(index, height, height >= _OUTSTANDING * calm, found)
        self._decided = end + offset
        self._expire(self._decided, found)

    def _scale(self, index: int) -> float:
        # What thresholds are multiplied with: 1, less when there has been no beat for long.
        since = index - self._last[0] if self._last else index - self._decided
        quiet = since - max(_CALM, _LONG * self._interval())
        return max(_LOWEST, float(np.exp(-quiet / _DECAY))) if quiet > 0 else 1.0

    def _interval(self) -> float:
        # The usual one, samples.
        if not self._intervals:
            return float(FS)
        ordered = sorted(self._intervals)
        return float(ordered[len(ordered) // 2])

    def _steady(self) -> bool:
        # Whether the rhythm is so regular that the next beat can be told.
        usual = self._interval()
        near = sum(abs(interval - usual) <= _PUNCTUAL * usual for interval in self._intervals)
        return near >= _STEADY

    def _judge(self, index: int, height: float, outstanding: bool, found: list[Beat]) -> None:
        since = index - self._last[0] if self._last else _HISTORY
        scale = self._scale(index)
        if since < _REFRACTORY or height < _MISSED * scale:
            return
        shape = self._morphology.measure(self._x, index - (self._stop - _HISTORY), self._level, self._weight)
        missed, needed = _MISSED * scale, _CLEAR * scale
        if shape.kind is None:
            # What is low and looks new is a P wave or an artefact rather than a beat.
            missed = _CLEAR * _LOWEST_NEW
            needed = (_CLEAR if outstanding else _CLEAR_NEW) * max(scale, _LOWEST_NEW)
        if height < missed:
            return
        sure = outstanding or shape.kind is not None
        clear = height >= needed and (scale == 1.0 or sure)
        if self._last is not None and since < _T_WAVE and height < _CLEAR * self._last[1]:
            clear = False
        doubtful = (
            clear
            and shape.kind is None
            and since < _DUE * self._interval()
            and height < _SURE
            and self._steady()
        )
        candidate = _Candidate(index, height, sure, shape, doubtful)
        if clear and not doubtful:
            self._search_back(index, found)
            self._pending.clear()
            self._accept(candidate, found)
        else:
            self._pending.append(candidate)

    def _search_back(self, clear: int, found: list[Beat]) -> None:
        # Beats among the pending candidates before a clear beat: doubtful ones unless the clear beat comes
        # when it had to come without them, the highest of the others where the interval is too long.
        while self._last is not None and self._pending:
            before, usual = self._last[0], self._interval()
            interval = clear - before
            able = [
                candidate
                for candidate in self._pending
                if candidate.index - before >= (_REFRACTORY if candidate.doubtful else _T_WAVE)
                and clear - candidate.index >= _REFRACTORY
            ]
            doubtful = [candidate for candidate in able if candidate.doubtful]
            if doubtful and abs(interval - usual) > _PUNCTUAL * usual:
                best = doubtful[0]
            elif able and interval >= _LONG * usual:
                best = max(able, key=lambda candidate: candidate.height)
            else:
                return
            self._pending = [candidate for candidate in self._pending if candidate.index > best.index]
            self._accept(best, found)

    def _expire(self, now: int, found: list[Beat]) -> None:
        # Candidates that have waited long enough.
        while self._pending and now - self._pending[0].index >= _PATIENCE:
            oldest = self._pending.pop(0)
            since = oldest.index - self._last[0] if self._last else _HISTORY
            # No beat came when it was due; what stands in its place is one, such as an ectopic beat before a
            # compensatory pause. A low candidate needs a longer silence.
            late = 1 + _PUNCTUAL if oldest.height >= _CLEAR and self._steady() else _LONG
            missed = since + _PATIENCE >= late * self._interval() and since >= _T_WAVE and oldest.sure
            if since >= _REFRACTORY and (oldest.doubtful or missed):
                self._accept(oldest, found)

    def _accept(self, candidate: _Candidate, found: list[Beat]) -> None:
        index = candidate.index
        fast = self._last is not None and index - self._last[0] < _FAST
        if self._last is not None:
            self._intervals.append(index - self._last[0])
        self._last = index, candidate.height
        column = index - (self._stop - _HISTORY)
        around = self._envelope[:, column + _REACH - 6 : column + _REACH + 7]
        peak = around.max(axis=1)
        peak[around.min(axis=1) == 0.0] = np.nan
        if candidate.height < _CLEAR * 0.75:
            # Found with lowered thresholds: the levels of before are no longer those of this signal.
            self._levels.clear()
        self._levels.append(peak)
        self._update_level()
        found.append(_beat(candidate, self._morphology.count(candidate.shape, fast=fast)))

    def _update_level(self) -> None:
        # The median of what is known; the sort puts NaN last.
        levels = np.sort(np.stack(self._levels), axis=0)
        known = len(levels) - np.count_nonzero(np.isnan(levels), axis=0)
        middle = levels[np.maximum(known - 1, 0) // 2, np.arange(self._n)]
        self._level = np.where(known > 0, middle, self._level)

    def _oscillation(self, present: BoolArray) -> float:
        whole = present & ~self._gone.any(axis=1)
        return oscillation(self._x if whole.all() else self._x[whole])


def _beat(candidate: _Candidate, kind: int) -> Beat:
    shape = candidate.shape
    return Beat(
        index=candidate.index,
        height=candidate.height,
        width_s=shape.width_s,
        amplitude_mv=shape.amplitude_mv,
        similarity=shape.similarity,
        kind=kind,
        ventricular=shape.ventricular,
    )
