"""The sweeping leads of one page: what is on the screen, and what changes from one update to the next.

Traces run from left to right and begin again at the left edge, over what they drew before; a gap runs in
front of them. So an update is a short slice of each lead, and the picture has a fixed number of points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.manifest import FilterSpec
from monitor.bed.layout import Layout, lead_order
from monitor.bed.trace import SETTLING_S, Grid, Overlay, Trace
from monitor.live.ring import Float32Array
from monitor.live.ward import Feed
from stream.contract import Explanation

# The gap in front of the trace: wide enough to be seen from afar.
_ERASE_S = 0.3

Patch = list[tuple[tuple[int, slice], list[float]]]
"""Place of the lead, points, and their new heights, as `ColumnDataSource.patch` takes them."""
Columns = dict[str, list[Float32Array]]
"""``xs`` and ``ys``: a line for each lead."""


@dataclass(slots=True)
class Update:
    """What one step changes: patches of the two ``ys`` columns."""

    trace: Patch
    expected: Patch


class Sweep:
    """The leads of one feed on one page.

    Parameters
    ----------
    feed : Feed
    layout : Layout
    band : FilterSpec
    size : float
        mm/mV.
    """

    def __init__(self, feed: Feed, layout: Layout, band: FilterSpec, size: float) -> None:
        self.session = feed.session
        self.order = lead_order(feed.leads)
        self.leads = tuple(feed.leads[column] for column in self.order)
        self._grid = Grid(feed.fs, layout.seconds)
        self._gap = max(1, round(_ERASE_S * feed.fs / self._grid.size))
        start = max(feed.ring.first, feed.ring.stop - round((layout.seconds + SETTLING_S) * feed.fs))
        self._trace = Trace(self._grid, len(self.leads), band, start)
        self._overlay = Overlay(self._grid, self.leads, max(0, start // self._grid.size))
        self._explained = False
        self._head = 0
        self.place(layout, size)

    def place(self, layout: Layout, size: float) -> None:
        """Lay the leads out anew, at another size or in another picture with as many columns."""
        self.layout, self.size = layout, size
        self._baselines = np.array([layout.baseline(place) for place in range(len(self.leads))], np.float32)

    def follow(self, feed: Feed) -> bool:
        """Take the samples that have come since; False if too many have been missed to go on."""
        if feed.session != self.session or feed.ring.first > self._trace.next_in:
            return False
        if feed.ring.stop > self._trace.next_in:
            rows = feed.ring.read(self._trace.next_in, feed.ring.stop)
            self._trace.push(rows[:, self.order])
        return True

    def explain(self, explanation: Explanation, first_sample: float) -> None:
        """Take a window's reconstruction; `columns` shows it, and so do the next steps."""
        self._explained = True
        self._overlay.add(explanation, first_sample)

    def columns(self, position: int) -> tuple[Columns, Columns]:
        """Return the full picture at a play-out position: the traces, and what was expected of them."""
        self._head = self._bucket(position)
        seconds = self._grid.seconds()
        xs = [(seconds + self.layout.left(place)).astype(np.float32) for place in range(len(self.leads))]
        return {"xs": xs, "ys": self._picture(self._trace)}, {"xs": xs, "ys": self.expected()}

    def expected(self) -> list[Float32Array]:
        """Return the full ``ys`` column of what the model expected, up to where the traces are."""
        return self._picture(self._overlay)

    def step(self, position: int) -> Update | None:
        """Move on to a play-out position.

        Returns
        -------
        Update or None
            None if it is so far that the full picture is due.
        """
        old, new = self._head, self._bucket(position)
        if new - old >= self._grid.buckets - self._gap:
            return None
        self._head = new
        update = Update([], [])
        if new > old:
            update.trace = self._drawn(self._trace, old, new) + self._erased(old, new)
            if self._explained:
                update.expected = self._drawn(self._overlay, old, new) + self._erased(old, new)
        return update

    def _bucket(self, position: int) -> int:
        due = (position - self._trace.delay) // self._grid.size
        return max(self._head, min(due, self._trace.stop))

    def _on_paper(self, points: Float32Array) -> Float32Array:
        # Points of some buckets as a row of heights for each lead.
        return (points * self.size + self._baselines).T

    def _picture(self, source: Trace | Overlay) -> list[Float32Array]:
        grid = self._grid
        picture = np.full((len(self.leads), grid.buckets * grid.points), np.nan, np.float32)
        oldest = self._head - grid.buckets + self._gap
        for first, last, at in self._runs(oldest, self._head):
            picture[:, at : at + (last - first) * grid.points] = self._on_paper(source.read(first, last))
        return list(picture)

    def _drawn(self, source: Trace | Overlay, start: int, stop: int) -> Patch:
        patch: Patch = []
        for first, last, at in self._runs(start, stop):
            # Hundredths of a millimetre of paper are finer than any screen, and short to write.
            rows = np.round(self._on_paper(source.read(first, last)).astype(np.float64), 2).tolist()
            patch += [((place, slice(at, at + len(row))), row) for place, row in enumerate(rows)]
        return patch

    def _erased(self, start: int, stop: int) -> Patch:
        patch: Patch = []
        # A step longer than the gap has drawn over the first of it.
        for first, last, at in self._runs(max(start + self._gap, stop), stop + self._gap):
            blank = [float("nan")] * ((last - first) * self._grid.points)
            patch += [((place, slice(at, at + len(blank))), blank) for place in range(len(self.leads))]
        return patch

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        # Stretches of buckets that lie side by side on the paper, with the point at which each begins.
        while start < stop:
            slot = start % self._grid.buckets
            last = min(stop, start + self._grid.buckets - slot)
            yield start, last, slot * self._grid.points
            start = last
