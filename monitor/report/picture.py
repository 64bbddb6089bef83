"""The picture of an analysis: ECG paper, what the model expected in red, and the score.

It draws what it is given and computes no verdict. Sizes are in millimetres of paper throughout, so that a
print at the picture's resolution has the usual 25 mm/s and 10 mm/mV.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from monitor.colours import (
    INK,
    NO_PRIORITY,
    OVER,
    PRIORITY,
    RULE,
    SCORE,
    SLATE,
)
from monitor.live.ward import URGENCY
from monitor.report.maps import attention_words, hidden_words
from monitor.report.paper import PULSE_MM, SHADES, draw_paper
from monitor.report.rows import Paper, lay_out
from monitor.shades import BAND_SDS, MOST
from stream.contract import Priority
from stream.offline import AlarmResult, Analysis
from stream.overlay import Traces
from stream.statement import duration
from stream.stretches import Stretch, most_anomalous, not_scored

DISCLAIMER = "Research software. Not a medical device."

# 6 pixels a millimetre: the finest line of the paper is one pixel wide.
DPI = 152.4
_MM_PER_INCH = 25.4
# A longer recording would be an unreadably wide picture: its score is shown as a whole, its leads in part.
_WHOLE_S = 30.0
EXCERPT_S = 10.0
# Paper speeds, mm/s: the usual one, and the usual slower one so that half a minute is no wider than a screen.
_SPEEDS = (25.0, 12.5)
_WIDE_MM = 375.0
# Millimetres around and between the parts.
_LEFT, _RIGHT, _BOTTOM, _GAP = 14.0, 13.0, 9.0, 13.0
# The headline, what stands in a line of its own below it, and how far the paper is from the last of these.
_HEADLINE, _SENTENCE_MM, _BELOW_TITLE = 8.0, 4.7, 4.5
# The disclaimer beside the headline; a character of the headline, which is set smaller if there is no room
# for it, and of a sentence.
_DISCLAIMER_MM, _BOLD_MM, _SENTENCE_CHARACTER_MM = 76.0, 3.6, 1.7
# A line of the legend and a character of it; the scale of attention within its line, with its numbers.
LINE_MM, _CHARACTER_MM = 4.2, 1.4
_SCALE_MM, _SCALE_ROOM_MM = 30.0, 46.0
# The times below a score's axis, and the line with its title above.
_TIMES_MM, _CAPTION_MM = 5.0, 6.0
_SCORE_MM, _OVERVIEW_MM = 34.0, 44.0
# A title wider than this does not fit beside the disclaimer.
_LEAST_PAPER_MM = 200.0
# With more windows than this, bars that show each one's extent are a thicket; and so are points.
_BARS, _POINTS = 12, 60
# Two hops of the usual model.
_TOLD_S = 1.0


def write_picture(
    path: str | Path, analysis: Analysis, traces: Traces, form: Literal["png", "pdf"] = "png"
) -> None:
    """Draw an analysis.

    A recording of up to 30 s is drawn whole, above the score of its windows. Of a longer one, the score is
    drawn over the whole recording, and the leads in the 10 s whose windows score highest.

    Parameters
    ----------
    path : str or pathlib.Path
        Whatever its extension.
    analysis : Analysis
    traces : Traces
        Of the same recording.
    form : str
        ``png``, or ``pdf``, which is true to scale when printed.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    long = analysis.duration_s > _WHOLE_S
    if long:
        part, mean = most_anomalous(analysis, EXCERPT_S)
        heading = _excerpt_heading(part, mean)
    else:
        part, heading = Stretch(0.0, analysis.duration_s), ""
    speed = next((s for s in _SPEEDS if s * (part.end_s - part.start_s) <= _WIDE_MM), _SPEEDS[-1])
    points = slice(*np.searchsorted(traces.t_s, part).tolist())
    paper = lay_out(traces, points)
    width = max(speed * (part.end_s - part.start_s) + PULSE_MM, _LEAST_PAPER_MM)
    score_mm = _OVERVIEW_MM if long else _SCORE_MM
    below = _CAPTION_MM if long else _TIMES_MM
    lines = legend(traces, analysis, speed, paper, width)
    bottom = _BOTTOM + LINE_MM * (len(lines) - 1)
    said = _title(analysis, width)
    top = _HEADLINE + _SENTENCE_MM * len(said) + _BELOW_TITLE
    page = Page(width, top + paper.height + _GAP + score_mm + below + bottom)
    _write_title(page, analysis, said)
    if long:
        top += _CAPTION_MM
        draw_score(page.axes(top, score_mm), analysis, Stretch(0.0, analysis.duration_s), part)
        top += score_mm + _GAP
        page.text(0, top - 2.0, heading, size=9.5, weight="bold")
    draw_paper(page.axes(top, paper.height), paper, traces, points, analysis, part, speed, width)
    if not long:
        # The score's axis goes on below the paper's: the same second at the same place.
        axes = page.axes(top + paper.height + _GAP, score_mm)
        shown = Stretch(part.start_s - PULSE_MM / speed, part.start_s + (width - PULSE_MM) / speed)
        draw_score(axes, analysis, shown, None)
    write_legend(page, page.height - 3.5, lines)
    page.figure.savefig(path, format=form, dpi=DPI)


class LegendLine(NamedTuple):
    """A line of the legend; the scale of attention stands before its own."""

    text: str
    scale: bool = False


def legend(traces: Traces, analysis: Analysis, speed: float, paper: Paper, width: float) -> list[LegendLine]:
    """Return what explains a picture, from the top.

    Parameters
    ----------
    traces : Traces
    analysis : Analysis
    speed : float
        Millimetres a second.
    paper : Paper
    width : float
        Of the page between its margins, mm.
    """
    lines = [
        LegendLine(
            f"Black: the signal as the model was given it ({traces.fs:g} Hz, 0.5–40 Hz)."
            " Red: what the model expected."
            f" Shaded: windows over the alarm threshold.  {speed:g} mm/s, {paper.size:g} mm/mV."
        )
    ]
    if traces.spread is not None:
        lines.append(
            LegendLine(
                "Red area between the two: the error, stronger where the signal leaves the pale band,"
                f" ± {BAND_SDS} of the standard deviations that the model expected."
            )
        )
    room = int((width - _SCALE_ROOM_MM) / _CHARACTER_MM)
    for number, text in enumerate(textwrap.wrap(attention_words(traces), room)):
        lines.append(LegendLine(text, scale=number == 0))
    lines += map(LegendLine, textwrap.wrap(hidden_words(analysis), int(width / _CHARACTER_MM)))
    return lines


def write_legend(page: Page, bottom: float, lines: Sequence[LegendLine]) -> None:
    """Write a legend whose last line stands at `bottom`, in mm from the page's upper edge."""
    for number, line in enumerate(reversed(lines)):
        _write_line(page, bottom - number * LINE_MM, line)


def _write_line(page: Page, y: float, line: LegendLine) -> None:
    if line.scale:
        number = (_SCALE_ROOM_MM - _SCALE_MM) / 2
        scale = page.axes(y - 2.2, 2.4, number, _SCALE_MM)
        scale.imshow(np.linspace(0, 1, 256)[np.newaxis], cmap=SHADES, aspect="auto")
        scale.set(xticks=[127.5], xticklabels=[], yticks=[])
        scale.tick_params(direction="in", length=2, color=INK)
        for spine in scale.spines.values():
            spine.set_color(RULE)
        page.text(0, y, f"1/{MOST:g} ×", size=7.5, color=SLATE)
        page.text(number + _SCALE_MM + 1, y, f"{MOST:g} ×", size=7.5, color=SLATE)
    page.text(_SCALE_ROOM_MM if line.scale else 0.0, y, line.text, size=7.5, color=SLATE)


class Page:
    """A figure whose parts are placed in millimetres from its upper left corner, within the side margins.

    Parameters
    ----------
    width : float
        Between the margins, mm.
    height : float
        From edge to edge, mm.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._total = _LEFT + width + _RIGHT
        # Not pyplot: no global state, no display.
        self.figure = Figure(figsize=(self._total / _MM_PER_INCH, height / _MM_PER_INCH), facecolor="white")

    def axes(self, top: float, height: float, left: float = 0.0, width: float | None = None) -> Axes:
        """Add axes, so many millimetres from the top and the left; as wide as there is room, or less."""
        width = self.width if width is None else width
        bottom = 1 - (top + height) / self.height
        return self.figure.add_axes(
            ((_LEFT + left) / self._total, bottom, width / self._total, height / self.height)
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        color: str = INK,
        weight: str = "normal",
        right: bool = False,
    ) -> None:
        """Write a line at `x` and with its foot at `y`, or (`right`) up to the right margin."""
        place = (_LEFT + (self.width if right else x)) / self._total
        align = "right" if right else "left"
        self.figure.text(
            place, 1 - y / self.height, text, size=size, color=color, weight=weight, ha=align, va="baseline"
        )


def _title(analysis: Analysis, width: float) -> list[str]:
    # What stands below the headline, line by line.
    room = int(width / _SENTENCE_CHARACTER_MM)
    said = [line for sentence in analysis.statement.sentences for line in textwrap.wrap(sentence, room)]
    return [
        *said,
        f"{duration(analysis.duration_s)}, {analysis.fs:g} Hz, {len(analysis.leads)} leads",
    ]


def _write_title(page: Page, analysis: Analysis, said: Sequence[str]) -> None:
    headline = f"{short(analysis.record)}: {analysis.statement.headline}"
    room = page.width - _DISCLAIMER_MM
    size = 15.0 * min(1.0, room / (_BOLD_MM * len(headline)))
    colour = OVER if is_alarming(analysis) else INK
    page.text(0, _HEADLINE, headline, size=size, weight="bold", color=colour)
    for number, line in enumerate(said, 1):
        last = number == len(said)
        page.text(0, _HEADLINE + _SENTENCE_MM * number + 0.8, line, size=9.5, color=SLATE if last else INK)
    page.text(0, _HEADLINE, DISCLAIMER, size=9.5, weight="bold", color=SLATE, right=True)


def is_alarming(analysis: Analysis) -> bool:
    """Say whether the headline is to stand out."""
    return bool(analysis.anomalous) or analysis.statement.priority in (Priority.HIGH, Priority.MEDIUM)


def _excerpt_heading(part: Stretch, mean: float | None) -> str:
    span = f"{duration(part.start_s)} to {duration(part.end_s)}"
    if mean is None:
        return f"The first {EXCERPT_S:g} s ({span})"
    return f"The most anomalous {EXCERPT_S:g} s: {span}, mean score {mean:.2f}"


def short(name: str) -> str:
    """Return a name, or of a long one its end: a model may be named by a path."""
    return name if len(name) <= 40 else f"…{name[-39:]}"


# ---- the score -------------------------------------------------------------------------------------------


def draw_score(
    axes: Axes, analysis: Analysis, shown: Stretch, excerpt: Stretch | None, label: str = "leads below"
) -> None:
    """Draw the score of the windows, the threshold, the alarms, and what was not scored.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Its horizontal coordinates become seconds of the recording.
    analysis : Analysis
    shown : Stretch
        From the left to the right edge.
    excerpt : Stretch or None
        A part to be framed.
    label : str
        What is written in the frame.
    """
    windows = analysis.windows
    middle = np.array([(window.start_s + window.end_s) / 2 for window in windows])
    score = np.array([window.score for window in windows])
    threshold = analysis.window_threshold
    low = min(score.min(initial=0.0), 0.0)
    high = max(score.max(initial=0.0), threshold)
    room = 0.08 * (high - low)
    # The alarms stand above the highest score.
    top = high + (4.0 if analysis.alarms else 1.5) * room
    axes.set(xlim=shown, ylim=(low - room, top), facecolor="white")
    # The rest behind the last window is part of every recording, and no news.
    unscored = [stretch for stretch in not_scored(analysis) if stretch.end_s - stretch.start_s >= _TOLD_S]
    for start, end in unscored:
        axes.axvspan(start, end, facecolor="#e9edf1", edgecolor="#b4bec9", hatch="///", lw=0, zorder=0.5)
    axes.axhline(threshold, color=SLATE, lw=1.1, ls=(0, (5, 3)), zorder=2)
    axes.text(
        1.005, threshold, f"{threshold:.2f}", transform=axes.get_yaxis_transform(), size=8.5, va="center"
    )
    if len(windows) <= _BARS:
        for window in windows:
            colour = OVER if window.anomalous else SCORE
            axes.plot([window.start_s, window.end_s], [window.score] * 2, color=colour, lw=1.0, alpha=0.35)
    x, y = with_breaks(middle, score)
    axes.fill_between(x, y, threshold, where=y > threshold, color=OVER, alpha=0.25, lw=0, interpolate=True)
    few = len(windows) <= _POINTS
    for colour, drawn in ((SCORE, y), (OVER, np.where(y > threshold, y, np.nan))):
        axes.plot(x, drawn, color=colour, lw=1.3 if few else 0.9, marker="." if few else None, ms=7, zorder=3)
    for alarm in most_urgent_last(analysis.alarms):
        end = alarm.end_s if alarm.end_s is not None else analysis.duration_s
        colour = PRIORITY.get(alarm.priority, NO_PRIORITY)
        axes.fill_between(
            [alarm.onset_s, end], top - 1.7 * room, top - 0.5 * room, color=colour, lw=0, zorder=4
        )
        axes.vlines(alarm.onset_s, top - 1.7 * room, top - 0.5 * room, color=INK, lw=1.0, zorder=5)
    if excerpt is not None:
        axes.axvspan(*excerpt, facecolor="none", edgecolor=INK, lw=1.2, zorder=6)
        early = sum(excerpt) < shown.end_s
        axes.annotate(
            label,
            (excerpt.end_s if early else excerpt.start_s, low - room),
            xytext=(5 if early else -5, 4),
            textcoords="offset points",
            ha="left" if early else "right",
            size=8,
            zorder=7,
            bbox={"facecolor": "white", "alpha": 0.85, "pad": 0.5, "lw": 0},
        )
    seconds = windows[0].end_s - windows[0].start_s if windows else None
    title = "Score" if seconds is None else f"Score of each {seconds:g} s window, at its middle"
    marks = ["dashed: alarm threshold"]
    if analysis.alarms:
        marks.append("bars above: alarms, by priority")
    if unscored:
        marks.append("hatched: not scored")
    axes.set_title(f"{title}  ({', '.join(marks)})", size=8.5, color=INK, loc="left", pad=4)
    axes.grid(axis="y", color="#eceff3", zorder=0)
    axes.xaxis.set_major_locator(_time_locator(analysis.duration_s))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value, analysis.duration_s)))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=8, color=RULE, labelcolor=SLATE)
    for spine in axes.spines.values():
        spine.set_color(RULE)


def most_urgent_last(alarms: Sequence[AlarmResult]) -> list[AlarmResult]:
    """Return alarms in the order in which their bars are drawn: none lies on a more urgent one."""
    return sorted(alarms, key=lambda alarm: URGENCY[Priority(alarm.priority)])


def with_breaks(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return a line's points with NaN between neighbours that are farther apart than usual.

    No line is drawn over windows that were not scored.
    """
    if len(x) < 3:
        return x, y
    step = np.diff(x)
    gaps = np.flatnonzero(step > 1.5 * np.median(step)) + 1
    return np.insert(x, gaps, x[gaps - 1]), np.insert(y, gaps, np.nan)


def _time_locator(duration_s: float) -> MaxNLocator:
    # Steps that people count time in: seconds by 1, 2, 5, 10; minutes and hours by 1, 2, 3, 6, 12.
    steps = [1, 2, 5, 10] if duration_s <= 60 else [1.2, 1.8, 3, 3.6, 6, 7.2, 10]
    return MaxNLocator(12, steps=steps)


def _clock(seconds: float, duration_s: float) -> str:
    if duration_s <= 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
