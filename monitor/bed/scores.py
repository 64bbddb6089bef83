"""The score chart's columns: pure functions of the scores that a ward keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.live.ward import ScorePoint

Float64Array = npt.NDArray[np.float64]

# A finding that comes later than this after the one before leaves a stretch that nobody judged.
_HOLE_S = 2.0
# The chart grows from a minute to all that is kept, so that a fresh feed does not show an empty page.
_SPAN_MIN_S = 60.0
# Half as high again as the threshold, so that the line always stands clear of the top.
_HEADROOM = 1.5


@dataclass(frozen=True, slots=True)
class ScoreChart:
    """What the score chart draws; times in ms as `local_ms` gives them.

    Attributes
    ----------
    t, threshold : numpy.ndarray
    score : numpy.ndarray
        NaN breaks the line.
    over : numpy.ndarray
        The score where it is over the threshold, the threshold elsewhere: Bokeh's areas know no breaks.
    unscored : list of tuple of float
        Stretches without a score, start and end.
    span : tuple of float
        Limits of the time axis.
    limits : tuple of float
        Limits of the score axis.
    """

    t: Float64Array
    score: Float64Array
    threshold: Float64Array
    over: Float64Array
    unscored: list[tuple[float, float]]
    span: tuple[float, float]
    limits: tuple[float, float]


def score_chart(points: Sequence[ScorePoint], now_ms: float, shift_ms: float, history_s: float) -> ScoreChart:
    """Return the chart of some scores.

    Parameters
    ----------
    points : sequence of ScorePoint
        In order of time.
    now_ms : float
        The bed's device time now, ms, shifted.
    shift_ms : float
        Added to every time: the browser's axis writes UTC, and people want the wall clock.
    history_s : float
        The longest time axis.
    """
    t = np.array([point.t_end / 1e6 + shift_ms for point in points])
    score = np.array([point.score for point in points])
    threshold = np.array([point.threshold for point in points])
    scored = ~np.isnan(score)
    unscored = _unscored(t, scored)
    if len(t) and now_ms - t[-1] > _HOLE_S * 1000:
        unscored.append((t[-1], now_ms))
    # A hole in time breaks the line as a missing score does; the area is closed on both sides of it.
    holes = np.flatnonzero(np.diff(t) > _HOLE_S * 1000) + 1
    edges = np.repeat(holes, 2)
    t = np.insert(t, edges, np.column_stack([t[holes - 1], t[holes]]).ravel())
    score, threshold = np.insert(score, edges, np.nan), np.insert(threshold, edges, threshold[edges])
    t, score, threshold = with_crossings(t, score, threshold)
    over = np.fmax(score, threshold)
    start = max(now_ms - history_s * 1000, min(t[0] if len(t) else now_ms, now_ms - _SPAN_MIN_S * 1000))
    return ScoreChart(t, score, threshold, over, unscored, (start, now_ms), _limits(score, threshold))


def with_crossings(
    t: Float64Array, score: Float64Array, threshold: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Add the points at which the line crosses the threshold, so that only what is over it is marked."""
    above = score - threshold
    with np.errstate(invalid="ignore"):
        at = np.flatnonzero(above[:-1] * above[1:] < 0)
    part = above[at] / (above[at] - above[at + 1])
    limit = threshold[at] + part * (threshold[at + 1] - threshold[at])
    return (
        np.insert(t, at + 1, t[at] + part * (t[at + 1] - t[at])),
        np.insert(score, at + 1, limit),
        np.insert(threshold, at + 1, limit),
    )


def _unscored(t: Float64Array, scored: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    stretches: list[tuple[float, float]] = []
    for i in range(len(t)):
        start = t[i - 1] if i else t[i]
        if scored[i] and t[i] - start <= _HOLE_S * 1000:
            continue
        if stretches and stretches[-1][1] >= start:
            stretches[-1] = (stretches[-1][0], t[i])
        else:
            stretches.append((start, t[i]))
    return stretches


def _limits(score: Float64Array, threshold: Float64Array) -> tuple[float, float]:
    known = score[~np.isnan(score)]
    limit = float(threshold.max(initial=0.0)) or 1.0
    high = max(abs(limit) * _HEADROOM, float(known.max(initial=limit)) * 1.1)
    # 0 is an average normal window.
    low = min(-1.0, float(known.min(initial=0.0)) - 0.2)
    return low, high
