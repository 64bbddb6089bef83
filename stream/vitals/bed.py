"""Everything about a bed's signal that needs no model: quality, beats, rhythm, half a second at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stream.preprocess import Resampled
from stream.vitals.beats import Beat, BeatDetector, BoolArray, Float32Array, Heard, find_together
from stream.vitals.grid import BLOCK
from stream.vitals.memory import Arrays
from stream.vitals.quality import SecondQuality
from stream.vitals.rhythm import Judgement, Limits, Rhythm


@dataclass(frozen=True, slots=True)
class Block:
    """What half a second of signal brought.

    Attributes
    ----------
    end : int
        Grid sample after the last one.
    beats : tuple of Beat
        Those that became final.
    judgements : list of Judgement
        One for each rule of `stream.vitals.rhythm`.
    heart_rate, rr_irregularity : float or None
    quality : SecondQuality or None
        Of the last whole second before; None in the first one.
    """

    end: int
    beats: tuple[Beat, ...]
    judgements: list[Judgement]
    heart_rate: float | None
    rr_irregularity: float | None
    quality: SecondQuality | None


class BedVitals:
    """Beats and rhythm of one session of one bed.

    Parameters
    ----------
    leads : int
        Leads of the feed.
    limits : Limits
    source_index : callable
        Takes a grid sample to the source's sample at or after it.
    """

    def __init__(self, leads: int, limits: Limits, source_index: Callable[[int], int]) -> None:
        self._leads = leads
        self._source_index = source_index
        self._limits = limits
        self._stretches: list[Resampled] = []
        self._seconds: list[SecondQuality] = []
        self._detector: BeatDetector | None = None
        self._rhythm = Rhythm(limits)
        self._recalled: tuple[int, Arrays] | None = None

    @property
    def stop(self) -> int | None:
        """Grid sample after the last block that has been judged.

        None before any signal, and until that has come up to what is recalled: of what was heard before, less
        is known than another worker knew.
        """
        return None if self._detector is None or self._recalled is not None else self._detector.stop

    def remember(self) -> Arrays:
        """Return the state of beats and rhythm at `stop`, where there has been signal."""
        assert self._detector is not None
        return {**self._detector.remember(), **self._rhythm.remember()}

    def recall(self, stop: int, state: Arrays) -> None:
        """Take the state that another one had at `stop`, once the signal has come up to there."""
        self._recalled = stop, state

    def set_limits(self, limits: Limits) -> None:
        """Judge by other limits from now on."""
        self._limits = limits
        self._rhythm.limits = limits

    def hear(self, stretch: Resampled) -> None:
        """Take conditioned signal of all leads; it is judged by the next `advance`."""
        self._stretches.append(stretch)

    def rate(self, seconds: Sequence[SecondQuality]) -> None:
        """Take the quality of the next seconds, before the `advance` over the signal behind them."""
        self._seconds += seconds

    def advance(self) -> list[Block]:
        """Return what the blocks that are complete have brought, in order."""
        return advance_together([self])[0]

    def _take(self) -> list[_Step]:
        # The blocks that are complete, each with the quality of its own time.
        steps: list[_Step] = []
        for stretch in self._stretches:
            if self._detector is None or stretch.first != self._detector.next:
                # The feed began, or goes on after a hole too long to fill.
                self._detector, self._rhythm = BeatDetector(self._leads, stretch.first), Rhythm(self._limits)
            at, total = 0, stretch.values.shape[1]
            while at < total:
                first = stretch.first + at
                stop = min(total, at + BLOCK - first % BLOCK)
                values, missing = stretch.values[:, at:stop], stretch.missing[:, at:stop]
                end = first + stop - at
                # Only the end of a block needs its quality.
                quality = None if end % BLOCK else self._quality(end)
                steps += [
                    _Step(self._detector, *block, self._rhythm, quality)
                    for block in self._detector.take(first, values, missing)
                ]
                at = stop
        self._stretches.clear()
        return steps

    def _go_on(self, step: _Step) -> None:
        # From what is recalled, if that was so far.
        if self._recalled is None or step.detector.stop < self._recalled[0]:
            return
        stop, state = self._recalled
        self._recalled = None
        if step.detector.stop == stop:
            step.detector.recall(state)
            step.rhythm.recall(state)

    def _quality(self, end: int) -> SecondQuality | None:
        # The last second that had ended with the source sample of the last grid sample before `end`.
        heard = self._source_index(end - 1) + 1
        while len(self._seconds) > 1 and self._seconds[1].end <= heard:
            del self._seconds[0]
        return self._seconds[0] if self._seconds and self._seconds[0].end <= heard else None


@dataclass(frozen=True, slots=True)
class _Step:
    # A block on its way.
    detector: BeatDetector
    x: Float32Array
    missing: Float32Array
    rhythm: Rhythm
    quality: SecondQuality | None

    def heard(self) -> Heard:
        return Heard(self.detector, self.x, self.missing, self._usable())

    def _usable(self) -> BoolArray:
        if self.quality is None:
            return np.ones(len(self.x), np.bool_)
        usable = self.quality.usable
        if self.rhythm.beating and not usable.any():
            # The heart may have stopped, or the cable come off without a word of the device. Of the two the
            # one that kills has to be told.
            return self.quality.flat_lines
        return usable


def advance_together(beds: Sequence[BedVitals]) -> list[list[Block]]:
    """Return what `BedVitals.advance` returns for each of several beds, to the last bit, and faster."""
    steps = [bed._take() for bed in beds]
    blocks: list[list[Block]] = [[] for _ in beds]
    for turn in range(max(map(len, steps), default=0)):
        places = [place for place, of_bed in enumerate(steps) if len(of_bed) > turn]
        found = find_together([steps[place][turn].heard() for place in places])
        for place, beats in zip(places, found, strict=True):
            rhythm = steps[place][turn].rhythm
            judgements = rhythm.update(beats)
            beds[place]._go_on(steps[place][turn])
            blocks[place].append(
                Block(
                    beats.first + BLOCK,
                    beats.found,
                    judgements,
                    rhythm.heart_rate_bpm,
                    rhythm.rr_irregularity,
                    steps[place][turn].quality,
                )
            )
    return blocks
