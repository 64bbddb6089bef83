"""How long windows spent in each stage of late: histograms of the last minute, for a worker's own word.

Prometheus keeps histograms since the start, coarse ones, for whoever can subtract; these answer by
themselves, within a few per cent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

STAGES = ("queue", "prepare", "wait", "inference", "publish", "total")
"""Between the six times that a window is stamped with, and from the first to the last of them."""

# A minute, told anew every five seconds.
_SLICE_NS = 5_000_000_000
_SLICES = 12
# From 10 µs, below which nothing here takes, to 80 s, beyond which nobody asks how much. Eight buckets an
# octave: a bucket's middle is within 4.5 % of all in it.
_SHORTEST_NS = 10_000
_PER_OCTAVE = 8
_BUCKETS = 23 * _PER_OCTAVE
_MIDDLES_MS = _SHORTEST_NS / 1e6 * 2 ** ((np.arange(_BUCKETS) + 0.5) / _PER_OCTAVE)


class Spent(NamedTuple):
    """Time that windows spent in one stage, ms."""

    p50_ms: float
    p99_ms: float


class RecentLatencies:
    """Histograms of the last minute, one for each stage."""

    def __init__(self) -> None:
        self._slices: deque[npt.NDArray[np.int64]] = deque([_empty()], maxlen=_SLICES)
        self._turned_ns: int | None = None

    def add(self, times_ns: Sequence[Sequence[int]]) -> None:
        """Add windows.

        Parameters
        ----------
        times_ns : sequence of sequence of int
            Of each window: ingest, dequeued, ready, begun, inferred, published.
        """
        times = np.array(times_ns, np.int64)
        spent = np.column_stack((np.diff(times, axis=1), times[:, -1] - times[:, 0]))
        octaves = np.log2(np.maximum(spent, _SHORTEST_NS) / _SHORTEST_NS)
        buckets = np.minimum((octaves * _PER_OCTAVE).astype(np.int64), _BUCKETS - 1)
        np.add.at(self._slices[-1], (np.arange(len(STAGES)), buckets), 1)

    def turn(self, now_ns: int) -> None:
        """Let go of what is older than a minute. Called each second or so."""
        if self._turned_ns is None:
            self._turned_ns = now_ns
        while now_ns - self._turned_ns >= _SLICE_NS:
            self._slices.append(_empty())
            self._turned_ns += _SLICE_NS

    def spent(self) -> dict[str, Spent]:
        """Return the median and the 99th percentile of each stage; nothing without a window."""
        counts = np.sum(self._slices, axis=0)
        if not counts.any():
            return {}
        reached = counts.cumsum(axis=1)
        found = {}
        for stage, row in zip(STAGES, reached, strict=True):
            p50, p99 = (float(_MIDDLES_MS[np.searchsorted(row, share * row[-1])]) for share in (0.5, 0.99))
            found[stage] = Spent(round(p50, 3), round(p99, 3))
        return found


def _empty() -> npt.NDArray[np.int64]:
    return np.zeros((len(STAGES), _BUCKETS), np.int64)
