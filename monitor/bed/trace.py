"""From a bed's raw samples to what a screen draws: filtered, thinned out, and on one grid of points.

The filter is the model's own (`stream.preprocess`): the black trace shows what the model was given, the
red one what it expected, and both are bent alike by the high-pass. Its delay is taken off, as it is in
the explanations.

A feed is cut into buckets of samples, counted from the session's first one, so that the points do not
depend on how the feed was cut into chunks. A bucket of more than one sample becomes two points, its
lowest and its highest value in their order: no spike is lost, however slow the screen.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.manifest import FilterSpec
from monitor.live.ring import Float32Array, SampleRing
from stream.preprocess import Conditioner, Resampled, group_delay_ms

MONITOR_BAND = FilterSpec()
"""0.5 to 40 Hz: what the model is given, and the usual setting of a bedside monitor."""
# No low-pass is possible this high, so `stream.preprocess.design` leaves it out.
WIDE_BAND = FilterSpec(stop_hz=1e6)
"""From 0.5 Hz up: hum, muscle noise and pacing spikes show."""

BUCKETS_PER_S = 125.0
"""At 50 mm/s, and 4 pixels a millimetre, a second is 200 pixels wide: 250 points a second are one to a pixel
at least, and their highest and lowest values are there at any speed."""
# The play-out is behind by a chunk of half a second and a second of jitter at most, and slews from there.
_WAITING_S = 3.0
# What is left of an offset of 1 mV is then below a microvolt (second order, 0.5 Hz).
SETTLING_S = 4.0


class Grid:
    """The points at which a feed is drawn.

    Parameters
    ----------
    fs : float
        Sampling frequency of the feed, Hz.
    seconds : float
        What is to be kept; it is rounded to whole buckets.
    buckets_per_s : float
        At least so many, as far as there are samples for it.

    Attributes
    ----------
    size : int
        Samples in a bucket.
    points : int
        Points in a bucket.
    buckets : int
        Buckets of `seconds`.
    capacity : int
        Buckets to keep: those, and those that wait for their turn.
    """

    def __init__(self, fs: float, seconds: float, buckets_per_s: float = BUCKETS_PER_S) -> None:
        self.fs = fs
        self.size = max(1, int(fs / buckets_per_s))
        self.points = 1 if self.size == 1 else 2
        self.buckets = max(1, round(seconds * fs / self.size))
        self.capacity = self.buckets + math.ceil(_WAITING_S * fs / self.size)

    def samples(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Return where the points of some buckets lie, in samples of the session, flat."""
        point = np.arange(start * self.points, stop * self.points, dtype=np.float64)
        return (point + 0.5) * (self.size / self.points) - 0.5


class Trace:
    """The drawn points of one session's leads.

    Parameters
    ----------
    grid : Grid
    n_leads : int
    band : FilterSpec
    start : int
        First sample that will be pushed.
    """

    def __init__(self, grid: Grid, n_leads: int, band: FilterSpec, start: int) -> None:
        self._grid = grid
        self.conditioner = Conditioner(band, grid.fs, grid.fs, n_leads, start)
        """The filter before it: `push` is `take` of what comes out of it."""
        self._delay = max(0, round(group_delay_ms(band, grid.fs) * grid.fs / 1000))
        first = -(-max(0, start - self._delay) // grid.size)
        self._points = SampleRing(grid.capacity, grid.points * n_leads, first)
        # Filtered samples from the first one of the bucket that is being filled.
        self._rest = np.empty((n_leads, 0))
        self._skip = first * grid.size - (start - self._delay)

    @property
    def next_in(self) -> int:
        """Sample that `push` expects next."""
        return self.conditioner.next_in

    @property
    def delay(self) -> int:
        """Samples by which a point is known later than its sample."""
        return self._delay

    @property
    def stop(self) -> int:
        """Bucket after the newest one."""
        return self._points.stop

    def push(self, millivolts: Float32Array) -> None:
        """Take the next samples, shape (n, leads), NaN where there is none."""
        self.take(self.conditioner.push(millivolts.T.astype(np.float64)))

    def take(self, filtered: Resampled) -> None:
        """Take what the filter has made of the next samples."""
        # `missing` is the time without a sample so far: anything but 0 was filled in by the filter.
        values = np.where(filtered.missing == 0, filtered.values, np.nan)
        values = np.concatenate([self._rest, values], axis=1)
        skipped = min(self._skip, values.shape[1])
        self._skip -= skipped
        values = values[:, skipped:]
        whole = values.shape[1] // self._grid.size
        self._rest = values[:, whole * self._grid.size :]
        if whole:
            buckets = values[:, : whole * self._grid.size].reshape(len(values), whole, self._grid.size)
            points = thin(buckets) if self._grid.points == 2 else buckets
            self._points.write(self._points.stop, points.transpose(1, 2, 0).reshape(whole, -1))

    def read(self, start: int, stop: int) -> Float32Array:
        """Return points of some buckets, shape (buckets * points, leads), NaN where there is none."""
        return self._points.read(start, stop).reshape((stop - start) * self._grid.points, -1)


def thin(buckets: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the lowest and the highest value along the last axis, in the order in which they stand.

    NaN is passed over; where there is nothing else, both are NaN.
    """
    absent = np.isnan(buckets)
    at_low = np.where(absent, np.inf, buckets).argmin(axis=-1)
    at_high = np.where(absent, -np.inf, buckets).argmax(axis=-1)
    both = np.stack([np.minimum(at_low, at_high), np.maximum(at_low, at_high)], axis=-1)
    return np.take_along_axis(buckets, both, axis=-1)
