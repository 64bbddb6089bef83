"""The page of an analysis: one file that needs nothing else, with leads and score to pan and zoom.

As `monitor.report.picture` it draws what it is given. What a long recording has too many points of is drawn
as the lowest and the highest value of each short piece, but for the stretches that one will look at.
"""

from __future__ import annotations

import json
from pathlib import Path

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from monitor.colours import ATTENTION, NO_PRIORITY, PRIORITY
from monitor.report.figures import AXIS_PX, FRAME_PX, MOST_S, VIEW_S, leads_figure, score_figure, thinned
from monitor.report.maps import attention_words, hidden_words
from monitor.report.picture import DISCLAIMER, EXCERPT_S, is_alarming
from monitor.report.rows import lay_out
from monitor.shades import BAND_SDS, MOST
from stream.describe import lead_means
from stream.offline import Analysis
from stream.overlay import Traces
from stream.statement import duration
from stream.stretches import Stretch, most_anomalous

_HERE = Path(__file__).parent

# Around an alarm's onset: what led to it, and the ten seconds in which it is raised.
_AROUND_ALARM_S = (5.0, 15.0)
# What a reader may scroll through; the JSON has all.
_MOST_ROWS = 500
_HIGHEST = 20
# Some 300 bytes a window.
_MAX_WINDOWS_IN_JSON = 5_000


def write_html(path: str | Path, analysis: Analysis, traces: Traces) -> None:
    """Write an analysis as a page of its own.

    Parameters
    ----------
    path : str or pathlib.Path
    analysis : Analysis
    traces : Traces
        Of the same recording.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    best, mean = most_anomalous(analysis, EXCERPT_S)
    drawn = thinned(traces, _to_see(analysis, best))
    paper = lay_out(traces, slice(None))
    leads = leads_figure(analysis, traces, paper, drawn, best)
    score = score_figure(analysis, leads)
    script, (score_div, leads_div) = components((score, leads))
    windows = analysis.windows
    without = len(windows) > _MAX_WINDOWS_IN_JSON
    fields = json.loads(analysis.model_dump_json(exclude={"windows"} if without else None))
    environment = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True)
    environment.filters["duration"] = duration
    page = environment.get_template("report.html").render(
        a=analysis,
        statement=analysis.statement,
        alarming=is_alarming(analysis),
        disclaimer=DISCLAIMER,
        heading=_heading(analysis, best, mean),
        size=paper.size,
        width=FRAME_PX + 2 * AXIS_PX + 34,
        zoom_s=f"{MOST_S:g}" if analysis.duration_s > MOST_S else "",
        band="" if traces.spread is None else f"± {BAND_SDS} of the standard deviations that it expected",
        attention=attention_words(traces),
        shades=", ".join(ATTENTION),
        most=f"{MOST:g}",
        hidden=hidden_words(analysis),
        thinned="" if drawn.in_full else _THINNED,
        facts=_facts(analysis),
        lead_means=lead_means(analysis),
        windows_heading=f"The {_HIGHEST} highest windows" if len(windows) > _HIGHEST else "Windows",
        highest=sorted(windows, key=lambda window: -window.score)[:_HIGHEST],
        colours=PRIORITY,
        none_colour=NO_PRIORITY,
        most_rows=_MOST_ROWS,
        without_windows=without,
        # Inside a script no text of a file's may end it.
        json=Markup(json.dumps(fields).replace("<", "\\u003c")),
        bokeh_js=Markup(Resources(mode="inline", components=["bokeh"]).render_js()),
        bokeh_script=Markup(script),
        score_div=Markup(score_div),
        leads_div=Markup(leads_div),
    )
    Path(path).write_text(page, encoding="utf-8")


_THINNED = (
    "To keep the file small, only the most anomalous seconds and the beginnings of alarms hold every point;"
    " elsewhere each short piece is drawn by its lowest and its highest value."
)


def _to_see(analysis: Analysis, best: Stretch) -> list[Stretch]:
    before, after = _AROUND_ALARM_S
    alarms = sorted(analysis.alarms, key=lambda alarm: -(alarm.score or 0.0))
    return [best, *(Stretch(alarm.onset_s - before, alarm.onset_s + after) for alarm in alarms)]


def _heading(analysis: Analysis, best: Stretch, mean: float | None) -> str:
    if analysis.duration_s <= VIEW_S or mean is None:
        return "Leads"
    span = f"{duration(best.start_s)} to {duration(best.end_s)}"
    return f"Leads; first the most anomalous {EXCERPT_S:g} s: {span}, mean score {mean:.2f}"


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    over = sum(window.anomalous for window in analysis.windows)
    score = "none" if analysis.record_score is None else f"{analysis.record_score:.3f}"
    rate = analysis.heart_rate_bpm
    return [
        ("record", analysis.record),
        ("duration", duration(analysis.duration_s)),
        ("sampling frequency", f"{analysis.fs:g} Hz"),
        ("leads", " ".join(analysis.leads)),
        ("model", analysis.model),
        ("record score", score),
        ("threshold for a record", f"{analysis.threshold:.3f}"),
        ("alarm threshold for a window", f"{analysis.window_threshold:.3f}"),
        ("windows scored", f"{len(analysis.windows)}, {over} of them over the alarm threshold"),
        ("windows not scored", ", ".join(f"{n} {why}" for why, n in analysis.not_scored.items()) or "none"),
        ("heart rate", "not known" if rate is None else f"{rate:.0f} bpm (median)"),
        ("beats", f"{len(analysis.beats_s)}"),
    ]
