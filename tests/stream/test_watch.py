"""A worker that dies is told within five seconds, once, however many look on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bench.ward import Ward
from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from stream import topics, watch
from stream.audit.log import AuditLog, verify
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import EVERY_BED, AlarmEvent, AlarmKind, Audit, Presence, Priority, SampleChunk
from stream.embedded import EmbeddedServer
from stream.heartbeat import HEARTBEAT, beat, leave, read_signs, workers_key
from stream.topics import ALARMS
from stream.watch import WORKER_SILENT, Watch

Server = EmbeddedServer

# Long enough for a busy machine to beat in time, short enough to wait for.
SILENT_S = 1.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a worker for silent after a moment instead of seconds."""
    monkeypatch.setattr(watch, "_SILENT_MS", SILENT_S * 1000)
    monkeypatch.setattr(watch, "_UNCLAIMED_MS", SILENT_S * 1000)
    monkeypatch.setattr(watch, "_LOOK_S", 0.01)
    monkeypatch.setattr(watch, "_BOTH_MS", SILENT_S * 500)


async def events(bus: Bus) -> list[AlarmEvent]:
    return [AlarmEvent.decode(entry.value) async for entry in bus.kept(ALARMS)]


Body = Callable[[Bus, list[Watch]], Awaitable[None]]


async def watching(server: Server, prefix: str, body: Body, watchers: int = 3) -> None:
    async with await Bus.connect(server.url, prefix=prefix) as bus:
        watches = [Watch(server.url, prefix=prefix) for _ in range(watchers)]
        await asyncio.wait_for(body(bus, watches), 60)


def watched(server: Server, prefix: str, body: Body, watchers: int = 3) -> None:
    asyncio.run(watching(server, prefix, body, watchers))


async def look(watches: list[Watch]) -> None:
    await asyncio.gather(*(one.look() for one in watches))


async def look_until(watches: list[Watch], bus: Bus, count: int, *alive: str) -> list[AlarmEvent]:
    """Look until there are so many events, and once more; meanwhile some workers beat."""
    found: list[AlarmEvent] = []
    while len(found) < count:
        for worker in alive:
            await beat(bus.client, bus.prefix, worker, {})
        await look(watches)
        found = await events(bus)
        await asyncio.sleep(0.01)
    await look(watches)
    return await events(bus)


async def look_on(watches: list[Watch]) -> None:
    """Look until everybody who has been silent meanwhile would have been told of."""
    for _ in range(40):
        await look(watches)
        await asyncio.sleep(SILENT_S / 20)


async def live_chunk(bus: Bus, *, pace: float = 1.0, last: bool = False) -> None:
    chunk = next(iter(chunks_of(PatientSimulator(1, "", fs=250.0, duration_s=1.0), "bed-1", "s")))
    header = chunk.header.model_copy(update={"pace": pace, "last": last})
    await bus.publish(topics.SAMPLES, b"bed-1", SampleChunk(header, chunk.samples).encode())


@pytest.mark.usefixtures("quick")
def test_the_last_worker_s_silence_is_one_high_alarm_until_one_beats(
    redis_server_module: Server, prefix: str
) -> None:
    async def body(bus: Bus, watches: list[Watch]) -> None:
        await beat(bus.client, prefix, "w1", {})
        await look(watches)
        assert await events(bus) == []
        (raised,) = await look_until(watches, bus, 1)
        assert (raised.bed, raised.rule, raised.presence) == (EVERY_BED, WORKER_SILENT, Presence.ON)
        assert (raised.kind, raised.priority) == (AlarmKind.TECHNICAL, Priority.HIGH)
        assert "w1" in raised.message
        # One that begins to look only now finds the same alarm.
        late = [Watch(redis_server_module.url, prefix=prefix)]
        await look_on(late)
        assert len(await events(bus)) == 1
        _, ended = await look_until([*watches, *late], bus, 2, "w2")
        assert (ended.alarm, ended.presence) == (raised.alarm, Presence.OFF)
        assert ended.event != raised.event
        # The dead one's place is taken: it is off the books.
        assert set((await read_signs(bus.client, prefix)).last_ms) == {"w2"}
        logged = [audit async for _, audit in AuditLog(bus).entries() if isinstance(audit, Audit)]
        assert [(audit.entry, audit.kind) for audit in logged] == [
            (raised.event, "raise"),
            (ended.event, "end"),
        ]
        assert verify(logged) == []
        # And the next silence is another alarm.
        assert len({event.alarm for event in await look_until(watches, bus, 3)}) == 2

    watched(redis_server_module, prefix, body)


@pytest.mark.usefixtures("quick")
def test_one_of_several_is_named(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus, watches: list[Watch]) -> None:
        await beat(bus.client, prefix, "w1", {})
        (raised,) = await look_until(watches, bus, 1, "w2")
        assert raised.priority == Priority.MEDIUM
        assert raised.message == "worker w1 is silent; 1 other left"
        on, off = await look_until(watches, bus, 2, "w1", "w2")
        assert (on.presence, off.presence) == (Presence.ON, Presence.OFF)
        assert off.message == "worker w1 is heard of again"

    watched(redis_server_module, prefix, body)


@pytest.mark.usefixtures("quick")
def test_another_that_comes_takes_the_place_of_one_of_several(
    redis_server_module: Server, prefix: str
) -> None:
    async def body(bus: Bus, watches: list[Watch]) -> None:
        await beat(bus.client, prefix, "w2", {})
        await beat(bus.client, prefix, "w1", {})
        await look_until(watches, bus, 1, "w2")
        on, off = await look_until(watches, bus, 2, "w2", "w3")
        assert (on.presence, off.presence) == (Presence.ON, Presence.OFF)
        assert set((await read_signs(bus.client, prefix)).last_ms) == {"w2", "w3"}
        assert not await bus.client.exists(f"{prefix}{HEARTBEAT}w1")

    watched(redis_server_module, prefix, body)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("ever", [True, False])
def test_without_a_worker_on_purpose_only_a_live_feed_is_an_alarm(
    redis_server_module: Server, prefix: str, ever: bool
) -> None:
    def case(chunk: dict[str, Any] | None, alarm: bool) -> Body:
        async def body(bus: Bus, watches: list[Watch]) -> None:
            if ever:
                await beat(bus.client, bus.prefix, "w1", {})
                await leave(bus.client, bus.prefix, "w1")
                assert not await bus.client.exists(f"{bus.prefix}{HEARTBEAT}w1")
            if chunk is not None:
                await live_chunk(bus, **chunk)
            await look_on(watches)
            raised = await events(bus)
            assert len(raised) == alarm, chunk
            assert all(event.priority == Priority.HIGH for event in raised)
            assert len(await look_until(watches, bus, 2 * alarm, "w2")) == 2 * alarm, chunk

        return body

    # Deployments that know nothing of each other: they wait for silence together.
    cases = [case(None, False), case({}, True), case({"pace": 0.0}, False), case({"last": True}, False)]

    async def main() -> None:
        await asyncio.gather(
            *(watching(redis_server_module, f"{prefix}{n}:", body) for n, body in enumerate(cases))
        )

    asyncio.run(main())


@pytest.mark.usefixtures("quick")
def test_a_server_that_was_away_gives_the_workers_time_to_beat_again(short_tmp: Path) -> None:
    async def main() -> None:
        server = EmbeddedServer(short_tmp / "r", appendonly=True).start()
        try:
            async with await Bus.connect(server.url) as bus:
                await beat(bus.client, bus.prefix, "w1", {})
                watching = asyncio.create_task(Watch(server.url, prefix=bus.prefix).run())
                server.stop()
                await asyncio.sleep(0.1)
                server.start()
                # It has not been heard of for long, and nobody could have heard of it.
                for _ in range(20):
                    await beat(bus.client, bus.prefix, "w1", {})
                    await asyncio.sleep(0.01)
                assert await events(bus) == []
                async with asyncio.timeout(20):
                    async for _ in bus.tail(ALARMS, after="0"):
                        break
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        finally:
            server.stop()

    asyncio.run(main())


HOUR_MS = 3_600_000


async def heard_of(bus: Bus, worker: str, ms_ago: int) -> None:
    signs = await read_signs(bus.client, bus.prefix)
    await bus.client.zadd(workers_key(bus.prefix), {worker: signs.now_ms - ms_ago})


@pytest.mark.usefixtures("quick")
def test_a_worker_that_died_before_the_server_s_clock_was_set_back_is_not_alive(
    redis_server_module: Server, prefix: str
) -> None:
    async def body(bus: Bus, watches: list[Watch]) -> None:
        await beat(bus.client, bus.prefix, "w1", {})
        (raised,) = await look_until(watches, bus, 1)
        # Both signs are from an hour that has not come yet, and neither is one of life.
        await heard_of(bus, "w1", -HOUR_MS)
        await look_on(watches)
        assert await events(bus) == [raised]
        (_, ended, dead) = await look_until(watches, bus, 3, "w2")
        assert (ended.alarm, ended.presence) == (raised.alarm, Presence.OFF)
        assert (dead.session, dead.priority) == ("w1", Priority.MEDIUM)

    watched(redis_server_module, prefix, body)


class Stepped(SystemClock):
    """A clock that can be told that another one has been set."""

    behind_ms = 0

    def now_ns(self) -> int:
        return super().now_ns() - self.behind_ms * 1_000_000


@pytest.mark.usefixtures("quick")
def test_a_server_s_clock_that_is_set_forward_silences_nobody(
    redis_server_module: Server, prefix: str
) -> None:
    async def body(bus: Bus, _: list[Watch]) -> None:
        clock = Stepped()
        watches = [Watch(redis_server_module.url, prefix=prefix, clock=clock)]
        for _ in range(30):
            await beat(bus.client, bus.prefix, "w1", {})
            await look(watches)
            await asyncio.sleep(SILENT_S / 20)
        # The server is an hour ahead of where it was, and the newest sign of life an hour old.
        clock.behind_ms = HOUR_MS
        await heard_of(bus, "w1", HOUR_MS)
        for _ in range(5):
            await look(watches)
        await look_until(watches, bus, 0, "w1")
        assert await events(bus) == []
        # Who falls silent after it is told of as ever.
        (raised,) = await look_until(watches, bus, 1)
        assert (raised.priority, raised.presence) == (Priority.HIGH, Presence.ON)

    watched(redis_server_module, prefix, body)


# ---- with real workers -----------------------------------------------------------------------------------


async def next_silence(bus: Bus, after: str) -> tuple[str, AlarmEvent]:
    async with asyncio.timeout(20):
        async for entry in bus.tail(ALARMS, after=after):
            event = AlarmEvent.decode(entry.value)
            if event.rule == WORKER_SILENT:
                return entry.id, event
    raise AssertionError


@pytest.mark.slow
def test_killed_workers_are_told_within_five_seconds(short_tmp: Path) -> None:
    async def main() -> None:
        with Ward(short_tmp, workers=2) as ward:
            await ward.ready()
            watcher = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bedside", "watch", "--redis", ward.url),
                stderr=asyncio.subprocess.PIPE,
                env=os.environ,
            )
            assert watcher.stderr is not None
            assert b"watching" in await watcher.stderr.readline()
            also = asyncio.create_task(Watch(ward.url, prefix=(await ward.connect()).prefix).run())
            try:
                async with await ward.connect() as bus:
                    clock = SystemClock()
                    first, second = (ward.children[name] for name in ward.workers)
                    killed_ns = clock.now_ns()
                    first.kill()
                    position, event = await next_silence(bus, "0")
                    took_s = [(clock.now_ns() - killed_ns) / 1e9]
                    assert (event.priority, event.presence) == (Priority.MEDIUM, Presence.ON)
                    assert str(first.pid) in event.message
                    killed_ns = clock.now_ns()
                    second.kill()
                    position, event = await next_silence(bus, position)
                    took_s.append((clock.now_ns() - killed_ns) / 1e9)
                    assert (event.priority, event.presence) == (Priority.HIGH, Presence.ON)
                    # The promise itself, so for once a time is asserted.
                    assert max(took_s) < 5.0
                    third = ward.start_worker("third")
                    position, event = await next_silence(bus, position)
                    assert event.presence == Presence.OFF
                    position, event = await next_silence(bus, position)
                    assert event.presence == Presence.OFF
                    # Two watchers, and every event is there once.
                    silences = [event for event in await events(bus) if event.rule == WORKER_SILENT]
                    assert len(silences) == len({event.event for event in silences}) == 4
                    # One that is stopped says so.
                    signs = await read_signs(bus.client, bus.prefix)
                    (name,) = [worker for worker in signs.last_ms if worker.endswith(f"-{third.pid}")]
                    third.send_signal(signal.SIGTERM)
                    await asyncio.to_thread(third.wait, 30)
                    signs = await read_signs(bus.client, bus.prefix)
                    assert signs.last_ms == {}
                    assert signs.left is not None
                    assert signs.left[1] == name
                    assert not await bus.client.exists(f"{bus.prefix}{HEARTBEAT}{name}")
            finally:
                also.cancel()
                watcher.terminate()
                await asyncio.gather(also, return_exceptions=True)
                assert await watcher.wait() == 0

    asyncio.run(main())
