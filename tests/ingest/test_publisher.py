"""The publisher on a real server: order, flow control, and a server that restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from ingest.chunks import Feed, chunks_of
from ingest.publisher import BusPublisher
from ingest.replay import AS_FAST_AS_POSSIBLE, replay
from ingest.source import ArrayRecording
from stream.bus import Bus
from stream.contract import INVALID, SampleChunk
from stream.embedded import EmbeddedServer
from stream.topics import SAMPLES
from stream.transport.layout import partition_of, stream_key


def recording(seconds: float) -> ArrayRecording:
    samples = np.arange(round(seconds * 100), dtype=np.int16)[:, None]
    return ArrayRecording(samples, name="r", fs=100.0, leads=["II"], gain=[1000.0])


def cut(seconds: float, bed: str = "b", pace: float = 0.0) -> list[SampleChunk]:
    chunks = chunks_of(recording(seconds), bed, "s")
    return [SampleChunk(c.header.model_copy(update={"pace": pace}), c.samples) for c in chunks]


def key_of(bus: Bus, bed: str) -> str:
    return stream_key(bus.prefix, SAMPLES, partition_of(bed.encode(), 16))


async def sent(bus: Bus, bed: str = "b") -> list[SampleChunk]:
    rows = await bus.client.xrange(key_of(bus, bed))
    return [SampleChunk.decode(fields[b"v"]) for _, fields in rows if fields[b"k"] == bed.encode()]


def on_bus(server: EmbeddedServer, use: Callable[[Bus], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with await Bus.connect(server.url) as bus:
            return await use(bus)

    return asyncio.run(main())


async def join(bus: Bus, bed: str = "b", group: str = "worker") -> None:
    await bus.client.xgroup_create(key_of(bus, bed), group, id="0", mkstream=True)


async def read_on(bus: Bus, count: int, bed: str = "b", group: str = "worker") -> int:
    """Move a group's position on by so many messages, as a worker's commit does."""
    key = key_of(bus, bed)
    groups = {entry["name"]: entry["last-delivered-id"] for entry in await bus.client.xinfo_groups(key)}
    rows = await bus.client.xrange(key, min=b"(" + groups[group.encode()], count=count)
    if rows:
        await bus.client.xgroup_setid(key, group, rows[-1][0])
    return len(rows)


def test_paced_chunks_arrive_in_order_and_are_counted(redis_server: EmbeddedServer) -> None:
    chunks = cut(2.0, pace=1.0)
    chunks[0] = SampleChunk(chunks[0].header, np.full_like(chunks[0].samples, INVALID))

    def counted(name: str) -> float:
        return REGISTRY.get_sample_value(f"bedside_ingest_{name}_total") or 0.0

    async def use(bus: Bus) -> None:
        before = [counted(name) for name in ("chunks", "bytes", "invalid_samples")]
        await BusPublisher(bus).publish(chunks)
        await BusPublisher(bus).publish([])
        received = await sent(bus)
        assert [c.header for c in received] == [c.header for c in chunks]
        after = [counted(name) for name in ("chunks", "bytes", "invalid_samples")]
        size = sum(len(chunk.encode()) for chunk in chunks)
        assert [b - a for a, b in zip(before, after, strict=True)] == [10, size, 20]

    on_bus(redis_server, use)


def test_unpaced_chunks_wait_for_a_worker_and_say_so_once(redis_server: EmbeddedServer) -> None:
    async def use(bus: Bus) -> None:
        said: list[str] = []
        publishing = asyncio.create_task(BusPublisher(bus, on_wait=said.append).publish(cut(2.0)))
        await asyncio.sleep(0.2)
        assert not publishing.done()
        assert said == ["waiting for a worker: nothing reads the samples yet"]
        await join(bus)
        await asyncio.wait_for(publishing, 5)
        assert len(await sent(bus)) == 10
        assert len(said) == 1

    on_bus(redis_server, use)


def test_unpaced_chunks_keep_a_bounded_distance_from_the_slowest_reader(redis_server: EmbeddedServer) -> None:
    chunks = cut(60.0)

    async def use(bus: Bus) -> None:
        await join(bus, group="worker")
        await join(bus, group="recorder")
        publisher = BusPublisher(bus, max_ahead=50)

        async def publish() -> None:
            for start in range(0, 300, 10):
                await publisher.publish(chunks[start : start + 10])

        publishing = asyncio.create_task(publish())
        read = {"worker": 0, "recorder": 0}
        while not publishing.done():
            await asyncio.sleep(0.03)
            length = await bus.client.xlen(key_of(bus, "b"))
            assert length <= min(read.values()) + 50
            # The worker runs ahead; the recorder, slower, sets the pace.
            read["worker"] += await read_on(bus, 60, group="worker")
            read["recorder"] += await read_on(bus, 25, group="recorder")
        await publishing
        assert [c.header.seq for c in await sent(bus)] == list(range(300))

    on_bus(redis_server, use)


def test_a_reader_that_stands_still_is_told(redis_server: EmbeddedServer) -> None:
    class Hurried:
        """A clock on which ten seconds pass in 20 ms."""

        def __init__(self) -> None:
            self._now = 0

        def now_ns(self) -> int:
            return self._now

        async def sleep_until(self, when_ns: int) -> None:
            self._now = when_ns + 10**9
            await asyncio.sleep(0.001)

    async def use(bus: Bus) -> None:
        await join(bus)
        said: asyncio.Queue[str] = asyncio.Queue()
        publisher = BusPublisher(bus, clock=Hurried(), on_wait=said.put_nowait, max_ahead=10)
        await publisher.publish(cut(2.0))
        publishing = asyncio.create_task(publisher.publish(cut(2.0)))
        assert await asyncio.wait_for(said.get(), 5) == "waiting: what reads the samples does not move on"
        await read_on(bus, 10)
        await asyncio.wait_for(publishing, 5)

    on_bus(redis_server, use)


def test_a_stop_ends_the_waiting(redis_server: EmbeddedServer) -> None:
    async def use(bus: Bus) -> None:
        stop = asyncio.Event()
        publisher = BusPublisher(bus, stop_event=stop, on_wait=lambda _: stop.set())
        feed = Feed("b", recording(30.0))
        report = await asyncio.wait_for(
            replay([feed], publisher, speed=AS_FAST_AS_POSSIBLE, stop_event=stop), 10
        )
        assert report.stopped
        assert (await sent(bus))[-1].header.last

    on_bus(redis_server, use)


def test_a_server_that_came_back_empty_is_not_waited_for(redis_server: EmbeddedServer) -> None:
    async def use(bus: Bus) -> None:
        await join(bus)
        publisher = BusPublisher(bus, max_ahead=10)
        await publisher.publish(cut(2.0))
        await bus.client.flushall()
        publishing = asyncio.create_task(publisher.publish(cut(2.0)))
        await asyncio.sleep(0.1)
        assert not publishing.done()
        await join(bus)
        await asyncio.wait_for(publishing, 5)
        assert len(await sent(bus)) == 10

    on_bus(redis_server, use)


def test_a_server_without_memory_is_waited_for_and_nothing_is_lost(redis_server: EmbeddedServer) -> None:
    async def use(bus: Bus) -> None:
        said: asyncio.Queue[str] = asyncio.Queue()
        publisher = BusPublisher(bus, on_wait=said.put_nowait)
        chunks = cut(4.0, pace=1.0)
        await publisher.publish(chunks[:10])
        await bus.client.config_set("maxmemory", 1)
        publishing = asyncio.create_task(publisher.publish(chunks[10:]))
        assert "maxmemory" in await asyncio.wait_for(said.get(), 5)
        await bus.client.config_set("maxmemory", 0)
        await asyncio.wait_for(publishing, 5)
        assert [chunk.header.seq for chunk in await sent(bus)] == list(range(20))
        assert said.empty(), "told once"

    on_bus(redis_server, use)


@pytest.mark.slow
def test_a_restart_of_the_server_loses_nothing_and_keeps_the_order(short_tmp: Any) -> None:
    async def use(server: EmbeddedServer) -> None:
        async with await Bus.connect(server.url) as bus:
            publisher = BusPublisher(bus)

            async def publish() -> None:
                for chunk in cut(40.0, pace=1.0):
                    await publisher.publish([chunk])
                    await asyncio.sleep(0.005)

            publishing = asyncio.create_task(publish())
            await asyncio.sleep(0.3)
            server.stop()
            await asyncio.sleep(0.3)
            server.start()
            await asyncio.wait_for(publishing, 30)
            numbers = [chunk.header.seq for chunk in await sent(bus)]
            assert sorted(set(numbers)) == list(range(200))
            assert numbers == sorted(numbers)
            # What the restart interrupted may have arrived twice.
            assert len(numbers) <= 202

    with EmbeddedServer(short_tmp, appendonly=True) as server:
        asyncio.run(use(server))
