"""A sheet of ECG paper of the past: its signal as the bed view draws it, in the very packets that it takes.

Buckets are counted from the sheet's left edge (`monitor.bed.trace` says what they are). They are those of the
session, so that what a model says of its samples falls on the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.manifest import FilterSpec
from monitor.bed.sweep import lead_order, microvolts
from monitor.bed.trace import SETTLING_S, Grid, Trace
from stream.contract import INVALID
from stream.recording.store import Recordings, Stretch

LONGEST_S = 120.0
"""More fits no sheet: at 12.5 mm/s that is a metre and a half."""
# Times are told to a part of a microsecond: a sample that was meant is this near, in samples.
_EXACT = 0.01
# The filter's delay, and a bucket.
_BEHIND_S = 0.2

Packet = dict[str, Any]


@dataclass(frozen=True)
class Strip:
    """One recorded stretch on a sheet.

    Attributes
    ----------
    stretch : Stretch
        With the seconds before it in which the filter settles.
    origin : int
        Bucket of the session that is the sheet's first.
    start, stop : int
        Buckets of the session that are on the sheet.
    """

    stretch: Stretch
    origin: int
    start: int
    stop: int


@dataclass(frozen=True)
class Sheet:
    """What lies on a sheet.

    Attributes
    ----------
    t0 : float
        Device time of the first bucket, ns.
    leads : tuple of str
        In the order in which they are drawn.
    grid : Grid
    buckets : int
    strips : tuple of Strip
        All of one sampling frequency.
    left_out : str
        What could not be drawn, in words.
    """

    t0: float
    leads: tuple[str, ...]
    grid: Grid
    buckets: int
    strips: tuple[Strip, ...]
    left_out: str = ""


def lay(recordings: Recordings, bed: str, t0: int, seconds: float) -> Sheet | None:
    """Read what was recorded of a bed from a device time on; None if there is nothing.

    Raises
    ------
    OSError
        If a file is damaged.
    """
    t1 = t0 + round(seconds * 1e9)
    read = recordings.read(bed, t0 - round(SETTLING_S * 1e9), t1 + round(_BEHIND_S * 1e9))
    stretches = [one for one in read if one.t_ns[-1] >= t0 and one.t_ns[0] < t1]
    if not stretches:
        return None

    def shown(one: Stretch) -> int:
        return int(np.count_nonzero((one.t_ns >= t0) & (one.t_ns < t1)))

    main = max(stretches, key=shown)
    grid = Grid(main.fs, seconds + SETTLING_S + 1)
    buckets = math.ceil(seconds * main.fs / grid.size) + 1
    strips = []
    for one in stretches:
        if one.fs == main.fs:
            origin = math.floor((_sample_at(one, t0) + _EXACT) / grid.size)
            start = max(origin, -(-one.n0 // grid.size))
            strips.append(Strip(one, origin, start, min(origin + buckets, one.end // grid.size)))
    drawn = [strip for strip in strips if strip.start < strip.stop]
    if not drawn:
        return None
    others = sorted({f"{one.fs:g} Hz" for one in stretches if one.fs != main.fs})
    names = list(dict.fromkeys(lead for strip in drawn for lead in strip.stretch.leads))
    leads = tuple(names[place] for place in lead_order(tuple(names)))
    left = next((strip for strip in drawn if strip.stretch is main), drawn[0])
    first_ns = _time_at(left.stretch, left.origin * grid.size)
    words = f"what was recorded at {', '.join(others)} is not drawn beside {main.fs:g} Hz" if others else ""
    return Sheet(first_ns, leads, grid, buckets, tuple(drawn), words)


def draw(sheet: Sheet, band: FilterSpec) -> Packet:
    """Return the signal, as `monitor.bed.sweep.Sweep.news` has it, and ``t0`` and ``bucket`` in ms."""
    grid, n = sheet.grid, sheet.buckets * sheet.grid.points
    trace = np.full((len(sheet.leads), n), INVALID, np.int16)
    for strip in sheet.strips:
        one = strip.stretch
        drawing = Trace(grid, len(one.leads), band, one.n0)
        drawing.push(one.millivolts)
        stop = min(strip.stop, drawing.stop)
        if strip.start >= stop:
            continue
        points = microvolts(drawing.read(strip.start, stop))
        at = slice(*((bucket - strip.origin) * grid.points for bucket in (strip.start, stop)))
        for row, lead in enumerate(one.leads):
            place = trace[sheet.leads.index(lead), at]
            np.copyto(place, points[row], where=points[row] != INVALID)
    return {
        "leads": list(sheet.leads),
        "fs": grid.fs,
        "size": grid.size,
        "points": grid.points,
        "held": sheet.buckets,
        "t0": sheet.t0 / 1e6,
        "bucket": grid.size / grid.fs * 1000,
        "left_out": sheet.left_out,
        "start": 0,
        "trace": trace,
    }


def _sample_at(stretch: Stretch, t: float) -> float:
    # The sample at a device time; before the first one as if the stretch had begun sooner.
    since = (t - float(stretch.t_ns[0])) * stretch.fs / 1e9
    if since <= 0:
        return stretch.n0 + since
    place = int(np.searchsorted(stretch.t_ns, t, side="right")) - 1
    return stretch.n0 + place + (t - float(stretch.t_ns[place])) * stretch.fs / 1e9


def _time_at(stretch: Stretch, sample: int) -> float:
    place = min(max(0, sample - stretch.n0), len(stretch.t_ns) - 1)
    return float(stretch.t_ns[place]) + (sample - stretch.n0 - place) * 1e9 / stretch.fs
