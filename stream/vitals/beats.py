"""Heart beats in any number of leads, found as the signal comes.

A peak of the joined envelope (`stream.vitals.envelope`) that nothing within 200 ms exceeds is a candidate.
High ones are beats, unless they come before their time in a steady rhythm, look like no kind of beat and
leave the rhythm undisturbed; lower ones are beats if one is missing there.

The index of a beat is where its energy is centred, on the grid of conditioned samples. Grid time contains the
conditioner's delay, about 10 ms at 10 Hz (`stream.preprocess.group_delay_ms`).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.vitals.envelope import (
    CLEAR,
    HISTORY,
    LEARNING,
    REACH,
    REFRACTORY,
    Envelope,
    hear_together,
    peaks_together,
    sums_together,
)
from stream.vitals.grid import BLOCK, FS
from stream.vitals.memory import Arrays, optional, whole
from stream.vitals.morphology import Morphology, Shape
from stream.vitals.oscillation import may_oscillate, oscillation

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# A shorter interval, samples, is one of a tachycardia: 100 beats/min.
_FAST = 60
# T waves come within this time after the beat, samples.
_T_WAVE = 36

# Joined envelope, in parts of the usual beat's, from which a candidate is a beat if one is missing.
_MISSED = 0.25
# What looks like no kind of beat and does not stand out has to be this high: below it three of four are
# artefacts on MIT-BIH.
_CLEAR_NEW = 0.5
# Before this part of the usual interval has passed, a beat of no known kind is not due; unless it is so high.
_DUE, _SURE = 0.85, 2.0
# A beat that comes within this part of the usual interval of its time is punctual.
_PUNCTUAL = 0.15
# Of so many last intervals the usual one is the median; a rhythm is steady when so many of them are alike.
_INTERVALS, _STEADY = 8, 6
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

# Beds whose blocks, in some float32 arrays, fit a core's second cache together.
_TOGETHER = 8


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


@dataclass(frozen=True, slots=True)
class Heard:
    """One block of signal on its way into the detector of its bed.

    Attributes
    ----------
    detector : BeatDetector
    x, missing : numpy.ndarray of float32, shape (leads, `stream.vitals.grid.BLOCK`)
    usable : numpy.ndarray of bool, shape (leads,)
        Which leads may be used.
    """

    detector: BeatDetector
    x: Float32Array
    missing: Float32Array
    usable: BoolArray


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
        self.next = first
        """Grid index of the sample that `push` expects next."""
        self._skip = -first % BLOCK
        self._filling = np.empty((2, n_leads, BLOCK), np.float32)
        self._filled = 0
        self._envelope = Envelope(n_leads, first + self._skip)
        self._pending: list[_Candidate] = []
        self._decided = first + self._skip
        self._last: tuple[int, float] | None = None
        self._intervals: deque[int] = deque(maxlen=_INTERVALS)
        self._morphology = Morphology()

    def push(self, first: int, values: Float32Array, missing: Float32Array, usable: BoolArray) -> list[Beats]:
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
        blocks = self.take(first, values, missing)
        return [find_together([Heard(self, *block, usable)])[0] for block in blocks]

    def take(
        self, first: int, values: Float32Array, missing: Float32Array
    ) -> list[tuple[Float32Array, Float32Array]]:
        """Take samples as `push` does, and return the blocks that they complete, for `find_together`."""
        if first != self.next:
            raise ValueError(f"sample {self.next} is next, not {first}")
        n = values.shape[1]
        self.next += n
        at = min(self._skip, n)
        self._skip -= at
        blocks: list[tuple[Float32Array, Float32Array]] = []
        while at < n:
            some = min(n - at, BLOCK - self._filled)
            self._filling[0, :, self._filled : self._filled + some] = values[:, at : at + some]
            self._filling[1, :, self._filled : self._filled + some] = missing[:, at : at + some]
            at += some
            self._filled += some
            if self._filled == BLOCK:
                blocks.append((self._filling[0], self._filling[1]))
                self._filling, self._filled = np.empty_like(self._filling), 0
        return blocks

    @property
    def _first_column(self) -> int:
        # Of the joined envelope: the first that has not been judged yet.
        return max(self._decided - (self._envelope.stop - HISTORY - REACH), 2 * REFRACTORY)

    def _decide(self, peaks: Sequence[tuple[int, float, float]]) -> tuple[Beat, ...]:
        # Peaks are column, height, and how far they stand out.
        found: list[Beat] = []
        offset = self._envelope.stop - HISTORY - REACH
        for column, height, outstanding in peaks:
            index = column + offset
            self._expire(index, found)
            self._judge(index, height, outstanding >= _OUTSTANDING, found)
        # What has the refractory time behind it has been judged.
        self._decided = HISTORY - REFRACTORY + offset
        self._expire(self._decided, found)
        return tuple(found)

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
        since = index - self._last[0] if self._last else HISTORY
        scale = self._scale(index)
        if since < REFRACTORY or height < _MISSED * scale:
            return
        envelope = self._envelope
        column = index - (envelope.stop - HISTORY)
        shape = self._morphology.measure(envelope.x, column, envelope.scale)
        missed, needed = _MISSED * scale, CLEAR * scale
        if shape.kind is None:
            # What is low and looks new is a P wave or an artefact rather than a beat.
            missed = CLEAR * _LOWEST_NEW
            needed = (CLEAR if outstanding else _CLEAR_NEW) * max(scale, _LOWEST_NEW)
        if height < missed:
            return
        sure = outstanding or shape.kind is not None
        clear = height >= needed and (scale == 1.0 or sure)
        if self._last is not None and since < _T_WAVE and height < CLEAR * self._last[1]:
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
                if candidate.index - before >= (REFRACTORY if candidate.doubtful else _T_WAVE)
                and clear - candidate.index >= REFRACTORY
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
            since = oldest.index - self._last[0] if self._last else HISTORY
            # No beat came when it was due; what stands in its place is one, such as an ectopic beat before a
            # compensatory pause. A low candidate needs a longer silence.
            late = 1 + _PUNCTUAL if oldest.height >= CLEAR and self._steady() else _LONG
            missed = since + _PATIENCE >= late * self._interval() and since >= _T_WAVE and oldest.sure
            if since >= REFRACTORY and (oldest.doubtful or missed):
                self._accept(oldest, found)

    def _accept(self, candidate: _Candidate, found: list[Beat]) -> None:
        index = candidate.index
        fast = self._last is not None and index - self._last[0] < _FAST
        if self._last is not None:
            self._intervals.append(index - self._last[0])
        self._last = index, candidate.height
        # Found with lowered thresholds: the levels of before are no longer those of this signal.
        self._envelope.note_beat(index, forget=candidate.height < CLEAR * 0.75)
        found.append(_beat(candidate, self._morphology.count(candidate.shape, fast=fast)))

    @property
    def stop(self) -> int:
        """Grid index after the last block that has been heard."""
        return self._envelope.stop

    def remember(self) -> Arrays:
        """Return the state at `stop`, without what the last seconds of signal alone decide."""
        pending = [
            (
                *(one.index, one.height, one.sure, one.doubtful, one.shape.width_s, one.shape.amplitude_mv),
                *(optional(one.shape.similarity), one.shape.ventricular, optional(one.shape.kind)),
            )
            for one in self._pending
        ]
        found = {
            "decided": np.array([self._decided, *self._intervals]),
            "last": np.array(self._last or (), np.float64),
            **self._envelope.remember(),
            **self._morphology.remember(),
        }
        if pending:
            found["pending"] = np.array(pending)
            found["pending.waves"] = np.array([one.shape.wave for one in self._pending])
        return found

    def recall(self, state: Arrays) -> None:
        """Take the state that another one had at the same `stop`."""
        self._decided, *intervals = state["decided"].tolist()
        self._intervals = deque(intervals, maxlen=_INTERVALS)
        last = state["last"].tolist()
        self._last = (int(last[0]), last[1]) if last else None
        self._pending = []
        for row, wave in zip(state.get("pending", ()), state.get("pending.waves", ()), strict=True):
            index, height, sure, doubtful, width_s, amplitude_mv, similarity, ventricular, kind = row.tolist()
            alike = None if np.isnan(similarity) else similarity
            shape = Shape(width_s, amplitude_mv, alike, bool(ventricular), whole(kind), wave)
            self._pending.append(_Candidate(int(index), height, bool(sure), shape, bool(doubtful)))
        self._envelope.recall(state)
        self._morphology.recall(state)

    def _heard(self, found: tuple[Beat, ...], oscillating: float) -> Beats:
        return Beats(
            first=self._envelope.stop - BLOCK,
            found=found,
            settled=min([self._decided, *(candidate.index for candidate in self._pending[:1])]),
            leads=int(np.count_nonzero(self._envelope.present)),
            oscillation=oscillating,
        )


def find_together(blocks: Sequence[Heard]) -> list[Beats]:
    """Find the beats in the next block of each of several beds.

    Parameters
    ----------
    blocks : sequence of Heard
        Of different beds, each the next one of its detector.

    Returns
    -------
    list of Beats
        For each what `BeatDetector.push` would return of it, to the last bit.
    """
    alike: defaultdict[int, list[int]] = defaultdict(list)
    for place, block in enumerate(blocks):
        alike[len(block.x)].append(place)
    found: dict[int, Beats] = {}
    for places in alike.values():
        for at in range(0, len(places), _TOGETHER):
            some = places[at : at + _TOGETHER]
            found |= zip(some, _find([blocks[place] for place in some]), strict=True)
    return [found[place] for place in range(len(blocks))]


def _find(blocks: list[Heard]) -> list[Beats]:
    # Of beds with the same number of leads.
    detectors = [block.detector for block in blocks]
    hear_together([(block.detector._envelope, block.x, block.missing, block.usable) for block in blocks])
    alike: defaultdict[int, list[BeatDetector]] = defaultdict(list)
    for detector in detectors:
        if detector._envelope.learned:
            alike[detector._first_column].append(detector)
        else:
            # What comes before the blocks that levels are taken from is not looked at.
            detector._decided = max(detector._decided, detector._envelope.stop - LEARNING * BLOCK)
    found: dict[BeatDetector, tuple[Beat, ...]] = {}
    for column, some in alike.items():
        peaks = peaks_together([detector._envelope for detector in some], column, _MISSED * _LOWEST)
        found |= {detector: detector._decide(of_bed) for detector, of_bed in zip(some, peaks, strict=True)}
    waves = _oscillations([detector._envelope for detector in detectors])
    return [
        detector._heard(found.get(detector, ()), wave)
        for detector, wave in zip(detectors, waves, strict=True)
    ]


def _oscillations(beds: list[Envelope]) -> list[float]:
    whole = np.array([bed.whole for bed in beds])
    possible = may_oscillate(*sums_together(beds), whole).tolist()
    return [
        (oscillation(bed.x if of_bed.all() else bed.x[of_bed]) if may else 0.0)
        for bed, of_bed, may in zip(beds, whole, possible, strict=True)
    ]


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
