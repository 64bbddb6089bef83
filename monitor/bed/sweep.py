"""What a page is sent of one feed: everything that it shows once, then what is new.

The browser keeps it, decides where it stands on the paper, and plays it out evenly. Positions are buckets
of the feed (`monitor.bed.trace`), voltages microvolts in 16 bits, shades a byte each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.manifest import FilterSpec
from monitor.bed.overlay import Overlay
from monitor.bed.trace import SETTLING_S, Grid, Trace
from monitor.live.ring import Float32Array
from monitor.live.ward import Feed
from stream.contract import INVALID, Explanation, Vitals
from stream.leads import LEADS

Packet = dict[str, Any]
"""Plain values and arrays, by name; see `Sweep.news`."""

HELD_S = 60.0
"""Seconds that a browser keeps: a sweep of the slowest paper on the widest screen in use."""
_UV_PER_MV = 1000.0


def lead_order(leads: tuple[str, ...]) -> list[int]:
    """Return the order in which leads are drawn: the standard ones first, then the others as they come."""
    return sorted(
        range(len(leads)),
        key=lambda column: (LEADS.index(leads[column]) if leads[column] in LEADS else len(LEADS), column),
    )


class Sweep:
    """What one page is sent of one feed.

    Parameters
    ----------
    feed : Feed
    band : FilterSpec
    """

    def __init__(self, feed: Feed, band: FilterSpec) -> None:
        self.session = feed.session
        self.order = lead_order(feed.leads)
        self.leads = tuple(feed.leads[column] for column in self.order)
        self._fs = feed.fs
        self._grid = Grid(feed.fs, HELD_S)
        oldest = feed.ring.stop - round((HELD_S + SETTLING_S) * feed.fs)
        start = max(feed.ring.first, oldest)
        self._trace = Trace(self._grid, len(self.leads), band, start)
        self._first = self._sent = self._bucket(start + (round(SETTLING_S * feed.fs) if start else 0))
        self._overlay = Overlay(self._grid, self.leads, self._first)
        self._changed = self._unchanged
        self._vitals: list[Vitals] = []
        self._rated_to = 0
        self._begun = False

    @property
    def _unchanged(self) -> tuple[int, int]:
        return self._trace.stop + self._grid.capacity, 0

    def _bucket(self, sample: float) -> int:
        return int(sample // self._grid.size)

    def follow(self, feed: Feed) -> bool:
        """Take the samples that have come since; False if too many have been missed to go on."""
        if feed.session != self.session or feed.ring.first > self._trace.next_in:
            return False
        if feed.ring.stop > self._trace.next_in:
            rows = feed.ring.read(self._trace.next_in, feed.ring.stop)
            self._trace.push(rows[:, self.order])
        return True

    def explain(self, explanation: Explanation, first_sample: float) -> None:
        """Take what the model says of a window whose first point lies at a sample of the session."""
        start, stop = self._overlay.add(explanation, first_sample)
        if start < stop:
            self._changed = min(start, self._changed[0]), max(stop, self._changed[1])

    def rate(self, vitals: Iterable[Vitals]) -> None:
        """Take beats and signal quality, in order; those of other sessions and known ones are left out."""
        for second in vitals:
            if second.session == self.session and second.end > self._rated_to:
                self._rated_to = second.end
                self._vitals.append(second)

    def news(self) -> Packet:
        """Return what has come since the last packet; empty if nothing has.

        Returns
        -------
        dict
            In the first packet ``leads`` (names, in the order of the arrays), ``fs``, ``size`` (samples in a
            bucket), ``points`` (in a bucket) and ``held`` (buckets to keep).
            ``start``: first bucket of ``trace``, int16, shape (leads, n * points), microvolts, `INVALID`
            where there is none. ``from``: first bucket of what the model says: ``expected`` and ``spread``
            of the same kind, ``error`` and ``attention``, uint8, shape (leads, n), and ``temporal``,
            uint8, shape (1, n): 0 nothing, 1 the lightest to 255 the darkest shade; ``error_most``: the
            error of the darkest, ``error_unit``: its unit. ``seconds``: of each second that was rated the
            first bucket, the one after the last and the places of poor leads; ``beats``: buckets.
        """
        grid, packet = self._grid, Packet()
        if not self._begun:
            self._begun = True
            packet |= {
                "leads": list(self.leads),
                "fs": self._fs,
                "size": grid.size,
                "points": grid.points,
                "held": grid.capacity,
            }
        if self._trace.stop > self._sent:
            points = self._trace.read(self._sent, self._trace.stop)
            packet |= {"start": self._sent, "trace": microvolts(points)}
            self._sent = self._trace.stop
        packet |= self._model_news()
        whole = [second for second in self._vitals if self._bucket(second.end) <= self._sent]
        if whole:
            packet["seconds"] = [
                [
                    self._bucket(second.start),
                    self._bucket(second.end),
                    [place for place, lead in enumerate(self.leads) if second.issues.get(lead)],
                ]
                for second in whole
            ]
            packet["beats"] = [self._bucket(beat) for second in whole for beat in second.beats]
            self._vitals = self._vitals[len(whole) :]
        return packet

    def _model_news(self) -> Packet:
        # As all that lies beyond the trace, it waits for it.
        start, stop = self._changed[0], min(self._changed[1], self._sent)
        if start >= stop:
            return {}
        overlay = self._overlay
        self._changed = (stop, self._changed[1]) if self._changed[1] > stop else self._unchanged
        news: Packet = {
            "from": start,
            "expected": microvolts(self._points(overlay.expected.read(start, stop))),
            "error": shades(overlay.error.read(start, stop)),
            "error_most": overlay.error_most,
            "error_unit": "SD" if overlay.has_spread else "mV",
        }
        if "spread" in overlay.has:
            news["spread"] = microvolts(self._points(overlay.spread.read(start, stop)))
        if "lead_attention" in overlay.has:
            news["attention"] = shades(overlay.attention.read(start, stop))
        if "temporal_attention" in overlay.has:
            news["temporal"] = shades(overlay.temporal.read(start, stop))
        return news

    def _points(self, rows: Float32Array) -> Float32Array:
        return rows.reshape(len(rows) * self._grid.points, -1)


def microvolts(points: Float32Array) -> npt.NDArray[np.int16]:
    # One row for each lead. What is off the scale of 16 bits is off every paper, too.
    scaled = np.clip(np.rint(points.T * _UV_PER_MV), INVALID + 1, -(INVALID + 1))
    return np.ascontiguousarray(np.where(np.isnan(scaled), INVALID, scaled).astype(np.int16))


def shades(rows: Float32Array) -> npt.NDArray[np.uint8]:
    # One row for each lead.
    dark = 1 + np.rint(rows.T * 254)
    return np.ascontiguousarray(np.where(np.isnan(dark), 0, dark).astype(np.uint8))
