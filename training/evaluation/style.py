"""Colours and frames of the page's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from bokeh.models import Range1d
from bokeh.models.annotations import Title
from bokeh.plotting import figure

LegendPlace = Literal["top_left", "bottom_left", "bottom_right", "right", "center"]
"""Where a legend is out of the way of what is drawn."""

# Paper and ink of the live page, so that a strip looks the same everywhere.
PAPER, MAJOR = "#fffcf7", "#f0c4b4"
INK, EXPECTED = "#10151c", "#e0301e"
SLATE, RULE, FAINT = "#5b6673", "#c9d0d8", "#eceff3"

NORMAL, ABNORMAL, RHYTHM = "#0072b2", "#d55e00", "#009e73"
"""Told apart by eyes of every kind (Okabe and Ito)."""
GROUPS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#7f7f7f")
"""Data sets, in their order; all together are ink."""

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def frame(
    width: int,
    height: int,
    *,
    title: str,
    x_label: str | None = None,
    y_label: str | None = None,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | Sequence[str] | None = None,
    **more: Any,
) -> figure:
    """Return an empty figure in the page's style; sizes in pixels, of what lies within the axes."""
    ranges: dict[str, Any] = {}
    if x_range is not None:
        ranges["x_range"] = Range1d(start=x_range[0], end=x_range[1])
    if y_range is not None:
        # Numbers, or the names of rows.
        numbers = [limit for limit in y_range if not isinstance(limit, str)]
        ranges["y_range"] = Range1d(start=numbers[0], end=numbers[1]) if numbers else list(y_range)
    plot = figure(
        frame_width=width,
        frame_height=height,
        title=Title(
            text=title, text_font=FONT, text_font_size="14px", text_color=INK, text_font_style="bold"
        ),
        tools=[],
        toolbar_location=None,
        outline_line_color=RULE,
        min_border_right=14,
        **ranges,
        **more,
    )
    for axis, label in ((plot.xaxis, x_label), (plot.yaxis, y_label)):
        axis.axis_label = label
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_size, axis.major_label_text_font_size = "13px", "12px"
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = INK
        axis.major_label_text_color = SLATE
        axis.axis_line_color = axis.major_tick_line_color = RULE
        axis.minor_tick_line_color = None
    plot.grid.grid_line_color = FAINT
    return plot


def style_legend(plot: figure, location: LegendPlace) -> None:
    """Give a figure's legend the page's style and a place."""
    legend = plot.legend[0]
    legend.location = location
    legend.update(
        label_text_font=FONT,
        label_text_font_size="12px",
        label_text_color=INK,
        label_height=15,
        glyph_height=15,
        spacing=1,
        padding=6,
        background_fill_alpha=0.85,
        border_line_color=FAINT,
    )
