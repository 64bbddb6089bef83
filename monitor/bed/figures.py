"""The Bokeh figures of the page: ECG paper with traces, and the score over time."""

from __future__ import annotations

from typing import Literal

import numpy as np
from bokeh.core.properties import value
from bokeh.models import (
    ColumnDataSource,
    DatetimeTickFormatter,
    Grid,
    Line,
    MultiLine,
    Range1d,
    SingleIntervalTicker,
    Text,
    VArea,
    VStrip,
)
from bokeh.plotting import figure

from monitor.bed.layout import Layout
from monitor.bed.scores import ScoreChart
from monitor.colours import EXPECTED, INK, MAJOR, MINOR, OVER, PAPER, RULE, SCORE, SLATE

NameStyle = Literal["good", "poor", "over"]
_NAME_COLOURS: dict[NameStyle, str] = {"good": INK, "poor": SLATE, "over": "#b00019"}
_FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class SweepFigure:
    """ECG paper with the traces, what the model expected of them, and their names."""

    def __init__(self) -> None:
        self.trace = ColumnDataSource(data={"xs": [], "ys": []}, name="trace")
        self.expected = ColumnDataSource(data={"xs": [], "ys": []}, name="expected")
        self.names = ColumnDataSource(data={"x": [], "y": [], "text": [], "color": []}, name="names")
        self.figure = figure(
            name="sweep",
            sizing_mode="stretch_both",
            x_range=Range1d(start=0, end=10),
            y_range=Range1d(start=0, end=100),
            x_axis_location=None,
            y_axis_location=None,
            toolbar_location=None,
            tools="",
            min_border=0,
            outline_line_color=None,
            background_fill_color=PAPER,
            border_fill_color=PAPER,
        )
        plot = self.figure
        plot.xgrid.visible = plot.ygrid.visible = False
        # Millimetres first, so that the lines of the large squares lie over them.
        for colour, second, millimetres in ((MINOR, 0.04, 1.0), (MAJOR, 0.2, 5.0)):
            for dimension, interval in ((0, second), (1, millimetres)):
                ticker = SingleIntervalTicker(interval=interval, num_minor_ticks=0)
                plot.add_layout(
                    Grid(dimension=dimension, ticker=ticker, grid_line_color=colour, level="underlay")
                )
        # Three things keep the browser's work small where no graphics card helps: one pixel wide, a line of
        # thousands of points is drawn ten times faster than any wider one; MultiLine keeps one box for each
        # lead where Line sorts every point; and the level "overlay" has a canvas of its own, so that the
        # paper is not drawn again. The measured trace is drawn twice, half a pixel apart, to be bolder.
        plot.extra_x_ranges = {"bold": Range1d(start=0, end=10)}
        plot.extra_y_ranges = {"bold": Range1d(start=0, end=100)}
        for source, colour, ranges in (
            (self.expected, EXPECTED, {}),
            (self.trace, INK, {}),
            (self.trace, INK, {"x_range_name": "bold", "y_range_name": "bold"}),
        ):
            line = MultiLine(xs="xs", ys="ys", line_color=colour, line_width=1)
            plot.add_glyph(source, line, level="overlay", **ranges)
        plot.add_glyph(
            self.names,
            Text(
                x="x",
                y="y",
                text="text",
                text_color="color",
                text_font=value(_FONT),
                text_font_size="15px",
                text_font_style="bold",
                text_baseline="middle",
                background_fill_color=PAPER,
                background_fill_alpha=0.8,
                padding=2,
            ),
        )

    def show_layout(self, layout: Layout, names: list[tuple[str, NameStyle]]) -> None:
        """Set the paper's size and write the leads' names."""
        plot = self.figure
        half_s = 0.5 * layout.width_s / layout.width_px
        half_mm = 0.5 * layout.height_mm / layout.height_px
        plot.x_range.update(start=0, end=layout.width_s)
        plot.y_range.update(start=0, end=layout.height_mm)
        plot.extra_x_ranges["bold"].update(start=-half_s, end=layout.width_s - half_s)
        plot.extra_y_ranges["bold"].update(start=-half_mm, end=layout.height_mm - half_mm)
        self.names.data = {
            "x": [layout.left(place) + 0.03 for place in range(len(names))],
            "y": [layout.label_height(place) for place in range(len(names))],
            "text": [name for name, _ in names],
            "color": [_NAME_COLOURS[style] for _, style in names],
        }

    def clear(self) -> None:
        """Show empty paper."""
        self.trace.data = {"xs": [], "ys": []}
        self.expected.data = {"xs": [], "ys": []}
        self.names.data = {"x": [], "y": [], "text": [], "color": []}


class ScoreFigure:
    """The anomaly score over time: its threshold, red where it is over, hatched where there is none."""

    def __init__(self) -> None:
        self.line = ColumnDataSource(
            data={"t": [], "score": [], "threshold": [], "over": [], "above": []}, name="score"
        )
        self.unscored = ColumnDataSource(data={"start": [], "end": []}, name="unscored")
        self.figure = figure(
            name="score",
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
            background_fill_color="#ffffff",
            border_fill_color="#ffffff",
        )
        plot = self.figure
        plot.add_glyph(
            self.unscored,
            VStrip(
                x0="start",
                x1="end",
                fill_color="#e9edf1",
                line_color=None,
                hatch_pattern="right_diagonal_line",
                hatch_color="#b4bec9",
                hatch_scale=8,
                hatch_weight=1,
            ),
        )
        plot.add_glyph(self.line, VArea(x="t", y1="threshold", y2="over", fill_color=OVER, fill_alpha=0.30))
        plot.add_glyph(self.line, Line(x="t", y="score", line_color=SCORE, line_width=1.8))
        plot.add_glyph(
            self.line, Line(x="t", y="threshold", line_color=SLATE, line_width=1.4, line_dash="6 4")
        )
        plot.add_glyph(self.line, Line(x="t", y="above", line_color=OVER, line_width=2.4))
        plot.xgrid.grid_line_color = None
        plot.ygrid.grid_line_color = "#eceff3"
        time = DatetimeTickFormatter(
            seconds="%H:%M:%S", minsec="%H:%M:%S", minutes="%H:%M", hourmin="%H:%M", hours="%H:%M"
        )
        plot.xaxis.formatter = time
        for axis in (plot.xaxis, plot.yaxis):
            axis.axis_line_color = RULE
            axis.major_tick_line_color = RULE
            axis.minor_tick_line_color = None
            axis.major_label_text_color = SLATE
            axis.major_label_text_font = _FONT
            axis.major_label_text_font_size = "12px"
        plot.yaxis.ticker.desired_num_ticks = 4
        plot.xaxis.ticker.desired_num_ticks = 8

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
