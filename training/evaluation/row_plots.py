"""The figures of an evaluation's page that have named rows: diagnoses, and changes of the recordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource, NumeralTickFormatter
from bokeh.models.annotations import Span, TeeHead, Whisker
from bokeh.plotting import figure

from training.evaluation.plots import colours
from training.evaluation.results import Diagnosis, Evaluation, Interval
from training.evaluation.style import ABNORMAL, INK, NORMAL, RHYTHM, RULE, SLATE, frame, style_legend
from training.evaluation.text import named_groups

MOST_DIAGNOSES = 30

# Of a diagnosis, of a change.
_ROW_PX, _CHANGE_PX = 21, 25
_LEGEND_COLUMNS = 4


def diagnosis_figures(rows: tuple[Diagnosis, ...]) -> tuple[figure, figure]:
    """Return AUROC and sensitivity of each diagnosis, side by side, the most frequent on top."""
    shown = rows[:MOST_DIAGNOSES]
    names = [_diagnosis_label(row) for row in shown]
    height = _ROW_PX * len(shown)
    auroc = frame(400, height, title="AUROC against all normals", x_range=(0, 1.01), y_range=names[::-1])
    auroc.add_layout(Span(location=0.5, dimension="height", line_color=RULE, line_dash="4 4", line_width=1.4))
    source = _source(names, [row.auroc for row in shown], [row.auroc_ci for row in shown])
    found = frame(400, height, title="Found at the threshold", x_range=(0, 1), y_range=names[::-1])
    bars = _source(names, [row.sensitivity for row in shown], [row.sensitivity_ci for row in shown])
    for data in (source.data, bars.data):
        data["colour"] = [RHYTHM if 2 * row.n_rhythm_only > row.n else NORMAL for row in shown]
    _whiskers(auroc, source)
    auroc.scatter("value", "name", source=source, size=8, color="colour")
    found.hbar(y="name", right="value", source=bars, height=0.55, color="colour", fill_alpha=0.45)
    _whiskers(found, bars)
    _share_rows(found)
    for plot in (auroc, found):
        plot.ygrid.grid_line_color = None
    return auroc, found


def _diagnosis_label(row: Diagnosis) -> str:
    code = "" if row.name == row.code else f" · {row.code}"
    return f"{row.name}{code} ({row.n})"


def robustness_figures(evaluation: Evaluation) -> tuple[figure, figure]:
    """Return AUROC, and sensitivity and specificity at the threshold, of the changed recordings."""
    rows = evaluation.robustness or ()
    names = [row.name for row in rows]
    height = _CHANGE_PX * len(rows)
    groups = [
        (name, group.robustness)
        for place, (name, group) in enumerate(named_groups(evaluation))
        if group.robustness is not None and (place == 0 or not group.few)
    ]
    known = [row.auroc for _, of in groups for row in of if row.auroc is not None]
    auroc = frame(540, height, title="AUROC", x_range=(min([0.4, *known]) - 0.01, 1.01), y_range=names[::-1])
    _whiskers(auroc, _source(names, [row.auroc for row in rows], [row.auroc_ci for row in rows]))
    colour = colours(evaluation)
    for name, of in reversed(groups):
        size = 9 if colour[name] == INK else 7
        _dots(auroc, names, [row.auroc for row in of], colour[name], name, size)
    auroc.legend[0].items = auroc.legend[0].items[::-1]
    at = frame(540, height, title="At the stored threshold", x_range=(-0.01, 1.01), y_range=names[::-1])
    _dots(at, names, [row.sensitivity for row in rows], ABNORMAL, "sensitivity", 9)
    _dots(at, names, [row.specificity for row in rows], NORMAL, "specificity", 9)
    _share_rows(at)
    for plot in (auroc, at):
        _legend_below(plot)
    return auroc, at


def _dots(
    plot: figure, names: list[str], values: Sequence[float | None], colour: str, label: str, size: int
) -> None:
    x = [np.nan if value is None else value for value in values]
    plot.scatter(x, names, size=size, color=colour, legend_label=label)


def _share_rows(plot: figure) -> None:
    # The names stand once, at the figure on the left.
    plot.yaxis.visible = False
    plot.xaxis.formatter = NumeralTickFormatter(format="0%")


def _legend_below(plot: figure) -> None:
    legend = plot.legend[0]
    style_legend(plot, "center")
    legend.update(orientation="horizontal", ncols=_LEGEND_COLUMNS, border_line_color=None)
    plot.center.remove(legend)
    plot.add_layout(legend, "below")


def _whiskers(plot: figure, source: ColumnDataSource) -> None:
    whisker = Whisker(
        base="name",
        upper="high",
        lower="low",
        source=source,
        dimension="width",
        line_color=SLATE,
        level="annotation",
        upper_head=TeeHead(size=6, line_color=SLATE),
        lower_head=TeeHead(size=6, line_color=SLATE),
    )
    plot.add_layout(whisker)


def _source(
    names: list[str], values: Sequence[float | None], intervals: Sequence[Interval | None]
) -> ColumnDataSource:
    missing = (np.nan, np.nan)
    return ColumnDataSource(
        {
            "name": names,
            "value": [np.nan if value is None else value for value in values],
            "low": [(interval or missing)[0] for interval in intervals],
            "high": [(interval or missing)[1] for interval in intervals],
        }
    )
