"""The ward on one page: which beds stand on it, and what of their strips is new."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from bokeh.core.properties import Bytes, Float, Int, Nullable, String
from bokeh.model import DataModel, Model
from bokeh.models import LayoutDOM

from monitor.live.ward import Bed, Ward
from monitor.tiles.figure import StripsFigure
from monitor.tiles.strips import Strip, Strips, columns_for
from monitor.tiles.trend import STEP_S, score_trend

LEAF = 64
"""Beds on one leaf: eight by eight, the smallest tiles that can be read at a desk."""
# Updates of the strips. A few large ones sweep as evenly as the bed view; the small ones of a ward move by
# four pixels with each of eight updates a second.
_FEW, _FEW_NS, _MANY_NS = 4, 0, 110_000_000
# The part of a strip in front of the trace that is empty, as the script has it.
_GAP = 0.06
_TILES_NS = 1_000_000_000

# Number of the strip, its first new point, new points, points of the whole strip; then the points.
_ENTRY = struct.Struct("<HHHH")


class WardState(DataModel):
    """What travels between the view's script and the server."""

    tiles: Any = String(default="{}")
    """JSON: beds of this leaf in their order, with their strips."""
    trends: Any = String(default="{}")
    """JSON: by bed, the score of the last minutes."""
    # Not empty bytes: BokehJS cannot copy a default of these, and a page that begins in another view has it.
    strips: Any = Nullable(Bytes)
    """What is new in the strips: entries one after the other, see `WardView`."""
    leaf: Any = Int(default=0)
    """Which of the leaves is wanted, from 0."""
    pixels: Any = Float(default=0.0)
    """Width of a strip on the screen."""


class WardView:
    """The tiles of one page.

    A strip's news go to the browser as bytes: its number, first new point, number of new points and number
    of points of the whole strip (uint16 each), then the new points (int16, microvolts, -32768 where there is
    none). Points are counted around: after the last comes the first.

    Parameters
    ----------
    ward : Ward
    strips : Strips
    order : callable
        Returns the names of all beds in the order in which they are shown.
    """

    name = "ward"

    def __init__(self, ward: Ward, strips: Strips, order: Callable[[], Sequence[str]]) -> None:
        self._ward, self._strips, self._order = ward, strips, order
        self._state = WardState()
        self._leaves = 1
        # By strip: the bucket up to which the browser has it.
        self._heads: dict[int, int] = {}
        self._drawn_ns = self._told_ns = 0
        self._shown: list[str] = []
        self._step = -1
        self._figure = StripsFigure()

    @property
    def figures(self) -> list[LayoutDOM]:
        """What is to be drawn."""
        return [self._figure.figure]

    @property
    def models(self) -> dict[str, Model]:
        """What the view's script is given."""
        drawn = self._figure
        return {
            "state": self._state,
            "source": drawn.source,
            "line": drawn.line,
            "bold_x": drawn.bold_x,
            "bold_y": drawn.bold_y,
        }

    def show(self, bed: Bed | None, now_ns: int) -> None:
        """Bring the view up to now."""
        names = self._leaf()
        interval_ns = _FEW_NS if len(names) <= _FEW else _MANY_NS
        if names == self._shown and now_ns - self._drawn_ns < interval_ns:
            return
        self._drawn_ns = now_ns
        beds = [self._ward.beds[name] for name in names]
        columns = columns_for(self._state.pixels)
        strips = [self._strips.of(bed, columns, now_ns) for bed in beds]
        self._strips.advance(now_ns)
        numbers = [strip.number if strip else 0 for strip in strips]
        fresh = any(number not in self._heads for number in numbers if number)
        if fresh or names != self._shown or now_ns - self._told_ns >= _TILES_NS:
            self._tell(beds, strips, now_ns)
        self._shown = names
        self._heads = {number: self._heads[number] for number in numbers if number in self._heads}
        news = [
            self._news(strip, bed, now_ns)
            for strip, bed in zip(strips, beds, strict=True)
            if strip is not None
        ]
        packet = b"".join(news)
        if packet:
            self._state.strips = packet

    def rest(self) -> None:
        """Stop: nobody sees the view."""
        self._heads.clear()
        self._shown = []

    def _leaf(self) -> list[str]:
        names = [name for name in self._order() if name in self._ward.beds]
        leaves = max(1, -(-len(names) // LEAF))
        first = min(max(0, self._state.leaf), leaves - 1) * LEAF
        self._leaves = leaves
        return names[first : first + LEAF]

    def _tell(self, beds: Sequence[Bed], strips: Sequence[Strip | None], now_ns: int) -> None:
        self._told_ns = now_ns
        tiles: list[dict[str, Any]] = []
        for bed, strip in zip(beds, strips, strict=True):
            tile: dict[str, Any] = {"bed": bed.name}
            if strip is not None and bed.feed is not None:
                if strip.span is None:
                    strip.fit(strip.head(bed.feed, now_ns))
                tile |= {"strip": strip.number, "lead": strip.lead}
                if strip.span is not None:
                    tile |= {"low": strip.span.low, "high": strip.span.high}
            tiles.append(tile)
        self._state.tiles = json.dumps({"beds": tiles, "leaves": self._leaves})
        step = now_ns // round(STEP_S * 1e9)
        names = [bed.name for bed in beds]
        if step != self._step or names != self._shown:
            self._step = step
            trends = {bed.name: score_trend(bed.scores, bed.device_time(now_ns)) for bed in beds}
            self._state.trends = json.dumps(trends)

    def _news(self, strip: Strip, bed: Bed, now_ns: int) -> bytes:
        assert bed.feed is not None
        head = strip.head(bed.feed, now_ns)
        most = strip.grid.buckets - round(_GAP * strip.grid.buckets)
        known = self._heads.get(strip.number)
        old = head - most if known is None else max(known, head - most)
        if head <= old:
            return b""
        self._heads[strip.number] = head
        points = strip.microvolts(old, head)
        header = _ENTRY.pack(strip.number % 65536, strip.place(old), len(points), strip.points)
        return header + points.tobytes()
