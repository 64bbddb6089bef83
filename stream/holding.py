"""Chunks wait until they complete something: a push of many samples takes hardly longer than one of a few.

Of the five chunks that a bed sends in a second two complete a window and a block of vitals. The others change
nothing that anybody could see before those come.
"""

from __future__ import annotations

import numpy as np

from stream.contract import SampleChunk, to_millivolts
from stream.windows import BedWindow, Push, push_together


class Holding:
    """The newest chunks of one session of one bed, as far as they have not been pushed into its windows.

    Parameters
    ----------
    windows : BedWindow
    """

    def __init__(self, windows: BedWindow) -> None:
        self._windows = windows
        # They follow each other without a hole, and nothing but the samples differs.
        self._chunks: list[SampleChunk] = []

    @property
    def next_in(self) -> int:
        """Index of the sample that is expected next."""
        return self._chunks[-1].end if self._chunks else self._windows.next_in

    def add(self, chunk: SampleChunk) -> SampleChunk | None:
        """Take the next chunk.

        Parameters
        ----------
        chunk : SampleChunk
            Of the session, whatever is missing before it.

        Returns
        -------
        SampleChunk or None
            What is to be pushed now: the samples of all chunks that have waited, with the first one's header.
            None while they complete nothing.
        """
        if self._chunks and not _follows(chunk, self._chunks[-1]):
            # They complete nothing still.
            before = self._take()
            (millivolts,) = to_millivolts([before])
            push_together([Push(self._windows, before.header.n0, millivolts, valid=before.header.valid)])
        self._chunks.append(chunk)
        return self._take() if chunk.header.last or self._windows.completes(chunk.end) else None

    def _take(self) -> SampleChunk:
        chunks, self._chunks = self._chunks, []
        if len(chunks) == 1:
            return chunks[0]
        return SampleChunk(chunks[0].header, np.concatenate([chunk.samples for chunk in chunks]))


def _follows(chunk: SampleChunk, before: SampleChunk) -> bool:
    header, other = chunk.header, before.header
    return header.n0 == before.end and header.gain == other.gain and header.valid == other.valid
