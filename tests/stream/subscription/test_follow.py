"""Subscriptions to alarms: each event once, in order, from any position, whatever is restarted meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bedside
from stream.bus import Bus, BusUnavailableError
from stream.clock import ManualClock, SystemClock
from stream.contract import EVERY_BED, AlarmEvent, AlarmKind, Presence, Priority
from stream.embedded import EmbeddedServer
from stream.heartbeat import beat, read_signs, workers_key
from stream.subscription import follow
from stream.subscription.follow import (
    EVENTS_MISSED,
    SERVICE_SILENT,
    Alarm,
    Subscription,
    alarms,
    follow_alarms,
)
from stream.subscription.positions import SinceError, after
from stream.topics import ALARMS
from stream.transport.layout import TopicConfig, stream_key
from tests.stream.turmoil import (
    cut,
    event,
    lasting_server,
    number_of,
    publish,
    publish_in_turmoil,
    restart,
)

Server = EmbeddedServer


def on_bus(server: Server, prefix: str, body: Callable[[Bus], Awaitable[None]]) -> None:
    async def go() -> None:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await asyncio.wait_for(body(bus), 60)

    asyncio.run(go())


_numbers = itertools.count()


class Reader:
    """Reads one deployment of a server."""

    def __init__(self, server: Server, prefix: str) -> None:
        self.where: dict[str, Any] = {"url": server.url, "prefix": prefix}

    async def kept(self, **options: Any) -> list[Alarm]:
        return [e async for e in alarms(**self.where, follow=False, **options)]

    async def numbers(self, **options: Any) -> list[int]:
        return [number_of(e) for e in await self.kept(**options)]


@pytest.fixture
def reader(redis_server_module: Server, prefix: str) -> Reader:
    return Reader(redis_server_module, prefix)


def plain(alarm: Alarm) -> AlarmEvent:
    return AlarmEvent(**alarm.model_dump())


# ---- what is kept ----------------------------------------------------------------------------------------


def test_without_following_it_gives_what_is_kept_and_ends(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    async def body(bus: Bus) -> None:
        assert await reader.kept() == []
        events = [event(number) for number in range(600)]
        positions = await publish(bus, *events)
        found = await reader.kept()
        assert [plain(alarm) for alarm in found] == events
        assert [alarm.position for alarm in found] == positions

    on_bus(redis_server_module, prefix, body)


def test_repeats_are_dropped(redis_server_module: Server, prefix: str, reader: Reader) -> None:
    async def body(bus: Bus) -> None:
        await publish(bus, *[event(number) for number in (0, 1, 0, 2, 1, 1, 3, 0)])
        assert await reader.numbers() == [0, 1, 2, 3]

    on_bus(redis_server_module, prefix, body)


def test_a_repeat_is_what_lies_among_the_entries_before_it(
    redis_server_module: Server, prefix: str, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_LOOKED_AT", 3)

    async def body(bus: Bus) -> None:
        positions = await publish(bus, *[event(number) for number in (0, 1, 2, 0, 3, 1, 0, 0)])
        assert await reader.numbers() == [0, 1, 2, 3, 1]
        # The same, wherever one begins.
        for place, rest in enumerate([[1, 2, 3, 1], [2, 3, 1], [3, 1], [3, 1], [1], [], [], []]):
            assert await reader.numbers(since=positions[place]) == rest

    on_bus(redis_server_module, prefix, body)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_reader_that_comes_back_sees_each_transition_once(
    redis_server_module: Server, data: st.DataObject
) -> None:
    prefix = f"again-{next(_numbers)}:"
    sent = data.draw(st.lists(st.integers(0, 15), min_size=1, max_size=30))
    beds = data.draw(st.none() | st.sets(st.sampled_from(["bed-0", "bed-1", "bed-2"]), min_size=1))
    leaves_after = st.integers(1, 5)
    reader = Reader(redis_server_module, prefix)

    async def body(bus: Bus) -> None:
        await publish(bus, *[event(number, bed=f"bed-{number % 3}") for number in sent])
        whole = await reader.kept(bed=beds)
        assert len({alarm.event for alarm in whole}) == len(whole)
        wanted = [n for n in dict.fromkeys(sent) if beds is None or f"bed-{n % 3}" in beds]
        assert [number_of(alarm) for alarm in whole] == wanted
        seen: list[Alarm] = []
        while len(seen) < len(whole):
            stay = data.draw(leaves_after)
            async for alarm in alarms(
                **reader.where, bed=beds, follow=False, since=seen[-1] if seen else "0-0"
            ):
                seen.append(alarm)
                stay -= 1
                if stay == 0:
                    break
        assert seen == whole

    on_bus(redis_server_module, prefix, body)


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"bed": "bed-2"}, [2, 5, 8]),
        ({"bed": ["bed-1", "bed-2"]}, [1, 2, 4, 5, 7, 8]),
        ({"bed": "bed"}, []),
        ({"kind": "technical"}, [3]),
        ({"priority": "high"}, [4]),
        ({"priority": "low"}, [0, 1, 2, 3, 4, 5, 7, 8]),
        ({"priority": "info"}, list(range(9))),
        ({"rule": ["not-scored", "hr-high"]}, [3, 4]),
        ({"rule": "anomaly", "bed": "bed-0", "priority": "medium"}, [0]),
    ],
)
def test_filters(
    redis_server_module: Server, prefix: str, reader: Reader, wanted: dict[str, Any], numbers: list[int]
) -> None:
    other = {
        3: {"kind": AlarmKind.TECHNICAL, "rule": "not-scored"},
        4: {"priority": Priority.HIGH, "rule": "hr-high"},
        6: {"priority": Priority.INFO},
    }

    async def body(bus: Bus) -> None:
        await publish(bus, *[event(n, f"bed-{n % 3}", **other.get(n, {})) for n in range(9)])
        assert await reader.numbers(**wanted) == numbers

    on_bus(redis_server_module, prefix, body)


def test_what_is_about_the_deployment_goes_to_every_bed_s_subscriber(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    async def body(bus: Bus) -> None:
        await publish(bus, event(0, EVERY_BED), event(1, "bed-1"), event(2, "bed-2"))
        assert await reader.numbers(bed="bed-1") == [0, 1]

    on_bus(redis_server_module, prefix, body)


@pytest.mark.parametrize("wrong", [{"kind": "clinical"}, {"priority": "urgent"}, {"since": "yesterday"}])
def test_an_impossible_wish_is_refused(reader: Reader, wrong: dict[str, str]) -> None:
    with pytest.raises((ValueError, SinceError), match=r"clinical|urgent|yesterday"):
        asyncio.run(reader.kept(**wrong))


def test_a_server_that_is_not_there_is_said_at_once(short_tmp: Path) -> None:
    async def first() -> None:
        async for _ in alarms(f"unix://{short_tmp}/none.sock"):
            pass

    with pytest.raises(BusUnavailableError, match="cannot use the Redis server"):
        asyncio.run(first())


def test_since_a_time_of_the_server(redis_server_module: Server, prefix: str, reader: Reader) -> None:
    async def body(bus: Bus) -> None:
        events = [event(number) for number in range(5)]
        times = []
        for one in events:
            (entry_id,) = await publish(bus, one)
            times.append(int(entry_id.partition("-")[0]))
            await asyncio.sleep(0.005)

        def at(ms: int) -> datetime:
            return datetime.fromtimestamp(ms / 1000, tz=UTC)

        assert await reader.numbers(since=at(times[2])) == [2, 3, 4]
        assert await reader.numbers(since=at(times[2] + 1)) == [3, 4]
        assert await reader.numbers(since=at(times[2]).isoformat()) == [2, 3, 4]
        assert await reader.numbers(since="1h") == [0, 1, 2, 3, 4]
        assert await reader.numbers(since=at(times[-1] + 60_000)) == []
        following = alarms(**reader.where, since=at(times[3]))
        assert [number_of(await anext(following)) for _ in range(2)] == [3, 4]
        await following.aclose()  # type: ignore[attr-defined]

    on_bus(redis_server_module, prefix, body)


def test_an_entry_that_is_no_alarm_does_not_silence_those_behind_it(
    redis_server_module: Server, prefix: str, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(bus: Bus) -> None:
        await publish(bus, event(0))
        await bus.publish_many(ALARMS, [(b"k", b""), (b"k", b"{}"), (b"k", b"\xff\x00")])
        await publish(bus, event(1))
        assert await reader.numbers() == [0, 1]

    on_bus(redis_server_module, prefix, body)
    assert len([record for record in caplog.records if "no alarm event" in record.message]) == 3


# ---- following -------------------------------------------------------------------------------------------


def test_following_begins_with_the_next_and_misses_none(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    async def body(bus: Bus) -> None:
        await publish(bus, event(0))
        async with await Subscription.open(**reader.where) as subscription:
            await publish(bus, event(1, bed="bed-2"), event(2))
            assert [number_of(e) for e in await subscription.next()] == [1, 2]
            await publish(bus, event(3), event(2), event(4))
            assert [number_of(e) for e in await subscription.next()] == [3, 4]
            assert await subscription.next(wait=False) == []

    on_bus(redis_server_module, prefix, body)


COUNT = 150


def test_nothing_is_lost_or_doubled_while_the_server_is_restarted(short_tmp: Path) -> None:
    async def main() -> None:
        async with lasting_server(short_tmp) as server:

            async def read() -> list[int]:
                numbers: list[int] = []
                async for alarm in bedside.alarms(server.url, since="0-0", silent_after_s=None):
                    numbers.append(number_of(alarm))
                    if alarm.alarm == f"alarm-{COUNT - 1}":
                        break
                return numbers

            reading = asyncio.ensure_future(read())
            await publish_in_turmoil(server, COUNT)
            assert await asyncio.wait_for(reading, 60) == list(range(COUNT))

    asyncio.run(main())


def test_a_reader_that_leaves_and_comes_back_meanwhile_misses_nothing(short_tmp: Path) -> None:
    async def main() -> None:
        async with lasting_server(short_tmp) as server:

            async def read() -> list[int]:
                numbers: list[int] = []
                position: Any = "0-0"
                while len(numbers) < COUNT:
                    stay = 7
                    try:
                        async for alarm in alarms(server.url, since=position, silent_after_s=None):
                            numbers.append(number_of(alarm))
                            position = alarm.position
                            stay -= 1
                            if not stay or len(numbers) == COUNT:
                                break
                    except BusUnavailableError:
                        continue
                return numbers

            reading = asyncio.ensure_future(read())
            await publish_in_turmoil(server, COUNT)
            assert await asyncio.wait_for(reading, 60) == list(range(COUNT))

    asyncio.run(main())


def test_a_program_without_asyncio_misses_nothing_either(short_tmp: Path) -> None:
    async def main() -> None:
        async with lasting_server(short_tmp) as server:
            numbers: list[int] = []

            def read() -> None:
                for alarm in bedside.follow_alarms(server.url, since="0-0", silent_after_s=None):
                    numbers.append(number_of(alarm))
                    if alarm.alarm == f"alarm-{COUNT - 1}":
                        break

            thread = threading.Thread(target=read)
            thread.start()
            await publish_in_turmoil(server, COUNT)
            await asyncio.to_thread(thread.join, 60)
            assert numbers == list(range(COUNT))

    asyncio.run(main())


def test_the_plain_iterator_leaves_no_thread_behind_and_ends_by_itself(redis_server: Server) -> None:
    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, *[event(number) for number in range(5)])
        # Also where a loop is running, as in a notebook.
        assert [number_of(e) for e in follow_alarms(redis_server.url, follow=False)] == list(range(5))
        following = follow_alarms(redis_server.url, since="0-0")
        assert number_of(next(following)) == 0
        following.close()  # type: ignore[attr-defined]
        with pytest.raises(BusUnavailableError):
            next(follow_alarms("redis://127.0.0.1:1"))

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name == "bedside-alarms"]


def test_a_reader_that_stops_reading_costs_nothing_and_goes_on_where_it_was(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    async def body(bus: Bus) -> None:
        following = alarms(**reader.where, since="0-0", silent_after_s=None)
        await publish(bus, event(0))
        assert number_of(await anext(following)) == 0
        for start in range(1, 3_001, 500):
            await publish(bus, *[event(number) for number in range(start, start + 500)])
        # Its connection holds no more than one answer of the server.
        clients = await bus.client.client_list()
        assert all(int(client["omem"]) == 0 for client in clients)
        assert [number_of(await anext(following)) for _ in range(3_000)] == list(range(1, 3_001))
        await following.aclose()  # type: ignore[attr-defined]

    on_bus(redis_server_module, prefix, body)


# ---- silence ---------------------------------------------------------------------------------------------


class RunningClock(ManualClock):
    """A clock that goes on by 0.3 s whenever somebody looks at it."""

    def now_ns(self) -> int:
        self.set(super().now_ns() + 300_000_000)
        return super().now_ns()


async def until_notice(subscription: Subscription) -> Alarm:
    while True:
        for alarm in await subscription.next(wait=False):
            return alarm


def test_ten_seconds_without_a_worker_are_told_and_its_return_too(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    clock = RunningClock(10**18)

    async def body(bus: Bus) -> None:
        wanted = follow.wanted(bed="bed-7", kind="physiological", priority="high")
        async with await Subscription.open(**reader.where, wanted=wanted, clock=clock) as subscription:
            begun = clock.now_ns()
            on = await until_notice(subscription)
            assert 10 <= (clock.now_ns() - begun) / 1e9 < 13
            assert (on.rule, on.presence, on.priority) == (SERVICE_SILENT, Presence.ON, Priority.HIGH)
            assert (on.bed, on.kind) == (EVERY_BED, AlarmKind.TECHNICAL)
            assert on.position == subscription.position
            # Said once.
            for _ in range(50):
                assert await subscription.next(wait=False) == []
            await beat(bus.client, bus.prefix, "worker-1", {})
            off = await until_notice(subscription)
            assert (off.alarm, off.presence) == (on.alarm, Presence.OFF)
            assert off.event != on.event
        # It is told here and nowhere else.
        assert await reader.kept() == []

    on_bus(redis_server_module, prefix, body)


def test_a_sign_of_life_from_an_hour_that_has_not_come_is_none(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    # A worker that died before the server's clock was set back.
    async def body(bus: Bus) -> None:
        async with await Subscription.open(**reader.where, clock=RunningClock(10**18)) as subscription:
            signs = await read_signs(bus.client, bus.prefix)
            await bus.client.zadd(workers_key(bus.prefix), {"dead": signs.now_ms + 3_600_000})
            assert (await until_notice(subscription)).presence is Presence.ON
            await beat(bus.client, bus.prefix, "worker-1", {})
            assert (await until_notice(subscription)).presence is Presence.OFF

    on_bus(redis_server_module, prefix, body)


def test_a_worker_that_beats_is_no_silence(redis_server_module: Server, prefix: str, reader: Reader) -> None:
    async def body(bus: Bus) -> None:
        async with await Subscription.open(**reader.where, clock=RunningClock(10**18)) as subscription:
            for _ in range(100):
                await beat(bus.client, bus.prefix, "worker-1", {})
                assert await subscription.next(wait=False) == []

    on_bus(redis_server_module, prefix, body)


def test_a_server_that_does_not_answer_is_silence(redis_server: Server) -> None:
    async def main() -> None:
        clock = RunningClock(10**18)
        async with await Subscription.open(redis_server.url, clock=clock) as subscription:
            redis_server.stop()
            on = await until_notice(subscription)
            assert on.message == "service silent: the Redis server does not answer"
            redis_server.start()
            async with await Bus.connect(redis_server.url) as bus:
                await beat(bus.client, bus.prefix, "worker-1", {})
                off = await until_notice(subscription)
                assert (off.alarm, off.presence) == (on.alarm, Presence.OFF)

    asyncio.run(main())


def test_a_reader_that_was_busy_does_not_take_it_for_silence(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    clock = ManualClock(10**18)

    async def body(bus: Bus) -> None:
        async with await Subscription.open(**reader.where, clock=clock) as subscription:
            for _ in range(5):
                clock.set(clock.now_ns() + 60 * 10**9)
                assert await subscription.next(wait=False) == []

    on_bus(redis_server_module, prefix, body)


# ---- what is gone ----------------------------------------------------------------------------------------


def test_a_position_older_than_what_is_kept_is_told(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare(ALARMS, TopicConfig(1, maxlen=100))
        positions = await publish(bus, *[event(number) for number in range(500)])
        notice, *rest = await reader.kept(since=positions[3])
        oldest = number_of(rest[0])
        assert (notice.rule, notice.kind) == (EVENTS_MISSED, AlarmKind.TECHNICAL)
        assert oldest > 4
        assert [number_of(alarm) for alarm in rest] == list(range(oldest, 500))
        assert await reader.numbers(since=positions[oldest]) == list(range(oldest + 1, 500))
        # Whoever asks for a time takes what there is.
        assert await reader.numbers(since="1h") == list(range(oldest, 500))

    on_bus(redis_server_module, prefix, body)


def test_a_server_that_lost_its_streams_is_told(redis_server: Server) -> None:
    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, event(0), event(1))
            async with await Subscription.open(redis_server.url, since="0-0") as subscription:
                assert [number_of(e) for e in await subscription.next()] == [0, 1]
                restart(redis_server)
                notice = await until_notice(subscription)
                assert notice.rule == EVENTS_MISSED
                await publish(bus, event(2))
                assert [number_of(e) for e in await subscription.next()] == [2]
                # Another break is no other loss.
                await cut(redis_server)
                await publish(bus, event(3))
                numbers: list[int] = []
                while not numbers:
                    numbers = [number_of(e) for e in await subscription.next()]
                assert numbers == [3]

    asyncio.run(main())


def test_a_loss_is_told_also_when_new_transitions_came_before_the_next_look(redis_server: Server) -> None:
    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            first, last = await publish(bus, event(0), event(1))
            async with await Subscription.open(redis_server.url, since=first) as subscription:
                assert [number_of(e) for e in await subscription.next()] == [1]
                # As a server does that was killed before the last one was on its disk.
                await bus.client.xdel(stream_key(bus.prefix, ALARMS, 0), last)
                await publish(bus, event(2))
                await cut(redis_server)
                told: list[Alarm] = []
                while not told:
                    told = await subscription.next()
                assert told[0].rule == EVENTS_MISSED
                assert [number_of(alarm) for alarm in told[1:]] == [2]
                # Whatever breaks then, that is told once.
                await cut(redis_server)
                await publish(bus, event(3))
                numbers: list[int] = []
                while 3 not in numbers:
                    more = await subscription.next()
                    assert EVENTS_MISSED not in {alarm.rule for alarm in more}
                    numbers += [number_of(alarm) for alarm in more]

    asyncio.run(main())


def test_a_server_that_was_away_before_the_first_look_may_have_lost_something(redis_server: Server) -> None:
    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, event(0))
        async with await Subscription.open(redis_server.url) as subscription:
            redis_server.stop()
            assert await subscription.next(wait=False) == []
            redis_server.start()
            assert (await until_notice(subscription)).rule == EVENTS_MISSED

    asyncio.run(main())


def test_nothing_is_missed_on_a_server_that_never_had_anything(redis_server: Server) -> None:
    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            # The command hands on a position that it has made from the time itself.
            for since in ("1h", after("1h", SystemClock().now_ns() // 1_000_000)):
                async with await Subscription.open(
                    redis_server.url, since=since, silent_after_s=None
                ) as subscription:
                    assert await subscription.next(wait=False) == []
                    await cut(redis_server)
                    # Also behind an outage, when it looks whether something was lost.
                    for _ in range(3):
                        assert await subscription.next(wait=False) == []
                    await publish(bus, event(0))
                    assert [number_of(e) for e in await subscription.next()] == [0]
                await bus.client.flushall()

    asyncio.run(main())


def test_a_topic_of_several_partitions_has_no_one_position(
    redis_server_module: Server, prefix: str, reader: Reader
) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare(ALARMS, TopicConfig(4))
        with pytest.raises(BusUnavailableError, match="4 partitions"):
            await reader.kept()
        assert not await bus.client.exists(stream_key(prefix, ALARMS, 0))

    on_bus(redis_server_module, prefix, body)


# ---- the command -----------------------------------------------------------------------------------------


def test_the_command_that_is_killed_goes_on_behind_its_last_line(redis_server: EmbeddedServer) -> None:
    async def following(since: str, lines: int) -> list[dict[str, Any]]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bedside", "alerts", "--follow", "--json", "--since", since),
            *("--redis", redis_server.url),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        try:
            said: list[dict[str, Any]] = []
            while len(said) < lines:
                line = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
                said += [line] if line["rule"] != SERVICE_SILENT else []
            return said
        finally:
            process.kill()
            await process.wait()

    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, *[event(number) for number in range(20)])
            first = await following("0-0", 7)
            await publish(bus, *[event(number) for number in range(20, 30)])
            rest = await following(first[-1]["position"], 23)
        assert [number_of(line) for line in first + rest] == list(range(30))

    asyncio.run(main())


def test_the_command_follows_through_restarts(short_tmp: Path) -> None:
    async def main() -> None:
        async with lasting_server(short_tmp) as server:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bedside", "alerts", "--follow", "--json", "--since", "0-0"),
                *("--redis", server.url),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
            assert process.stdout is not None
            numbers: list[int] = []
            async with await Bus.connect(server.url) as bus:
                await publish(bus, event(0))
            try:
                # From its first line on it must survive everything.
                numbers.append(number_of(json.loads(await asyncio.wait_for(process.stdout.readline(), 60))))
                publishing = asyncio.ensure_future(publish_in_turmoil(server, COUNT - 1, first=1))
                while numbers[-1] != COUNT - 1:
                    seen = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
                    if seen["rule"] != SERVICE_SILENT:
                        numbers.append(number_of(seen))
                    assert "-" in seen["position"]
                await publishing
                process.terminate()
                assert await process.wait() == 0
            finally:
                if process.returncode is None:
                    process.kill()
            assert numbers == list(range(COUNT))

    asyncio.run(main())
