"""Whether the device's clock goes as fast as ours, and its samples come as fast as it says."""

from __future__ import annotations

from dataclasses import dataclass

SKEW_S = 5.0
"""A device time this far off names an alarm after another moment than the one that a nurse wrote down."""

# The least delay in so much device time is that of the clocks; what is above it is the network's.
_BUCKET_NS = 10_000_000_000


# Of samples that come at another rate than the stated one by this share, intervals and heart rates are wrong
# by as much: five beats in a hundred. Far beyond what crystals are off, and bursts over ten seconds.
_RATE_OFF = 0.05


@dataclass(frozen=True, slots=True)
class _Point:
    # The chunk of a stretch that took the shortest way.
    ingest_ns: int
    device_ns: int
    sample: int

    @property
    def distance(self) -> int:
        return self.ingest_ns - self.device_ns


class SkewMeter:
    """By how much the distance of two clocks has changed since a feed began, and how fast samples come.

    The distance itself says nothing: a recording that is played has the time at which it was made.

    Parameters
    ----------
    fs : float
        Sampling frequency that the feed states, Hz.

    Attributes
    ----------
    skew_s : float or None
        Seconds that the device's clock has fallen behind, as of the last full ten seconds; negative if it has
        run ahead. None until there are two.
    wrong_rate : float or None
        Samples a second that came in the last twice ten seconds, if those are not `fs`.
    """

    def __init__(self, fs: float) -> None:
        self.skew_s: float | None = None
        self.wrong_rate: float | None = None
        self._fs = fs
        self._first: int | None = None
        self._bucket: int | None = None
        self._best = self._before = _Point(0, 0, 0)
        self._was_off = False

    def add(self, ingest_ns: int, device_ns: int, sample: int) -> None:
        """Take one chunk.

        Parameters
        ----------
        ingest_ns : int
            When it entered the system, by the system's clock.
        device_ns : int
            Device time of its end.
        sample : int
            Index of the sample after its last one.
        """
        bucket = device_ns // _BUCKET_NS
        if bucket == self._bucket and ingest_ns - device_ns >= self._best.distance:
            return
        if bucket != self._bucket and self._bucket is not None:
            self._close()
        self._bucket, self._best = bucket, _Point(ingest_ns, device_ns, sample)

    def _close(self) -> None:
        if self._first is None:
            self._first = self._best.distance
        else:
            self.skew_s = (self._best.distance - self._first) / 1e9
            self._measure_rate()
        self._before = self._best

    def _measure_rate(self) -> None:
        took_s = (self._best.ingest_ns - self._before.ingest_ns) / 1e9
        if took_s <= 0:
            return
        rate = (self._best.sample - self._before.sample) / took_s
        off = abs(rate / self._fs - 1) > _RATE_OFF
        # One alone is a device that paused.
        self.wrong_rate = rate if off and self._was_off else None
        self._was_off = off
