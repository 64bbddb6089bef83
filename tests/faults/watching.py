"""What comes out of the ward while it is under faults, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from stream.bus import Bus
from stream.contract import AlarmEvent, AlarmKind, Finding
from stream.topics import ALARMS, FINDINGS
from stream.transport.layout import stream_key

_AGAIN_S = 0.05


class Observer:
    """Reads findings and alarms past all that can break, and notes when each arrived.

    Attributes
    ----------
    bus : Bus
    alarms : list of (float, AlarmEvent)
        Every entry of the alarms topic, and when it came, in seconds of the monotonic clock.
    newest : dict of str to int
        By bed: ingest time, ns, of the newest chunk that a finding has come of.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._at = {stream_key(bus.prefix, topic, 0): "0-0" for topic in (FINDINGS, ALARMS)}
        self._alarms_key = stream_key(bus.prefix, ALARMS, 0).encode()
        self._news = asyncio.Condition()
        self.alarms: list[tuple[float, AlarmEvent]] = []
        self.newest: dict[str, int] = {}

    async def move(self, bus: Bus) -> None:
        """Go on with another server, which has taken the place of the first."""
        before, self.bus = self.bus, bus
        await before.close()

    async def run(self) -> None:
        """Read for ever."""
        while True:
            try:
                reply: Any = await self.bus.client.xread(dict[Any, Any](self._at), count=512, block=200)
            except (RedisError, OSError):
                await asyncio.sleep(_AGAIN_S)
                continue
            async with self._news:
                for key, entries in reply or ():
                    self._at[key.decode()] = entries[-1][0].decode()
                    for _, fields in entries:
                        self._take(key, fields[b"v"])
                self._news.notify_all()

    def _take(self, key: bytes, value: bytes) -> None:
        if key == self._alarms_key:
            self.alarms.append((time.monotonic(), AlarmEvent.decode(value)))
        else:
            finding = Finding.decode(value)
            ingest_ns = finding.stamps.ingest_ns
            self.newest[finding.bed] = max(self.newest.get(finding.bed, 0), ingest_ns)

    async def until(self, done: Callable[[], bool], timeout_s: float) -> float | None:
        """Wait until something is so; return when it was (monotonic), None if it was not in time."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(done)
        except TimeoutError:
            return None
        return time.monotonic()

    async def alarm(
        self, since_s: float, wanted: Callable[[AlarmEvent], bool], within_s: float
    ) -> float | None:
        """Wait for an alarm event that came after a time; return how long after it, None if none came."""

        def found() -> float | None:
            return next((at for at, event in self.alarms if at >= since_s and wanted(event)), None)

        await self.until(lambda: found() is not None, max(0.0, since_s + within_s - time.monotonic()))
        at = found()
        return None if at is None else at - since_s

    async def flowing(self, beds: list[str], since_ns: int, within_s: float) -> float | None:
        """Wait for findings on what every bed has sent since a time; return when the last bed's came."""
        return await self.until(lambda: all(self.newest.get(bed, 0) > since_ns for bed in beds), within_s)

    async def next_raise(self, within_s: float) -> None:
        """Return at the moment at which a patient's alarm is raised; or without one, after a while."""
        seen = len(self.alarms)
        await self.until(
            lambda: any(event.kind is AlarmKind.PHYSIOLOGICAL for _, event in self.alarms[seen:]), within_s
        )
