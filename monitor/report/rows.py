"""Where the leads of a report lie on ECG paper: one row each, as high as its signal needs, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.overlay import Traces

# Usual size first; halved until all rows fit a page.
_SIZES_MM = (10.0, 5.0, 2.5)
_PAGE_MM = 250.0
# A spike of a loose electrode decides no row's height: 0.2 % of the points lie beyond each end. A QRS
# complex is 2 % and more of its beat.
_PERCENTILES = (0.2, 99.8)
# Around a lead's signal, so that rows do not touch; and a flat lead needs a row too.
_AIR_MM = 3.0
_LOWEST_MM = 5.0
_HIGHEST_MM = 40.0
# A bar of attention is high enough to tell its shades apart, and nearer to the signal that it belongs to than
# to the next: it takes some of the air below its own.
BAR_MM = 1.8
_BAR_ROOM_MM = 2.4
_BELOW_BAR_MM = 2.4
# The one below all leads has its name above it.
_FOOT_MM = 5.0


@dataclass(frozen=True, slots=True)
class Strip:
    """One lead's row.

    Attributes
    ----------
    lead : str
    row : int
        In the arrays of `Traces`.
    baseline : float
        Height of 0 mV above the paper's lower edge, mm; on a line of the grid.
    top : float
        Upper edge of the row, mm.
    bar : float
        Lower edge of the bar of attention at the foot of the row, `BAR_MM` high, mm; there is none without
        lead attention.
    """

    lead: str
    row: int
    baseline: float
    top: float
    bar: float


@dataclass(frozen=True, slots=True)
class Paper:
    """All rows.

    Attributes
    ----------
    height : float
        Millimetres.
    size : float
        Millimetres a millivolt.
    strips : tuple of Strip
        From the top.
    foot : float
        Lower edge of the bar of attention below all leads, mm; there is none without temporal attention.
    """

    height: float
    size: float
    strips: tuple[Strip, ...]
    foot: float

    def heights(self, strip: Strip, millivolts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return where values of a lead lie on the paper, mm; what leaves the paper ends at its edge."""
        placed: npt.NDArray[np.float32] = np.clip(
            strip.baseline + self.size * millivolts, 0.0, self.height, dtype=np.float32
        )
        return placed


def lay_out(
    traces: Traces,
    part: slice,
    sizes: Sequence[float] = _SIZES_MM,
    percentiles: tuple[float, float] = _PERCENTILES,
) -> Paper:
    """Give each lead a row that holds its signal and its reconstruction in a part of the recording.

    Parameters
    ----------
    traces : Traces
    part : slice
        Of the points.
    sizes : sequence of float
        Millimetres a millivolt: the first of these at which all rows fit a page of a report, or the last.
    percentiles : tuple of two float
        Of a lead's values, those that its row holds.

    Returns
    -------
    Paper
        As high as its rows need.
    """
    extents = [
        _extent(np.concatenate([signal, expected]), percentiles)
        for signal, expected in zip(traces.signal[:, part], traces.reconstruction[:, part], strict=True)
    ]
    for size in sizes:
        rows = [
            (
                min(max(-size * low + _AIR_MM, _LOWEST_MM), _HIGHEST_MM),
                # The calibration pulse stands free in its row.
                min(max(size * high + _AIR_MM, size + 1.5), _HIGHEST_MM),
            )
            for low, high in extents
        ]
        total = sum(below + above for below, above in rows)
        if total <= _PAGE_MM:
            break
    # Bars come on top of a page: a size that one model's report has, another's has, too.
    bar = _BAR_ROOM_MM if traces.lead_attention is not None else 0.0
    foot = _FOOT_MM if traces.temporal_attention is not None else 0.0
    strips, top = [], float(np.ceil((total + bar * len(rows) + foot) / 5.0 + 0.5) * 5.0)
    height = top
    for row, (below, above) in enumerate(rows):
        bottom = top - (below + above + bar)
        strips.append(Strip(traces.leads[row], row, float(round(top - above)), top, bottom + _BELOW_BAR_MM))
        top = bottom
    return Paper(height, size, tuple(strips), top - foot)


def _extent(values: npt.NDArray[np.float32], percentiles: tuple[float, float]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 0.0
    low, high = np.percentile(finite, percentiles)
    return float(min(low, 0.0)), float(max(high, 0.0))
