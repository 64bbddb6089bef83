"""One bed on one page: its leads as a sweep, its score, and what is to be said of it."""

from __future__ import annotations

import json
import math
from typing import Any

from bokeh.core.properties import Float, String
from bokeh.model import DataModel, Model
from bokeh.models import LayoutDOM

from monitor.bed.figures import NameStyle, ScoreFigure, SweepFigure
from monitor.bed.layout import PAPER_SPEED, Layout
from monitor.bed.scores import score_chart
from monitor.bed.sweep import Sweep
from monitor.bed.trace import MONITOR_BAND, WIDE_BAND
from monitor.live.pump import Pump
from monitor.live.ward import HISTORY_S, Bed, Feed
from monitor.summary import alarm_line, is_current, lag, local_time, number
from stream.contract import Validity

_BED_NS = 500_000_000
# A loss is told for as long as it takes to look up; the gap in the trace has gone by then.
_MISSING_SHOWN_NS = 60_000_000_000
# A trace further behind than this is no longer live.
_BEHIND_S = 1.0
# Slower than this is no ECG, and too slow for the filter.
_FS_MIN = 20.0
_BANDS = {"monitor": MONITOR_BAND, "wide": WIDE_BAND}
_SIZES = {"auto": None, "5": 5.0, "10": 10.0, "20": 20.0, "40": 40.0}


class BedState(DataModel):
    """What travels between the view's script and the server beside the figures' data."""

    bed = String(default="{}")
    """JSON: the bed that is shown."""
    band = String(default="monitor")
    size = String(default="auto")
    width = Float(default=0.0)
    height = Float(default=0.0)
    """Pixels of the sweep."""


class BedView:
    """One bed on one page.

    Parameters
    ----------
    pump : Pump
        Is asked for explanations of the bed while it is shown.
    """

    name = "bed"

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._state = BedState()
        self._sweep_figure, self._score_figure = SweepFigure(), ScoreFigure()
        self._sweep: Sweep | None = None
        self._shown: str | None = None
        self._explained = self._findings = 0
        self._names: list[tuple[str, NameStyle]] = []
        self._bed_ns = 0
        self._laid_out = True
        for name in ("size", "width", "height"):
            self._state.on_change(name, self._lay_out_again)
        self._state.on_change("band", self._filter_again)

    @property
    def figures(self) -> list[LayoutDOM]:
        """What is to be drawn."""
        return [self._sweep_figure.figure, self._score_figure.figure]

    @property
    def models(self) -> dict[str, Model]:
        """What the view's script is given."""
        return {
            "state": self._state,
            "sweep": self._sweep_figure.figure,
            "trace": self._sweep_figure.trace,
        }

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
        self._pump.watch(self, bed.name)
        if bed.name != self._shown:
            self._leave()
            self._shown = bed.name
        if bed.feed is not None and bed.feed.fs >= _FS_MIN:
            self._show_traces(bed, bed.feed, now_ns)
        if bed.findings != self._findings or now_ns - self._bed_ns >= _BED_NS:
            self._findings, self._bed_ns = bed.findings, now_ns
            self._show_bed(bed, now_ns)

    def rest(self) -> None:
        """Stop: nobody sees the view."""
        self._pump.unwatch(self)
        self._sweep = None

    def _leave(self) -> None:
        self._shown, self._sweep = None, None
        self._bed_ns = 0
        self._sweep_figure.clear()
        self._state.bed = "{}"
        self._pump.unwatch(self)

    def _show_traces(self, bed: Bed, feed: Feed, now_ns: int) -> None:
        position = feed.playout.position(now_ns)
        sweep, fresh = self._sweep, True
        if sweep is None or not sweep.follow(feed):
            sweep = self._begin(bed, feed)
        elif not self._laid_out:
            sweep.place(*self._layout(feed))
            self._names = []
        else:
            fresh = False
        self._laid_out = True
        new = bed.explained - self._explained
        if new:
            self._explained = bed.explained
            for explanation in list(bed.explanations)[-new:]:
                sweep.explain(explanation, feed.sample_at(explanation.header.t_start))
        names = _names(bed, feed, sweep, now_ns)
        if names != self._names:
            self._names = names
            self._sweep_figure.show_layout(sweep.layout, names)
        update = None if fresh else sweep.step(position)
        if update is None:
            self._sweep_figure.trace.data, self._sweep_figure.expected.data = sweep.columns(position)
            return
        if update.trace:
            self._sweep_figure.trace.patch({"ys": update.trace})
        if new:
            # Half of the picture at once: as one block of bytes, which is far less work than a patch.
            self._sweep_figure.expected.data["ys"] = sweep.expected()
        elif update.expected:
            self._sweep_figure.expected.patch({"ys": update.expected})

    def _begin(self, bed: Bed, feed: Feed) -> Sweep:
        layout, size = self._layout(feed)
        self._sweep = Sweep(feed, layout, _BANDS.get(self._state.band, MONITOR_BAND), size)
        self._sweep.follow(feed)
        # What is known of the time on the screen is drawn again.
        self._explained = bed.explained - len(bed.explanations)
        self._names = []
        return self._sweep

    def _layout(self, feed: Feed) -> tuple[Layout, float]:
        layout = Layout.fit(len(feed.leads), self._state.width, self._state.height)
        return layout, _SIZES.get(self._state.size) or layout.usual_size

    def _show_bed(self, bed: Bed, now_ns: int) -> None:
        feed, sweep, finding = bed.feed, self._sweep, bed.finding
        device_ns = bed.device_time(now_ns)
        shown: dict[str, Any] = {
            "bed": bed.name,
            "alarms": [alarm_line(event, device_ns, bed.text_of(event)) for event in bed.open_alarms()],
            "behind": "",
            "late": True,
            "size": f"{sweep.size:g}" if sweep else "",
            "speed": f"{PAPER_SPEED:g}",
            "model": finding.model if finding else "",
            "score": "–",
            "threshold": number(finding.threshold) if finding else "–",
            "percentile": "",
            "over": False,
            "missing": "",
            "rate": "–",
        }
        if (rate := bed.heart_rate(now_ns)) is not None:
            shown["rate"] = f"{rate:.0f}"
        if finding is not None and finding.score is not None and is_current(bed, now_ns):
            shown["score"], shown["over"] = number(finding.score), finding.anomalous
            if finding.percentile is not None:
                shown["percentile"] = f"{min(finding.percentile, 99.0):.0f}"
        if feed is not None:
            behind_s = _behind_s(feed, now_ns)
            shown["behind"], shown["late"] = lag(behind_s), behind_s > _BEHIND_S
            if feed.missing and now_ns - feed.missed_ns < _MISSING_SHOWN_NS:
                shown["missing"] = f"{feed.missing / feed.fs:.1f} s of signal lost"
        self._state.bed = json.dumps(shown)
        shift_ms = _utc_offset_ms(device_ns)
        chart = score_chart(bed.scores, device_ns / 1e6 + shift_ms, shift_ms, HISTORY_S)
        self._score_figure.show(chart)

    def _lay_out_again(self, _attribute: str, _old: object, _new: object) -> None:
        self._laid_out = False
        self._bed_ns = 0

    def _filter_again(self, _attribute: str, _old: object, _new: object) -> None:
        self._sweep = None


def _names(bed: Bed, feed: Feed, sweep: Sweep, now_ns: int) -> list[tuple[str, NameStyle]]:
    # The leads in their order, with what is wrong with the signal or unusual in it.
    finding = bed.finding
    ours = finding is not None and finding.session == feed.session and is_current(bed, now_ns)
    names: list[tuple[str, NameStyle]] = []
    for column in sweep.order:
        lead, flag = feed.leads[column], feed.valid[column]
        score = finding.lead_scores.get(lead, -math.inf) if finding is not None and ours else -math.inf
        if flag is not Validity.OK:
            names.append((f"{lead}  {flag.value}", "poor"))
        elif finding is not None and score > finding.threshold:
            names.append((f"{lead}  ▲ {number(score)}", "over"))
        else:
            names.append((lead, "good"))
    return names


def _behind_s(feed: Feed, now_ns: int) -> float:
    # How long ago the newest sample on the screen was taken, as far as ingest stamps tell.
    waiting = (feed.ring.stop - feed.playout.position(now_ns)) / feed.fs / (feed.pace or 1.0)
    return max(0.0, (now_ns - feed.ingest_ns) / 1e9 + waiting)


def _utc_offset_ms(device_ns: int) -> float:
    time = local_time(device_ns)
    offset = time.utcoffset() if time else None
    return offset.total_seconds() * 1000 if offset else 0.0
