"""The one seam through which time enters the program.

Nothing outside this module reads the wall clock: a part that needs the time takes a `Clock`.
Replay, tests and offline analysis hand in a clock of their own.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What a part of the program may ask of time."""

    def now_ns(self) -> int:
        """Return the current time in nanoseconds since the Unix epoch, UTC."""
        ...

    async def sleep_until(self, when_ns: int) -> None:
        """Return at `when_ns` or, if that has passed, after giving others one turn."""
        ...


class SystemClock:
    """The machine's clock: named by wall time, advanced by the monotonic clock.

    The wall clock is read once, so that a step of the system time (NTP, an operator) neither
    makes a replay jump nor turns a latency negative.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return self._offset_ns + time.monotonic_ns()

    async def sleep_until(self, when_ns: int) -> None:
        await asyncio.sleep(max(0, when_ns - self.now_ns()) / 1e9)


class ManualClock:
    """A clock that only moves when told to: for tests and for offline analysis."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def set(self, now_ns: int) -> None:
        """Move the clock to `now_ns`; it never goes back."""
        self._now_ns = max(self._now_ns, now_ns)

    async def sleep_until(self, when_ns: int) -> None:
        self.set(when_ns)
        await asyncio.sleep(0)
