"""The score over time, as a Bokeh figure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    DatetimeTicker,
    DatetimeTickFormatter,
    Line,
    Range1d,
    VArea,
    VStrip,
)
from bokeh.plotting import figure

from monitor.bed.scores import ScoreChart
from monitor.colours import NO_PRIORITY, OVER, RULE, SCORE, SLATE

_FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class _Dress(NamedTuple):
    # The figure's colours in one theme; panel and lines are those of page.css.
    panel: str
    grid: str
    rule: str
    words: str
    blank: str
    hatch: str
    score: str
    over: str
    threshold: str


_LIGHT = _Dress("#ffffff", "#eceff3", RULE, SLATE, "#e9edf1", NO_PRIORITY, SCORE, OVER, SLATE)
_DARK = _Dress(
    "#151d27", "#222d3a", "#3a4653", "#97a6b6", "#1f2a37", "#45525f", "#ffa53d", "#ff6474", "#97a6b6"
)


class ScoreFigure:
    """The anomaly score over time: its threshold, red where it is over, hatched where there is none."""

    def __init__(self) -> None:
        self.line = ColumnDataSource(
            data={"t": [], "score": [], "threshold": [], "over": [], "above": []}, name="score"
        )
        self.unscored = ColumnDataSource(data={"start": [], "end": []}, name="unscored")
        self.figure = figure(
            name="bed-score",
            sizing_mode="stretch_both",
            x_range=Range1d(start=0, end=1),
            y_range=Range1d(start=-1, end=4),
            x_axis_type="datetime",
            toolbar_location=None,
            tools="",
            min_border_left=44,
            min_border_right=24,
            min_border_top=8,
            min_border_bottom=22,
            outline_line_color=None,
        )
        plot = self.figure
        self._unscored = VStrip(
            x0="start",
            x1="end",
            line_color=None,
            hatch_pattern="right_diagonal_line",
            hatch_scale=8,
            hatch_weight=1,
        )
        self._over = VArea(x="t", y1="threshold", y2="over", fill_alpha=0.30)
        self._score = Line(x="t", y="score", line_width=1.8)
        self._threshold = Line(x="t", y="threshold", line_width=1.4, line_dash="6 4")
        self._above = Line(x="t", y="above", line_width=2.4)
        plot.add_glyph(self.unscored, self._unscored)
        for glyph in (self._over, self._score, self._threshold, self._above):
            plot.add_glyph(self.line, glyph)
        plot.xgrid.grid_line_color = None
        time = DatetimeTickFormatter(
            seconds="%H:%M:%S", minsec="%H:%M:%S", minutes="%H:%M", hourmin="%H:%M", hours="%H:%M"
        )
        plot.xaxis.formatter = time
        for axis in (plot.xaxis, plot.yaxis):
            axis.minor_tick_line_color = None
            axis.major_label_text_font = _FONT
            axis.major_label_text_font_size = "12px"
        plot.yaxis.ticker = BasicTicker(desired_num_ticks=4)
        plot.xaxis.ticker = DatetimeTicker(desired_num_ticks=8)
        self.dress(dark=False)

    def dress(self, *, dark: bool) -> None:
        """Draw in the colours of a theme."""
        plot, dress = self.figure, _DARK if dark else _LIGHT
        plot.update(background_fill_color=dress.panel, border_fill_color=dress.panel)
        plot.ygrid.grid_line_color = dress.grid
        for axis in (*plot.xaxis, *plot.yaxis):
            axis.update(
                axis_line_color=dress.rule,
                major_tick_line_color=dress.rule,
                major_label_text_color=dress.words,
            )
        self._unscored.update(fill_color=dress.blank, hatch_color=dress.hatch)
        self._over.fill_color = self._above.line_color = dress.over
        self._score.line_color, self._threshold.line_color = dress.score, dress.threshold

    def show(self, chart: ScoreChart) -> None:
        """Draw a chart."""
        above = np.where(chart.score >= chart.threshold, chart.score, np.nan)
        self.line.data = {
            "t": chart.t,
            "score": chart.score,
            "threshold": chart.threshold,
            "over": chart.over,
            "above": above,
        }
        self.unscored.data = {
            "start": [start for start, _ in chart.unscored],
            "end": [end for _, end in chart.unscored],
        }
        self.figure.x_range.update(start=chart.span[0], end=chart.span[1])
        self.figure.y_range.update(start=chart.limits[0], end=chart.limits[1])
