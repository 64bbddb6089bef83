"""A whole app in this process, for what does not need a worker that can be killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import faust
import pytest
import redis
from faust.types import TP, EventT

from stream.embedded import EmbeddedServer
from stream.transport import reader
from stream.transport.consumer import Consumer
from stream.transport.ids import SequenceOverflowError, offset_of
from stream.transport.layout import TopicConfig, registry_key

RAW = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
TOPIC = TP("source", 0)


class Harness:
    """An app that collects what it is given from topic ``source`` (one partition), unacknowledged."""

    def __init__(self, server: EmbeddedServer, **conf: Any) -> None:
        self.app = faust.App(
            "test", broker=f"{server.url}?prefix=t:", web_enabled=False, stream_wait_empty=False, **conf
        )
        self.redis = redis.Redis.from_url(server.url, protocol=2)
        self.redis.hset(registry_key("t:"), "source", TopicConfig(1).to_json())
        self.source = self.app.topic("source", **RAW)
        self.events: asyncio.Queue[EventT[Any]] = asyncio.Queue()

        self.is_open = asyncio.Event()
        self.is_open.set()

        async def collect(stream: faust.Stream[bytes]) -> None:
            async for event in stream.noack().events():
                await self.is_open.wait()
                await self.events.put(event)

        self.app.agent(self.source, name="collect")(collect)

    @property
    def consumer(self) -> Consumer:
        return cast(Consumer, self.app.consumer)

    def add(self, value: str, **fields: str) -> int:
        return offset_of(cast(bytes, self.redis.xadd("t:source:0", {"v": value, **fields})))

    async def next(self) -> EventT[Any]:
        return await asyncio.wait_for(self.events.get(), 20)

    def committed(self) -> bytes:
        [group] = self.redis.xinfo_groups("t:source:0")
        return cast(bytes, group["last-delivered-id"])


@asynccontextmanager
async def running(harness: Harness) -> AsyncIterator[Harness]:
    await harness.app.start()
    try:
        yield harness
    finally:
        await harness.app.stop()


def run(server: EmbeddedServer, scenario: Callable[[Harness], Awaitable[None]], **conf: Any) -> None:
    async def main() -> None:
        async with running(Harness(server, **conf)) as harness:
            await scenario(harness)

    asyncio.run(main())


def test_reading_acknowledging_and_lag(redis_server: EmbeddedServer) -> None:
    async def scenario(harness: Harness) -> None:
        consumer = harness.consumer
        offsets = [harness.add(str(number)) for number in range(3)]
        events = [await harness.next() for _ in range(3)]
        assert [event.value for event in events] == [b"0", b"1", b"2"]
        message = events[0].message
        assert message.offset == offsets[0]
        # The time of a message without one is when the server took it.
        assert abs(message.timestamp - time.time()) < 60
        assert await consumer.position(TOPIC) == consumer.highwater(TOPIC) == offsets[-1] + 1
        assert await consumer.highwaters(TOPIC) == {TOPIC: offsets[-1] + 1}
        assert await consumer.earliest_offsets(TOPIC) == {TOPIC: offsets[0]}

        # The oldest message is not acknowledged: nothing can be committed, and the lag grows.
        events[2].ack()
        events[1].ack()
        assert not await consumer.commit()
        assert harness.committed() == b"0-0"
        before = (await consumer.lag_ms())[TOPIC]
        await asyncio.sleep(0.05)
        assert (await consumer.lag_ms())[TOPIC] >= before + 40
        events[0].ack()
        assert await consumer.commit()
        assert offset_of(harness.committed()) == offsets[-1]
        assert await consumer.lag_ms() == {TOPIC: 0}
        assert not await consumer.commit()

        # A seek back delivers again, but commits nothing twice, and does not hold up what comes after.
        await consumer.seek(TOPIC, offsets[1])
        again = [await harness.next() for _ in range(2)]
        assert [event.value for event in again] == [b"1", b"2"]
        harness.add("3")
        last = await harness.next()
        for event in (*again, last):
            event.ack()
        assert await consumer.commit()
        assert offset_of(harness.committed()) == last.message.offset

        # All entries removed: the end stays where it was.
        harness.redis.xtrim("t:source:0", maxlen=0)
        end = last.message.offset + 1
        assert await consumer.highwaters(TOPIC) == await consumer.earliest_offsets(TOPIC) == {TOPIC: end}
        assert await consumer.earliest_offsets(TP("source", 7)) == {TP("source", 7): 0}

    run(redis_server, scenario)


def test_a_table_is_restored_while_its_rows_are_written(redis_server: EmbeddedServer) -> None:
    """By a worker that goes on with its beds while another one joins, say."""

    async def main() -> None:
        harness = Harness(redis_server)
        table = harness.app.Table("rows", partitions=1, key_type=bytes, value_type=bytes)
        changelog = "t:test-rows-changelog:0"
        first = harness.redis.xadd(changelog, {"k": "bed", "v": "old"})
        look_up = harness.consumer.highwaters

        async def and_write(*partitions: TP) -> Mapping[TP, int]:
            ends = await look_up(*partitions)
            if harness.redis.xdel(changelog, first):
                harness.redis.xadd(changelog, {"k": "bed", "v": "new"})
            return ends

        harness.consumer.highwaters = and_write  # type: ignore[method-assign]
        async with running(harness):
            harness.add("0")
            await harness.next()
            assert table[b"bed"] == b"new"

    asyncio.run(main())


def test_a_table_outlives_a_server_that_forgets_its_newest_row(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        changelog = "t:test-rows-changelog:0"
        first, second = (Harness(redis_server, recovery_consistency_check=False) for _ in range(2))
        table, _ = (
            harness.app.Table("rows", partitions=1, key_type=bytes, value_type=bytes)
            for harness in (first, second)
        )
        newest = first.redis.xadd(changelog, {"k": "bed", "v": "new"})
        async with running(first):
            first.add("0")
            await first.next()
            first.redis.delete(changelog)
            first.redis.xadd(changelog, {"k": "bed", "v": "old"}, id=f"{int(newest.split(b'-')[0]) - 1000}-0")
            # Another worker joins: tables are looked up anew, also by who keeps them.
            looked_up, look_up = asyncio.Event(), first.consumer.highwaters

            async def and_tell(*partitions: TP) -> Mapping[TP, int]:
                looked_up.set()
                return await look_up(*partitions)

            first.consumer.highwaters = and_tell  # type: ignore[method-assign]
            async with running(second):
                await asyncio.wait_for(looked_up.wait(), 20)
                first.add("1")
                # The first one was not acknowledged, and comes again.
                assert [(await first.next()).value for _ in range(2)] == [b"0", b"1"]
            assert table[b"bed"] == b"new"

    asyncio.run(main())


def test_an_idle_read_returns_soon_whatever_is_asked(redis_server: EmbeddedServer) -> None:
    async def scenario(harness: Harness) -> None:
        began = time.monotonic()
        assert await harness.consumer._getmany({TOPIC}, timeout=60.0) == {}
        assert time.monotonic() - began < 5
        # And being idle for long does not make what comes then late.
        harness.add("late")
        assert (await harness.next()).value == b"late"

    run(redis_server, scenario)


def test_a_read_that_is_overtaken_by_a_seek_is_dropped(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a read is still blocked when it is overtaken, however slow the machine is.
    monkeypatch.setattr(reader, "BLOCK_MS", 5000)

    async def scenario(harness: Harness) -> None:
        consumer = harness.consumer
        # Keep the app's own reader out of the way.
        consumer.pause_partitions({TOPIC})
        reading = asyncio.create_task(consumer._getmany({TOPIC}, timeout=60.0))
        await asyncio.sleep(0.05)
        first = harness.add("0")
        await consumer.seek(TOPIC, first + 1)
        assert await reading == {}
        harness.add("1")
        assert [len(records) for records in (await consumer._getmany({TOPIC}, 1.0)).values()] == [1]

        # So is one of a partition that is paused meanwhile.
        active = {TOPIC}
        reading = asyncio.create_task(consumer._getmany(active, timeout=60.0))
        await asyncio.sleep(0.05)
        active.clear()
        harness.add("2")
        assert await reading == {}
        assert [len(records) for records in (await consumer._getmany({TOPIC}, 1.0)).values()] == [1]

        # A cancelled read leaves no answer behind for the next.
        reading = asyncio.create_task(consumer._getmany({TOPIC}, timeout=60.0))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        harness.add("3")
        assert [len(records) for records in (await consumer._getmany({TOPIC}, 1.0)).values()] == [1]

    run(redis_server, scenario)


def test_a_clock_that_was_set_back_too_far_is_not_ignored(redis_server: EmbeddedServer) -> None:
    async def scenario(harness: Harness) -> None:
        harness.consumer.pause_partitions({TOPIC})
        future = 2**42
        harness.redis.xadd("t:source:0", {"v": "last that fits"}, id=f"{future}-{2**20 - 1}")
        [[record]] = (await harness.consumer._getmany({TOPIC}, 1.0)).values()
        assert record.offset == (future << 20) + 2**20 - 1
        harness.redis.xadd("t:source:0", {"v": "too many"})
        with pytest.raises(SequenceOverflowError, match="clock was set back"):
            await harness.consumer._getmany({TOPIC}, 1.0)

    run(redis_server, scenario)


def test_beginning_at_the_newest(redis_server: EmbeddedServer) -> None:
    redis.Redis.from_url(redis_server.url).xadd("t:source:0", {"v": "old"})

    async def scenario(harness: Harness) -> None:
        for _ in range(2000):
            if harness.consumer.assignment():
                break
            await asyncio.sleep(0.01)
        harness.add("new")
        assert (await harness.next()).value == b"new"

    run(redis_server, scenario, consumer_auto_offset_reset="latest")


def test_headers_and_idempotency_through_an_app(redis_server: EmbeddedServer) -> None:
    async def scenario(harness: Harness) -> None:
        for _ in range(2):
            await harness.source.send(
                key=b"k", value=b"v", headers={"idempotency-key": b"\x00e", "trace": b"1"}
            )
        event = await harness.next()
        assert event.headers == {"idempotency-key": b"\x00e", "trace": b"1"}
        assert harness.redis.xlen("t:source:0") == 1

    run(redis_server, scenario)


def test_nothing_is_read_before_the_queues_are_cleared(redis_server: EmbeddedServer) -> None:
    # At the end of a rebalance Faust resumes the partitions, seeks, and only then clears the queues.
    async def main() -> None:
        harness = Harness(redis_server, broker_heartbeat_interval=0.05)
        harness.app.Table("table", partitions=1)
        consumer = harness.consumer
        perform_seek = consumer.perform_seek

        async def seek_slowly() -> None:
            await perform_seek()
            # Time for the reader to fill the queue.
            await asyncio.sleep(0.3)

        async with running(harness):
            harness.add("first")
            (await harness.next()).ack()
            assert await consumer.commit()
            harness.is_open.clear()
            consumer.perform_seek = seek_slowly  # type: ignore[method-assign]
            assert consumer._coordinator is not None
            await consumer._coordinator.membership.rejoin(consumer._generation)
            while not harness.app.rebalancing:  # noqa: ASYNC110 (Faust has no event for it)
                await asyncio.sleep(0)
            # The agent holds the first of these, the others are in its queue.
            for value in ("a", "b", "c"):
                harness.add(value)
            while harness.app.rebalancing:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            harness.is_open.set()
            assert [(await harness.next()).value for _ in range(3)] == [b"a", b"b", b"c"]
            # A partition that is paused by hand is resumed at once.
            consumer.pause_partitions({TOPIC})
            harness.add("last")
            consumer.resume_partitions({TOPIC})
            assert (await harness.next()).value == b"last"

    asyncio.run(main())


def test_what_is_acked_while_partitions_are_given_up_is_not_done(redis_server: EmbeddedServer) -> None:
    async def scenario(harness: Harness) -> None:
        consumer = harness.consumer
        harness.add("0")
        event = await harness.next()

        async def ack(*_: Any, **__: Any) -> None:
            event.ack()

        harness.app.on_partitions_revoked.connect(ack, weak=False)
        assert consumer._coordinator is not None
        await consumer._coordinator.membership.rejoin(consumer._generation)
        again = await harness.next()
        assert (again.value, event.message.acked) == (b"0", False)
        # It is under way once more: another worker that takes over now has to get it.
        assert not await consumer.commit()
        assert harness.committed() == b"0-0"
        event.ack()
        assert not await consumer.commit()
        again.ack()
        assert await consumer.commit()
        assert offset_of(harness.committed()) == again.message.offset

    run(redis_server, scenario, broker_commit_interval=3600)


def test_a_server_that_forgot_who_owns_what_is_asked_again(redis_server: EmbeddedServer) -> None:
    async def scenario(harness: Harness) -> None:
        harness.add("0")
        event = await harness.next()
        # What a crash may leave of a group whose server syncs its file once a second.
        harness.redis.delete("t:group:test:assigned")
        event.ack()
        assert not await harness.consumer.commit()
        again = await harness.next()
        assert again.value == b"0"
        again.ack()
        assert await harness.consumer.commit()
        assert offset_of(harness.committed()) == event.message.offset

    # Neither the timer nor the next heartbeat help.
    run(redis_server, scenario, broker_commit_interval=3600, broker_heartbeat_interval=3600)


def test_a_lost_change_stops_the_commit_and_the_app(redis_server: EmbeddedServer) -> None:
    async def scenario(harness: Harness) -> None:
        harness.redis.set("t:out:0", "not a stream")
        harness.redis.hset(registry_key("t:"), "out", TopicConfig(1).to_json())
        out = harness.app.topic("out", **RAW)
        harness.add("0")
        event = await harness.next()
        out.send_soon(key=b"", value=b"derived")
        event.ack()
        assert not await harness.consumer.commit()
        assert harness.committed() == b"0-0"
        assert harness.app.crashed

    run(redis_server, scenario)
