"""The bus on a real server: order, following, trimming, and errors in one line."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from pathlib import Path

import pytest

from stream import bus as bus_module
from stream.bus import Bus, BusUnavailableError, Entry, open_client
from stream.clock import Clock, ManualClock, SystemClock
from stream.embedded import EmbeddedServer
from stream.transport.layout import TopicConfig, partition_of, registry_key, stream_key
from tests.faults.clock import WallClock
from tests.stream.servers import until_it_follows

WIDE = TopicConfig(8, retention_ms=600_000)
NARROW = TopicConfig(1, maxlen=1000)

Server = EmbeddedServer


def on_bus(
    server: Server, prefix: str, body: Callable[[Bus], Awaitable[None]], clock: Clock | None = None
) -> None:
    async def go() -> None:
        async with await Bus.connect(server.url, prefix=prefix, clock=clock) as bus:
            await asyncio.wait_for(body(bus), 20)

    asyncio.run(go())


async def take(entries: AsyncIterator[Entry], count: int) -> list[Entry]:
    return [await asyncio.wait_for(anext(entries), 5) for _ in range(count)]


async def started(entries: AsyncIterator[Entry]) -> asyncio.Task[Entry]:
    """Begin to wait for the next entry, and give it time to look where the streams end."""
    task = asyncio.ensure_future(anext(entries))
    await asyncio.sleep(0.1)
    return task


def keys(count: int) -> list[bytes]:
    return [f"bed-{number}".encode() for number in range(count)]


# --- publishing and following ---------------------------------------------------------------------------


def test_messages_of_a_key_stay_in_order(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", WIDE)
        sent = [(key, b"%d" % number) for number in range(40) for key in keys(12)]
        ids = [await bus.publish("t", key, value) for key, value in sent[:24]]
        ids += await bus.publish_many("t", sent[24:])
        got = await take(bus.tail("t", after="0"), len(sent))
        assert {(entry.partition, entry.id) for entry in got} == {
            (partition_of(key, 8), entry_id) for (key, _), entry_id in zip(sent, ids, strict=True)
        }
        for key in keys(12):
            mine = [entry for entry in got if entry.key == key]
            assert [entry.value for entry in mine] == [b"%d" % number for number in range(40)]
            assert {(entry.topic, entry.partition) for entry in mine} == {("t", partition_of(key, 8))}
        assert len({entry.partition for entry in got}) > 3

    on_bus(redis_server_module, prefix, body)


def test_values_are_bytes_whatever_they_hold(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", NARROW)
        values = [b"", bytes(range(256)), b"\xff" * 100_000]
        await bus.publish_many("t", [(b"\x00k", value) for value in values])
        got = [entry async for entry in bus.kept("t")]
        assert [(entry.key, entry.value) for entry in got] == [(b"\x00k", value) for value in values]

    on_bus(redis_server_module, prefix, body)


def test_an_entry_says_when_the_server_took_it(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", NARROW)
        await bus.publish("t", b"k", b"v")
        (entry,) = [entry async for entry in bus.kept("t")]
        assert abs(entry.time_ms - SystemClock().now_ns() / 1e6) < 5_000

    on_bus(redis_server_module, prefix, body)


def test_following_from_now_misses_nothing_between_reads(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", WIDE)
        await bus.publish_many("t", [(key, b"before") for key in keys(4)])
        entries = bus.tail("t")
        waiting = await started(entries)
        await bus.publish("t", b"bed-0", b"first")
        assert (await asyncio.wait_for(waiting, 5)).value == b"first"
        # Nobody reads while these come, some of them in partitions that did not exist.
        for round_ in range(3):
            await bus.publish_many("t", [(key, b"%d" % round_) for key in keys(30)])
        got = await take(entries, 90)
        assert {(entry.key, entry.value) for entry in got} == {
            (key, b"%d" % round_) for key in keys(30) for round_ in range(3)
        }

    on_bus(redis_server_module, prefix, body)


def test_a_tail_waits_longer_than_one_blocked_read(
    redis_server_module: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "_BLOCK_MS", 30)

    async def body(bus: Bus) -> None:
        await bus.declare("t", NARROW)
        waiting = await started(bus.tail("t"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await bus.publish("t", b"k", b"late")
        assert (await asyncio.wait_for(waiting, 5)).value == b"late"

    on_bus(redis_server_module, prefix, body)


def test_a_tail_goes_on_from_positions(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        for topic in ("t", "u"):
            await bus.declare(topic, NARROW)
        ids = await bus.publish_many("t", [(b"k", b"%d" % number) for number in range(5)])
        await bus.publish("u", b"k", b"of u")
        positions = {stream_key(prefix, "t", 0): ids[2]}
        got = await take(bus.tail("t", "u", after="0", positions=positions), 3)
        assert sorted(entry.value for entry in got) == [b"3", b"4", b"of u"]
        got = await take(bus.tail("t", after=ids[3]), 1)
        assert got[0].value == b"4"

    on_bus(redis_server_module, prefix, body)


def test_a_message_of_another_program_needs_no_more_than_a_value(
    redis_server_module: Server, prefix: str
) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", NARROW)
        key = stream_key(prefix, "t", 0)
        await bus.client.xadd(key, {"v": "x"})
        await bus.client.xadd(key, {"other": "y"})
        got = await take(bus.tail("t", after="0"), 2)
        assert [(entry.key, entry.value) for entry in got] == [(b"", b"x"), (b"", b"")]

    on_bus(redis_server_module, prefix, body)


# --- what is kept ---------------------------------------------------------------------------------------


def test_kept_gives_all_that_is_there_and_ends(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", TopicConfig(2, maxlen=10_000))
        sent = [(key, b"%d" % number) for number in range(300) for key in keys(4)]
        ids = await bus.publish_many("t", sent)
        got = [entry async for entry in bus.kept("t")]
        assert [entry.partition for entry in got] == sorted(entry.partition for entry in got)
        for key in keys(4):
            assert [e.value for e in got if e.key == key] == [b"%d" % number for number in range(300)]
        after = ids[1000]
        rest = {(entry.key, entry.value) async for entry in bus.kept("t", after)}
        # Ids rise within a partition; both have the same clock.
        number, _, order = after.partition("-")
        assert rest == {
            message
            for message, entry_id in zip(sent, ids, strict=True)
            if tuple(map(int, entry_id.split("-"))) > (int(number), int(order))
        }
        assert [entry async for entry in bus.kept("t", ids[-1]) if entry.key == sent[-1][0]] == []

    on_bus(redis_server_module, prefix, body)


def test_recent_reads_backwards_from_before_an_entry(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", NARROW)
        ids = await bus.publish_many("t", [(b"k", b"%d" % number) for number in range(10)])
        got = await bus.recent("t", 0, ids[7], 3)
        assert [(entry.id, entry.value) for entry in got] == [(ids[n], b"%d" % n) for n in (6, 5, 4)]
        assert await bus.recent("t", 0, ids[0], 3) == []
        assert await bus.recent("none", 0, ids[0], 3) == []

    on_bus(redis_server_module, prefix, body)


def test_last_id_is_the_newest_even_of_a_stream_that_was_emptied(
    redis_server_module: Server, prefix: str
) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", NARROW)
        key = stream_key(prefix, "t", 0)
        assert await bus.last_id(key) == "0-0"
        ids = await bus.publish_many("t", [(b"k", b"1"), (b"k", b"2")])
        await bus.client.xtrim(key, maxlen=0, approximate=False)
        assert await bus.last_id(key) == ids[1]

    on_bus(redis_server_module, prefix, body)


# --- trimming -------------------------------------------------------------------------------------------


def ten(number: int) -> list[tuple[bytes, bytes]]:
    return [(b"k", b"%d" % n) for n in range(number)]


@pytest.mark.parametrize("off_s", [0, 86_400, -86_400])
def test_what_is_older_than_its_retention_goes_whatever_our_clock_shows(
    redis_server_module: Server, prefix: str, off_s: int
) -> None:
    clock = ManualClock(SystemClock().now_ns() + off_s * 1_000_000_000)

    async def body(bus: Bus) -> None:
        await bus.declare("t", TopicConfig(1, retention_ms=60_000))
        key = stream_key(prefix, "t", 0)
        seconds, _ = await bus.client.time()
        for age_s in (65, 55):
            for number in range(500):
                await bus.client.xadd(
                    key, {"v": b"%d" % age_s}, id=f"{(seconds - age_s) * 1000}-{number + 1}"
                )
        await bus.publish("t", b"k", b"0")
        ages = [entry.value async for entry in bus.kept("t")]
        # Redis frees whole blocks of 100.
        assert ages[-501:] == [b"55"] * 500 + [b"0"]
        assert len(ages) <= 600

    on_bus(redis_server_module, prefix, body, clock)


def test_topics_without_a_retention_are_trimmed_by_count(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare("t", TopicConfig(1, maxlen=200))
        await bus.publish_many("t", ten(1000))
        assert 200 <= await bus.client.xlen(stream_key(prefix, "t", 0)) <= 400
        got = [entry.value async for entry in bus.kept("t")]
        assert got == [b"%d" % number for number in range(1000 - len(got), 1000)]

    on_bus(redis_server_module, prefix, body)


def test_what_comes_faster_than_real_time_is_trimmed_by_count_not_by_time(
    redis_server_module: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "_UNPACED_MAXLEN", 300)
    clock = ManualClock(SystemClock().now_ns())

    async def body(bus: Bus) -> None:
        await bus.declare("t", TopicConfig(1, retention_ms=60_000))
        key = stream_key(prefix, "t", 0)
        await bus.publish_many("t", ten(250), paced=False)
        clock.set(clock.now_ns() + 3_600_000_000_000)
        await bus.publish_many("t", ten(1), paced=False)
        assert await bus.client.xlen(key) == 251
        await bus.publish_many("t", ten(2000), paced=False)
        assert 300 <= await bus.client.xlen(key) <= 500

    on_bus(redis_server_module, prefix, body, clock)


# --- topics -----------------------------------------------------------------------------------------------


def test_who_declares_a_topic_first_decides(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        assert await bus.declare("t", TopicConfig(3)) == TopicConfig(3)
        async with await Bus.connect(redis_server_module.url, prefix=prefix) as other:
            assert await other.declare("t", TopicConfig(9, maxlen=1)) == TopicConfig(3)
        registered = await bus.client.hget(registry_key(prefix), "t")
        assert registered is not None
        assert json.loads(registered)["partitions"] == 3

    on_bus(redis_server_module, prefix, body)


def test_the_topics_of_the_system_need_no_declaration(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.publish("samples", b"bed-1", b"x")
        key = stream_key(prefix, "samples", partition_of(b"bed-1", 16))
        assert await bus.client.xlen(key) == 1
        with pytest.raises(KeyError):
            await bus.publish("no-such-topic", b"k", b"v")

    on_bus(redis_server_module, prefix, body)


def test_deployments_on_one_server_do_not_meet(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        async with await Bus.connect(redis_server_module.url, prefix=f"{prefix}other:") as other:
            await bus.publish("alarms", b"k", b"ours")
            await other.publish("alarms", b"k", b"theirs")
            assert [entry.value async for entry in bus.kept("alarms")] == [b"ours"]

    on_bus(redis_server_module, prefix, body)


# --- a server that is not there ---------------------------------------------------------------------------


def refused(url: str) -> str:
    async def go() -> None:
        async with await Bus.connect(url):
            pass

    with pytest.raises(BusUnavailableError) as caught:
        asyncio.run(asyncio.wait_for(go(), 4))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("cannot use the Redis server at ")
    return text


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://127.0.0.1:1", "127.0.0.1:1"),
        ("unix:///nowhere/s.sock", "/nowhere/s.sock"),
        ("redis://no-such-host.invalid", "no-such-host.invalid"),
        ("localhost:6379", "redis://"),
        ("http://localhost", "redis://"),
        ("redis://localhost:port", "port"),
    ],
)
def test_a_server_that_cannot_be_reached_is_one_clear_line(url: str, why: str) -> None:
    text = refused(url)
    assert url in text
    assert why in text


def test_a_password_is_not_shown() -> None:
    text = refused("redis://nurse:geheim@127.0.0.1:1/0")
    assert "geheim" not in text
    assert "redis://127.0.0.1:1/0" in text


def test_a_server_that_wants_a_password_says_so(redis_server: Server) -> None:
    async def protect() -> None:
        client = open_client(redis_server.url)
        await client.config_set("requirepass", "geheim")
        await client.aclose()

    asyncio.run(protect())
    assert "Authentication required" in refused(redis_server.url)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_something_else_on_the_port_is_one_clear_line(
    answer: bytes | None, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None: it takes the connection and never says a word.
    monkeypatch.setattr(bus_module, "_PROBE_TIMEOUT_S", 0.3)
    path = short_tmp / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        taken = []

        def serve() -> None:
            for _ in islice(iter(int, 1), 1):
                connection, _ = listener.accept()
                taken.append(connection)
                if answer is not None:
                    connection.recv(1000)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        refused(f"unix://{path}")
        thread.join(5)
        for connection in taken:
            connection.close()


def test_a_server_that_restarts_is_waited_for(short_tmp: Path, prefix: str) -> None:
    async def go() -> None:
        server = EmbeddedServer(short_tmp, appendonly=True).start()
        try:
            async with await Bus.connect(server.url, prefix=prefix) as bus:
                await bus.publish("alarms", b"k", b"1")
                entries = bus.tail("alarms", after="0")
                assert [entry.value for entry in await take(entries, 1)] == [b"1"]
                server.stop()
                publishing = asyncio.create_task(bus.publish("alarms", b"k", b"2"))
                await asyncio.sleep(0.3)
                assert not publishing.done()
                server.start()
                await asyncio.wait_for(publishing, 10)
                assert [entry.value for entry in await take(entries, 1)] == [b"2"]
        finally:
            server.stop()

    asyncio.run(go())


@pytest.mark.parametrize("turns", range(8))
def test_a_cancelled_follower_ends_even_while_it_connects(
    redis_server: EmbeddedServer, prefix: str, turns: int
) -> None:
    # redis-py loses cancellations that come in the first turns of the loop, while a connection is being made.
    async def follow(bus: Bus) -> None:
        async for _ in bus.tail("findings"):
            pass

    async def main() -> None:
        async with await Bus.connect(redis_server.url, prefix=prefix) as bus:
            await bus.declare("findings")
            following = asyncio.create_task(follow(bus))
            for _ in range(turns):
                await asyncio.sleep(0)
            following.cancel()
            done, _ = await asyncio.wait([following], timeout=10.0)
            assert done, "the follower goes on"
            assert following.cancelled()

    asyncio.run(main())


def test_a_new_stream_is_kept_where_the_server_s_clock_was_set_back(short_tmp: Path) -> None:
    clock = WallClock(short_tmp)
    if not clock.can_be_set:
        pytest.skip("no C compiler: the clock cannot be set")
    one, other = b"bed-0", next(key for key in keys(99) if partition_of(key, 8) != partition_of(b"bed-0", 8))

    async def main(server: Server) -> None:
        async with await Bus.connect(server.url) as bus:
            await bus.declare("t", WIDE)
            await bus.publish("t", one, b"0")
            # By more than the topic keeps.
            clock.set(-1200)
            until_it_follows(server.url, -1200)
            for number in range(1, 300):
                await bus.publish("t", one, b"%d" % number)
                await bus.publish("t", other, b"%d" % number)
            kept = [entry async for entry in bus.kept("t")]
            assert [int(entry.value) for entry in kept if entry.key == one] == [*range(300)]
            assert [int(entry.value) for entry in kept if entry.key == other] == [*range(1, 300)]
            # What is old there goes, as ever.
            clock.set(0)
            until_it_follows(server.url, 0)
            for _ in range(300):
                await bus.publish("t", other, b"")
            old = [entry async for entry in bus.kept("t") if entry.key == other and entry.value]
            # By whole nodes of a hundred.
            assert len(old) < 100

    with clock.inside():
        server = EmbeddedServer(short_tmp / "server").start()
    try:
        asyncio.run(main(server))
    finally:
        server.stop()
