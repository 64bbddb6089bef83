"""The strip of an alarm: one page of ECG paper, as monitors print it, with what the model expected in red.

A4 landscape, true to scale: printed without fitting to the page, 25 mm are a second and 10 mm a millivolt.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter

from monitor.colours import INK, OVER, SLATE
from monitor.report.paper import PULSE_MM, draw_paper
from monitor.report.picture import (
    DISCLAIMER,
    DPI,
    LINE_MM,
    LegendLine,
    Page,
    draw_score,
    legend,
    short,
    write_legend,
)
from monitor.report.rows import Paper, lay_out
from stream.describe import lead_means
from stream.offline import Analysis
from stream.overlay import Traces
from stream.snapshots.hindsight import analysis_of, traces_of
from stream.snapshots.store import Snapshot
from stream.stretches import Stretch

# A4 landscape; the paper is a whole number of large squares wide between the report's margins.
_HEIGHT, _WIDTH = 210.0, 270.0
_SPEED, _SIZE = 25.0, 10.0
_SHOWN_S = (_WIDTH - PULSE_MM) / _SPEED
# The unusual begins in the window that makes the onset, not at its end: show some of it.
_BEFORE_S = 4.0
# Millimetres, from the top.
_PAPER_TOP, _REMARK_MM, _PAPER_MOST = 32.0, 5.0, 110.0
_GAP, _BELOW_SCORE, _FOOT = 16.0, 16.0, 4.0
_SCORE_MOST = 38.0
# Of a line of text of 9.5 points.
_CHARACTERS = 150
# Of the title beside the disclaimer.
_TITLE_CHARACTERS = 62
_DASHES = (0, (6, 2))
# The lead in which people read a rhythm, where there is one.
_RHYTHM = "II"


def write_strip(path: str | Path, snapshot: Snapshot, form: Literal["png", "pdf"]) -> None:
    """Draw the page of a snapshot.

    Ten seconds around the onset, of as many leads as fit the page at full size: the rhythm lead II, and those
    that score highest. Below, the score over the whole snapshot.

    Parameters
    ----------
    path : str or pathlib.Path
    snapshot : Snapshot
    form : str
        ``png``, or ``pdf``, which is true to scale when printed.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    alarm = snapshot.header.alarm
    analysis, traces = analysis_of(snapshot, alarm.bed), traces_of(snapshot)
    part = _part(snapshot)
    points = slice(*np.searchsorted(traces.t_s, part).tolist())
    shown, paper = _fitting(traces, points, analysis)
    page = Page(_WIDTH, _HEIGHT)
    _write_head(page, snapshot, shown.leads, part)
    lines = _legend(snapshot, shown, analysis, paper)
    top = _PAPER_TOP + (_REMARK_MM if snapshot.header.remarks else 0.0)
    axes = page.axes(top, paper.height)
    draw_paper(axes, paper, shown, points, analysis, part, _SPEED, _WIDTH)
    marks = [(snapshot.onset_s, "onset"), (snapshot.raised_s, "alarm raised")]
    _mark_paper(axes, paper, part, marks)
    top += paper.height + _GAP
    bottom = _HEIGHT - _FOOT - LINE_MM * len(lines) - _BELOW_SCORE
    if analysis.windows:
        score = page.axes(top, min(bottom - top, _SCORE_MOST))
        whole = Stretch(0.0, snapshot.seconds)
        # A frame around everything frames nothing.
        frame = None if snapshot.seconds <= _SHOWN_S else part
        draw_score(score, analysis, whole, frame, "leads above")
        _mark_score(score, marks, whole)
    else:
        page.text(0, top, "No window of this snapshot was scored.", size=9.5, color=SLATE)
    write_legend(page, _HEIGHT - _FOOT, lines)
    page.figure.savefig(path, format=form, dpi=DPI)


def _part(snapshot: Snapshot) -> Stretch:
    # What is drawn of it: around the onset, or, if that was cut off, around the raise.
    about_s = snapshot.onset_s if snapshot.onset_s >= 0 else snapshot.raised_s - _SHOWN_S / 2
    start = min(max(about_s - _BEFORE_S, 0.0), max(snapshot.seconds - _SHOWN_S, 0.0))
    return Stretch(start, start + _SHOWN_S)


def _fitting(traces: Traces, points: slice, analysis: Analysis) -> tuple[Traces, Paper]:
    # The most telling leads that fit at full size, in their usual order.
    by_score = [lead for lead, _ in lead_means(analysis)]
    wanted = sorted(
        range(len(traces.leads)),
        key=lambda row: (
            traces.leads[row] != _RHYTHM,
            by_score.index(traces.leads[row]) if traces.leads[row] in by_score else len(by_score),
        ),
    )
    rows: list[int] = []
    shown, paper = _of_rows(traces, rows), _laid_out(_of_rows(traces, rows), points)
    for row in wanted:
        more = _of_rows(traces, sorted([*rows, row]))
        laid = _laid_out(more, points)
        if rows and laid.height > _PAPER_MOST:
            continue
        rows, shown, paper = sorted([*rows, row]), more, laid
    return shown, paper


def _laid_out(traces: Traces, points: slice) -> Paper:
    # Whole: two beats before a tachycardia are few points, and the most telling ones.
    return lay_out(traces, points, (_SIZE,), (0.0, 100.0))


def _of_rows(traces: Traces, rows: Sequence[int]) -> Traces:
    some = list(rows)
    return replace(
        traces,
        leads=tuple(traces.leads[row] for row in some),
        signal=traces.signal[some],
        reconstruction=traces.reconstruction[some],
        absolute_error=traces.absolute_error[some],
        squared_error=traces.squared_error[some],
        spread=None if traces.spread is None else traces.spread[some],
        lead_attention=None if traces.lead_attention is None else traces.lead_attention[some],
    )


def _write_head(page: Page, snapshot: Snapshot, leads: Sequence[str], part: Stretch) -> None:
    header, alarm = snapshot.header, snapshot.header.alarm
    title = textwrap.shorten(f"{alarm.bed}: {alarm.message}", _TITLE_CHARACTERS, placeholder=" …")
    page.text(0, 12.0, title, size=15, weight="bold")
    page.text(0, 12.0, DISCLAIMER, size=9.5, weight="bold", color=SLATE, right=True)
    page.text(
        0,
        18.0,
        f"{alarm.code}, {alarm.priority} priority · raised {_clock(alarm.since, date=True)}"
        f" · onset {_clock(alarm.onset_t)}",
        size=9.5,
    )
    many = f"{len(leads)} of {len(header.leads)} leads" if len(leads) < len(header.leads) else "all leads"
    end = min(part.end_s, snapshot.seconds)
    page.text(
        0,
        23.0,
        f"Drawn: {_clock(header.t0 + round(part.start_s * 1e9))} to {_clock(header.t0 + round(end * 1e9))},"
        f" {many}, of {snapshot.seconds:.1f} s at {header.fs:g} Hz"
        f" · model {short(header.model)} · alarm {alarm.alarm}",
        size=9.5,
        color=SLATE,
    )
    if header.remarks:
        line = textwrap.shorten("; ".join(header.remarks), _CHARACTERS, placeholder=" …")
        page.text(0, 28.0, line[0].upper() + line[1:] + ".", size=9.5, color=OVER)


def _mark_paper(axes: Axes, paper: Paper, part: Stretch, marks: Sequence[tuple[float, str]]) -> None:
    for at_s, name in marks:
        if part.start_s <= at_s <= part.end_s:
            x = PULSE_MM + _SPEED * (at_s - part.start_s)
            axes.axvline(x, color=INK, lw=1.2, ls=_DASHES, zorder=6)
            _name(axes, name, (x, paper.height), 3, "bottom")
    onset_s, _ = marks[0]
    seconds = np.arange(np.ceil(part.start_s - onset_s), part.end_s - onset_s + 1e-9)
    axes.xaxis.set_major_locator(FixedLocator(list(PULSE_MM + _SPEED * (seconds + onset_s - part.start_s))))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: _signed((x - PULSE_MM) / _SPEED + part.start_s - onset_s))
    )
    axes.tick_params(axis="x", labelsize=8, labelcolor=SLATE, color=SLATE, length=3)


def _mark_score(axes: Axes, marks: Sequence[tuple[float, str]], whole: Stretch) -> None:
    for at_s, name in marks:
        if whole.start_s <= at_s <= whole.end_s:
            axes.axvline(at_s, color=INK, lw=1.2, ls=_DASHES, zorder=6)
            # Below the times: nothing else is written there.
            _name(axes, name, (at_s, axes.get_ylim()[0]), -16, "top")
    onset_s, _ = marks[0]
    step = 5.0 if whole.end_s > 25 else 2.0
    first = np.ceil((whole.start_s - onset_s) / step) * step
    axes.xaxis.set_major_locator(
        FixedLocator(list(np.arange(first, whole.end_s - onset_s + 1e-9, step) + onset_s))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _signed(x - onset_s)))


def _name(axes: Axes, name: str, place: tuple[float, float], offset: float, va: str) -> None:
    axes.annotate(
        name,
        place,
        xytext=(0, offset),
        textcoords="offset points",
        ha="center",
        va=va,
        size=8.5,
        weight="bold",
        color=INK,
        annotation_clip=False,
    )


def _legend(snapshot: Snapshot, shown: Traces, analysis: Analysis, paper: Paper) -> list[LegendLine]:
    if not snapshot.arrays["signal"].size:
        text = (
            f"Black: the samples, from each lead's median; not explained.  {_SPEED:g} mm/s, {_SIZE:g} mm/mV."
        )
        return [LegendLine(text)]
    return legend(shown, analysis, _SPEED, paper, _WIDTH)


def _signed(seconds: float) -> str:
    # Counted from the onset.
    whole = round(seconds)
    return f"{whole:+d} s".replace("-", "−") if whole else "0 s"


def _clock(t_ns: int, *, date: bool = False) -> str:
    # Local time, as on the wall of the room.
    at = datetime.fromtimestamp(t_ns / 1e9).astimezone()
    return at.strftime("%Y-%m-%d %H:%M:%S %Z" if date else "%H:%M:%S")
