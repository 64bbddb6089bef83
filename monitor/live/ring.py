"""The newest samples of one feed, by sample index."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


class SampleRing:
    """The newest rows of a series that is addressed by an ever rising index.

    Memory is allocated once. A hole in what is written, and everything that is not held, reads as NaN.

    Parameters
    ----------
    capacity : int
        Rows that are kept.
    width : int
        Values in a row.
    first : int
        Index of the first row that will be written.
    """

    def __init__(self, capacity: int, width: int, first: int = 0) -> None:
        self._values = np.full((capacity, width), np.nan, np.float32)
        self._capacity = capacity
        self.first = first
        """Oldest index that may be held."""
        self.stop = first
        """Index after the newest row."""

    @property
    def nbytes(self) -> int:
        """Bytes of the samples."""
        return self._values.nbytes

    def write(self, start: int, rows: npt.NDArray[np.floating]) -> int:
        """Write rows from index `start` on.

        What lies before `stop` has been written already and is left out.

        Parameters
        ----------
        start : int
        rows : numpy.ndarray, shape (n, width)

        Returns
        -------
        int
            Rows that are missing between the newest one and `start`.
        """
        hole = max(0, start - self.stop)
        self.extend(start)
        late = self.stop - start
        if late < len(rows):
            self._put(rows[late:], start + len(rows))
        return hole

    def extend(self, stop: int) -> None:
        """Make room up to an index, exclusive: what lies between reads as NaN until it is replaced."""
        hole = stop - self.stop
        if hole > 0:
            self._put(np.full((min(hole, self._capacity), self._values.shape[1]), np.nan, np.float32), stop)

    def read(self, start: int, stop: int) -> Float32Array:
        """Return a copy of rows ``start`` to ``stop - 1``, NaN where there is none."""
        out = np.full((max(0, stop - start), self._values.shape[1]), np.nan, np.float32)
        low, high = max(start, self.first, self.stop - self._capacity), min(stop, self.stop)
        if low < high:
            out[low - start : high - start] = self._values[np.arange(low, high) % self._capacity]
        return out

    def replace(self, start: int, rows: npt.NDArray[np.floating]) -> None:
        """Overwrite rows that are held already; the rest of `rows` is left out."""
        low = max(start, self.first, self.stop - self._capacity)
        high = min(start + len(rows), self.stop)
        if low < high:
            self._values[np.arange(low, high) % self._capacity] = rows[low - start : high - start]

    def _put(self, rows: npt.NDArray[np.floating], stop: int) -> None:
        # The rows that end at `stop`; of more than fit, the newest.
        rows = rows[-self._capacity :]
        self._values[np.arange(stop - len(rows), stop) % self._capacity] = rows
        self.stop = stop
        self.first = max(self.first, stop - self._capacity)
