"""What is read of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from monitor.system.alarms import AlarmsOfLate, Raised
from monitor.system.survey import Survey
from stream.bus import Bus
from stream.clock import ManualClock, SystemClock
from stream.contract import AlarmKind, Priority
from stream.embedded import EmbeddedServer
from stream.heartbeat import beat, leave
from stream.topics import ALARMS, SAMPLES, TOPICS, WORKER_GROUP
from tests.monitor.messages import alarm
from tests.monitor.system.test_words import status

HIGH = Raised(Priority.HIGH, AlarmKind.PHYSIOLOGICAL)
MEDIUM = Raised(Priority.MEDIUM, AlarmKind.PHYSIOLOGICAL)


def surveyed(server: EmbeddedServer, body: Callable[[Bus, Survey, ManualClock], Awaitable[None]]) -> None:
    async def go() -> None:
        # Its clock only says when a look is no longer fresh.
        clock = ManualClock(SystemClock().now_ns())
        async with await Bus.connect(server.url) as bus:
            survey = Survey(server.url, bus.prefix, clock)
            try:
                await body(bus, survey, clock)
            finally:
                await survey.close()

    asyncio.run(go())


def later(clock: ManualClock) -> None:
    clock.set(clock.now_ns() + 500_000_000)


def test_a_server_without_anything_is_looked_at(redis_server: EmbeddedServer) -> None:
    async def body(bus: Bus, survey: Survey, clock: ManualClock) -> None:
        look = await survey.look()
        assert look.workers == ()
        assert {topic: len(streams) for topic, streams in look.topics.items()} == {
            topic: config.partitions for topic, config in TOPICS.items()
        }
        assert all((s.entries, s.newest_s, s.lag_s) == (0, None, None) for s in look.samples)
        assert look.server.used > 0 < look.server.clients
        assert not look.alarms
        # Whoever asks at once gets the same.
        assert await survey.look() is look
        later(clock)
        assert await survey.look() is not look

    surveyed(redis_server, body)


def test_a_partition_lags_by_what_is_not_written_down_as_done(redis_server: EmbeddedServer) -> None:
    async def body(bus: Bus, survey: Survey, clock: ManualClock) -> None:
        seconds, _ = await bus.client.time()
        ms = (seconds - 100) * 1000
        key = f"{bus.prefix}{SAMPLES}:3"
        for number in range(11):
            await bus.client.xadd(key, {"v": b"x" * 1000}, id=f"{ms + number * 1000}-0")
        stream = (await survey.look()).samples[3]
        assert (stream.entries, stream.lag_s) == (11, None)
        assert 88 <= (stream.newest_s or 0) <= 91
        for dealt_with, lag_s in (("0", 10.0), (f"{ms + 4000}-0", 6.0), (f"{ms + 10_000}-0", 0.0)):
            await bus.client.xgroup_destroy(key, WORKER_GROUP)
            await bus.client.xgroup_create(key, WORKER_GROUP, id=dealt_with)
            later(clock)
            assert (await survey.look()).samples[3].lag_s == lag_s
        # What has been thrown away is no longer waited for.
        await bus.client.xgroup_setid(key, WORKER_GROUP, "0")
        await bus.client.xtrim(key, maxlen=3, approximate=False)
        later(clock)
        assert (await survey.look()).samples[3].lag_s == 2.0

    surveyed(redis_server, body)


def test_workers_are_on_the_books_until_they_leave(redis_server: EmbeddedServer) -> None:
    async def body(bus: Bus, survey: Survey, clock: ManualClock) -> None:
        await beat(bus.client, bus.prefix, "w1", status(partitions=(0, 3)).model_dump())
        await beat(bus.client, bus.prefix, "w2", {"v": 99})
        look = await survey.look()
        assert [(worker.name, worker.status is None) for worker in look.workers] == [
            ("w1", False),
            ("w2", True),
        ]
        assert not any(worker.is_silent for worker in look.workers)
        assert [look.holder(partition) for partition in range(4)] == ["w1", None, None, "w1"]
        now_ms = look.now_ms
        await bus.client.zadd(f"{bus.prefix}workers", {"w1": now_ms - 4_000})
        await leave(bus.client, bus.prefix, "w2")
        later(clock)
        look = await survey.look()
        (silent,) = look.workers
        assert silent.is_silent
        assert silent.status is not None
        assert look.holder(0) is None

    surveyed(redis_server, body)


def test_alarms_are_counted_once_and_for_an_hour(redis_server: EmbeddedServer) -> None:
    now_ms, minute_ms = 1_700_000_000_000, 60_000

    async def go() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            count = AlarmsOfLate(bus.client, bus.prefix).count

            async def add(ms: int, name: str, number: int = 0, priority: Priority = Priority.MEDIUM) -> None:
                value = alarm(name, number, priority=priority).encode()
                await bus.client.xadd(f"{bus.prefix}{ALARMS}:0", {"v": value}, id=f"{ms}-0")

            assert not await count(now_ms)
            await add(now_ms - 61 * minute_ms, "too old")
            await add(now_ms - 59 * minute_ms, "old")
            for number in range(450):
                await add(now_ms - 30 * minute_ms + number, f"a{number}", priority=Priority.HIGH)
            await add(now_ms - 2, "a0", 1, priority=Priority.HIGH)
            await bus.client.xadd(f"{bus.prefix}{ALARMS}:0", {"v": "no alarm"}, id=f"{now_ms - 1}-0")
            assert await count(now_ms) == await count(now_ms) == {HIGH: 450, MEDIUM: 1}
            await add(now_ms + 1, "new")
            assert await count(now_ms + minute_ms) == {HIGH: 450, MEDIUM: 2}
            assert await count(now_ms + 2 * minute_ms) == {HIGH: 450, MEDIUM: 1}
            assert await count(now_ms + 40 * minute_ms) == {MEDIUM: 1}
            # Nobody asked for hours.
            await add(now_ms + 300 * minute_ms, "newest")
            assert await count(now_ms + 301 * minute_ms) == {MEDIUM: 1}

    asyncio.run(go())
