"""The producer of a Faust app against a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import faust
import pytest
import redis
from faust.exceptions import ImproperlyConfigured, NotReady, ProducerSendError
from faust.types import RecordMetadata

from stream.embedded import EmbeddedServer
from stream.transport import Transport, outbox, producer
from stream.transport.ids import id_of
from stream.transport.layout import FENCED_OFFSET, TopicConfig, decode_message, registry_key, tombstones_key
from stream.transport.producer import Producer
from tests.faults.clock import WallClock
from tests.stream.servers import until_it_follows

RAW = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}


def new_app(server: EmbeddedServer, prefix: str = "t:", **conf: Any) -> faust.App:
    return faust.App("test", broker=f"{server.url}?prefix={prefix}", topic_partitions=4, **conf)


@asynccontextmanager
async def producing(app: faust.App) -> AsyncIterator[Producer]:
    sender = cast(Producer, app.producer)
    await sender.start()
    try:
        yield sender
    finally:
        await sender.stop()


def run(app: faust.App, scenario: Callable[[Producer], Awaitable[None]]) -> None:
    async def main() -> None:
        async with producing(app) as sender:
            await scenario(sender)

    asyncio.run(main())


@pytest.fixture
def server(redis_server: EmbeddedServer) -> EmbeddedServer:
    return redis_server


@pytest.fixture
def client(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, protocol=2)


def declare(client: redis.Redis, topic: str, config: TopicConfig, prefix: str = "t:") -> None:
    client.hset(registry_key(prefix), topic, config.to_json())


def rows(client: redis.Redis, stream: str) -> list[Any]:
    return [(entry.decode(), decode_message(fields)) for entry, fields in client.xrange(stream)]


def values(client: redis.Redis, stream: str) -> list[bytes | None]:
    return [message.value for _, message in rows(client, stream)]


def stop_the_clock(server: EmbeddedServer, number: signal.Signals) -> None:
    assert server.pid is not None
    os.kill(server.pid, number)


def test_the_entry_points_are_installed() -> None:
    for broker in ("redis://", "rediss://host:1/2", "unix:///run/s.sock?prefix=a:"):
        assert isinstance(faust.App("test", broker=broker).transport, Transport)


def test_what_is_not_supported_says_so() -> None:
    with pytest.raises(ImproperlyConfigured, match="at least once"):
        _ = faust.App("test", broker="redis://", processing_guarantee="exactly_once").transport
    with pytest.raises(ImproperlyConfigured, match="one broker URL"):
        _ = faust.App("test", broker="redis://a;redis://b").transport
    with pytest.raises(ImproperlyConfigured, match="producer_threaded"):
        _ = faust.App("test", broker="redis://", producer_threaded=True).producer
    with pytest.raises(ImproperlyConfigured, match="auto_offset_reset"):
        _ = faust.App("test", broker="redis://", consumer_auto_offset_reset="none").consumer


def test_a_message_arrives_as_it_was_sent(server: EmbeddedServer, client: redis.Redis) -> None:
    headers = [("a", b"\xff\x00"), ("a", b"again"), ("ä", b"")]

    async def scenario(sender: Producer) -> None:
        assert sender.supports_headers()
        sent = await sender.send_and_wait("topic", b"key", b"value", None, 12.5, headers)
        assert (sent.topic, sent.topic_partition, sent.timestamp) == (
            "topic",
            sender.key_partition("topic", b"key"),
            12.5,
        )
        [(entry, message)] = rows(client, f"t:topic:{sent.partition}")
        assert entry == id_of(sent.offset)
        assert message == (12500, b"key", b"value", headers)

        # Null and empty are told apart; mappings are headers, too; a partition that is given counts.
        await sender.send_and_wait("topic", b"", b"", 3, None, {"b": b"1"})
        await sender.send_and_wait("topic", None, None, 3, None, None)
        (_, empty), (_, null) = rows(client, "t:topic:3")[-2:]
        assert empty[1:] == (b"", b"", [("b", b"1")])
        assert null[1:] == (None, None, [])
        assert abs(null.time_ms / 1000 - time.time()) < 60

        # Without a key, partitions take turns.
        sent = [await sender.send_and_wait("turns", None, b"", None, None, None) for _ in range(8)]
        assert [one.partition for one in sent] == [0, 1, 2, 3] * 2

    run(new_app(server), scenario)


def test_concurrent_sends_keep_their_order(server: EmbeddedServer, client: redis.Redis) -> None:
    async def scenario(sender: Producer) -> None:
        futures = [
            await sender.send("topic", b"key", b"%d" % number, 0, None, None) for number in range(3000)
        ]
        await sender.flush()
        assert all(cast(asyncio.Future[RecordMetadata], future).done() for future in futures)

    run(new_app(server), scenario)
    assert values(client, "t:topic:0") == [b"%d" % number for number in range(3000)]


def test_topics_are_what_the_registry_says(server: EmbeddedServer, client: redis.Redis) -> None:
    declare(client, "known", TopicConfig(2, retention_ms=1000))

    async def scenario(sender: Producer) -> None:
        with pytest.raises(NotReady):
            sender.key_partition("known", b"key")
        await sender.create_topic("known", 7, 1, compacting=True)
        assert await sender.topic_config("known") == TopicConfig(2, retention_ms=1000)
        await sender.create_topic("new", 3, 1, retention=60.0)
        await sender.create_topic("table", 3, 1, compacting=True, retention=60.0)
        await sender.create_topic("plain", 3, 1)

    run(new_app(server), scenario)
    registry = {k.decode(): TopicConfig.from_json(v) for k, v in client.hgetall(registry_key("t:")).items()}
    assert registry == {
        "known": TopicConfig(2, retention_ms=1000),
        "new": TopicConfig(3, retention_ms=60_000),
        "table": TopicConfig(3, compact=True),
        # Nobody sized it: not for ever.
        "plain": TopicConfig(3, maxlen=100_000),
    }


def test_no_topics_are_made_where_that_is_forbidden(server: EmbeddedServer, client: redis.Redis) -> None:
    declare(client, "known", TopicConfig(2))

    async def scenario(sender: Producer) -> None:
        await sender.create_topic("new", 1, 1)
        await sender.send_and_wait("known", b"", b"", None, None, None)
        with pytest.raises(ProducerSendError, match="no topic 'new'"):
            await sender.send_and_wait("new", b"", b"", None, None, None)

    run(new_app(server, topic_allow_declare=False), scenario)
    assert list(client.hgetall(registry_key("t:"))) == [b"known"]


def test_prefixes_keep_deployments_apart(server: EmbeddedServer, client: redis.Redis) -> None:
    async def scenario(sender: Producer) -> None:
        await sender.send_and_wait("topic", b"k", b"v", 0, None, [("idempotency-key", b"1")])

    run(new_app(server, "one:"), scenario)
    run(new_app(server, "two:"), scenario)
    keys = {key.split(b":", 1)[0] for key in client.scan_iter()}
    assert keys == {b"one", b"two"}
    assert client.xlen("one:topic:0") == client.xlen("two:topic:0") == 1


def test_trimming_counts_in_the_servers_time(server: EmbeddedServer, client: redis.Redis) -> None:
    declare(client, "aged", TopicConfig(1, retention_ms=60_000))
    declare(client, "counted", TopicConfig(1, maxlen=100))
    now = int(client.time()[0]) * 1000
    with client.pipeline(transaction=False) as pipeline:
        for number in range(200):
            pipeline.xadd("t:aged:0", {"v": "old"}, id=f"{now - 120_000}-{number + 1}")
            pipeline.xadd("t:aged:0", {"v": "young"}, id="*") if number == 199 else None
        pipeline.execute()

    async def scenario(sender: Producer) -> None:
        # The time of a message is the sender's affair, and none of trimming's.
        await sender.send_and_wait("aged", b"", b"now", None, 1.0, None)
        for _ in range(1000):
            await sender.send("counted", b"", b"x", None, None, None)

    run(new_app(server), scenario)
    # Trimming is by whole nodes of 100 entries.
    assert values(client, "t:aged:0").count(b"old") < 100
    assert values(client, "t:aged:0")[-2:] == [b"young", b"now"]
    assert 100 <= client.xlen("t:counted:0") <= 200


def test_a_compacted_topic_keeps_the_newest_of_each_key(server: EmbeddedServer, client: redis.Redis) -> None:
    declare(client, "table", TopicConfig(1, compact=True))

    async def scenario(sender: Producer) -> None:
        for number in range(50):
            await sender.send("table", b"k%d" % (number % 5), b"%d" % number, None, None, None)
        await sender.send_and_wait("table", b"k2", None, None, None, None)
        with pytest.raises(ProducerSendError, match="need a key"):
            await sender.send_and_wait("table", None, b"", None, None, None)

    run(new_app(server), scenario)
    messages = [message for _, message in rows(client, "t:table:0")]
    assert [(m.key, m.value) for m in messages] == [
        (b"k0", b"45"), (b"k1", b"46"), (b"k3", b"48"), (b"k4", b"49"), (b"k2", None),
    ]  # fmt: skip


def test_tombstones_go_after_a_day(server: EmbeddedServer, client: redis.Redis) -> None:
    declare(client, "table", TopicConfig(1, compact=True))

    async def send(*changes: tuple[bytes, bytes | None]) -> None:
        async with producing(new_app(server)) as sender:
            for key, value in changes:
                await sender.send_and_wait("table", key, value, None, None, None)

    asyncio.run(send((b"a", b"1"), (b"b", b"1"), (b"a", None), (b"b", None), (b"b", b"2")))
    tombstones = tombstones_key("t:table:0")
    assert client.zrange(tombstones, 0, -1) == [b"a"]
    client.zincrby(tombstones, -25 * 3600 * 1000, "a")
    asyncio.run(send((b"c", b"1")))
    assert [(m.key, m.value) for _, m in rows(client, "t:table:0")] == [(b"b", b"2"), (b"c", b"1")]
    assert client.zcard(tombstones) == 0
    # A key may come back.
    asyncio.run(send((b"a", b"3")))
    assert values(client, "t:table:0") == [b"2", b"1", b"3"]


@pytest.mark.parametrize("compact", [False, True])
def test_an_idempotency_key_is_published_once(
    server: EmbeddedServer, client: redis.Redis, compact: bool
) -> None:
    declare(client, "alarms", TopicConfig(1, compact=compact))

    async def scenario(sender: Producer) -> None:
        async def send(value: bytes, event: bytes) -> RecordMetadata:
            return await sender.send_and_wait(
                "alarms", value, value, None, None, [("idempotency-key", event)]
            )

        first, *repeats = await asyncio.gather(*(send(b"a", b"event 0") for _ in range(20)))
        assert {repeat.offset for repeat in repeats} == {first.offset}
        assert sender.repeats == 19
        other = await send(b"b", b"event 1")
        assert other.offset > first.offset

    run(new_app(server), scenario)
    run(new_app(server), scenario_of_a_restarted_sender)
    assert values(client, "t:alarms:0") == [b"a", b"b"]
    assert 23 * 3600 < client.ttl("t:once:alarms:event 0") <= 24 * 3600


async def scenario_of_a_restarted_sender(sender: Producer) -> None:
    await sender.send_and_wait("alarms", b"a", b"a", None, None, {"idempotency-key": b"event 0"})
    assert sender.repeats == 1


def test_what_fails_reaches_the_sender(server: EmbeddedServer, client: redis.Redis) -> None:
    client.set("t:broken:0", "not a stream")

    async def scenario(sender: Producer) -> None:
        with pytest.raises(ProducerSendError, match="WRONGTYPE"):
            await sender.send_and_wait("broken", b"", b"", 0, None, None)
        for topic, partition in (("broken", 4), ("broken", -1), ("an illegal name", 0)):
            with pytest.raises(ProducerSendError):
                await sender.send_and_wait(topic, b"", b"", partition, None, None)
        # Others in the same batch are not affected, nor is a commit: somebody has looked.
        bad = await sender.send("broken", b"", b"", 0, None, None)
        good = await sender.send("broken", b"", b"", 1, None, None)
        assert (await good).partition == 1
        with pytest.raises(ProducerSendError):
            await bad
        await sender.flush_or_fail()

    run(new_app(server), scenario)


def test_a_commit_learns_of_a_lost_change_of_a_table(server: EmbeddedServer, client: redis.Redis) -> None:
    client.set("t:broken:0", "not a stream")
    app = new_app(server)
    topic = app.topic("broken", **RAW)

    async def scenario(sender: Producer) -> None:
        topic.send_soon(key=b"", value=b"", partition=1)
        await sender.flush_or_fail()
        assert client.xlen("t:broken:1") == 1
        topic.send_soon(key=b"", value=b"", partition=0)
        with pytest.raises(ProducerSendError, match="a message was lost"):
            await sender.flush_or_fail()

    run(app, scenario)


def test_what_is_sent_before_the_producer_runs_waits(server: EmbeddedServer, client: redis.Redis) -> None:
    app = new_app(server)
    topic = app.topic("early", **RAW)

    async def main() -> None:
        with pytest.raises(NotReady):
            await app.producer.send("early", b"", b"", None, None, None)
        topic.send_soon(key=b"", value=b"1", partition=0)
        async with producing(app) as sender:
            await sender.flush_or_fail()
            assert values(client, "t:early:0") == [b"1"]

    asyncio.run(main())


def test_a_script_cache_that_is_flushed_loses_nothing(server: EmbeddedServer, client: redis.Redis) -> None:
    declare(client, "table", TopicConfig(1, compact=True))

    async def scenario(sender: Producer) -> None:
        for number in range(5):
            await sender.send_and_wait("table", b"%d" % number, b"", None, None, None)
            client.script_flush()

    run(new_app(server), scenario)
    assert client.xlen("t:table:0") == 5


def test_an_outage_loses_nothing_and_blocks_the_sender(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PENDING_MESSAGES", 500)
    with EmbeddedServer(short_tmp, appendonly=True) as server:
        client = redis.Redis.from_url(server.url, protocol=2)
        declare(client, "alarms", TopicConfig(1))

        async def scenario(sender: Producer) -> None:
            await sender.send_and_wait("alarms", b"", b"-1", None, None, None)
            server.stop()
            sent = 0

            async def send_all() -> None:
                nonlocal sent
                for number in range(2000):
                    await sender.send(
                        "alarms", b"", b"%d" % number, None, None, [("idempotency-key", b"%d" % number)]
                    )
                    sent = number + 1

            task = asyncio.create_task(send_all())
            # It blocks at what may wait, and what is on its way.
            _, blocked = await asyncio.wait([task], timeout=0.5)
            assert blocked
            assert sent >= 500
            assert sent <= 500 + outbox._BATCH_MESSAGES
            server.start()
            await task
            await sender.flush()

        run(new_app(server), scenario)
        assert values(client, "t:alarms:0") == [b"%d" % number for number in range(-1, 2000)]


def test_a_reply_that_was_lost_doubles_no_idempotent_message(
    server: EmbeddedServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(client, "alarms", TopicConfig(1))
    monkeypatch.setattr("stream.transport.client.SOCKET_TIMEOUT_S", 0.3)

    async def scenario(sender: Producer) -> None:
        await sender.send_and_wait("alarms", b"", b"0", None, None, [("idempotency-key", b"0")])
        # The server stands still; the producer gives up waiting for a reply and sends again; then the server
        # finds both.
        stop_the_clock(server, signal.SIGSTOP)
        waiting = await sender.send("alarms", b"", b"1", None, None, [("idempotency-key", b"1")])
        await asyncio.sleep(1.0)
        stop_the_clock(server, signal.SIGCONT)
        await waiting

    run(new_app(server), scenario)
    assert values(client, "t:alarms:0") == [b"0", b"1"]


def test_who_has_lost_a_partition_changes_no_table_and_tells_nothing(
    server: EmbeddedServer, client: redis.Redis
) -> None:
    app = new_app(server)
    table = app.Table("state", key_type=bytes, value_type=bytes, partitions=1)
    name = table.changelog_topic.get_topic_name()
    declare(client, name, TopicConfig(1, compact=True))
    declare(client, "alarms", TopicConfig(1))

    async def scenario(sender: Producer) -> None:
        for generation, value in ((5, b"mine"), (7, b"theirs"), (5, b"stale")):
            app.consumer_generation_id = generation
            client.set("t:group:test:assigned", max(generation, 7 if value == b"stale" else 0))
            await sender.send_and_wait(name, b"bed", value, 0, None, None)
            sent = await sender.send_and_wait("alarms", b"bed", value, 0, None, [("idempotency-key", value)])
            assert (sent.offset == FENCED_OFFSET) == (value == b"stale")
        await sender.flush_or_fail()
        # Who has the partition does not know that one was refused.
        assert sender.repeats == 0

    run(app, scenario)
    assert values(client, f"t:{name}:0") == [b"theirs"]
    assert values(client, "t:alarms:0") == [b"mine", b"theirs"]


def test_what_a_server_has_lost_is_published_again_before_anything_else(
    server: EmbeddedServer, client: redis.Redis
) -> None:
    declare(client, "findings", TopicConfig(1))
    declare(client, "alarms", TopicConfig(1))
    declare(client, "table", TopicConfig(1, compact=True))

    async def scenario(sender: Producer) -> None:
        async def send(number: int) -> None:
            value = b"%d" % number
            await sender.send_and_wait("findings", b"", value, None, None, None)
            await sender.send_and_wait("alarms", b"", value, None, None, [("idempotency-key", value)])
            await sender.send_and_wait("table", b"bed", value, None, None, None)

        for number in range(3):
            await send(number)
        # One that has kept some: all but the last ones, as a replica that is behind has.
        for stream in ("t:findings:0", "t:alarms:0"):
            first = client.xrange(stream, count=1)
            client.delete(stream)
            client.xadd(stream, first[0][1], id=first[0][0])
        client.delete("t:once:alarms:1", "t:once:alarms:2", "t:table:0", "t:table:0:index")
        client.client_kill_filter(_type="normal", skipme=True)
        await send(3)
        assert sender.repeats == 0

    run(new_app(server), scenario)
    wanted = [b"0", b"1", b"2", b"3"]
    assert values(client, "t:findings:0") == values(client, "t:alarms:0") == wanted
    assert values(client, "t:table:0") == [b"3"]


def test_nothing_is_published_again_where_nothing_was_lost(
    server: EmbeddedServer, client: redis.Redis
) -> None:
    async def scenario(sender: Producer) -> None:
        for number in range(3):
            client.client_kill_filter(_type="normal", skipme=True)
            await sender.send_and_wait("findings", b"", b"%d" % number, 0, None, None)

    run(new_app(server), scenario)
    assert values(client, "t:findings:0") == [b"0", b"1", b"2"]


def test_stopping_does_not_wait_for_a_dead_server(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "_STOP_GRACE_S", 0.3)
    app = new_app(server)

    async def main() -> None:
        async with producing(app) as sender:
            await sender.send_and_wait("topic", b"", b"", None, None, None)
            server.stop()
            lost = await sender.send("topic", b"", b"", None, None, None)
            app._stopped.set()
        with pytest.raises(ProducerSendError):
            await lost

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10


def test_a_new_stream_is_kept_where_the_server_s_clock_was_set_back(short_tmp: Path) -> None:
    clock = WallClock(short_tmp)
    if not clock.can_be_set:
        pytest.skip("no C compiler: the clock cannot be set")

    async def scenario(sender: Producer) -> None:
        await sender.send_and_wait("findings", b"", b"", 0, None, None)
        clock.set(-1200)
        until_it_follows(server.url, -1200)
        for number in range(300):
            await sender.send_and_wait("findings", b"", b"", 0, None, None)
            await sender.send_and_wait("findings", b"", b"%d" % number, 1, None, None)

    with clock.inside():
        server = EmbeddedServer(short_tmp / "server").start()
    try:
        with redis.Redis.from_url(server.url, protocol=2) as client:
            declare(client, "findings", TopicConfig(2, retention_ms=600_000))
            run(new_app(server), scenario)
            assert values(client, "t:findings:1") == [b"%d" % number for number in range(300)]
            assert client.xlen("t:findings:0") == 301
    finally:
        server.stop()
