"""Connections to Redis, with the timeouts that streams need, and patience while the server is away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import redis.asyncio as redis
from faust.exceptions import ImproperlyConfigured
from faust.types import AppT
from mode import get_logger
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from yarl import URL

from stream.transport.connection import client_of, passes
from stream.transport.ids import offset_of, time_of

logger = get_logger(__name__)
T = TypeVar("T")

DEFAULT_PREFIX = "faust:"

# A server that does not answer for so long is taken for dead: longer than it pauses to fork or to sync its
# disk, and much longer than the longest BLOCK, for which the same limit counts.
SOCKET_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0

# Reconnect quickly after a restart, and do not flood a server that is down.
_BACKOFF_BASE_S = 0.02
_BACKOFF_CAP_S = 1.0


class StoppedWaitingError(Exception):
    """The service was stopped while it waited for the server."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is, and the prefix of all our keys."""

    url: str
    prefix: str

    @classmethod
    def parse(cls, url: URL) -> Endpoint:
        """Read a broker URL; the query option ``prefix`` is ours, all others go to redis-py.

        Raises
        ------
        ImproperlyConfigured
            If the scheme is not ``redis``, ``rediss`` or ``unix``.
        """
        if url.scheme not in {"redis", "rediss", "unix"}:
            raise ImproperlyConfigured(f"not a Redis URL: {url}")
        prefix = url.query.get("prefix", DEFAULT_PREFIX)
        rest = str(url.with_query([(name, value) for name, value in url.query.items() if name != "prefix"]))
        # yarl drops an empty authority, which redis-py insists on.
        return cls(f"{url.scheme}://" + rest.removeprefix(f"{url.scheme}:").removeprefix("//"), prefix)


def connect(endpoint: Endpoint) -> redis.Redis:
    """Return a client that opens its connections as needed and never repeats a command by itself."""
    options: dict[str, bool] = {} if endpoint.url.startswith("unix") else {"socket_keepalive": True}
    return client_of(
        endpoint.url,
        protocol=2,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        # redis-py's own retries would apply a pipeline twice without our knowing, and wait silently.
        retry=Retry(NoBackoff(), 0),
        **options,
    )


def backoff_s(attempt: int) -> float:
    """Return how long to wait before a repeat, with jitter; attempts count from 0."""
    return float(min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0))


class AppService(Protocol):
    """A service of a Faust app."""

    app: AppT

    @property
    def should_stop(self) -> bool: ...


async def patiently(service: AppService, what: str, call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call until the server answers.

    For calls that may be repeated. An outage is logged when it begins and when it ends.

    Raises
    ------
    StoppedWaitingError
        If the server is away and the service, or its app, is being stopped.
    """
    attempt = 0
    while True:
        try:
            result = await call()
        except Exception as error:
            if not passes(error):
                raise
            if service.should_stop or service.app.should_stop:
                raise StoppedWaitingError(what) from error
            if attempt == 0:
                logger.warning("waiting for the Redis server (%s): %s", what, error)
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1
        else:
            if attempt:
                logger.info("the Redis server is back (%s)", what)
            return result


class ServerClock:
    """The server's clock, read off the ids it hands out, carried on by our monotonic clock.

    Trimming by age must count in the server's time: a host whose clock is ahead would trim too much. And in
    each stream from its own newest entry: a server whose clock was set back gives the entries of a new stream
    times long past, while those of an old one go on where they were.
    """

    def __init__(self) -> None:
        self._ahead_ms: int | None = None
        self._newest_ms: dict[str, int] = {}

    async def synchronise(self, client: redis.Redis) -> None:
        seconds, microseconds = await client.time()
        self._set(seconds * 1000 + microseconds // 1000)

    def observe(self, stream: str, stream_id: str | bytes) -> None:
        """Take note of an id that the server has just made."""
        self._newest_ms[stream] = time_of(offset_of(stream_id))
        self._set(self._newest_ms[stream])

    async def newest_ms(self, stream: str, client: redis.Redis) -> int:
        """Return the time of the newest entry that we know of a stream; of a new one, the time now."""
        if stream not in self._newest_ms:
            await self.synchronise(client)
            self._newest_ms[stream] = self.now_ms()
        return self._newest_ms[stream]

    def now_ms(self) -> int:
        assert self._ahead_ms is not None, "synchronise first"
        return self._ahead_ms + time.monotonic_ns() // 1_000_000

    def _set(self, server_ms: int) -> None:
        self._ahead_ms = server_ms - time.monotonic_ns() // 1_000_000
