"""Connections that say so when they have broken, and which errors of a server pass by themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit, urlunsplit

import redis.asyncio as redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

# Conditions that pass: the server is away, loads its data, is about to be replaced, has no memory until
# streams are trimmed, or came back without its script cache between the check for a script and the call.
_PASSING_ERRORS = (
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
    NoScriptError,
    ReadOnlyError,
    OutOfMemoryError,
)
# Of these redis-py has no class: the server's disk is full, or a replica that it must not be without is away;
# and of what makes it discard a transaction.
_PASSING_CODES = re.compile(r"\b(MISCONF|NOREPLICAS|OOM|READONLY) ")
# Subclasses of redis-py's ConnectionError, but no patience helps.
_LASTING_ERRORS = (AuthenticationError, AuthorizationError)

if TYPE_CHECKING:
    _Base = AbstractConnection
else:
    _Base = object


class _Frank(_Base):
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            # What uvloop raises, in place of an OSError, once the peer has reset the connection: redis-py
            # would not know that it may connect again.
            if "handler is closed" not in str(error):
                raise
            raise RedisConnectionError(f"the connection was reset: {error}") from error


class _Tcp(_Frank, Connection):
    pass


class _Tls(_Frank, SSLConnection):
    pass


class _Unix(_Frank, UnixDomainSocketConnection):
    pass


class _Asking(_Frank):
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            # Left to itself it would connect to the server that it had before, however often it is asked.
            await self.connect()  # type: ignore[no-untyped-call]
        await super().send_packed_command(command, check_health)


class _Managed(_Asking, SentinelManagedConnection):
    pass


class _ManagedTls(_Asking, SentinelManagedSSLConnection):
    pass


_FRANK = {
    Connection: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
    SentinelManagedConnection: _Managed,
    SentinelManagedSSLConnection: _ManagedTls,
}
_SENTINEL_PORT = 26379
# One that does not answer is passed over: there are others.
_ASK_S = 1.0


def client_of(url: str, **options: Any) -> redis.Redis:
    """Return a client as `redis.asyncio.Redis.from_url` does, of a server or of whichever Sentinels name.

    A connection that has broken is a `redis.exceptions.ConnectionError` of every command, under uvloop, too.

    Parameters
    ----------
    url : str
        With the query option ``sentinel=NAME`` host and port are those of a Sentinel, and the server is the
        one that it calls the primary of NAME; more Sentinels follow as ``sentinels=HOST:PORT,HOST:PORT``.
        User, password, database and TLS of the URL are the server's.
    **options
        Of the connections.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    named = "sentinel" in query
    client = _primary(parts, query, options) if named else redis.Redis.from_url(url, **options)
    pool = client.connection_pool
    pool.connection_class = _FRANK[pool.connection_class]
    return client


async def without_sentinels(url: str) -> str:
    """Return a URL of the server itself: of one that Sentinels name, as they name it now.

    Raises
    ------
    redis.exceptions.ConnectionError
        If no Sentinel answers, or none knows a primary of that name.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if "sentinel" not in query:
        return url
    async with _primary(parts, dict(query), {}) as client:
        pool: Any = client.connection_pool
        try:
            host, port = await pool.get_master_address()
        except MasterNotFoundError:
            # Its own text has every option of every Sentinel's connection.
            raise RedisConnectionError(f"no Sentinel names a primary of {query['sentinel'][0]!r}") from None
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()
    credentials, at, _ = parts.netloc.rpartition("@")
    query = {name: values for name, values in query.items() if name not in ("sentinel", "sentinels")}
    server = parts._replace(netloc=f"{credentials}{at}{host}:{port}", query=urlencode(query, doseq=True))
    return urlunsplit(server)


def _primary(parts: SplitResult, query: dict[str, list[str]], options: dict[str, Any]) -> redis.Redis:
    (name,) = query.pop("sentinel")
    others = query.pop("sentinels", [""])[0].split(",")
    addresses = [(parts.hostname or "localhost", parts.port or _SENTINEL_PORT)]
    for host, _, port in (other.partition(":") for other in others if other):
        addresses.append((host, int(port or _SENTINEL_PORT)))
    url = urlunsplit(parts._replace(query=urlencode(query, doseq=True)))
    of_server = {key: value for key, value in parse_url(url).items() if key not in ("host", "port")}
    # The pool of Sentinels has a way of its own to ask for TLS.
    of_server["ssl"] = of_server.pop("connection_class", None) is SSLConnection
    asking = {"socket_timeout": _ASK_S, "socket_connect_timeout": _ASK_S, "retry": Retry(NoBackoff(), 0)}
    sentinel: Any = Sentinel(addresses, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(name, **options, **of_server)
    return client


def passes(error: BaseException) -> bool:
    """Return whether a command that failed so may succeed later, unchanged."""
    if isinstance(error, ResponseError) and _PASSING_CODES.search(str(error)):
        return True
    return isinstance(error, _PASSING_ERRORS) and not isinstance(error, _LASTING_ERRORS)
