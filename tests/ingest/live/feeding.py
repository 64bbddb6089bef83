"""A source that tests put pieces into, and what an intake makes of them on a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from ingest.live.intake import Intake
from ingest.live.source import LiveSource, Piece
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import AlarmEvent, SampleChunk
from stream.embedded import EmbeddedServer
from stream.topics import ALARMS, SAMPLES

CLOCK = SystemClock()


class Hand(LiveSource):
    """What a test puts into it."""

    def __init__(self, name: str = "hand") -> None:
        super().__init__(name)
        self.started_at: Any = "not started"
        self.stands_at: Any = None

    async def start(self, position: Any = None) -> None:
        self.started_at = position

    async def stop(self) -> None:
        pass

    def position(self) -> Any:
        return self.stands_at


def counted(first: int, n: int = 50, **fields: Any) -> Piece:
    """Return a piece of a device that counts, whose samples are their numbers."""
    samples = (np.arange(first, first + n, dtype=np.int64) % 30_000).astype(np.int16)[:, np.newaxis]
    usual: dict[str, Any] = {
        "bed": "icu-1",
        "device": "monitor-1",
        "fs": 250.0,
        "leads": ("II",),
        "gain": (1000.0,),
        "samples": samples,
        "arrived_ns": CLOCK.now_ns(),
        "n0": first,
    }
    return Piece(**usual | fields)


@contextlib.asynccontextmanager
async def intake_of(source: LiveSource, server: EmbeddedServer, prefix: str) -> AsyncIterator[Bus]:
    """Run an intake as long as the block, and stop it as a person does."""
    stop = asyncio.Event()
    async with await Bus.connect(server.url, prefix=prefix) as bus:
        running = asyncio.create_task(Intake(source, bus, clock=CLOCK).run(stop))
        try:
            yield bus
        finally:
            stop.set()
            await asyncio.wait_for(running, 20)


async def chunks_on(bus: Bus, bed: str | None = None) -> list[SampleChunk]:
    """Return the chunks on the stream, in the order of each partition."""
    chunks = [SampleChunk.decode(entry.value) async for entry in bus.kept(SAMPLES)]
    return [chunk for chunk in chunks if bed is None or chunk.header.bed == bed]


async def until_samples(bus: Bus, count: int, bed: str | None = None) -> list[SampleChunk]:
    """Return the chunks once there are so many samples in them."""
    async with asyncio.timeout(20):
        while True:
            chunks = await chunks_on(bus, bed)
            if sum(len(chunk.samples) for chunk in chunks) >= count:
                return chunks
            await asyncio.sleep(0.01)


async def until_alarms(bus: Bus, count: int) -> list[AlarmEvent]:
    """Return the alarm events once there are so many."""
    async with asyncio.timeout(20):
        while True:
            events = [AlarmEvent.decode(entry.value) async for entry in bus.kept(ALARMS)]
            if len(events) >= count:
                return events
            await asyncio.sleep(0.01)


async def until_raised(bus: Bus, rule: str, says: str = "") -> AlarmEvent:
    """Return the first event of a rule that has these words, once there is one."""
    async with asyncio.timeout(60):
        while True:
            async for entry in bus.kept(ALARMS):
                event = AlarmEvent.decode(entry.value)
                if event.rule == rule and says in event.message:
                    return event
            await asyncio.sleep(0.05)
