"""The figures of a benchmark's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import FixedTicker
from bokeh.plotting import figure

from training.evaluation.style import EXPECTED, GROUPS, frame, style_legend

# Of what lies within the axes: a legend stands beside it.
_WIDTH, _HALF, _HEIGHT = 1000, 420, 280
_BAR = 22
# As far as a histogram of some ten thousand latencies reaches.
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999)

Row = Mapping[str, Any]


def percentile_figure(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> figure:
    """Draw latencies by percentile, stretched towards 100 %: each nine takes as much room as the last.

    Parameters
    ----------
    curves : mapping of str to sequence of (percentile, ms)
    title : str
    """
    plot = frame(
        _WIDTH,
        _HEIGHT,
        title=title,
        x_label="percentile",
        y_label="ms",
        x_axis_type="log",
    )
    for colour, (name, curve) in zip(GROUPS * 2, curves.items(), strict=False):
        # The last point, 100 %, has no place on this axis: the one before it is next to it.
        points = [(100 / (100 - percentile), ms) for percentile, ms in curve if percentile < 100]
        if points:
            x, y = zip(*points, strict=True)
            plot.line(x, y, color=colour, line_width=2, legend_label=name.replace("_", " "))
    plot.y_range.update(start=0)
    places = [100 / (100 - percentile) for percentile in _PERCENTILES]
    plot.xaxis.ticker = FixedTicker(ticks=places)
    plot.xaxis.major_label_overrides = {
        place: f"{percentile:g} %" for place, percentile in zip(places, _PERCENTILES, strict=True)
    }
    return _with_legend(plot)


def over_time_figure(rows: Sequence[Row]) -> figure:
    """Draw the latency of findings over a run."""
    plot = frame(_HALF, _HEIGHT, title="Findings over the run", x_label="s", y_label="ms")
    at = [row["at_s"] for row in rows]
    for colour, name in ((GROUPS[0], "p50"), (GROUPS[1], "p99")):
        values = [row[f"{name}_ms"] for row in rows]
        plot.line(at, values, color=colour, line_width=2, legend_label=name)
        plot.scatter(at, values, color=colour, size=4)
    plot.y_range.update(start=0)
    return _with_legend(plot)


def memory_figure(memory: Mapping[str, Sequence[float]]) -> figure:
    """Draw the memory of each process over a run."""
    plot = frame(_HALF, _HEIGHT, title="Memory over the run", x_label="s", y_label="MB")
    processes = {name: values for name, values in memory.items() if name != "at_s"}
    for colour, (name, values) in zip(GROUPS, processes.items(), strict=False):
        plot.line(memory["at_s"], values, color=colour, line_width=2, legend_label=name)
    plot.y_range.update(start=0)
    return _with_legend(plot)


def saturation_figure(curves: Mapping[str, Sequence[Row]], budget_ms: float) -> figure:
    """Draw latency against beds, with the budget; a load that was not carried is a cross."""
    plot = frame(
        _HALF,
        _HEIGHT,
        title="Latency of findings as beds are added",
        x_label="beds",
        y_label="ms",
        x_axis_type="log",
        y_axis_type="log",
    )
    for colour, (name, curve) in zip(GROUPS, curves.items(), strict=False):
        rows = [row for row in curve if row["p99_ms"] is not None]
        beds = [row["beds"] for row in rows]
        label = f"{name} " if len(curves) > 1 else ""
        plot.line(
            beds, [row["p99_ms"] for row in rows], color=colour, line_width=2, legend_label=f"{label}p99"
        )
        plot.line(
            beds,
            [row["p50_ms"] for row in rows],
            color=colour,
            line_width=1,
            line_dash="dashed",
            legend_label=f"{label}p50",
        )
        for marker, carried in (("circle", True), ("x", False)):
            chosen = [row for row in rows if row["carried"] is carried]
            plot.scatter(
                [row["beds"] for row in chosen],
                [row["p99_ms"] for row in chosen],
                marker=marker,
                color=colour,
                size=8,
            )
    beds = sorted(row["beds"] for curve in curves.values() for row in curve)
    # A line of two points, not a span: the axis makes room for it.
    ends = [beds[0], beds[-1]]
    plot.line(ends, [budget_ms] * 2, color=EXPECTED, line_dash="dotted", line_width=2, legend_label="budget")
    return _with_legend(plot)


def cpu_figure(curve: Sequence[Row]) -> figure:
    """Draw what each process uses against beds."""
    plot = frame(
        _HALF,
        _HEIGHT,
        title="Share of a core as beds are added",
        x_label="beds",
        y_label="%",
        x_axis_type="log",
    )
    names = list(curve[0]["cpu_percent"]) if curve else []
    for colour, name in zip(GROUPS, names, strict=False):
        beds = [row["beds"] for row in curve]
        values = [row["cpu_percent"][name] for row in curve]
        plot.line(beds, values, color=colour, line_width=2, legend_label=name)
        plot.scatter(beds, values, color=colour, size=5)
    plot.y_range.update(start=0)
    return _with_legend(plot)


def backend_figure(rows: Sequence[Row], model: str) -> figure:
    """Draw windows per second of one model as bars, those of a batch together."""
    chosen = sorted(
        (row for row in rows if row["model"] == model),
        key=lambda row: (row["batch"], row["backend"], row["precision"]),
        reverse=True,
    )
    names = [f"batch {row['batch']}, {row['backend']} {row['precision']}" for row in chosen]
    plot = frame(
        _WIDTH,
        _BAR * len(names),
        title=f"{model}: windows per second, one thread",
        x_label="windows/s",
        y_range=names,
    )
    kinds = sorted({(row["backend"], row["precision"]) for row in chosen})
    for colour, kind in zip(GROUPS, kinds, strict=False):
        mine = [place for place, row in enumerate(chosen) if (row["backend"], row["precision"]) == kind]
        plot.hbar(
            y=[names[place] for place in mine],
            right=[chosen[place]["windows_per_s"] for place in mine],
            height=0.8,
            color=colour,
        )
    plot.x_range.update(start=0)
    plot.ygrid.grid_line_color = None
    return plot


def _with_legend(plot: figure) -> figure:
    # Beside the frame, where it hides nothing.
    if plot.legend:
        style_legend(plot, "top_left")
        plot.add_layout(plot.legend[0], "right")
    return plot
