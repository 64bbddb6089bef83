"""A recording as twelve strips: the signal, what the model expected, and the error between them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from bokeh.models import ColumnDataSource, Grid, Range1d, SingleIntervalTicker
from bokeh.models.annotations import Label
from bokeh.plotting import figure

from training.evaluation.examples import SECONDS, Example
from training.evaluation.style import EXPECTED, FONT, INK, MAJOR, PAPER

FRAME_PX = 1244
_COLUMNS = 2
_GAP_S = 0.3
_ROW_PX = 62
# Millivolts that a row stands for: the smallest that holds nearly all leads.
_ROW_MV = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)
# Of the leads, so many must fit their row; one wild lead does not shrink the others.
_FITTING = 80.0
# A QRS complex is 2 % and more of its beat; a spike of an electrode is less.
_PERCENTILES = (0.3, 99.7)
# What goes far beyond its row ends there.
_REACH = 0.8
_INNER = 0.25
_SQUARE_S, _SQUARE_MV = 0.2, 0.5


def strips_figure(example: Example) -> figure:
    """Return a figure with a strip for each lead, limb leads on the left and chest leads on the right."""
    traces, part = example.traces, example.part
    points = slice(*np.searchsorted(traces.t_s, part).tolist())
    t = traces.t_s[points] - part.start_s
    signal, expected = traces.signal[:, points], traces.reconstruction[:, points]
    rows = -(-len(traces.leads) // _COLUMNS)
    row_mv = _row_mv(signal)
    width = _COLUMNS * SECONDS + (_COLUMNS - 1) * _GAP_S
    plot = figure(
        frame_width=FRAME_PX,
        frame_height=_ROW_PX * rows,
        x_range=Range1d(start=0, end=width),
        y_range=Range1d(start=0, end=rows * row_mv),
        x_axis_location=None,
        y_axis_location=None,
        toolbar_location=None,
        tools=[],
        background_fill_color=PAPER,
        outline_line_color=MAJOR,
        min_border=2,
    )
    plot.xgrid.visible = plot.ygrid.visible = False
    axes: tuple[tuple[Literal[0, 1], float], ...] = ((0, _SQUARE_S), (1, _SQUARE_MV))
    for dimension, interval in axes:
        ticker = SingleIntervalTicker(interval=interval, num_minor_ticks=0)
        plot.add_layout(Grid(dimension=dimension, ticker=ticker, grid_line_color=MAJOR, level="underlay"))
    source = ColumnDataSource({})
    for column in range(_COLUMNS):
        source.data[f"t{column}"] = (t + column * (SECONDS + _GAP_S)).astype(np.float32)
    for row, lead in enumerate(traces.leads):
        column, place = divmod(row, rows)
        middle = (rows - place - 0.5) * row_mv
        centre = _centre(signal[row], row_mv)
        drawn = [_placed(values[row], centre, middle, row_mv) for values in (signal, expected)]
        source.data[f"{lead} signal"], source.data[f"{lead} expected"] = drawn
        # An area does not know of missing points: it shrinks to nothing there.
        known = np.isfinite(drawn[0]) & np.isfinite(drawn[1])
        for name, values in (("low", drawn[0]), ("high", drawn[1])):
            source.data[f"{lead} {name}"] = np.where(known, values, np.float32(middle))
        x = f"t{column}"
        plot.varea(
            x=x,
            y1=f"{lead} low",
            y2=f"{lead} high",
            source=source,
            fill_color=EXPECTED,
            fill_alpha=0.25,
        )
        plot.line(x=x, y=f"{lead} expected", source=source, line_color=EXPECTED, line_width=1.1)
        plot.line(x=x, y=f"{lead} signal", source=source, line_color=INK, line_width=1.1)
        plot.add_layout(
            Label(
                x=column * (SECONDS + _GAP_S),
                y=middle + 0.5 * row_mv,
                x_offset=4,
                y_offset=-14,
                text=lead,
                text_font=FONT,
                text_font_size="12px",
                text_font_style="bold",
                text_color=INK,
                background_fill_color=PAPER,
                background_fill_alpha=0.7,
            )
        )
    return plot


def _row_mv(signal: npt.NDArray[np.float32]) -> float:
    extents = []
    for values in signal:
        finite = values[np.isfinite(values)]
        if len(finite):
            low, high = np.percentile(finite, _PERCENTILES)
            extents.append(high - low)
    need = float(np.percentile(extents, _FITTING)) if extents else 0.0
    return next((size for size in _ROW_MV if size >= need), _ROW_MV[-1])


def _centre(values: npt.NDArray[np.float32], row_mv: float) -> float:
    # Half way between the extremes, but the baseline stays in the inner part of its row, whatever a spike
    # does.
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0
    baseline = np.median(finite)
    half_way = np.mean(np.percentile(finite, _PERCENTILES))
    return float(np.clip(half_way, baseline - _INNER * row_mv, baseline + _INNER * row_mv))


def _placed(
    values: npt.NDArray[np.float32], centre: float, middle: float, row_mv: float
) -> npt.NDArray[np.float32]:
    reach = _REACH * row_mv
    placed: npt.NDArray[np.float32] = (middle + np.clip(values - centre, -reach, reach)).astype(np.float32)
    return placed
