"""One bed on one page: its leads, what the model says of them, its score, and what is to be said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bokeh.core.properties import Any as AnyProperty
from bokeh.core.properties import Int, String
from bokeh.model import DataModel, Model
from bokeh.models import LayoutDOM

from monitor.bed.figures import ScoreFigure
from monitor.bed.scores import score_chart
from monitor.bed.sweep import Packet, Sweep
from monitor.bed.trace import MONITOR_BAND, WIDE_BAND
from monitor.bed.words import bed_words
from monitor.delivery import Delivery
from monitor.live.pump import Pump
from monitor.live.ward import HISTORY_S, Bed, Feed
from monitor.summary import local_time

_WORDS_NS = 500_000_000
# Slower than this is no ECG, and too slow for the filter.
_FS_MIN = 20.0
_BANDS = {"monitor": MONITOR_BAND, "wide": WIDE_BAND}


class BedState(DataModel):
    """What travels between the view's script and the server."""

    words: Any = String(default="{}")
    """JSON: what is said of the bed that is shown."""
    packet: Any = AnyProperty(default={})
    """Traces and what goes with them: see `monitor.bed.sweep`, and ``number``, which counts packets."""
    band: Any = String(default="monitor")
    taken: Any = Int(default=-1)
    """Number of the newest packet that the browser has taken; -1 before it can take any."""


class BedView:
    """One bed on one page.

    Parameters
    ----------
    pump : Pump
        Is asked for explanations of the bed while it is shown.
    wake : callable
        Brings about a call of `show` at once; called when samples of the bed have come.
    """

    name = "bed"

    def __init__(self, pump: Pump, wake: Callable[[], None]) -> None:
        self._pump, self._wake = pump, wake
        self._state = BedState()
        self._score_figure = ScoreFigure()
        self._sweep: Sweep | None = None
        self._shown: str | None = None
        self._explained = self._findings = 0
        self._words_ns = 0
        self._number = 0
        self._delivery = Delivery()
        self._state.on_change("taken", lambda _attribute, _old, new: self._delivery.take(new))
        self._state.on_change("band", self._filter_again)

    @property
    def figures(self) -> list[LayoutDOM]:
        """What is to be drawn."""
        return [self._score_figure.figure]

    @property
    def models(self) -> dict[str, Model]:
        """What the view's script is given."""
        return {"state": self._state}

    def dress(self, *, dark: bool) -> None:
        """Draw in the colours of a theme."""
        self._score_figure.dress(dark=dark)

    def show(self, bed: Bed | None, now_ns: int) -> None:
        """Bring the view up to now.

        Parameters
        ----------
        bed : Bed or None
            The one to show; None if there is none.
        now_ns : int
        """
        if bed is None:
            if self._shown is not None:
                self._leave()
            return
        self._pump.watch(self, bed.name, self._wake)
        if bed.name != self._shown:
            self._leave()
            self._shown = bed.name
        if self._delivery.is_behind(now_ns):
            # Then it begins anew, with what is live.
            self._sweep = None
            return
        if bed.feed is not None and bed.feed.fs >= _FS_MIN:
            self._send(bed, bed.feed, now_ns)
        if bed.findings != self._findings or now_ns - self._words_ns >= _WORDS_NS:
            self._findings, self._words_ns = bed.findings, now_ns
            self._say(bed, now_ns)

    def rest(self) -> None:
        """Stop: nobody sees the view."""
        self._pump.unwatch(self)
        self._sweep = None

    def _leave(self) -> None:
        self._shown, self._sweep = None, None
        self._words_ns = 0
        self._state.words = "{}"
        self._pump.unwatch(self)

    def _send(self, bed: Bed, feed: Feed, now_ns: int) -> None:
        if self._state.taken < 0:
            return
        sweep = self._sweep
        if sweep is None or not sweep.follow(feed):
            sweep = self._sweep = Sweep(feed, _BANDS.get(self._state.band, MONITOR_BAND))
            sweep.follow(feed)
            # What is known of the time on the screen is drawn again.
            self._explained = bed.explained - len(bed.explanations)
        new = bed.explained - self._explained
        if new:
            self._explained = bed.explained
            for explanation in list(bed.explanations)[-new:]:
                sweep.explain(explanation, feed.sample_at(explanation.header.t_start))
        sweep.rate(bed.seconds)
        packet = sweep.news()
        if not packet:
            return
        self._number += 1
        self._delivery.send(self._number, now_ns)
        self._state.packet = packet | self._stamps(bed, feed, now_ns)

    def _stamps(self, bed: Bed, feed: Feed, now_ns: int) -> Packet:
        # How old the newest sample is now, as far as ingest stamps tell, and how fast samples come.
        return {
            "number": self._number,
            "bed": bed.name,
            "sent_ms": now_ns / 1e6,
            "age_s": max(0.0, (now_ns - feed.ingest_ns) / 1e9),
            "pace": feed.pace,
        }

    def _say(self, bed: Bed, now_ns: int) -> None:
        self._state.words = json.dumps(bed_words(bed, now_ns, self._pump.runs_on(bed.name)))
        device_ns = bed.device_time(now_ns)
        shift_ms = _utc_offset_ms(device_ns)
        self._score_figure.show(score_chart(bed.scores, device_ns / 1e6 + shift_ms, shift_ms, HISTORY_S))

    def _filter_again(self, _attribute: str, _old: object, _new: object) -> None:
        self._sweep = None


def _utc_offset_ms(device_ns: int) -> float:
    time = local_time(device_ns)
    offset = time.utcoffset() if time else None
    return offset.total_seconds() * 1000 if offset else 0.0
