"""What a model says of a feed, on the grid of its trace: what it expected, its error, and where it looked."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from monitor.bed.trace import Grid
from monitor.live.ring import SampleRing
from monitor.shades import ERROR_MV, ERROR_SDS, error_shade, shade
from stream.contract import Explanation

Float64Array = npt.NDArray[np.float64]


class Overlay:
    """What a model says of a feed.

    Windows overlap, and a model sees the middle of a window best: every point is drawn as that window says
    in which it lies nearest to the middle.

    Parameters
    ----------
    grid : Grid
    leads : sequence of str
        The leads of the trace, in its order.
    start : int
        First bucket.
    """

    def __init__(self, grid: Grid, leads: tuple[str, ...], start: int) -> None:
        self._grid = grid
        self._leads = leads
        self._begin(start, spread=False)

    def _begin(self, start: int, *, spread: bool) -> None:
        grid, n = self._grid, len(self._leads)
        self.has_spread = spread
        """Whether the model says how far off it expects to be."""
        self.has: frozenset[str] = frozenset()
        """Names of the arrays that the newest explanation brought."""
        # Values of every point, and of every bucket.
        self.expected = SampleRing(grid.capacity, grid.points * n, start)
        self.spread = SampleRing(grid.capacity, grid.points * n, start)
        self.error = SampleRing(grid.capacity, n, start)
        self.attention = SampleRing(grid.capacity, n, start)
        self.temporal = SampleRing(grid.capacity, 1, start)
        # How far from the nearest edge of its window each point lies, in points of the model.
        self._depth = SampleRing(grid.capacity, grid.points, start)
        self._rings = (
            self.expected,
            self.spread,
            self.error,
            self.attention,
            self.temporal,
            self._depth,
        )

    @property
    def error_most(self) -> float:
        """Error of the darkest shade, in mV, or in standard deviations if `has_spread`."""
        return ERROR_SDS if self.has_spread else ERROR_MV

    def add(self, explanation: Explanation, first_sample: float) -> tuple[int, int]:
        """Take a window.

        Parameters
        ----------
        explanation : Explanation
            What it does not have, or what has another shape than it says, is left out.
        first_sample : float
            Where its first point lies, in samples of the session.

        Returns
        -------
        tuple of int
            Buckets that have changed: the first, and the one after the last.
        """
        header, grid, arrays = explanation.header, self._grid, explanation.arrays
        reconstruction = arrays.get("reconstruction")
        if reconstruction is None or reconstruction.ndim != 2 or reconstruction.shape[1] < 2:
            return 0, 0
        n = reconstruction.shape[1]
        step = grid.fs / header.fs
        start = max(0, math.ceil(first_sample / grid.size))
        stop = math.floor((first_sample + (n - 1) * step) / grid.size)
        if start >= stop:
            return 0, 0
        if ("spread" in arrays) != self.has_spread:
            # Another model judges: its errors have another scale.
            self._begin(self.expected.first, spread="spread" in arrays)
        self.has = frozenset(arrays)
        for ring in self._rings:
            ring.extend(stop)
        at = (grid.samples(start, stop) - first_sample) / step
        depth = np.minimum(at, n - 1 - at).reshape(stop - start, -1)
        better = ~(self._depth.read(start, stop) >= depth.astype(np.float32))
        if not better.any():
            return 0, 0
        self._depth.replace(start, np.where(better, depth, self._depth.read(start, stop)))
        rows = [
            (row, self._leads.index(lead))
            for row, lead in enumerate(header.leads[: len(reconstruction)])
            if lead in self._leads
        ]
        self._put(self.expected, start, better, rows, between(reconstruction, at))
        # A bucket's shades are those of the window that its first point is drawn of.
        buckets, whole = at.reshape(stop - start, -1).mean(axis=1), better[:, :1]
        error, spread = arrays.get("error"), arrays.get("spread")
        if spread is not None and spread.shape == reconstruction.shape:
            self._put(self.spread, start, better, rows, np.maximum(between(spread, at), 0.0))
        if error is not None and error.shape == reconstruction.shape:
            scaled = error.astype(np.float32)
            if spread is not None and spread.shape == error.shape:
                with np.errstate(divide="ignore", invalid="ignore"):
                    scaled = scaled / spread
            nearest = scaled[:, np.rint(buckets).astype(np.intp)]
            self._put(self.error, start, whole, rows, error_shade(nearest, self.error_most))
        self._add_attention(explanation, start, whole, rows, buckets / n)
        changed = np.flatnonzero(better.any(axis=1))
        return start + int(changed[0]), start + int(changed[-1]) + 1

    def _add_attention(
        self,
        explanation: Explanation,
        start: int,
        better: npt.NDArray[np.bool_],
        rows: list[tuple[int, int]],
        at: Float64Array,
    ) -> None:
        # `at` is the place of each bucket in the window, 0 to 1. Steps divide the window evenly.
        lead, temporal = (explanation.arrays.get(f"{name}_attention") for name in ("lead", "temporal"))
        if lead is not None and lead.ndim == 2 and len(lead) == len(explanation.header.leads) and lead.size:
            share = lead.astype(np.float32) * len(lead)
            shown = shade(share[:, (at * share.shape[1]).astype(np.intp)])
            self._put(self.attention, start, better, rows, shown)
        if temporal is not None and temporal.ndim == 1 and temporal.size:
            share = temporal.astype(np.float32)[np.newaxis] * len(temporal)
            self._put(
                self.temporal, start, better, [(0, 0)], shade(share[:, (at * share.shape[1]).astype(np.intp)])
            )

    @staticmethod
    def _put(
        ring: SampleRing,
        start: int,
        better: npt.NDArray[np.bool_],
        rows: list[tuple[int, int]],
        values: npt.NDArray[np.floating],
    ) -> None:
        # Rows of values go to columns of the ring, where they are better than what is there.
        n, points = better.shape
        held = ring.read(start, start + n).reshape(n, points, -1)
        drawn = values.reshape(len(values), n, points)
        for row, column in rows:
            held[:, :, column] = np.where(better, drawn[row], held[:, :, column])
        ring.replace(start, held.reshape(n, -1))


def between(values: npt.NDArray[np.floating], at: Float64Array) -> Float64Array:
    """Return rows of the model's points, up to 10 ms apart, at places between them.

    Splines: straight lines would cut a tenth off a QRS complex, and look like an error of the model's.
    Where a point is missing, nothing is drawn up to its neighbours.

    Parameters
    ----------
    values : numpy.ndarray, shape (leads, n)
        NaN where there is none.
    at : numpy.ndarray of float64, shape (m,)
        Places, counted in points.

    Returns
    -------
    numpy.ndarray of float64, shape (leads, m)
    """
    points = values.astype(np.float64)
    drawn = np.full((len(points), len(at)), np.nan)
    whole = np.isfinite(points).all(axis=1)
    if whole.any():
        drawn[whole] = CubicSpline(np.arange(points.shape[1]), points[whole], axis=1)(at)
    for row in np.flatnonzero(~whole):
        # A spline goes through runs of points that are there.
        there = np.flatnonzero(np.isfinite(points[row]))
        for run in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1):
            if len(run) > 1:
                inside = (at >= run[0]) & (at <= run[-1])
                drawn[row, inside] = CubicSpline(run, points[row, run])(at[inside])
    return drawn
