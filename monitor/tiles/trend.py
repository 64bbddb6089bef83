"""The score of the last minutes, as a tile draws it: how far it was over or under its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monitor.live.ward import ScorePoint

TREND_S = 300.0
"""Long enough to see where something began before its alarm, short enough for a tile's width."""
STEP_S = 5.0
"""60 points: a point to a pixel in the narrowest tile."""
_NS = 1_000_000_000


def score_trend(scores: Sequence[ScorePoint], device_ns: int) -> list[float | None]:
    """Return the highest score of each step, less its threshold.

    Parameters
    ----------
    scores : sequence of ScorePoint
        In order of time.
    device_ns : int
        The bed's device time now.

    Returns
    -------
    list of float or None
        Oldest first; in units of the score; None for a step without a score.
    """
    step_ns = round(STEP_S * _NS)
    steps = round(TREND_S / STEP_S)
    # Steps are anchored in device time, so that a point that is past does not change any more.
    first = device_ns // step_ns - steps + 1
    highest: list[float | None] = [None] * steps
    for point in reversed(scores):
        place = point.t_end // step_ns - first
        if place < 0:
            break
        if place >= steps or math.isnan(point.score):
            continue
        over = round(point.score - point.threshold, 1)
        known = highest[place]
        highest[place] = over if known is None else max(known, over)
    return highest
