"""Latencies in an HdrHistogram: all of them, in constant memory, to three digits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

Nanoseconds = npt.NDArray[np.int64]

# From a microsecond to an hour, to a thousandth of the value: finer than any of these clocks, longer than
# any of these runs.
_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 3_600_000_000, 3
_NAMES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9, "max_ms": 100.0}
# Steps of the curve in each halving of what is left to 100 %: a smooth line, some eighty points.
_TICKS = 5


class LatencyHistogram:
    """How often each latency occurred (HdrHistogram, hdrhistogram.org).

    Parameters
    ----------
    latencies_ns : numpy.ndarray of int64, optional
        The first latencies.
    """

    def __init__(self, latencies_ns: Nanoseconds | None = None) -> None:
        self._histogram = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
        if latencies_ns is not None:
            self.add(latencies_ns)

    def add(self, latencies_ns: Nanoseconds) -> None:
        """Count latencies; one below a microsecond counts as one microsecond."""
        microseconds = np.clip((latencies_ns + 500) // 1000, _LOWEST_US, _HIGHEST_US)
        for value, count in zip(*np.unique(microseconds, return_counts=True), strict=True):
            self._histogram.record_value(int(value), int(count))

    @property
    def n(self) -> int:
        """Latencies counted."""
        return int(self._histogram.get_total_count())

    def percentile_ms(self, percentile: float) -> float | None:
        """Return the latency, ms, that so many percent do not exceed; None if there are no latencies."""
        if not self.n:
            return None
        # The library rounds the rank to the nearest: of eight values it would call the seventh their p90.
        rank = math.ceil(percentile / 100 * self.n)
        microseconds = float(self._histogram.get_value_at_percentile(100 * rank / self.n))
        return round(microseconds / 1000, 3)

    def summary(self) -> dict[str, float | int | None]:
        """Return ``n``, ``p50_ms``, ``p90_ms``, ``p99_ms``, ``p999_ms`` and ``max_ms``."""
        return {"n": self.n} | {name: self.percentile_ms(value) for name, value in _NAMES.items()}

    def curve(self) -> list[tuple[float, float]]:
        """Return (percentile, ms) from the lowest latency to the highest, closer towards 100 %."""
        if not self.n:
            return []
        steps = self._histogram.get_percentile_iterator(_TICKS)
        return [(step.percentile_level_iterated_to, step.value_iterated_to / 1000) for step in steps]

    def encode(self) -> str:
        """Return the histogram in HdrHistogram's own compressed format, base64, values in microseconds."""
        encoded: bytes = self._histogram.encode()
        return encoded.decode()
