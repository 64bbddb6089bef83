"""Publishing and following topics over Redis Streams, without Faust.

What ingest, the live page and the command line use. The worker reads the same streams through
`stream.transport`; `stream.transport.layout` says how a message lies in Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream.clock import Clock, SystemClock
from stream.masking import without_credentials
from stream.topics import DEFAULT_PREFIX, TOPICS
from stream.transport.connection import client_of
from stream.transport.ids import offset_of, time_of
from stream.transport.layout import (
    IDEMPOTENCY_HEADER,
    Message,
    TopicConfig,
    encode_message,
    once_key,
    partition_of,
    registry_key,
    stream_key,
    trim_options,
)
from stream.transport.scripts import PUBLISH, publish_call

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_RETRY_S = 1.0
# A blocked read longer than the socket timeout looks like a dead server to redis-py and stalls for a
# minute of retries: keep BLOCK at a second, and the socket timeout well above it.
_BLOCK_MS = 1000
_SOCKET_TIMEOUT_S = 10.0
_PROBE_TIMEOUT_S = 5.0
# About 20 s in all (0.05 doubling to 1 s): a server that restarts is back well before.
_RETRIES = 25
# An as-fast-as-possible replay must not be trimmed by time: its ten minutes may hold a day of signal.
# 20 000 chunks of 12 leads are about 50 MB a partition.
_UNPACED_MAXLEN = 20_000


class BusUnavailableError(ConnectionError):
    """The Redis server cannot be reached or refuses us; the text says which server and why."""


async def until_answered(what: str, work: Callable[[], Awaitable[_T]]) -> _T:
    """Do something with the server as often as it takes: one that is away, or full, is waited for.

    Parameters
    ----------
    what : str
        What cannot be done meanwhile, for the log.
    work : callable
        It may be done more than once.
    """
    while True:
        try:
            return await work()
        except (RedisError, OSError) as error:
            log.warning("%s, trying again: %s", what, error)
            heed_cancellation()
            await asyncio.sleep(_RETRY_S)


def heed_cancellation() -> None:
    """Be cancelled now if one was lost: redis-py (8.1.0) loses one that comes while it connects.

    For loops that would go on for ever otherwise.

    Raises
    ------
    asyncio.CancelledError
    """
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise asyncio.CancelledError


@dataclass(frozen=True, slots=True)
class Entry:
    """One message as read from a topic."""

    topic: str
    partition: int
    id: str
    """Redis stream id, ``<ms>-<n>``."""
    key: bytes
    value: bytes

    @property
    def time_ms(self) -> int:
        """When the server took the message, ms since the epoch."""
        return int(self.id.partition("-")[0])


def open_client(
    url: str,
    *,
    retries: int = _RETRIES,
    socket_timeout_s: float = _SOCKET_TIMEOUT_S,
    on_connect: Callable[[], None] | None = None,
) -> redis.Redis:
    """Return a client with the timeouts and retries that streams need (see the module's constants).

    Parameters
    ----------
    url : str
    retries : int
    socket_timeout_s : float
    on_connect : callable, optional
        Called for each connection that is made: one that broke while nobody used it is replaced in silence.
    """
    hooks: dict[str, Any] = {}
    if on_connect is not None:

        async def connected(connection: redis.Connection) -> None:
            await connection.on_connect()
            on_connect()

        hooks["redis_connect_func"] = connected
    retry: Retry = Retry(ExponentialBackoff(cap=1.0, base=0.05), retries)
    # A unix socket has no keepalive, and redis-py refuses the option there.
    keepalive: dict[str, Any] = {} if url.startswith("unix") else {"socket_keepalive": True}
    return client_of(
        url,
        protocol=2,
        socket_timeout=socket_timeout_s,
        socket_connect_timeout=socket_timeout_s,
        **keepalive,
        **hooks,
        retry=retry,
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )


class Bus:
    """A connection to the topics of one deployment.

    Examples
    --------
    >>> async with await Bus.connect("redis://localhost") as bus:  # doctest: +SKIP
    ...     await bus.publish("alarms", b"bed-1", event.encode())
    ...     async for entry in bus.tail("alarms", after="0"):
    ...         print(AlarmEvent.decode(entry.value))
    """

    def __init__(
        self, client: redis.Redis, *, prefix: str = DEFAULT_PREFIX, clock: Clock | None = None
    ) -> None:
        self.client = client
        self.prefix = prefix
        self._clock = clock or SystemClock()
        self._topics: dict[str, TopicConfig] = {}
        # What the server's clock shows more than ours: retention by time counts in the server's time.
        self._server_ahead_ms = 0
        # Time of the newest entry that we know of each stream: its age counts from there. A server whose
        # clock was set back gives the entries of a new stream times long past, and an old one's go on.
        self._newest_ms: dict[str, int] = {}
        self._publish_once = client.register_script(PUBLISH)

    @classmethod
    async def connect(cls, url: str, *, prefix: str = DEFAULT_PREFIX, clock: Clock | None = None) -> Self:
        """Open a connection and check that the server answers.

        Raises
        ------
        BusUnavailableError
            If it does not. The first attempt is not repeated: a wrong URL should say so at once.
        """
        try:
            probe = client_of(
                url,
                protocol=2,
                socket_timeout=_PROBE_TIMEOUT_S,
                socket_connect_timeout=_PROBE_TIMEOUT_S,
                retry=Retry(ExponentialBackoff(), 0),
            )
            async with probe:
                await probe.ping()
        except (RedisError, OSError, ValueError) as error:
            why = f"cannot use the Redis server at {url}: {error}"
            raise BusUnavailableError(without_credentials(why)) from error
        bus = cls(open_client(url), prefix=prefix, clock=clock)
        await bus._synchronise()
        return bus

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.client.aclose()

    async def _synchronise(self) -> None:
        seconds, microseconds = await self.client.time()
        self._server_ahead_ms = seconds * 1000 + microseconds // 1000 - self._clock.now_ns() // 1_000_000

    async def declare(self, topic: str, config: TopicConfig | None = None) -> TopicConfig:
        """Return a topic's configuration, registering it (default: as in `stream.topics`) if it is new."""
        if topic not in self._topics:
            key, wanted = registry_key(self.prefix), config or TOPICS[topic]
            registered = await self.client.hget(key, topic)
            if registered is None:
                try:
                    await self.client.hsetnx(key, topic, wanted.to_json())
                except NoPermissionError:
                    # Who may only read takes a topic as whoever writes to it will make it.
                    return wanted
                registered = await self.client.hget(key, topic)
            self._topics[topic] = TopicConfig.from_json(registered) if registered else wanted
        return self._topics[topic]

    async def topics(self) -> dict[str, TopicConfig]:
        """Return the topics that are registered."""
        entries: Any = await self.client.hgetall(registry_key(self.prefix))
        return {name.decode(): TopicConfig.from_json(config) for name, config in entries.items()}

    async def declare_all(self) -> None:
        """Register every topic of `stream.topics` that is new."""
        for topic in TOPICS:
            await self.declare(topic)

    async def publish(self, topic: str, key: bytes, value: bytes) -> str:
        """Append a message and return its stream id once the server has it."""
        return (await self.publish_many(topic, [(key, value)]))[0]

    async def publish_many(
        self, topic: str, messages: Iterable[tuple[bytes, bytes]], *, paced: bool = True
    ) -> list[str]:
        """Append messages in one round trip, in order, all of them or none.

        Parameters
        ----------
        topic : str
        messages : iterable of (key, value)
        paced : bool
            False for messages that come faster than real time: the topic is then trimmed by count.

        Returns
        -------
        list of str
            Stream ids, in the order of `messages`.
        """
        now_ms = self._now_ms()
        return await self.hand_on(
            topic, [Message(now_ms, key, value, []) for key, value in messages], paced=paced
        )

    async def hand_on(self, topic: str, messages: Iterable[Message], *, paced: bool = True) -> list[str]:
        """Append messages of another broker: see `publish_many`, with their own times, and headers.

        One that has an ``idempotency-key`` among them is on the stream once, however often it is handed on.
        """
        config = await self.declare(topic)
        if config.retention_ms is not None and not paced:
            config = TopicConfig(config.partitions, maxlen=_UNPACED_MAXLEN)
        messages = list(messages)
        streams = [
            stream_key(self.prefix, topic, partition_of(message.key or b"", config.partitions))
            for message in messages
        ]
        if new := set(streams) - self._newest_ms.keys():
            await self._synchronise()
            self._newest_ms |= dict.fromkeys(new, self._now_ms())
        # All or none: of what a server that is full takes in part, a repeat would come out of order.
        pipeline = self.client.pipeline(transaction=True)
        for stream, message in zip(streams, messages, strict=True):
            limits = trim_options(config, self._newest_ms[stream])
            fields = encode_message(message)
            once = dict(message.headers).get(IDEMPOTENCY_HEADER)
            if once is None:
                pipeline.execute_command("XADD", stream, *limits, "*", *fields)
                continue
            keys, args = publish_call(
                stream, [*limits, "*", *fields], once=once_key(self.prefix, topic, once)
            )
            await self._publish_once(keys=keys, args=args, client=pipeline)
        replies = await pipeline.execute()
        ids = [(reply[0] if isinstance(reply, list) else reply).decode() for reply in replies]
        self._newest_ms |= {stream: time_of(offset_of(one)) for stream, one in zip(streams, ids, strict=True)}
        return ids

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000 + self._server_ahead_ms

    async def tail(
        self, *topics: str, after: str = "$", positions: Mapping[str, str] | None = None
    ) -> AsyncIterator[Entry]:
        """Follow topics for ever, in stream order within each partition.

        Parameters
        ----------
        *topics : str
        after : str
            ``"$"`` for what comes from now on, ``"0"`` for everything kept, or a stream id.
        positions : mapping of str to str, optional
            Last seen id by stream key, for going on where an earlier call stopped; goes before `after`.

        Yields
        ------
        Entry
        """
        streams: dict[str, tuple[str, int]] = {}
        for topic in topics:
            for partition in range((await self.declare(topic)).partitions):
                streams[stream_key(self.prefix, topic, partition)] = (topic, partition)
        at: dict[str, str] = {}
        for key in streams:
            start = (positions or {}).get(key, after)
            # Redis resolves "$" anew in each call; resolve it once, so that nothing is missed in between.
            at[key] = await self.last_id(key) if start == "$" else start
        while True:
            reply: Any = await self.client.xread(dict[Any, Any](at), count=256, block=_BLOCK_MS)
            heed_cancellation()
            for raw_key, entries in reply or ():
                key = raw_key.decode()
                topic, partition = streams[key]
                for raw_id, fields in entries:
                    at[key] = raw_id.decode()
                    yield Entry(topic, partition, at[key], fields.get(b"k", b""), fields.get(b"v", b""))

    async def last_id(self, key: str) -> str:
        """Return the newest id of a stream, ``"0-0"`` for one that does not exist."""
        if not await self.client.exists(key):
            return "0-0"
        info = await self.client.xinfo_stream(key)
        newest = info["last-generated-id"]
        return newest.decode() if isinstance(newest, bytes) else str(newest)

    async def kept(self, topic: str, after: str = "0") -> AsyncIterator[Entry]:
        """Yield what a topic holds now, oldest first in each partition, after a stream id."""
        for partition in range((await self.declare(topic)).partitions):
            key = stream_key(self.prefix, topic, partition)
            at = after
            while True:
                rows: Any = await self.client.xrange(key, min=f"({at}", max="+", count=256)
                if not rows:
                    break
                for entry_id, fields in rows:
                    at = entry_id.decode()
                    yield Entry(topic, partition, at, fields.get(b"k", b""), fields.get(b"v", b""))

    async def recent(self, topic: str, partition: int, before: str, count: int) -> list[Entry]:
        """Return up to `count` messages of a partition before a stream id, newest first."""
        key = stream_key(self.prefix, topic, partition)
        rows: Any = await self.client.xrevrange(key, max=f"({before}", min="-", count=count)
        return [Entry(topic, partition, i.decode(), f.get(b"k", b""), f.get(b"v", b"")) for i, f in rows]


def on_first_use(url: str, *, prefix: str, clock: Clock | None = None) -> Callable[[], Awaitable[Bus]]:
    """Return a function that returns one connection, which its first call opens; see `Bus.connect`."""
    opened: list[Bus] = []

    async def get() -> Bus:
        if not opened:
            opened.append(await Bus.connect(url, prefix=prefix, clock=clock))
        return opened[0]

    return get
