"""Whether the device's clock goes as fast as ours."""

from __future__ import annotations

SKEW_S = 5.0
"""A device time this far off names an alarm after another moment than the one that a nurse wrote down."""

# The least delay in so much device time is that of the clocks; what is above it is the network's.
_BUCKET_NS = 10_000_000_000


class SkewMeter:
    """By how much the distance of two clocks has changed since a feed began.

    The distance itself says nothing: a recording that is played has the time at which it was made.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._bucket: int | None = None
        self._least = 0
        self._skew_s = 0.0

    def add(self, ingest_ns: int, device_ns: int) -> float:
        """Take one chunk.

        Parameters
        ----------
        ingest_ns : int
            When it entered the system, by the system's clock.
        device_ns : int
            Device time of its end.

        Returns
        -------
        float
            Seconds that the device's clock has fallen behind, as of the last full ten seconds; negative if
            it has run ahead.
        """
        bucket, distance = device_ns // _BUCKET_NS, ingest_ns - device_ns
        if bucket == self._bucket:
            self._least = min(self._least, distance)
            return self._skew_s
        if self._bucket is not None:
            self._first = self._least if self._first is None else self._first
            self._skew_s = (self._least - self._first) / 1e9
        self._bucket, self._least = bucket, distance
        return self._skew_s
