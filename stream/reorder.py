"""Chunks of one session, put in order: what is late waits for nobody, what is early waits for it."""

from __future__ import annotations

from collections import deque

from stream.contract import SampleChunk

WAIT_S = 1.0
"""For so much signal what comes behind a hole waits for what belongs into it: the longest that it makes an
alarm later, a tenth of what one may take, and several times what a network needs to send something again."""

# Holes that are remembered, so that what comes too late for one can be told from a repeat.
_HOLES = 32


class InOrder:
    """The chunks of one session as they come.

    Parameters
    ----------
    next_seq : int
        Number that comes next; 0 where that is not known, and `end` alone says what is missing.
    end : int
        Index of the sample that comes next.

    Attributes
    ----------
    end : int
        Index of the sample after the last chunk that has been returned.
    """

    def __init__(self, next_seq: int, end: int) -> None:
        self.end = end
        self._next_seq = next_seq
        self._early: dict[int, SampleChunk] = {}
        # Numbers that never came: the first one, and the one after the last.
        self._holes: deque[tuple[int, int]] = deque(maxlen=_HOLES)

    @property
    def is_waiting(self) -> bool:
        """Whether chunks wait for one that has not come."""
        return bool(self._early)

    def why_not(self, seq: int) -> str | None:
        """Return why a chunk of this number is left out: ``"repeat"`` or ``"late"``; None: it is not."""
        if seq in self._early:
            return "repeat"
        if seq >= self._next_seq:
            return None
        return "late" if any(first <= seq < stop for first, stop in self._holes) else "repeat"

    def runs_back(self, chunk: SampleChunk) -> bool:
        """Say whether a chunk whose number is new has no sample that is.

        Such a one contradicts its session: behind it, if it says that it is far ahead, all others would be
        late.
        """
        return len(chunk.samples) > 0 and chunk.end <= self.end

    def take(self, chunk: SampleChunk) -> list[SampleChunk]:
        """Take a chunk that need not be left out.

        Returns
        -------
        list of SampleChunk
            What is to be used now, in order. Empty while something is missing before it and may still come:
            for at most `WAIT_S` of signal, and not behind the chunk that ends the session.
        """
        self._early[chunk.header.seq] = chunk
        return self._due(chunk.header.last)

    def flush(self) -> list[SampleChunk]:
        """Return all that waits, in order: what is missing will not come."""
        return self._due(at_once=True)

    def _due(self, at_once: bool) -> list[SampleChunk]:
        due: list[SampleChunk] = []
        while self._early:
            seq = min(self._early)
            chunk = self._early[seq]
            hole = seq > self._next_seq and chunk.header.n0 > self.end
            if hole and not at_once:
                newest = max(early.end for early in self._early.values())
                if newest - self.end <= WAIT_S * chunk.header.fs:
                    break
            if seq > self._next_seq:
                self._holes.append((self._next_seq, seq))
            del self._early[seq]
            self._next_seq, self.end = seq + 1, max(self.end, chunk.end)
            due.append(chunk)
        return due
