"""A benchmark's result as a page of its own, with plots: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bokeh.embed import components
from bokeh.plotting import figure
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from bench.plots import (
    backend_figure,
    cpu_figure,
    memory_figure,
    over_time_figure,
    percentile_figure,
    saturation_figure,
)
from bench.tables import (
    backend_table,
    baseline_table,
    curve_table,
    growth_text,
    illness,
    number,
    process_table,
    sentence,
    setting,
    skipped_table,
    stage_table,
)

Result = Mapping[str, Any]

_HERE = Path(__file__).parent
_WHOLE = ("publish_to_finding", "publish_to_alert")
_DUE = (
    "Every bed sends 200 ms of its leads when they are due, whatever became of what it sent before, and a"
    " latency counts from that time: what the load generator, or a server that kept it waiting, was late is"
    " part of it."
)


@dataclass(slots=True)
class _Section:
    heading: str
    text: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    figures: list[figure] = field(default_factory=list)
    divs: list[Markup] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Page:
    title: str
    summary: str
    setting: str
    sections: list[_Section]
    words: tuple[str, ...] = ("from → to", "backend", "precision", "not measured because")
    """Columns of words; all others but the first hold numbers."""


def write_report(path: Path, result: Result) -> None:
    """Write the result of any of the benchmarks as a page.

    Parameters
    ----------
    path : pathlib.Path
    result : mapping
        As the command writes it with ``--json``.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    title, summary, sections = _PAGES[result["benchmark"]](result)
    page = _Page(title, summary, setting(result), sections)
    figures = [plot for section in sections for plot in section.figures]
    script, divs = components(figures)
    left = iter(divs)
    for section in sections:
        section.divs = [Markup(next(left)) for _ in section.figures]
    environment = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True)
    text = environment.get_template("report.html").render(
        page=page,
        bokeh_js=Markup(Resources(mode="inline", components=["bokeh"]).render_js()),
        bokeh_script=Markup(script),
    )
    path.write_text(text, encoding="utf-8")


def _latency(result: Result) -> tuple[str, str, list[_Section]]:
    stages, curves = result["stages"], result["curves"]
    alarm, finding = stages["publish_to_alert"], stages["publish_to_finding"]
    summary = (
        f"{result['beds']} beds for {result['seconds']:g} s, model {result['model']}: {finding['n']} findings"
        f" measured, {result['alarms']} alarms raised, {result['lost']} windows lost. Half of the findings"
        f" arrived within {number(finding['p50_ms'])} ms, 99 % within {number(finding['p99_ms'])} ms; of"
        f" the alarm events 99 % within {number(alarm['p99_ms'])} ms."
    )
    late = result["generator_late"]
    parts = {name: curve for name, curve in curves.items() if name not in _WHOLE}
    whole = {name: curves[name] for name in _WHOLE}
    sections = [
        _Section(
            "How long each stage took",
            [
                _DUE,
                sentence(illness(result)),
                f"The generator handed 99 % of the chunks over within {number(late['p99_ms'])} ms of their"
                f" time, the latest {number(late['max_ms'])} ms after it.",
            ],
            *stage_table(result),
            figures=[
                percentile_figure(whole, "From a chunk being due to a subscriber having what came of it"),
                percentile_figure(parts, "Where the time of findings went"),
            ],
        ),
        _Section(
            "Over the run",
            growth_text(result),
            *process_table(result),
            figures=[over_time_figure(result["over_time"]), memory_figure(result["memory_over_time"])],
        ),
    ]
    return "How late findings and alarms arrive", summary, sections


def _capacity(result: Result) -> tuple[str, str, list[_Section]]:
    more = "" if result["limit_reached"] else " More were not tried."
    summary = (
        f"{result['beds']} beds were carried with model {result['model']}: 99 % of the findings arrived"
        f" within {result['budget_ms']:g} ms for {result['seconds']:g} s, and none was lost.{more}"
        f" {sentence(illness(result))}"
    )
    section = _Section(
        "As beds are added",
        [_DUE, "A load that was not carried is a cross; the dotted line is the budget."],
        *curve_table(result["curve"]),
        figures=[
            saturation_figure({"": result["curve"]}, result["budget_ms"]),
            cpu_figure(result["curve"]),
        ],
    )
    return "How many beds this machine carries", summary, [section]


def _backends(result: Result) -> tuple[str, str, list[_Section]]:
    rows = result["rows"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    fastest = {row["model"]: row for row in sorted(rows, key=lambda row: float(row["windows_per_s"]))}
    summary = "Fastest: " + "; ".join(
        f"{model} {number(row['windows_per_s'])} windows/s"
        f" ({row['backend']} {row['precision']}, batch {row['batch']})"
        for model, row in fastest.items()
    )
    speeds = ", ".join(f"{kind.replace('_', ' ')} {value:g}" for kind, value in result["gemm_gflops"].items())
    explanation = [
        "One thread, and a process for each row. The score error is the largest difference from the float32"
        " file in ONNX Runtime, in standard deviations of normal windows.",
        f"One thread of this machine multiplies large matrices at (GFLOP/s): {speeds}. The last column is how"
        " much of that a row reaches, in processor time.",
    ]
    sections = [
        _Section(
            "Backends",
            explanation,
            *backend_table(rows),
            figures=[backend_figure(rows, model) for model in models],
        )
    ]
    if result["skipped"]:
        sections.append(_Section("Not measured", [], *skipped_table(result["skipped"])))
    return "How fast each backend runs each model", summary, sections


def _baseline(result: Result) -> tuple[str, str, list[_Section]]:
    summary = "; ".join(
        f"{row['name']}: {row['beds']:g} beds with Bedside, {row['baseline_beds']:g} with a plain loop"
        for row in result["rows"]
    )
    explanation = [
        "The plain loop reads the same streams with XREADGROUP and runs eager PyTorch for one window of one"
        " bed at a time. In the row same it also rates signals, finds beats and raises the same alarms, which"
        " the row of the model only leaves out; in the row thesis it has the model and the scoring path of"
        " the reference thesis at 500 Hz, with random weights.",
        sentence(illness(result)),
        _DUE,
    ]
    curves = result["curves"]
    sections = [
        _Section(
            "Beds within the budget",
            explanation,
            *baseline_table(result["rows"]),
            figures=[saturation_figure(curves, result["budget_ms"])],
        ),
        *(_Section(f"Attempts: {name}", [], *curve_table(curve)) for name, curve in curves.items()),
    ]
    return "Bedside against a plain loop", summary, sections


_PAGES = {"latency": _latency, "capacity": _capacity, "backends": _backends, "baseline": _baseline}
