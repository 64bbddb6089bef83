from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from monitor.live.pump import Pump
from monitor.live.ward import Ward
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import Command, CommandKind, Presence
from stream.embedded import EmbeddedServer
from tests.monitor.messages import T0, S, alarm, chunk, explanation, finding

CLOCK = SystemClock()
BED = b"bed-1"


async def until(condition: Callable[[], bool], pump: asyncio.Task[None]) -> None:
    """Let the loop turn until a condition holds; a pump that has failed fails the test."""
    async with asyncio.timeout(15):
        while not condition():
            if pump.done():
                pump.result()
            await asyncio.sleep(0.005)


def pumping(server: EmbeddedServer, test: Callable[[Bus, Pump, asyncio.Task[None]], Awaitable[None]]) -> None:
    async def run() -> None:
        async with await Bus.connect(server.url) as bus, await Bus.connect(server.url) as ours:
            pump = Pump(bus, Ward(), CLOCK)
            task = asyncio.create_task(pump.run())
            try:
                await test(ours, pump, task)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def published(server: EmbeddedServer, *messages: tuple[str, bytes]) -> None:
    async def run() -> None:
        async with await Bus.connect(server.url) as bus:
            for topic, value in messages:
                await bus.publish(topic, BED, value)

    asyncio.run(run())


def test_what_was_said_before_is_known_on_start(redis_server: EmbeddedServer) -> None:
    ended = [("alarms", alarm("a0", number).encode()) for number in range(3)]
    ended.append(("alarms", alarm("a0", 3, presence=Presence.OFF).encode()))
    published(
        redis_server,
        *ended,
        ("alarms", alarm("a1").encode()),
        *(("samples", chunk(seq).encode()) for seq in range(5)),
        *(("findings", finding(window).encode()) for window in range(3)),
    )

    async def test(_: Bus, pump: Pump, task: asyncio.Task[None]) -> None:
        await until(lambda: bool(pump.ward.beds) and pump.ward.beds["bed-1"].findings == 3, task)
        bed = pump.ward.beds["bed-1"]
        await until(lambda: bed.feed is not None and bed.feed.next_seq == 5, task)
        assert list(bed.alarms) == ["a1"]

    pumping(redis_server, test)


def test_more_alarm_events_than_a_page_of_history(redis_server: EmbeddedServer) -> None:
    messages = [("alarms", alarm("first").encode())]
    for number in range(700):
        messages.append(("alarms", alarm(f"a{number}").encode()))
        messages.append(("alarms", alarm(f"a{number}", 1, presence=Presence.OFF).encode()))
    published(redis_server, *messages)

    async def test(_: Bus, pump: Pump, task: asyncio.Task[None]) -> None:
        await until(lambda: bool(pump.ward.beds), task)
        assert list(pump.ward.beds["bed-1"].alarms) == ["first"]

    pumping(redis_server, test)


def test_what_is_said_now_arrives(redis_server: EmbeddedServer) -> None:
    async def test(bus: Bus, pump: Pump, task: asyncio.Task[None]) -> None:
        ward = pump.ward
        # The pump is running once a chunk comes through.
        seq = 0
        while "bed-1" not in ward.beds:
            await bus.publish("samples", BED, chunk(seq).encode())
            await asyncio.sleep(0.02)
            seq += 1
        bed = ward.beds["bed-1"]
        await bus.publish("alarms", BED, alarm().encode())
        await bus.publish("alarms", BED, alarm().encode())
        await bus.publish("findings", BED, finding(0).encode())
        await bus.publish("explanations", BED, explanation(np.zeros((2, 100))).encode())
        await until(lambda: bed.explained == 1 and bed.findings == 1 and bool(bed.alarms), task)
        assert pump.lag_s < 2.0

    pumping(redis_server, test)


def test_what_is_no_message_is_counted_and_left_out(redis_server: EmbeddedServer) -> None:
    async def test(bus: Bus, pump: Pump, task: asyncio.Task[None]) -> None:
        topics = ("samples", "findings", "alarms", "explanations")
        while pump.malformed < len(topics):
            for topic in topics:
                await bus.publish(topic, BED, b"\x00 not a message")
            await asyncio.sleep(0.02)
            if task.done():
                task.result()
        seq = 0
        while "bed-1" not in pump.ward.beds:
            await bus.publish("samples", BED, chunk(seq).encode())
            seq += 1
            await asyncio.sleep(0.02)

    pumping(redis_server, test)


def _sleep_on() -> None:
    pass


def test_who_shows_a_bed_is_told_when_its_samples_come(redis_server: EmbeddedServer) -> None:
    async def test(bus: Bus, pump: Pump, task: asyncio.Task[None]) -> None:
        woken: list[int] = []

        def wake() -> None:
            feed = pump.ward.beds["bed-1"].feed
            assert feed is not None
            woken.append(feed.ring.stop)

        pump.watch(object(), "bed-1", wake)
        pump.watch(object(), "bed-2", lambda: woken.append(-1))
        for seq in range(3):
            await bus.publish("samples", BED, chunk(seq).encode())
        await until(lambda: len(woken) == 3, task)
        # The samples are there by then.
        assert woken == [100, 200, 300]

    pumping(redis_server, test)


def test_explanations_are_asked_for_while_a_bed_is_shown(redis_server: EmbeddedServer) -> None:
    async def test(bus: Bus, pump: Pump, task: asyncio.Task[None]) -> None:
        asked: list[Command] = []

        async def listen() -> None:
            async for entry in bus.tail("commands", after="0"):
                assert entry.key == asked_of(entry.value).bed.encode()
                asked.append(asked_of(entry.value))

        def asked_of(value: bytes) -> Command:
            return Command.decode(value)

        listener = asyncio.create_task(listen())
        first, second = object(), object()
        pump.watch(first, "bed-1", _sleep_on)
        pump.watch(second, "bed-2", _sleep_on)
        await until(lambda: {c.bed for c in asked} == {"bed-1", "bed-2"}, task)
        command = asked[0]
        assert command.kind is CommandKind.WATCH
        assert command.value == 15
        assert command.expires - command.at == 15 * S
        assert abs(command.at - CLOCK.now_ns()) < 60 * S
        # One page goes to another bed, the other one closes.
        pump.watch(first, "bed-3", _sleep_on)
        pump.unwatch(second)
        assert pump.watched == {"bed-3"}
        await until(lambda: "bed-3" in {c.bed for c in asked}, task)
        # Renewed without being told, and only for the bed that is shown.
        seen = len(asked)
        await until(lambda: len(asked) > seen, task)
        assert {c.bed for c in asked[seen:]} == {"bed-3"}
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

    pumping(redis_server, test)


def test_a_server_that_goes_away_is_noticed_and_waited_for(redis_server: EmbeddedServer) -> None:
    async def test(bus: Bus, pump: Pump, task: asyncio.Task[None]) -> None:
        while "bed-1" not in pump.ward.beds:
            await bus.publish("samples", BED, chunk(0).encode())
            await asyncio.sleep(0.02)
        redis_server.stop()
        await until(lambda: pump.lost_since_ns is not None, task)
        revision = pump.ward.revision
        redis_server.start()
        await until(lambda: pump.lost_since_ns is None, task)
        assert pump.ward.revision > revision
        # What comes after is followed again.
        feed = pump.ward.beds["bed-1"].feed
        assert feed is not None
        seq = 1
        while feed.next_seq == 1:
            await bus.publish("samples", BED, chunk(seq, t0=T0 + seq * S).encode())
            seq += 1
            await asyncio.sleep(0.05)
            if task.done():
                task.result()

    pumping(redis_server, test)


def test_it_tells_how_long_a_message_waits_also_when_it_takes_nothing(redis_server: EmbeddedServer) -> None:
    async def test(bus: Bus, pump: Pump, task: asyncio.Task[None]) -> None:
        assert await pump.behind_s() is None
        await bus.publish("samples", BED, chunk(0, ingest_ns=CLOCK.now_ns()).encode())
        await until(lambda: bool(pump.ward.beds), task)
        assert await pump.behind_s() == 0.0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # In a partition that was empty: what counts is the age of the message.
        seconds, _ = await bus.client.time()
        await bus.client.xadd("bedside:samples:7", {"v": "x"}, id=f"{(seconds - 20) * 1000}-0")
        assert 20 <= (await pump.behind_s() or 0) < 40

    pumping(redis_server, test)
