"""Putting samples that came in pieces of any size and order into one row, with bounded patience."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.contract import INVALID, Validity

PATIENCE_NS = 200_000_000
"""How long a sample waits for those that belong before it, or that fill its chunk."""

# A device that sends single samples with holes between them, faster than patience ends: not waited for.
_MOST_STRETCHES = 512

_Flags = tuple[Validity, ...]


@dataclass(slots=True)
class _Stretch:
    start: int
    samples: npt.NDArray[np.int16]
    valid: _Flags | None
    arrived_ns: int

    @property
    def end(self) -> int:
        return self.start + len(self.samples)


@dataclass(frozen=True, slots=True)
class Run:
    """Samples without a hole between them, for one chunk.

    Attributes
    ----------
    start : int
        Index of the first sample.
    samples : numpy.ndarray of int16, shape (n, leads)
    valid : tuple of Validity
    arrived_ns : int
        When the last of them had arrived.
    """

    start: int
    samples: npt.NDArray[np.int16]
    valid: _Flags
    arrived_ns: int

    @property
    def end(self) -> int:
        """Index after the last sample."""
        return self.start + len(self.samples)


class Reassembly:
    """The samples of one session that have come and not yet gone.

    Parameters
    ----------
    start : int
        Index of the first sample that is wanted.
    chunk_end : callable
        Given the index of a sample, where the chunk that holds it ends.

    Attributes
    ----------
    published : int
        Index before which everything has gone, or been given up.
    """

    def __init__(self, start: int, chunk_end: Callable[[int], int]) -> None:
        self.published = start
        self._chunk_end = chunk_end
        # In order, none overlapping another.
        self._waiting: list[_Stretch] = []

    @property
    def edges(self) -> list[int]:
        """Where stretches that wait begin and end."""
        return [self.published, *(at for s in self._waiting for at in (s.start, s.end))]

    def add(self, start: int, samples: npt.NDArray[np.int16], valid: _Flags | None, arrived_ns: int) -> int:
        """Take samples; return how many of them there were already, or come too late.

        What came first stays.
        """
        end, taken = start + len(samples), 0
        at = max(start, self.published)
        place = bisect_right(self._waiting, at, key=lambda stretch: stretch.start)
        if place and self._waiting[place - 1].end > at:
            at = self._waiting[place - 1].end
        while at < end:
            following = self._waiting[place].start if place < len(self._waiting) else end
            stop = min(end, following)
            if stop > at:
                own = samples[at - start : stop - start]
                self._waiting.insert(place, _Stretch(at, own, valid, arrived_ns))
                taken += stop - at
                place += 1
            if place >= len(self._waiting):
                break
            at = max(stop, self._waiting[place].end)
            place += 1
        return len(samples) - taken

    def due_ns(self) -> int | None:
        """Return when patience ends; None if nothing waits."""
        if not self._waiting:
            return None
        return min(stretch.arrived_ns for stretch in self._waiting) + PATIENCE_NS

    def take(self, now_ns: int, *, everything: bool = False) -> list[Run]:
        """Return the runs that are full, and those that have waited for long enough."""
        runs: list[Run] = []
        crowded = len(self._waiting) > _MOST_STRETCHES
        while self._waiting:
            impatient = everything or crowded or self._oldest_ns() + PATIENCE_NS <= now_ns
            if self._waiting[0].start > self.published and not impatient:
                break
            start = self._waiting[0].start
            end = self._chunk_end(start)
            parts, at = 0, start
            while parts < len(self._waiting) and at < end and self._waiting[parts].start == at:
                at = self._waiting[parts].end
                parts += 1
            if at < end and not impatient:
                break
            runs.append(self._cut(parts, min(at, end)))
            self.published = runs[-1].end
        return runs

    def _oldest_ns(self) -> int:
        return min(stretch.arrived_ns for stretch in self._waiting)

    def _cut(self, parts: int, end: int) -> Run:
        # Of the first stretches, what is before `end`; the rest of the last one stays.
        taken, self._waiting = self._waiting[:parts], self._waiting[parts:]
        last = taken[-1]
        if last.end > end:
            own = end - last.start
            rest = _Stretch(end, last.samples[own:], last.valid, last.arrived_ns)
            self._waiting.insert(0, rest)
            taken[-1] = _Stretch(last.start, last.samples[:own], last.valid, last.arrived_ns)
        samples = taken[0].samples if len(taken) == 1 else np.concatenate([s.samples for s in taken])
        flags = {stretch.valid for stretch in taken}
        if len(flags) == 1 and None not in flags:
            valid = taken[0].valid
        else:
            samples, valid = _merge(taken, samples)
        off = (samples == INVALID).all(axis=0)
        if valid is None:
            valid = (Validity.OK,) * samples.shape[1]
        if off.any():
            valid = tuple(Validity.OFF if gone else flag for gone, flag in zip(off, valid, strict=True))
        return Run(taken[0].start, samples, valid, max(stretch.arrived_ns for stretch in taken))


# What makes a lead of a chunk suspect although only a part of it is.
_WORST_LAST = (Validity.OK, Validity.QUESTIONABLE, Validity.SATURATED)


def _merge(
    taken: list[_Stretch], samples: npt.NDArray[np.int16]
) -> tuple[npt.NDArray[np.int16], _Flags | None]:
    # A flag holds for a whole chunk: of a lead that is off in a part of it, that part is missing.
    if all(stretch.valid is None for stretch in taken):
        return samples, None
    samples = samples.copy()
    worst = [0] * samples.shape[1]
    start = taken[0].start
    for stretch in taken:
        for lead, flag in enumerate(stretch.valid or ()):
            if flag is Validity.OFF:
                samples[stretch.start - start : stretch.end - start, lead] = INVALID
            else:
                worst[lead] = max(worst[lead], _WORST_LAST.index(flag))
    return samples, tuple(_WORST_LAST[place] for place in worst)
