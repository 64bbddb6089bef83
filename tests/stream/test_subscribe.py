"""Subscriptions to alarms: each event once, in order, and nothing foreign in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from stream import subscribe
from stream.bus import Bus
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority
from stream.embedded import EmbeddedServer
from stream.topics import ALARMS

Server = EmbeddedServer


def event(number: int, bed: str = "bed-1") -> AlarmEvent:
    return AlarmEvent(
        alarm=f"alarm-{number}",
        event=f"alarm-{number}-0",
        bed=bed,
        session="s",
        rule="anomaly",
        kind=AlarmKind.PHYSIOLOGICAL,
        code="ECG_ANOMALY",
        priority=Priority.MEDIUM,
        presence=Presence.ON,
        onset=0,
        onset_t=0,
        since=0,
        message="",
        ingest_ns=0,
    )


def on_bus(server: Server, prefix: str, body: Callable[[Bus], Awaitable[None]]) -> None:
    async def go() -> None:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await asyncio.wait_for(body(bus), 20)

    asyncio.run(go())


async def publish(bus: Bus, *events: AlarmEvent) -> list[str]:
    return await bus.publish_many(ALARMS, [(e.bed.encode(), e.encode()) for e in events])


async def kept(bus: Bus, *, bed: str | None = None, since_ms: int | None = None) -> list[AlarmEvent]:
    return [e async for e in subscribe.alarms(bus, bed=bed, since_ms=since_ms, follow=False)]


def test_without_following_it_gives_what_is_kept_and_ends(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        assert await kept(bus) == []
        events = [event(number) for number in range(600)]
        await publish(bus, *events)
        assert await kept(bus) == events

    on_bus(redis_server_module, prefix, body)


def test_repeats_are_dropped(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await publish(bus, *[event(number) for number in (0, 1, 0, 2, 1, 1, 3, 0)])
        assert await kept(bus) == [event(number) for number in range(4)]

    on_bus(redis_server_module, prefix, body)


def test_memory_of_repeats_is_bounded(
    redis_server_module: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribe, "_REMEMBERED", 3)

    async def body(bus: Bus) -> None:
        await publish(bus, *[event(number) for number in (0, 1, 2, 0, 3, 1, 0)])
        # With three remembered, 1 and 2 still are when 1 comes again; 0 has been forgotten by then.
        assert [e.alarm[6:] for e in await kept(bus)] == list("01230")

    on_bus(redis_server_module, prefix, body)


def test_one_bed_only(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        events = [event(number, bed=f"bed-{number % 3}") for number in range(9)]
        await publish(bus, *events)
        assert await kept(bus, bed="bed-2") == [events[2], events[5], events[8]]
        assert await kept(bus, bed="bed") == []

    on_bus(redis_server_module, prefix, body)


def test_since_a_time_of_the_server(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        events = [event(number) for number in range(5)]
        times = []
        for one in events:
            (entry_id,) = await publish(bus, one)
            times.append(int(entry_id.partition("-")[0]))
            await asyncio.sleep(0.005)
        assert await kept(bus, since_ms=times[2]) == events[2:]
        assert await kept(bus, since_ms=times[2] + 1) == events[3:]
        assert await kept(bus, since_ms=0) == events
        assert await kept(bus, since_ms=times[-1] + 60_000) == []
        following = subscribe.alarms(bus, since_ms=times[3])
        assert [await anext(following) for _ in range(2)] == events[3:]

    on_bus(redis_server_module, prefix, body)


def test_following_begins_with_the_next_and_misses_none(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await publish(bus, event(0))
        following = subscribe.alarms(bus, bed="bed-1")
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0.1)
        await publish(bus, event(1, bed="bed-2"), event(2))
        assert await asyncio.wait_for(waiting, 5) == event(2)
        await publish(bus, event(3), event(2), event(4))
        assert [await asyncio.wait_for(anext(following), 5) for _ in range(2)] == [event(3), event(4)]

    on_bus(redis_server_module, prefix, body)


def test_an_entry_that_is_no_alarm_does_not_silence_those_behind_it(
    redis_server_module: Server, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(bus: Bus) -> None:
        await publish(bus, event(0))
        await bus.publish_many(ALARMS, [(b"k", b""), (b"k", b"{}"), (b"k", b"\xff\x00")])
        await publish(bus, event(1))
        assert await kept(bus) == [event(0), event(1)]

    on_bus(redis_server_module, prefix, body)
    assert len([record for record in caplog.records if "no alarm event" in record.message]) == 3
