"""What a worker leaves out when it cannot keep up: explanations first, then windows, never samples."""

from __future__ import annotations

# A worker that keeps up is some 0.05 s behind the newest chunk. A second behind and no longer gaining on
# it, it will never catch up by itself.
LATE_S = 1.0
# Gained less than this share since the last look: not catching up.
_GAIN = 0.1
# Less than this behind for so long, and the worker takes back what it left out, a step at a time. Longer
# than a window's share of a ward's ups and downs, so that it does not swing.
CAUGHT_UP_S = 0.3
CALM_S = 10.0
# So long without a gain, and something has to go; a step needs as long to show. After an outage a worker
# is far behind at once and gains with every look.
_SETTLE_S = 2.0

EVERY = (1, 1, 2, 4)
"""By step: of how many windows one is scored. From the first step on there are no explanations."""


class Shedding:
    """Decides how much is left out, from how far the worker is behind. Time is handed in.

    Attributes
    ----------
    step : int
        0 for nothing, 1 for explanations, from 2 on also windows: all but one in `EVERY[step]`.
    """

    def __init__(self) -> None:
        self.step = 0
        self._behind_s = 0.0
        self._stuck_since_s: float | None = None
        self._calm_since_s: float | None = None

    @property
    def every(self) -> int:
        """Of so many windows of a live bed, one is scored."""
        return EVERY[self.step]

    def look(self, behind_s: float, now_s: float) -> None:
        """Take note of how far behind the worker is.

        Parameters
        ----------
        behind_s : float
            Age of what the worker is doing next, seconds.
        now_s : float
        """
        stuck = behind_s > LATE_S and behind_s >= (1 - _GAIN) * self._behind_s
        calm = behind_s <= CAUGHT_UP_S
        self._behind_s = behind_s
        self._stuck_since_s = _since(self._stuck_since_s, now_s, stuck)
        self._calm_since_s = _since(self._calm_since_s, now_s, calm)
        if self._stuck_since_s is not None and now_s - self._stuck_since_s >= _SETTLE_S:
            self.step = min(self.step + 1, len(EVERY) - 1)
            self._stuck_since_s = now_s
        elif self.step and self._calm_since_s is not None and now_s - self._calm_since_s >= CALM_S:
            self.step -= 1
            self._calm_since_s = now_s


def _since(before_s: float | None, now_s: float, holds: bool) -> float | None:
    # Since when something holds without a break.
    if not holds:
        return None
    return now_s if before_s is None else before_s
