"""Which parts of an analysed recording to look at: over the threshold, not scored, most anomalous."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from stream.offline import Analysis

# Times come from sample numbers at the source's rate: half a sample at 1000 Hz is no gap.
_SAME_S = 5e-4


class Stretch(NamedTuple):
    """A part of a recording, seconds from its first sample."""

    start_s: float
    end_s: float


def over_threshold(analysis: Analysis) -> list[Stretch]:
    """Return the union of the windows whose score is over the alarm threshold, in order.

    A window is taken whole: what in it was unusual is for the error of its points to say.
    """
    return _union((window.start_s, window.end_s) for window in analysis.windows if window.anomalous)


def not_scored(analysis: Analysis) -> list[Stretch]:
    """Return the parts that no scored window covers, in order."""
    stretches, at = [], 0.0
    for covered in _union((window.start_s, window.end_s) for window in analysis.windows):
        if covered.start_s - at > _SAME_S:
            stretches.append(Stretch(at, covered.start_s))
        at = covered.end_s
    if analysis.duration_s - at > _SAME_S:
        stretches.append(Stretch(at, analysis.duration_s))
    return stretches


def most_anomalous(analysis: Analysis, seconds: float) -> tuple[Stretch, float | None]:
    """Find the stretch of a given length whose windows score highest.

    Parameters
    ----------
    analysis : Analysis
    seconds : float
        Length; a shorter recording is taken whole.

    Returns
    -------
    stretch : Stretch
        Inside the recording; its beginning, if no window was scored.
    score : float or None
        Mean score of the windows that lie in it. Where several stretches have it, the first one counts.
    """
    seconds = min(seconds, analysis.duration_s)
    windows = [window for window in analysis.windows if window.end_s - window.start_s <= seconds + _SAME_S]
    if not windows:
        return Stretch(0.0, seconds), None
    starts = np.array([window.start_s for window in windows])
    ends = np.array([window.end_s for window in windows])
    total = np.concatenate([[0.0], np.cumsum([window.score for window in windows])])
    # Every candidate begins with a window, or ends with the recording.
    begins = np.minimum(starts, analysis.duration_s - seconds)
    first = np.searchsorted(starts, begins - _SAME_S)
    stop = np.searchsorted(ends, begins + seconds + _SAME_S, side="right")
    mean = (total[stop] - total[first]) / np.maximum(stop - first, 1)
    best = int(np.argmax(mean))
    return Stretch(float(begins[best]), float(begins[best] + seconds)), float(mean[best])


def _union(spans: Iterable[tuple[float, float]]) -> list[Stretch]:
    # Spans in the order of their starts.
    joined: list[Stretch] = []
    for start, end in spans:
        if joined and start - joined[-1].end_s <= _SAME_S:
            joined[-1] = Stretch(joined[-1].start_s, max(end, joined[-1].end_s))
        else:
            joined.append(Stretch(start, end))
    return joined
