"""What waits to be published: taken in order, sent in pipelines, repeated until the server has it.

Nothing here knows of Faust's services.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
from faust.exceptions import ProducerSendError
from faust.types import TP, RecordMetadata
from mode import get_logger
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from stream.transport import scripts
from stream.transport.client import ServerClock, backoff_s
from stream.transport.connection import passes
from stream.transport.ids import offset_of
from stream.transport.layout import FENCED_OFFSET

logger = get_logger(__name__)

# One pipeline: enough to hide the round trip, little enough to leave the server to others in between.
_BATCH_MESSAGES = 256
_BATCH_BYTES = 1 << 20
# What the server has taken is kept for so long, in case that it comes back without it: an append-only file
# that is synced each second lacks up to two after a power failure, a healthy replica less. No more than so
# many bytes are kept.
_KEPT_S = 5.0
# What has an idempotency key, such as an alarm, is little, and is there once: it is kept for as long as a
# replica may have stood still before somebody looks.
_KEPT_ONCE_S = 60.0
_KEPT_BYTES = 16 << 20
# What may wait while the server is away. `put` blocks beyond it, and with it whoever makes the messages.
_PENDING_MESSAGES = 10_000
_PENDING_BYTES = 64 << 20


@dataclass(slots=True)
class Pending:
    """A message that waits for the server."""

    tp: TP
    stream: str
    compact: bool
    time_ms: int
    key: bytes | None
    is_tombstone: bool
    args: list[bytes | str | int]
    """Of XADD, after the stream's key."""
    once: bytes | None
    """Redis key that remembers it, if it has an idempotency key."""
    fence: tuple[str, int] | None
    """Of what only the owner of a partition may write: Redis key of the generation that may, and our own."""
    size: int
    answer: asyncio.Future[RecordMetadata]

    def script_call(self) -> tuple[list[bytes | str], list[bytes | str | int]]:
        """Return keys and arguments of the script `scripts.PUBLISH`."""
        return scripts.publish_call(
            self.stream,
            self.args,
            key=self.key,
            compact=self.compact,
            is_tombstone=self.is_tombstone,
            once=self.once,
            fence=self.fence,
        )

    @property
    def by_script(self) -> bool:
        """Whether it takes the script to publish it."""
        return self.compact or self.once is not None


@dataclass(frozen=True, slots=True)
class _Kept:
    at_s: float
    offset: int
    message: Pending


class _Recent:
    # What the server has taken in the last seconds, in its order.

    def __init__(self, seconds: float) -> None:
        self.kept: deque[_Kept] = deque()
        self._seconds = seconds
        self._bytes = 0

    def add(self, message: Pending, offset: int) -> None:
        now_s = time.monotonic()
        self.kept.append(_Kept(now_s, offset, message))
        self._bytes += message.size
        while self.kept and (self.kept[0].at_s < now_s - self._seconds or self._bytes > _KEPT_BYTES):
            self._bytes -= self.kept.popleft().message.size


class Outbox:
    """A bounded queue of messages, and the loop that publishes them.

    A server may come back without the last of what it had taken: after a power failure, or because a replica
    has taken its place. Each new connection begins with a look at where the streams end, and what is missing
    there is published again, in its order and before anything else.

    Parameters
    ----------
    client : redis.asyncio.Redis
        For this alone. Must not repeat commands by itself.
    clock : ServerClock
        Kept right by the ids that come back.
    gives_up_after : callable
        Says for how long (s) to repeat, asked anew each time.

    Attributes
    ----------
    unanswered : set of asyncio.Future
        Of the messages that the server has not taken yet.
    repeats : int
        Messages with an idempotency key that the server had already.
    """

    def __init__(self, client: redis.Redis, clock: ServerClock, gives_up_after: Callable[[], float]) -> None:
        self.unanswered: set[asyncio.Future[RecordMetadata]] = set()
        self.repeats = 0
        self._client = client
        client.connection_pool.connection_kwargs["redis_connect_func"] = self._on_connect
        self._clock = clock
        self._gives_up_after = gives_up_after
        self._publish = client.register_script(scripts.PUBLISH)
        self._queue: deque[Pending] = deque()
        self._queue_bytes = 0
        self._recent = _Recent(_KEPT_S)
        self._recent_once = _Recent(_KEPT_ONCE_S)
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._is_closed = False

    async def put(self, message: Pending) -> None:
        """Take a message; its `answer` tells the rest. Blocks while too much is waiting."""
        while not self._is_closed and (
            len(self._queue) >= _PENDING_MESSAGES or self._queue_bytes >= _PENDING_BYTES
        ):
            self._room.clear()
            await self._room.wait()
        if self._is_closed:
            raise ProducerSendError("the producer was stopped")
        self._queue.append(message)
        self._queue_bytes += message.size
        self.unanswered.add(message.answer)
        message.answer.add_done_callback(self.unanswered.discard)
        self._more.set()

    def close(self) -> None:
        """Tell the senders of what the server has not taken, and take no more."""
        self._is_closed = True
        self._room.set()
        for answer in list(self.unanswered):
            if not answer.done():
                answer.set_exception(ProducerSendError("the producer was stopped"))

    async def run(self) -> None:
        """Publish what is put, for ever."""
        while True:
            while not self._queue:
                self._more.clear()
                await self._more.wait()
            batch: list[Pending] = []
            size = 0
            while self._queue and len(batch) < _BATCH_MESSAGES and size < _BATCH_BYTES:
                message = self._queue.popleft()
                batch.append(message)
                size += message.size
            self._queue_bytes -= size
            self._room.set()
            await self._deliver(batch)

    async def _deliver(self, batch: list[Pending]) -> None:
        # In order: nothing follows before the batch has been taken. Should a connection break, we cannot know
        # what was, and messages without an idempotency key may be there twice.
        began = time.monotonic()
        attempt = 0
        while batch:
            try:
                replies = await self._transmit(batch)
            except Exception as error:
                if not passes(error):
                    for message in batch:
                        self._fail(message, error)
                    return
                replies = [error] * len(batch)
            again: list[Pending] = []
            trouble: BaseException | None = None
            for message, reply in zip(batch, replies, strict=True):
                if not isinstance(reply, Exception):
                    self._succeed(message, reply)
                elif passes(reply) and time.monotonic() - began <= self._gives_up_after():
                    again.append(message)
                    trouble = reply
                else:
                    self._fail(message, reply)
            if trouble is not None:
                if attempt == 0:
                    logger.warning("%d messages wait for the Redis server: %s", len(again), trouble)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
            batch = again
        if attempt:
            logger.info("the Redis server is back (producer)")

    async def _transmit(self, batch: list[Pending]) -> list[Any]:
        # All or none: a server that is full may get room while it looks through the batch, and what it then
        # takes must not overtake what it has refused. A row is not there before what it tells of.
        async with self._client.pipeline(transaction=True) as pipeline:
            for message in batch:
                if message.by_script:
                    # A registered script: redis-py checks before each pipeline that the server has it.
                    keys, args = message.script_call()
                    await self._publish(keys=keys, args=args, client=pipeline)
                else:
                    pipeline.execute_command("XADD", message.stream, *message.args)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies

    def _succeed(self, message: Pending, reply: bytes | list[Any]) -> None:
        if isinstance(reply, list):
            stream_id, is_new = reply
            self.repeats += is_new == 0
            if is_new < 0:
                logger.warning("a message to %s is dropped: our partitions are others' by now", message.tp)
        else:
            stream_id, is_new = reply, 1
        if is_new > 0:
            self._clock.observe(message.stream, stream_id)
            (self._recent if message.once is None else self._recent_once).add(message, offset_of(stream_id))
        if not message.answer.done():
            message.answer.set_result(
                RecordMetadata(
                    message.tp.topic,
                    message.tp.partition,
                    message.tp,
                    offset_of(stream_id) if is_new >= 0 else FENCED_OFFSET,
                    message.time_ms / 1000,
                    0,
                )
            )

    async def _on_connect(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        # By time; a row not before the alarm that it knows of.
        kept = sorted([*self._recent_once.kept, *self._recent.kept], key=lambda one: one.at_s)
        streams = list(dict.fromkeys(one.message.stream for one in kept))
        infos = await _ask(connection, [("XINFO", "STREAM", stream) for stream in streams])
        ends = dict(zip(streams, map(_end, infos), strict=True))
        # Where a stream ends says nothing of a message with an idempotency key: others write there, too, and
        # may have come before us. The server knows which of those it has.
        again = [
            one.message
            for one in kept
            if one.message.once is not None or one.offset > ends[one.message.stream]
        ]
        lost = 0
        for reply in await _ask(connection, [_command(message) for message in again]):
            if isinstance(reply, Exception):
                # The connection is given up with it, and the next one looks again.
                raise reply
            lost += not isinstance(reply, list) or reply[1] > 0
        if lost:
            logger.warning("the Redis server had lost %d messages that it had taken: published again", lost)

    def _fail(self, message: Pending, error: BaseException) -> None:
        if not message.answer.done():
            problem = ProducerSendError(f"the server has not taken a message to {message.tp.topic}: {error}")
            problem.__cause__ = error
            message.answer.set_exception(problem)


async def _ask(connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    # On the connection itself, which nobody else has yet.
    if not commands:
        return []
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def _end(info: Any) -> int:
    # Offset of the newest message that a stream has ever had; of one that is not there, before any.
    if isinstance(info, Exception):
        if "no such key" not in str(info):
            raise info
        return -1
    return offset_of(dict(zip(info[::2], info[1::2], strict=True))[b"last-generated-id"])


def _command(message: Pending) -> tuple[Any, ...]:
    if message.by_script:
        keys, args = message.script_call()
        return ("EVAL", scripts.PUBLISH, len(keys), *keys, *args)
    return ("XADD", message.stream, *message.args)
