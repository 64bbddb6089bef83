"""Between a Kafka cluster and the Redis server of a deployment, in both directions.

Displays, subscribers, the recorder and the command line know Redis only. What workers publish on Kafka, and
the samples, are handed on to the streams of the same names there; commands go the other way.

At least once: a position is committed when the other side has the message. An alarm event is on the Redis
stream once all the same, by its key; whoever reads chunks and findings drops repeats anyway.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import (  # type: ignore[import-untyped]
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    TopicPartition,
)
from aiokafka.errors import CommitFailedError, KafkaError  # type: ignore[import-untyped]
from redis.exceptions import RedisError

from stream import heartbeat
from stream.bus import Bus, Entry, until_answered
from stream.contract import MalformedMessageError, SampleChunk
from stream.kafka.access import access_of
from stream.kafka.broker import ASKED_MS
from stream.kafka.topics import (
    BRIDGE_GROUP,
    HANDED_ON,
    HEARTBEATS,
    SESSION_S,
    find_topics,
    topic_name,
)
from stream.topics import ALARMS, COMMANDS, SAMPLES
from stream.transport.layout import Message, partition_of, stream_key

log = logging.getLogger(__name__)

# As a worker's: what another bridge does again, and for how long nobody does it, after a crash.
_COMMIT_S = 0.5
_HEARTBEAT_MS = 1_000
# The longest wait where nothing comes, so that a commit is not late.
_POLL_MS = 200
# One pipeline to Redis: 3 MB of samples.
_TOGETHER = 1_000
_RETRY_S = 1.0


class Bridge:
    """Hands messages on; run several, and they share the partitions.

    Parameters
    ----------
    url : str
        See `stream.kafka.access`.
    bus : Bus
        Connection to the Redis server.
    on_ready : callable, optional
        Called when it has its first partitions.
    """

    def __init__(self, url: str, bus: Bus, *, on_ready: Callable[[], None] | None = None) -> None:
        self._url = url
        self._bus = bus
        self._on_ready = on_ready
        self._topics = {topic_name(bus.prefix, topic): topic for topic in HANDED_ON}

    async def run(self) -> None:
        """Hand on until cancelled. Servers that go away are waited for.

        Raises
        ------
        BrokerError
            If the cluster does not answer at the start, or lacks a topic.
        """
        partitions = (await find_topics(self._url, self._bus.prefix))[COMMANDS]
        access = access_of(self._url).client_options
        producer = AIOKafkaProducer(**access, acks="all")
        consumer = AIOKafkaConsumer(
            **access,
            group_id=topic_name(self._bus.prefix, BRIDGE_GROUP),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=round(SESSION_S * 1000),
            heartbeat_interval_ms=_HEARTBEAT_MS,
        )
        forwarding = _Forwarding(self._bus, producer, partitions, self._on_ready)
        consumer.subscribe(list(self._topics), listener=forwarding)
        try:
            await producer.start()
            await consumer.start()
            await self._hand_on_forever(consumer)
        finally:
            await forwarding.stop()
            await consumer.stop()
            await producer.stop()

    async def _hand_on_forever(self, consumer: AIOKafkaConsumer) -> None:
        loop = asyncio.get_running_loop()
        uncommitted, commit_at = False, 0.0
        while True:
            batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_TOGETHER)
            for tp, records in batches.items():
                topic = self._topics[tp.topic]
                await until_answered(f"cannot hand on {topic}", partial(self._hand_on, topic, records))
            uncommitted |= bool(batches)
            if uncommitted and loop.time() >= commit_at:
                uncommitted, commit_at = False, loop.time() + _COMMIT_S
                try:
                    await consumer.commit()
                except CommitFailedError:
                    log.info("another bridge has these partitions now, and hands on the last messages again")
                except KafkaError as error:
                    log.warning("cannot commit, trying again: %s", error)
                    uncommitted = True

    async def _hand_on(self, topic: str, records: Sequence[ConsumerRecord]) -> None:
        if topic == HEARTBEATS:
            for record in records:
                await self._beat(record.key.decode(), record.value)
            return
        messages = [Message(r.timestamp, r.key, r.value, list(r.headers)) for r in records]
        if topic != SAMPLES:
            await self._bus.hand_on(topic, messages)
            return
        # What is faster than real time must be kept by count there.
        paced = [_is_paced(message.value) for message in messages]
        for wanted in (True, False):
            some = [message for message, one in zip(messages, paced, strict=True) if one is wanted]
            if some:
                await self._bus.hand_on(topic, some, paced=wanted)

    async def _beat(self, name: str, status: bytes | None) -> None:
        client, prefix = self._bus.client, self._bus.prefix
        if status is None:
            await heartbeat.leave(client, prefix, name)
        else:
            await heartbeat.beat(client, prefix, name, json.loads(status))


def _is_paced(value: bytes | None) -> bool:
    try:
        return 0 < SampleChunk.decode(value or b"").header.pace <= 1
    except MalformedMessageError:
        # The worker says what is wrong with it.
        return True


class _Forwarding(ConsumerRebalanceListener):  # type: ignore[misc]
    # Commands go from Redis to Kafka through one bridge: that which holds the one partition of the alarms.

    def __init__(
        self, bus: Bus, producer: AIOKafkaProducer, partitions: int, on_ready: Callable[[], None] | None
    ) -> None:
        self._bus = bus
        self._producer = producer
        self._partitions = partitions
        self._on_ready = on_ready
        self._commands = topic_name(bus.prefix, COMMANDS)
        self._ours = TopicPartition(topic_name(bus.prefix, ALARMS), 0)
        self._positions = f"{bus.prefix}bridge:commands"
        self._task: asyncio.Task[None] | None = None

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self.stop()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if self._ours in assigned:
            self._task = asyncio.create_task(self._forward_forever())
        if self._on_ready is not None:
            self._on_ready()
            self._on_ready = None

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _forward_forever(self) -> None:
        while True:
            try:
                positions: Any = await self._bus.client.hgetall(self._positions)
                at = {key.decode(): position.decode() for key, position in positions.items()}
                # The first bridge of all finds commands that have expired meanwhile: they are refused.
                async for entry in self._bus.tail(COMMANDS, after="0", positions=at):
                    await self._forward(entry)
            except (RedisError, KafkaError, OSError) as error:
                log.warning("cannot forward commands, trying again: %s", error)
            await asyncio.sleep(_RETRY_S)

    async def _forward(self, entry: Entry) -> None:
        await self._producer.send_and_wait(
            self._commands,
            entry.value,
            key=entry.key,
            partition=partition_of(entry.key, self._partitions),
            headers=[(ASKED_MS, str(entry.time_ms).encode())],
        )
        key = stream_key(self._bus.prefix, entry.topic, entry.partition)
        await self._bus.client.hset(self._positions, key, entry.id)
