"""Connections that say so when they have broken, and which errors of a server pass by themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
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
# Of these redis-py has no class: the server's disk is full, or a replica that it must not be without is away.
_PASSING_CODES = re.compile(r"\b(MISCONF|NOREPLICAS) ")
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


_FRANK = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


def client_of(url: str, **options: Any) -> redis.Redis:
    """Return a client as `redis.asyncio.Redis.from_url` does.

    A connection that has broken is a `redis.exceptions.ConnectionError` of every command, under uvloop, too.
    """
    client: redis.Redis = redis.Redis.from_url(url, **options)
    pool = client.connection_pool
    pool.connection_class = _FRANK[pool.connection_class]
    return client


def passes(error: BaseException) -> bool:
    """Return whether a command that failed so may succeed later, unchanged."""
    if isinstance(error, ResponseError) and _PASSING_CODES.search(str(error)):
        return True
    return isinstance(error, _PASSING_ERRORS) and not isinstance(error, _LASTING_ERRORS)
