"""One Bokeh figure for all strips: as large as the ward, in front of the tiles.

The browser places each strip over its tile, so the figure knows nothing of beds: its paper is a square of
1 by 1, whatever the screen.
"""

from __future__ import annotations

from bokeh.models import ColumnDataSource, MultiLine, Range1d
from bokeh.plotting import figure


class StripsFigure:
    """The figure, and what the view's script moves in it."""

    def __init__(self) -> None:
        self.source = ColumnDataSource(data={"xs": [], "ys": []}, name="strip-points")
        self.line = MultiLine(xs="xs", ys="ys", line_width=1)
        self.bold_x, self.bold_y = Range1d(start=0, end=1), Range1d(start=0, end=1)
        self.figure = figure(
            name="strips",
            sizing_mode="stretch_both",
            x_range=Range1d(start=0, end=1),
            y_range=Range1d(start=0, end=1),
            x_axis_location=None,
            y_axis_location=None,
            toolbar_location=None,
            tools="",
            min_border=0,
            outline_line_color=None,
            background_fill_color=None,
            border_fill_color=None,
        )
        plot = self.figure
        plot.xgrid.visible = plot.ygrid.visible = False
        # One pixel wide, a line is drawn ten times faster than any wider one: each strip is drawn twice, half
        # a pixel apart. The level "overlay" has a canvas of its own.
        plot.extra_x_ranges, plot.extra_y_ranges = {"bold": self.bold_x}, {"bold": self.bold_y}
        for ranges in ({}, {"x_range_name": "bold", "y_range_name": "bold"}):
            plot.add_glyph(self.source, self.line, level="overlay", **ranges)
