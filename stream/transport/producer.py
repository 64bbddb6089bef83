"""The producer: batches what is sent concurrently into pipelines, in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

import redis.asyncio as redis
from faust.exceptions import ImproperlyConfigured, NotReady, ProducerSendError
from faust.transport import base
from faust.types import TP, FutureMessage, HeadersArg, RecordMetadata
from mode import Seconds, Service, get_logger, want_seconds

from stream.transport.client import ServerClock, StoppedWaitingError, connect, patiently
from stream.transport.layout import (
    IDEMPOTENCY_HEADER,
    Message,
    TopicConfig,
    encode_message,
    group_key,
    once_key,
    partition_of,
    stream_key,
    trim_options,
)
from stream.transport.outbox import Outbox, Pending
from stream.transport.registry import default_config

if TYPE_CHECKING:
    from stream.transport.transport import Transport

logger = get_logger(__name__)

# Base Faust stops all processing at 100 messages that nobody waits for, and complains.
_BUFFERED = 4096
# Once the app stops, an unreachable server may hold it up for so long.
_STOP_GRACE_S = 10.0


class Producer(base.Producer):
    """Publish messages to Redis Streams."""

    transport: Transport
    logger = logger

    def __post_init__(self) -> None:
        self._client: redis.Redis | None = None
        self._connected = asyncio.Event()
        self._outbox: Outbox | None = None
        self._clock = ServerClock()
        # What was given to `send_soon` and has not been answered.
        self._sent_soon: set[asyncio.Future[RecordMetadata]] = set()
        # Why a message given to `send_soon` was lost: its sender does not look.
        self._lost: BaseException | None = None
        self._round_robin: dict[str, itertools.count[int]] = {}

    def create_threaded_producer(self) -> None:
        raise ImproperlyConfigured("producer_threaded is not supported by the Redis transport")

    async def on_start(self) -> None:
        """Connect, waiting for the server if need be."""
        # A table is written down for a whole ward at once.
        self.buffer.max_messages = _BUFFERED
        client = self._client = connect(self.transport.endpoint)
        self._outbox = Outbox(client, self._clock, self._gives_up_after)
        await patiently(self, "producer", lambda: self._clock.synchronise(client))
        self._connected.set()
        # Last, because it begins to send what has been waiting.
        await super().on_start()

    async def on_stop(self) -> None:
        """Send what is still waiting."""
        await self.flush()
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Close the connection, and tell the senders of what the server has not taken."""
        await super().on_shutdown()
        self._connected.clear()
        if self._outbox is not None:
            self._outbox.close()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _ensure_client(self) -> redis.Redis:
        if self._client is None:
            raise NotReady("Producer service not yet started")
        return self._client

    def _ensure_outbox(self) -> Outbox:
        if self._outbox is None:
            raise NotReady("Producer service not yet started")
        return self._outbox

    @Service.task
    async def _sender(self) -> None:
        await self._ensure_outbox().run()

    def _gives_up_after(self) -> float:
        timeout_s = self.request_timeout
        return min(timeout_s, _STOP_GRACE_S) if self.app.should_stop else timeout_s

    @property
    def repeats(self) -> int:
        """Messages with an ``idempotency-key`` header that the server had already.

        Their senders were given the metadata of the first.
        """
        return 0 if self._outbox is None else self._outbox.repeats

    # -- topics

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Seconds = 1000.0,
        retention: Seconds | None = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        ensure_created: bool = False,
    ) -> None:
        """Register a topic, unless it is; one that others have registered stays as it is.

        `replication`, `deleting` and `config` have no meaning here: replication is the server's.
        """
        if not self.app.conf.topic_allow_declare:
            self.log.warning("Topic creation disabled! Can't create topic %s", topic)
            return
        retention_ms = int(want_seconds(retention) * 1000) if retention else None
        await self._declare(topic, default_config(partitions, retention_ms, bool(compacting)))

    async def topic_config(self, topic: str) -> TopicConfig:
        """Return a topic's configuration, creating one that does not exist, as Kafka brokers do.

        Raises
        ------
        ProducerSendError
            If it does not exist and the setting ``topic_allow_declare`` is off.
        """
        known = self.transport.registry.get(topic)
        if known is not None:
            return known
        if self.app.conf.topic_allow_declare:
            return await self._declare(topic, default_config(self.app.conf.topic_partitions))
        client, registry = self._ensure_client(), self.transport.registry
        found = await patiently(self, f"topic {topic}", lambda: registry.find(client, topic))
        if found is None:
            raise ProducerSendError(f"there is no topic {topic!r}, and topic_allow_declare is off")
        return found

    async def _declare(self, topic: str, wanted: TopicConfig) -> TopicConfig:
        client, registry = self._ensure_client(), self.transport.registry
        return await patiently(self, f"topic {topic}", lambda: registry.declare(client, topic, wanted))

    def key_partition(self, topic: str, key: bytes) -> TP:
        """Return where a key's messages go.

        Raises
        ------
        NotReady
            If the topic has not been declared, subscribed to or sent to yet.
        """
        config = self.transport.registry.get(topic)
        if config is None:
            raise NotReady(f"the number of partitions of topic {topic!r} is not known yet")
        return TP(topic, self._partition(topic, config, key))

    def _partition(self, topic: str, config: TopicConfig, key: bytes | None) -> int:
        if self.partitioner is not None:
            everything = list(range(config.partitions))
            return self.partitioner(key, everything, everything)
        if key is None:
            return next(self._round_robin.setdefault(topic, itertools.count())) % config.partitions
        return partition_of(key, config.partitions)

    def supports_headers(self) -> bool:
        """Return True."""
        return True

    # -- sending

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Queue a message and return a future of its metadata. Blocks while too much is waiting.

        A message with the header ``idempotency-key`` is published once, however often it is sent within a
        day: repeats yield the metadata of the first. As a table's change, it is dropped if the partitions of
        this worker have been handed to others meanwhile: they come to it, too. Its offset is then
        `stream.transport.layout.FENCED_OFFSET`.
        """
        outbox = self._ensure_outbox()
        await self._connected.wait()
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
        self.app.on_produce_message.send(
            key=key, value=value, partition=partition, timestamp=timestamp, headers=pairs
        )
        answer: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        try:
            config = await self.topic_config(topic)
            message = await self._message(topic, config, key, value, partition, timestamp, pairs, answer)
        except (StoppedWaitingError, ProducerSendError, ValueError, TypeError) as error:
            # Faust's buffer dies of what is raised here, and takes everything else in it along.
            answer.set_exception(ProducerSendError(f"cannot send to {topic}: {error}"))
            return answer
        await outbox.put(message)
        return answer

    def _fence(self, topic: str, once: bytes | None) -> tuple[str, int] | None:
        # A worker that was stopped for a while, and does not know yet that others have its partitions, must
        # not put its old state over theirs, nor tell of what is theirs to tell by now.
        generation = self.app.consumer_generation_id
        if not generation or (once is None and topic not in self.app.tables.changelog_topics):
            return None
        return group_key(self.transport.endpoint.prefix, self.app.conf.id, "assigned"), generation

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Send a message and return when the server has it."""
        return await (await self.send(topic, key, value, partition, timestamp, headers))

    def send_soon(self, fut: FutureMessage) -> None:
        """Send a message from a function that cannot wait."""
        self._sent_soon.add(fut)
        fut.add_done_callback(self._on_sent_soon)
        super().send_soon(fut)

    def _on_sent_soon(self, message: asyncio.Future[RecordMetadata]) -> None:
        self._sent_soon.discard(message)
        if not message.cancelled() and (error := message.exception()) is not None:
            self._lost = error

    async def flush(self) -> None:
        """Return when everything that was given to the producer before has been answered.

        Base Faust flushes for a tenth of a second and goes on. Here a commit relies on it.
        """
        waiting = {*self._sent_soon, *(() if self._outbox is None else self._outbox.unanswered)}
        while waiting:
            before = len(waiting)
            _, waiting = await asyncio.wait(waiting, timeout=_STOP_GRACE_S)
            if len(waiting) == before and self.app.should_stop:
                self.log.error("stopping with %d messages that the server has not taken", before)
                self._lost = ProducerSendError(f"the server has not taken {before} messages")
                return

    async def flush_or_fail(self) -> None:
        """Flush, and raise if a message that nobody waited for was lost: a table's change, say.

        Raises
        ------
        ProducerSendError
        """
        await self.flush()
        if self._lost is not None:
            raise ProducerSendError(f"a message was lost: {self._lost}") from self._lost

    async def _message(
        self,
        topic: str,
        config: TopicConfig,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: list[tuple[str, bytes]],
        answer: asyncio.Future[RecordMetadata],
    ) -> Pending:
        if partition is None:
            partition = self._partition(topic, config, key)
        if not 0 <= partition < config.partitions:
            raise ValueError(f"no partition {partition} in {config.partitions}")
        if config.compact and key is None:
            raise ValueError("messages of a compacted topic need a key")
        stream, client = stream_key(self.transport.endpoint.prefix, topic, partition), self._ensure_client()
        newest_ms = 0
        if config.retention_ms is not None:
            newest_ms = await patiently(self, f"topic {topic}", lambda: self._clock.newest_ms(stream, client))
        time_ms = self._clock.now_ms() if timestamp is None else int(timestamp * 1000)
        fields = encode_message(Message(time_ms, key, value, headers))
        once = dict(headers).get(IDEMPOTENCY_HEADER)
        return Pending(
            TP(topic, partition),
            stream,
            config.compact,
            time_ms,
            key,
            value is None,
            [*trim_options(config, newest_ms), "*", *fields],
            None if once is None else once_key(self.transport.endpoint.prefix, topic, once),
            self._fence(topic, once),
            len(key or b"") + len(value or b""),
            answer,
        )
