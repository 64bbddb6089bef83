"""One lead of each bed, filtered and thinned out once for all pages of a process.

A strip sweeps like a lead of the bed view, at the width of a tile: two points for a column of pixels or so,
the lowest and the highest sample in it. The filter takes the new samples of all beds in one call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monitor.bed.trace import MONITOR_BAND, SETTLING_S, Grid, Trace
from monitor.live.ward import Bed, Feed, Ward
from monitor.tiles.lead import LeadChoice
from monitor.tiles.span import Span, span_for
from stream.contract import INVALID
from stream.preprocess import condition

STRIP_S = 5.0
"""Five beats at rest: enough to see a rhythm, and wide enough for a tile of a hundred pixels."""
# Columns of pixels for which strips are made: a strip of a page has at most twice as many pixels.
_COLUMNS = (128, 256, 512, 1024)
_MICROVOLTS = 1000.0
# Slower than this is no ECG, and too slow for the filter.
_FS_MIN = 20.0
_CHOOSE_NS = 1_000_000_000
# Strips that no page has asked for: kept for a page that is opened anew or turns a leaf.
_KEPT_NS = 10_000_000_000

Int16Array = npt.NDArray[np.int16]


def columns_for(pixels: float) -> int:
    """Return for how many columns of pixels a strip is made that is so many pixels wide."""
    return max((columns for columns in _COLUMNS if columns <= pixels), default=_COLUMNS[0])


class Strip:
    """One lead of one session, at one width.

    Parameters
    ----------
    number : int
        By which pages know it.
    feed : Feed
    column : int
        Of the lead among the feed's.
    columns : int
        Columns of pixels.
    now_ns : int
    """

    def __init__(self, number: int, feed: Feed, column: int, columns: int, now_ns: int) -> None:
        self.number = number
        self.session, self.column, self.lead = feed.session, column, feed.leads[column]
        self.grid = Grid(feed.fs, STRIP_S, columns / STRIP_S)
        start = max(feed.ring.first, feed.ring.stop - round((STRIP_S + SETTLING_S) * feed.fs))
        self.trace = Trace(self.grid, 1, MONITOR_BAND, start)
        self.used_ns = now_ns
        self.span: Span | None = None
        # Where the head stands is a matter of the time of day: so all strips of a screen sweep together.
        phase = (now_ns / 1e9) % STRIP_S / STRIP_S
        self._shift = int(phase * self.grid.buckets) - self._due(feed, now_ns)

    @property
    def points(self) -> int:
        """Points of the strip."""
        return self.grid.buckets * self.grid.points

    def head(self, feed: Feed, now_ns: int) -> int:
        """Return the bucket up to which the strip is due on the screen, exclusive."""
        return min(self._due(feed, now_ns), self.trace.stop)

    def place(self, bucket: int) -> int:
        """Return the point of the strip at which a bucket begins."""
        return (bucket + self._shift) % self.grid.buckets * self.grid.points

    def microvolts(self, start: int, stop: int) -> Int16Array:
        """Return the points of some buckets, `INVALID` where there is none."""
        values = self.trace.read(start, stop)[:, 0]
        absent = np.isnan(values)
        scaled = np.clip(np.where(absent, 0.0, values) * _MICROVOLTS, INVALID + 1, -INVALID - 1)
        whole = scaled.astype(np.int16)
        whole[absent] = INVALID
        return whole

    def fit(self, head: int) -> None:
        """Choose the span anew by what is on the screen."""
        values = self.trace.read(head - self.grid.buckets, head)
        if not np.isnan(values).all():
            self.span = span_for(float(np.nanmin(values)), float(np.nanmax(values)), self.span)

    def _due(self, feed: Feed, now_ns: int) -> int:
        return (feed.playout.position(now_ns) - self.trace.delay) // self.grid.size


@dataclass(slots=True)
class _Watched:
    # What is known of a bed whatever the width.
    session: str
    choice: LeadChoice
    column: int
    chosen_ns: int
    strips: dict[int, Strip] = field(default_factory=dict)


class Strips:
    """The strips of all beds that some page shows.

    Parameters
    ----------
    ward : Ward
    """

    def __init__(self, ward: Ward) -> None:
        self._ward = ward
        self._beds: dict[str, _Watched] = {}
        self._made = 0

    def __len__(self) -> int:
        return sum(len(watched.strips) for watched in self._beds.values())

    def of(self, bed: Bed, columns: int, now_ns: int) -> Strip | None:
        """Return a bed's strip at a width; None for a bed without a signal that can be drawn."""
        feed = bed.feed
        if feed is None or feed.fs < _FS_MIN:
            return None
        watched = self._beds.get(bed.name)
        if watched is None or watched.session != feed.session:
            watched = _Watched(feed.session, LeadChoice(feed.leads), 0, 0)
            self._beds[bed.name] = watched
        if now_ns - watched.chosen_ns >= _CHOOSE_NS:
            self._look(bed, feed, watched, now_ns)
        strip = watched.strips.get(columns)
        if strip is None or strip.column != watched.column or strip.trace.next_in < feed.ring.first:
            self._made += 1
            strip = Strip(self._made, feed, watched.column, columns, now_ns)
            watched.strips[columns] = strip
        strip.used_ns = now_ns
        return strip

    def advance(self, now_ns: int) -> None:
        """Take the samples that have come since; let go of what nobody looks at."""
        alike: defaultdict[Hashable, list[tuple[Strip, npt.NDArray[np.float64]]]] = defaultdict(list)
        for name, watched in list(self._beds.items()):
            bed = self._ward.beds.get(name)
            feed = bed.feed if bed is not None else None
            for columns, strip in list(watched.strips.items()):
                if feed is None or feed.session != strip.session or now_ns - strip.used_ns > _KEPT_NS:
                    del watched.strips[columns]
                elif feed.ring.stop > strip.trace.next_in >= feed.ring.first:
                    new = feed.ring.read(strip.trace.next_in, feed.ring.stop)[:, strip.column]
                    group = (strip.trace.conditioner.alike, len(new))
                    alike[group].append((strip, new.astype(np.float64)))
            if not watched.strips:
                del self._beds[name]
        for members in alike.values():
            strips = [strip for strip, _ in members]
            filtered = condition(
                [strip.trace.conditioner for strip in strips], np.stack([new for _, new in members])
            )
            for strip, stretch in zip(strips, filtered, strict=True):
                strip.trace.take(stretch)

    def _look(self, bed: Bed, feed: Feed, watched: _Watched, now_ns: int) -> None:
        vitals = bed.vitals
        ours = vitals is not None and vitals.session == feed.session
        quality = vitals.quality if vitals is not None and ours else {}
        watched.column = watched.choice.choose(quality, feed.valid, now_ns)
        watched.chosen_ns = now_ns
        for strip in watched.strips.values():
            strip.fit(strip.head(feed, now_ns))
