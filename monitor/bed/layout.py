"""Where each lead is drawn: rows and columns on ECG paper, in seconds and millimetres of paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream.leads import LEADS

PAPER_SPEED = 25.0
"""mm/s: a large square, 5 mm, is 0.2 s."""
_COLUMN_GAP_S = 0.2
# A row lower than this would lie over its neighbours; the squares stop being square before.
_PITCH_MIN_MM = 12.0
# A QRS complex of 1.6 mV fits its row at the size that is chosen.
_USUAL_MV = 1.6
_SIZES_MM = (5.0, 10.0, 20.0, 40.0)
# R waves point up in most leads: a baseline below the middle of the row leaves them room.
_BASELINE = 0.42
_LABEL = 0.82
# Below the last row, in rows: for S waves, and for the line that says what the paper's squares mean.
_MARGIN = 0.25


def lead_order(leads: Sequence[str]) -> list[int]:
    """Return the order in which leads are drawn: the standard ones first, then the others as they come."""
    return sorted(
        range(len(leads)),
        key=lambda column: (LEADS.index(leads[column]) if leads[column] in LEADS else len(LEADS), column),
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows and columns for a number of leads.

    Attributes
    ----------
    columns, rows : int
    seconds : float
        Length of a sweep, the width of a column.
    width_s : float
        Width of the paper.
    height_mm : float
        Height of the paper.
    width_px, height_px : float
        Size of the picture.
    """

    columns: int
    rows: int
    seconds: float
    width_s: float
    height_mm: float
    width_px: float
    height_px: float

    @classmethod
    def fit(cls, n_leads: int, width_px: float, height_px: float) -> Layout:
        """Return the layout for a picture of some size, with square squares if it is high enough."""
        columns = 1 if n_leads <= 6 else 2 if n_leads <= 16 else 4
        rows = max(1, -(-n_leads // columns))
        seconds = 10.0 / columns
        width_s = columns * seconds + (columns - 1) * _COLUMN_GAP_S
        # A page that has not been laid out yet has no size.
        width_px, height_px = max(1.0, width_px), max(1.0, height_px)
        height_mm = max(PAPER_SPEED * width_s * height_px / width_px, rows * _PITCH_MIN_MM)
        return cls(columns, rows, seconds, width_s, height_mm, width_px, height_px)

    @property
    def pitch_mm(self) -> float:
        """Distance of two rows."""
        return self.height_mm / (self.rows + _MARGIN)

    @property
    def usual_size(self) -> float:
        """The largest standard size, mm/mV, at which an ordinary QRS complex fits its row."""
        fitting = [size for size in _SIZES_MM if size * _USUAL_MV <= self.pitch_mm]
        return fitting[-1] if fitting else _SIZES_MM[0]

    def left(self, place: int) -> float:
        """Return the left edge of the lead that is drawn as number `place`, in seconds."""
        return (place // self.rows) * (self.seconds + _COLUMN_GAP_S)

    def baseline(self, place: int) -> float:
        """Return the height of its zero line, mm; on a line of the grid."""
        return float(round(self._bottom(place) + _BASELINE * self.pitch_mm))

    def label_height(self, place: int) -> float:
        """Return the height of its name, mm."""
        return self._bottom(place) + _LABEL * self.pitch_mm

    def _bottom(self, place: int) -> float:
        return (self.rows - 1 - place % self.rows + _MARGIN) * self.pitch_mm
