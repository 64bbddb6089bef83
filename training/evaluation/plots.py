"""The curves and histograms of an evaluation's page."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.models import DataRange1d, FixedTicker, NumeralTickFormatter
from bokeh.models.annotations import Label, Span
from bokeh.plotting import figure

from training.evaluation.metrics import precision_recall_points, roc_points
from training.evaluation.results import FEW, Evaluation, Group
from training.evaluation.scored import Scored
from training.evaluation.style import (
    ABNORMAL,
    FONT,
    GROUPS,
    INK,
    NORMAL,
    RHYTHM,
    RULE,
    SLATE,
    LegendPlace,
    frame,
    style_legend,
)
from training.evaluation.text import named_groups, percent

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Two beside each other on the page.
_HALF_PX, _CURVE_PX = 520, 450
_LOW_PX = 300
# A curve of 20,000 recordings has no more to show than this.
_MOST_POINTS = 400
# Bars: fewer of few recordings, so that they show a shape and not each recording.
_BINS_PER_ROOT, _MOST_BINS = 1.6, 60
# Scores beyond are in the outermost bars: one wild recording would squeeze all others together.
_SHOWN = (0.25, 99.75)
# The smallest share on the logarithmic axis; what is less, and nothing at all, is drawn there.
_LEAST_SHARE = 0.002


def colours(evaluation: Evaluation) -> dict[str, str]:
    """Return a colour for each group by its shown name; all together are ink."""
    names = [name for name, _ in named_groups(evaluation)]
    datasets = names[1:] if len(names) > 1 else []
    found = {name: GROUPS[place % len(GROUPS)] for place, name in enumerate(datasets)}
    return {names[0]: INK, **found}


def _members(evaluation: Evaluation, scored: Scored, *, curve: bool) -> list[tuple[str, Group, BoolArray]]:
    # Groups to draw, with the recordings of their main figures, the last first: all together lie on top. A
    # data set needs enough recordings, of both classes for a curve and of normals for calibration; all
    # together are drawn whatever there is.
    main = ~scored.rhythm_only
    found = []
    for place, (name, group) in enumerate(named_groups(evaluation)):
        chosen = main if place == 0 else main & (scored.datasets == name)
        n = min(group.n_normal, group.n_abnormal) if curve else group.n_normal
        if n >= (1 if place == 0 else FEW):
            found.append((name, group, chosen))
    return found[::-1]


def roc_figure(evaluation: Evaluation, scored: Scored) -> figure:
    """Return the ROC curve of each group, with the stored threshold marked."""
    plot = frame(
        _HALF_PX,
        _CURVE_PX,
        title="ROC",
        x_label="normal recordings called abnormal",
        y_label="abnormal recordings found (sensitivity)",
        x_range=(-0.01, 1.01),
        y_range=(-0.01, 1.01),
    )
    plot.line([0, 1], [0, 1], line_color=RULE, line_dash="4 4")
    colour = colours(evaluation)
    for name, group, chosen in _members(evaluation, scored, curve=True):
        x, y = _thinned(*roc_points(scored.score[chosen], scored.abnormal[chosen]))
        label = f"{name}  {group.auroc:.3f}"
        _curve(plot, x, y, colour[name], label)
        if group.specificity is not None and group.sensitivity is not None:
            _mark(plot, 1 - group.specificity, group.sensitivity, colour[name])
    _percents(plot)
    _legend(plot, "bottom_right", "AUROC")
    return plot


def precision_recall_figure(evaluation: Evaluation, scored: Scored) -> figure:
    """Return the precision-recall curve of each group, with the stored threshold marked."""
    plot = frame(
        _HALF_PX,
        _CURVE_PX,
        title="Precision and recall",
        x_label="abnormal recordings found (recall)",
        y_label="share of those called abnormal that are (precision)",
        x_range=(-0.01, 1.01),
        y_range=(-0.01, 1.01),
    )
    colour = colours(evaluation)
    for name, group, chosen in _members(evaluation, scored, curve=True):
        recall, precision = precision_recall_points(scored.score[chosen], scored.abnormal[chosen])
        x, y = _thinned(np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision]))
        label = f"{name}  {group.auprc:.3f} ({group.prevalence:.2f})"
        _curve(plot, x, y, colour[name], label, step=True)
        if group.prevalence is not None:
            plot.line(
                [0, 1], [group.prevalence] * 2, line_color=colour[name], line_dash="2 4", line_alpha=0.7
            )
        flagged = scored.score[chosen] > group.threshold
        if flagged.any() and group.sensitivity is not None:
            _mark(plot, group.sensitivity, float(scored.abnormal[chosen][flagged].mean()), colour[name])
    _percents(plot)
    _legend(plot, "bottom_left", "AUPRC (share of abnormal recordings, dotted)")
    return plot


def _curve(
    plot: figure, x: Float64Array, y: Float64Array, colour: str, label: str, *, step: bool = False
) -> None:
    width = 2.4 if colour == INK else 1.5
    if step:
        plot.step(x, y, mode="before", line_color=colour, line_width=width, legend_label=label)
    else:
        plot.line(x, y, line_color=colour, line_width=width, legend_label=label)


def _mark(plot: figure, x: float, y: float, colour: str) -> None:
    plot.scatter([x], [y], size=10, fill_color="white", line_color=colour, line_width=2.2)


def _legend(plot: figure, location: LegendPlace, title: str) -> None:
    if not plot.legend:
        return
    legend = plot.legend[0]
    legend.items = legend.items[::-1]
    legend.title, legend.title_text_font_size, legend.title_text_font_style = title, "11px", "normal"
    legend.title_text_font = FONT
    legend.title_text_color, legend.title_standoff = SLATE, 2
    style_legend(plot, location)


def _thinned(x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
    if len(x) <= _MOST_POINTS:
        return x, y
    # Evenly along the curve, not along one axis: both ends are steep.
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    places = np.unique(np.searchsorted(way, np.linspace(0.0, way[-1], _MOST_POINTS)))
    return x[places], y[places]


def score_figure(evaluation: Evaluation, scored: Scored) -> figure:
    """Return histograms of the scores of normal, abnormal and rhythm-only recordings."""
    low, high = np.percentile(scored.score, _SHOWN)
    low, high = min(low, evaluation.threshold - 0.5), max(high, evaluation.threshold + 0.5)
    bins = min(round(_BINS_PER_ROOT * np.sqrt(len(scored.score))) + 1, _MOST_BINS)
    edges = np.linspace(low, high, bins + 1)
    plot = frame(
        _HALF_PX,
        _LOW_PX,
        title="Scores of recordings",
        x_label="score, in standard deviations of training normals",
        y_label="share of recordings",
        x_range=(low - 0.02 * (high - low), high + 0.02 * (high - low)),
    )
    rhythm = scored.rhythm_only
    kinds = (
        ("normal", NORMAL, ~scored.abnormal),
        ("abnormal", ABNORMAL, scored.abnormal & ~rhythm),
        ("rhythm only", RHYTHM, rhythm),
    )
    for name, colour, chosen in kinds:
        if not chosen.any():
            continue
        counts, _ = np.histogram(np.clip(scored.score[chosen], low, high), edges)
        share = counts / chosen.sum()
        label = f"{name} ({chosen.sum()})"
        if name != "rhythm only":
            plot.quad(
                left=edges[:-1], right=edges[1:], bottom=0, top=share, fill_color=colour, fill_alpha=0.3,
                line_color=None, legend_label=label,
            )  # fmt: skip
        plot.line(
            np.repeat(edges, 2),
            np.concatenate([[0.0], np.repeat(share, 2), [0.0]]),
            line_color=colour,
            line_width=1.6,
            line_dash="4 2" if name == "rhythm only" else "solid",
            legend_label=label,
        )
    plot.add_layout(
        Span(
            location=evaluation.threshold, dimension="height", line_color=INK, line_dash="6 4", line_width=1.6
        )
    )
    plot.add_layout(
        Label(
            x=evaluation.threshold, y=_LOW_PX - 18, y_units="screen", x_offset=5, text="threshold",
            text_font_size="12px", text_color=INK,
        )
    )  # fmt: skip
    plot.y_range = DataRange1d(start=0)
    plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    style_legend(plot, "right")
    return plot


def calibration_figure(evaluation: Evaluation, scored: Scored, quantiles: int) -> figure:
    """Return how many windows of normals lie above each stored percentile of validation normals.

    Parameters
    ----------
    evaluation : Evaluation
    scored : Scored
    quantiles : int
        How many are stored, evenly spaced from 0 to 100 %.
    """
    bounds = (_LEAST_SHARE / 1.15, 1.15)
    plot = frame(
        _HALF_PX,
        _LOW_PX,
        title="Calibration: windows of normals above a stored percentile",
        x_label="expected: share of validation normals above",
        y_label="observed share above",
        x_range=bounds,
        y_range=bounds,
        x_axis_type="log",
        y_axis_type="log",
    )
    plot.line([_LEAST_SHARE, 1], [_LEAST_SHARE, 1], line_color=RULE, line_dash="4 4")
    # The last stored quantile is the highest score seen, above which nothing is expected.
    expected = 1 - np.linspace(0.0, 1.0, quantiles)[:-1]
    colour = colours(evaluation)
    for name, group, chosen in _members(evaluation, scored, curve=False):
        normals = chosen & ~scored.abnormal
        observed = _clipped(scored.above[normals].mean(axis=0)[:-1])
        plot.line(
            expected,
            observed,
            line_color=colour[name],
            line_width=2.4 if colour[name] == INK else 1.5,
            legend_label=name,
        )
        if colour[name] == INK:
            _levels(plot, group, colour[name])
    ticks = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    for axis in (plot.xaxis, plot.yaxis):
        axis.ticker = FixedTicker(ticks=ticks)
        axis.major_label_overrides = {tick: percent(tick) for tick in ticks}
    if plot.legend:
        plot.legend[0].items = plot.legend[0].items[::-1]
        style_legend(plot, "top_left")
    return plot


def _levels(plot: figure, group: Group, colour: str) -> None:
    if group.calibration is None:
        return
    for level in (*group.calibration.windows, group.calibration.record):
        of_record = level is group.calibration.record
        named: dict[str, Any] = {"legend_label": "recordings above the threshold"} if of_record else {}
        # The threshold on recordings stands beside the percentile of windows with the same share.
        x = level.expected * (0.93 if of_record else 1.0)
        if level.observed_ci is not None:
            low, high = _clipped(np.array(level.observed_ci))
            plot.segment([x], [low], [x], [high], line_color=colour, line_width=1.2)
        plot.scatter(
            [x],
            _clipped(np.array([level.observed])),
            marker="diamond" if of_record else "circle",
            size=13 if of_record else 8,
            fill_color=ABNORMAL if of_record else "white",
            line_color=colour,
            line_width=1.6,
            **named,
        )


def _clipped(shares: Float64Array) -> Float64Array:
    clipped: Float64Array = np.maximum(shares, _LEAST_SHARE)
    return clipped


def _percents(plot: figure) -> None:
    for axis in (plot.xaxis, plot.yaxis):
        axis.formatter = NumeralTickFormatter(format="0%")
