"""The ECG paper of a report's picture: the signal, what the model expected, and where it looked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from monitor.colours import EXPECTED, INK, MAJOR, MINOR, OVER, PAPER, SLATE
from monitor.report.maps import band, shades
from monitor.report.rows import BAR_MM, Paper
from monitor.shades import shade
from stream.offline import Analysis
from stream.overlay import Traces
from stream.stretches import Stretch, over_threshold

PULSE_MM = 10.0
"""Paper to the left of the recording, for the calibration pulse: 1 mV high, one large square wide."""

SHADES = ListedColormap(shades(256))
"""Of attention, from the lightest to the darkest."""


def draw_paper(
    axes: Axes,
    paper: Paper,
    traces: Traces,
    points: slice,
    analysis: Analysis,
    part: Stretch,
    speed: float,
    width: float,
) -> None:
    """Draw a part of a recording on ECG paper, with bars of attention where the model has it.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Its coordinates become millimetres; the recording begins after the calibration pulse.
    paper : Paper
    traces : Traces
    points : slice
        Of the traces, those in `part`.
    analysis : Analysis
    part : Stretch
    speed : float
        Millimetres a second.
    width : float
        Of the paper, mm.
    """
    axes.set(xlim=(0, width), ylim=(0, paper.height), facecolor=PAPER, xticks=[], yticks=[])
    for colour, step, line in ((MINOR, 1.0, 0.5), (MAJOR, 5.0, 0.8)):
        axes.vlines(np.arange(0, width + 0.1, step), 0, paper.height, colors=colour, lw=line, zorder=0.5)
        axes.hlines(np.arange(0, paper.height + 0.1, step), 0, width, colors=colour, lw=line, zorder=0.5)
    for spine in axes.spines.values():
        spine.set_color(MAJOR)

    def place(seconds: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
        return PULSE_MM + speed * (np.asarray(seconds) - part.start_s)

    for start, end in over_threshold(analysis):
        if start < part.end_s and end > part.start_s:
            left, right = place(max(start, part.start_s)), place(min(end, part.end_s))
            axes.axvspan(float(left), float(right), color=OVER, alpha=0.055, lw=0, zorder=0.4)
    x = place(traces.t_s[points])
    _draw_attention(axes, paper, traces, points, x, speed)
    edges = band(traces)
    for strip in paper.strips:
        signal = paper.heights(strip, traces.signal[strip.row, points])
        expected = paper.heights(strip, traces.reconstruction[strip.row, points])
        # Where the two part is what the score is made of.
        axes.fill_between(x, signal, expected, color=EXPECTED, alpha=0.22, lw=0, zorder=2)
        if edges is not None:
            low, high = (paper.heights(strip, edge[strip.row, points]) for edge in edges)
            axes.fill_between(x, low, high, color=EXPECTED, alpha=0.11, lw=0, zorder=1.8)
            # What lies outside of the band is more than the model allows for.
            axes.fill_between(
                x, signal, np.clip(signal, low, high), color=EXPECTED, alpha=0.45, lw=0, zorder=2
            )
        axes.plot(x, expected, color=EXPECTED, lw=0.9, zorder=3, solid_joinstyle="round")
        axes.plot(x, signal, color=INK, lw=0.9, zorder=4, solid_joinstyle="round")
        pulse = strip.baseline + np.array([0, 0, 1, 1, 0, 0]) * paper.size
        axes.plot([1, 2, 2, 7, 7, 8], pulse, color=INK, lw=0.9, zorder=4)
        # Below the pulse, where no beat is written over.
        axes.text(
            1.0,
            strip.baseline - 1.2,
            strip.lead,
            size=9,
            weight="bold",
            color=INK,
            va="top",
            zorder=5,
            bbox={"facecolor": PAPER, "alpha": 0.75, "pad": 0.8, "lw": 0},
        )
    if not paper.strips:
        axes.text(width / 2, paper.height / 2, "no lead that the model knows", ha="center", color=SLATE)


def _draw_attention(
    axes: Axes,
    paper: Paper,
    traces: Traces,
    points: slice,
    x: npt.NDArray[np.float64],
    speed: float,
) -> None:
    if not len(x):
        return
    bars = []
    if traces.lead_attention is not None:
        bars += [(strip.bar, traces.lead_attention[strip.row, points]) for strip in paper.strips]
    if traces.temporal_attention is not None:
        bars.append((paper.foot, traces.temporal_attention[points]))
        axes.text(PULSE_MM, paper.foot + BAR_MM + 0.9, "all leads", size=7, color=SLATE, zorder=5)
    half = speed / traces.fs / 2
    for bottom, attention in bars:
        axes.imshow(
            shade(attention)[np.newaxis],
            cmap=SHADES,
            vmin=0.0,
            vmax=1.0,
            extent=(x[0] - half, x[-1] + half, bottom, bottom + BAR_MM),
            aspect="auto",
            interpolation="nearest",
            zorder=1.9,
        )
