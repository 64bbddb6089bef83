"""The Bokeh figures of a report: leads on ECG paper and the score, for a page without a server."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColumnDataSource,
    Grid,
    HoverTool,
    Line,
    LinearColorMapper,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    RangeTool,
    ResetTool,
    SaveTool,
    SingleIntervalTicker,
    Tool,
    VArea,
    WheelZoomTool,
    ZoomInTool,
    ZoomOutTool,
)
from bokeh.models.annotations import Label, Span, Title
from bokeh.plotting import figure

from monitor.bed.trace import thin
from monitor.colours import (
    EXPECTED,
    INK,
    MAJOR,
    MINOR,
    NO_PRIORITY,
    OVER,
    PAPER,
    PRIORITY,
    RULE,
    SCORE,
    SLATE,
)
from monitor.report.maps import band, shades
from monitor.report.picture import most_urgent_last, with_breaks
from monitor.report.rows import BAR_MM, Paper
from monitor.shades import shade
from stream.offline import Analysis
from stream.overlay import Traces
from stream.statement import duration
from stream.stretches import Stretch, not_scored, over_threshold

_FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# Values in all columns together: 5.3 characters each, 2.7 MB; Bokeh itself is another megabyte.
_MAX_VALUES = 500_000
# Half of them go to what is drawn in full, so that the rest keeps a usable resolution.
_SHARE_IN_FULL = 0.5
# Shades of all bars together, a byte each; in pieces, for a browser draws no image wider than some 16,000.
_MAX_SHADES, _SHADES_IN_A_PIECE = 500_000, 8192
# Ten to a pixel; three hours of windows.
_MAX_SCORES = 20_000
# One pixel of a screen is about a quarter of a millimetre: the paper is drawn at life size.
_PX_PER_MM = 4.0
_MM_PER_S = 25.0
# A window of a laptop's screen: eleven seconds.
FRAME_PX = 1100
AXIS_PX = 46
VIEW_S = FRAME_PX / _PX_PER_MM / _MM_PER_S
# Beyond this the fine lines of the paper are closer than pixels, and take long to draw.
MOST_S = 60.0
_SCORE_PX = 190
# Of more windows, points would hide the line.
_POINTS = 60

Floats = npt.NDArray[np.floating]


class Thinned(NamedTuple):
    """Points to draw: their times, and rows of values."""

    t_s: npt.NDArray[np.float64]
    values: npt.NDArray[np.floating]
    in_full: bool


def thinned(traces: Traces, in_full: list[Stretch], max_values: int = _MAX_VALUES) -> Thinned:
    """Choose the points to draw of a recording.

    Parameters
    ----------
    traces : Traces
    in_full : list of Stretch
        What to keep every point of, the most important first, as far as half of `max_values` goes.
    max_values : int

    Returns
    -------
    Thinned
        Times, strictly ascending, and one row for each lead's signal, then one for each one's
        reconstruction; of a model that expects a spread, then the lower edges of its band, then the upper
        ones. Where points are left out, two stand for a piece: its lowest and its highest value in the order
        in which they come; of an edge twice the outer one.
    """
    values = np.concatenate([traces.signal, traces.reconstruction, *(band(traces) or ())])
    lower, upper = (slice(edge * len(traces.leads), (edge + 1) * len(traces.leads)) for edge in (2, 3))
    n, t = len(traces.t_s), traces.t_s
    # Times are of twice the length.
    budget = max(4, max_values // (len(values) + 2))
    if n <= budget:
        return Thinned(t, values, True)
    keep = np.zeros(n, np.bool_)
    for stretch in in_full:
        begin, end = np.searchsorted(t, stretch)
        if np.count_nonzero(keep) + end - begin > _SHARE_IN_FULL * budget:
            break
        keep[begin:end] = True
    # Runs of points that are kept alternate with runs that are thinned.
    edges = [0, *(np.flatnonzero(np.diff(keep)) + 1).tolist(), n]
    rest = n - np.count_nonzero(keep)
    piece = max(3, int(np.ceil(2 * rest / (budget - np.count_nonzero(keep)))))
    times, rows = [], []
    for begin, end in pairwise(edges):
        whole = begin if keep[begin] else begin + (end - begin) // piece * piece
        if whole > begin:
            shape = ((whole - begin) // piece, piece)
            starts = t[begin:whole:piece]
            quarter = piece / traces.fs / 4
            times.append(np.stack([starts + quarter, starts + 3 * quarter], axis=1).ravel())
            pairs = thin(values[:, begin:whole].reshape(len(values), *shape))
            # The edges of a band must not cross.
            pairs[lower] = pairs[lower].min(axis=-1, keepdims=True)
            pairs[upper] = pairs[upper].max(axis=-1, keepdims=True)
            rows.append(pairs.reshape(len(values), -1))
        times.append(t[whole:end])
        rows.append(values[:, whole:end])
    return Thinned(np.concatenate(times), np.concatenate(rows, axis=1), False)


def leads_figure(analysis: Analysis, traces: Traces, paper: Paper, drawn: Thinned, best: Stretch) -> figure:
    # Paper in seconds and millimetres, as on the live page.
    end = max(analysis.duration_s, VIEW_S)
    start = min(max(0.0, (best.start_s + best.end_s - VIEW_S) / 2), end - VIEW_S)
    plot = figure(
        name="leads",
        frame_width=FRAME_PX,
        frame_height=round(paper.height * _PX_PER_MM),
        min_border_left=AXIS_PX,
        min_border_right=AXIS_PX,
        x_range=Range1d(
            start=start, end=start + VIEW_S, bounds=(0.0, end), max_interval=MOST_S, min_interval=0.5
        ),
        y_range=Range1d(start=0, end=paper.height),
        y_axis_location=None,
        tools=[],
        background_fill_color=PAPER,
        outline_line_color=MAJOR,
    )
    plot.xgrid.visible = plot.ygrid.visible = False
    for colour, second, millimetres in ((MINOR, 0.04, 1.0), (MAJOR, 0.2, 5.0)):
        along: tuple[tuple[Literal[0, 1], float], ...] = ((0, second), (1, millimetres))
        for dimension, interval in along:
            ticker = SingleIntervalTicker(interval=interval, num_minor_ticks=0)
            plot.add_layout(
                Grid(dimension=dimension, ticker=ticker, grid_line_color=colour, level="underlay")
            )
    over = over_threshold(analysis)
    plot.vstrip(
        x0=[stretch.start_s for stretch in over],
        x1=[stretch.end_s for stretch in over],
        fill_color=OVER,
        fill_alpha=0.055,
        line_color=None,
        level="image",
    )
    # Single precision resolves a sample up to 24 hours only for values, not for times.
    source = ColumnDataSource(data={"t": drawn.t_s})
    rows = len(traces.leads)
    kinds = ("signal", "expected", "low", "high")[: len(drawn.values) // max(rows, 1)]
    for strip in paper.strips:
        for number, kind in enumerate(kinds):
            height = paper.heights(strip, drawn.values[number * rows + strip.row])
            if kind in ("low", "high"):
                # An area does not know of missing points: it shrinks to nothing there.
                height = np.where(np.isnan(height), np.float32(strip.baseline), height)
            source.data[f"{strip.lead} {kind}"] = height
    if "low" in kinds:
        for strip in paper.strips:
            area = VArea(x="t", y1=f"{strip.lead} low", y2=f"{strip.lead} high")
            area.update(fill_color=EXPECTED, fill_alpha=0.15)
            plot.add_glyph(source, area)
    _draw_attention(plot, paper, traces)
    for kind, colour in (("expected", EXPECTED), ("signal", INK)):
        for strip in paper.strips:
            line = Line(x="t", y=f"{strip.lead} {kind}", line_color=colour, line_width=1.3, line_join="round")
            plot.add_glyph(source, line)
    for strip in paper.strips:
        plot.add_layout(_label(strip.lead, strip.baseline + 2.2, size=14, bold=True))
    pan = PanTool(dimensions="width")
    # With the bare wheel one scrolls the page, which is higher than most screens.
    zoom = WheelZoomTool(dimensions="width", modifiers="ctrl")
    steps = ZoomInTool(dimensions="width"), ZoomOutTool(dimensions="width")
    _add_tools(plot, pan, zoom, *steps)
    plot.toolbar.active_scroll = zoom
    _style_axes(plot, analysis)
    return plot


def _draw_attention(plot: figure, paper: Paper, traces: Traces) -> None:
    bars = []
    if traces.lead_attention is not None:
        bars += [(strip.bar, traces.lead_attention[strip.row]) for strip in paper.strips]
    if traces.temporal_attention is not None:
        bars.append((paper.foot, traces.temporal_attention))
        plot.add_layout(_label("all leads", paper.foot + BAR_MM + 0.7, size=12, bold=False))
    if not bars or not len(traces.t_s):
        return
    # Points that a shade stands for, and their mean.
    points = -(-len(bars) * len(traces.t_s) // _MAX_SHADES)
    begins = np.arange(0, len(traces.t_s), points)
    # The first colour is for where there is none.
    colours = LinearColorMapper(palette=["#00000000", *shades(255)], low=0, high=255)
    for bottom, attention in bars:
        absent = np.isnan(attention)
        total = np.add.reduceat(np.where(absent, 0.0, attention), begins)
        count = np.add.reduceat(~absent, begins, dtype=np.int64)
        mean = np.divide(total, count, out=np.full(len(begins), np.nan), where=count > 0)
        codes = np.where(count > 0, 1 + np.round(254 * shade(mean)), 0).astype(np.uint8)
        for first in range(0, len(codes), _SHADES_IN_A_PIECE):
            piece = codes[np.newaxis, first : first + _SHADES_IN_A_PIECE]
            plot.image(  # type: ignore[call-arg]
                image=[piece],  # type: ignore[list-item]
                x=traces.t_s[begins[first]] - 0.5 / traces.fs,
                y=bottom,
                dw=piece.size * points / traces.fs,
                dh=BAR_MM,
                color_mapper=colours,
            )


def _label(text: str, height: float, *, size: int, bold: bool) -> Label:
    # It stays at the left edge of whatever is shown.
    return Label(
        x=6,
        x_units="screen",
        y=height,
        text=text,
        text_font=_FONT,
        text_font_size=f"{size}px",
        text_font_style="bold" if bold else "normal",
        text_color=INK,
        background_fill_color=PAPER,
        background_fill_alpha=0.75,
    )


def score_figure(analysis: Analysis, leads: figure) -> figure:
    windows, threshold = analysis.windows, analysis.window_threshold
    t = np.array([(window.start_s + window.end_s) / 2 for window in windows])
    score = np.array([window.score for window in windows])
    low, high = min(score.min(initial=0.0), 0.0), max(score.max(initial=0.0), threshold)
    room = 0.08 * (high - low)
    top = high + (4.0 if analysis.alarms else 1.5) * room
    plot = figure(
        name="score",
        title=Title(text=_score_title(analysis), text_font=_FONT, text_font_size="14px", text_color=INK),
        frame_width=FRAME_PX,
        frame_height=_SCORE_PX,
        min_border_left=AXIS_PX,
        min_border_right=AXIS_PX,
        x_range=Range1d(start=0.0, end=max(analysis.duration_s, VIEW_S), bounds="auto"),
        y_range=Range1d(start=low - room, end=top),
        tools=[],
        outline_line_color=RULE,
    )
    unscored = not_scored(analysis)
    plot.vstrip(
        x0=[stretch.start_s for stretch in unscored],
        x1=[stretch.end_s for stretch in unscored],
        fill_color="#e9edf1",
        line_color=None,
        hatch_pattern="right_diagonal_line",
        hatch_color="#b4bec9",
        hatch_scale=8,
        hatch_weight=1,
        level="underlay",
    )
    t, score = with_breaks(t, score)
    if len(t) > _MAX_SCORES:
        t, score = _thin_scores(t, score)
    above = np.maximum(score, threshold)
    source = ColumnDataSource(
        data={
            "t": t,
            "score": score,
            # An area does not know of missing points: it shrinks to nothing there.
            "above": np.where(np.isnan(above), threshold, above),
            "high": np.where(score > threshold, score, np.nan),
            "clock": [duration(at) for at in t],
        }
    )
    plot.varea(x="t", y1=threshold, y2="above", source=source, fill_color=OVER, fill_alpha=0.25)
    plot.add_layout(
        Span(location=threshold, dimension="width", line_color=SLATE, line_dash="6 4", line_width=1.4)
    )
    line = plot.line(x="t", y="score", source=source, line_color=SCORE, line_width=1.5)
    plot.line(x="t", y="high", source=source, line_color=OVER, line_width=1.8)
    if len(windows) <= _POINTS:
        plot.scatter(x="t", y="score", source=source, size=6, color=SCORE)
        plot.scatter(x="t", y="high", source=source, size=6, color=OVER)
    alarms = most_urgent_last(analysis.alarms)
    plot.quad(
        left=[alarm.onset_s for alarm in alarms],
        right=[analysis.duration_s if alarm.end_s is None else alarm.end_s for alarm in alarms],
        bottom=[top - 1.7 * room] * len(alarms),
        top=[top - 0.5 * room] * len(alarms),
        fill_color=[PRIORITY.get(alarm.priority, NO_PRIORITY) for alarm in alarms],
        line_color=INK,
        line_width=1,
    )
    hover = HoverTool(
        renderers=[line],
        mode="vline",
        tooltips=[("window around", "@clock"), ("score", "@score{0.00}")],
        point_policy="follow_mouse",
    )
    _add_tools(plot, PanTool(dimensions="width"), hover)
    if analysis.duration_s > VIEW_S:
        # A box that stands for what the leads below show; it can be dragged and stretched.
        box = RangeTool(x_range=leads.x_range)
        box.overlay.update(fill_color="#12324f", fill_alpha=0.12, line_color="#12324f", line_width=1.5)
        plot.add_tools(box)
    _style_axes(plot, analysis)
    plot.ygrid.grid_line_color = "#eceff3"
    plot.xgrid.grid_line_color = None
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=5)
    return plot


def _score_title(analysis: Analysis) -> str:
    title = "Score of each window, at its middle; dashed: alarm threshold"
    if analysis.alarms:
        title += "; bars above: alarms"
    if analysis.duration_s > VIEW_S:
        title += ". The box is what is shown below: drag it."
    return title


def _thin_scores(t: Floats, score: Floats) -> tuple[Floats, Floats]:
    # The highest score of each piece: none that was over the threshold is lost.
    piece = -(-len(t) // _MAX_SCORES)
    begins = np.arange(0, len(t), piece)
    return t[begins], np.fmax.reduceat(score, begins)


def _add_tools(plot: figure, pan: PanTool, *tools: Tool) -> None:
    plot.add_tools(pan, *tools, ResetTool(), SaveTool())
    plot.toolbar.active_drag = pan
    # Its logo is a link to the outside.
    plot.toolbar.logo = None


def _style_axes(plot: figure, analysis: Analysis) -> None:
    if analysis.duration_s > 60:
        plot.xaxis.formatter = NumeralTickFormatter(format="00:00:00")
    plot.xaxis.ticker = AdaptiveTicker(
        base=60, mantissas=[1, 2, 5, 10, 15, 30], min_interval=1, desired_num_ticks=11
    )
    for axis in (plot.xaxis, plot.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = RULE
        axis.minor_tick_line_color = None
        axis.major_label_text_color = SLATE
        axis.major_label_text_font = _FONT
        axis.major_label_text_font_size = "12px"
