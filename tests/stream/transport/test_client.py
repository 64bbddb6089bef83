from __future__ import annotations

import asyncio

import faust
import pytest
import uvloop
from faust.exceptions import ImproperlyConfigured
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from yarl import URL

from stream.embedded import EmbeddedServer
from stream.transport import client, reader
from stream.transport.client import Endpoint, ServerClock, StoppedWaitingError, connect, patiently
from stream.transport.connection import passes


@pytest.mark.parametrize(
    ("broker", "url", "prefix"),
    [
        ("redis://", "redis://", "faust:"),
        ("redis://host:6380/2?prefix=ward:", "redis://host:6380/2", "ward:"),
        ("rediss://u:p%40@host?prefix=ward%3A", "rediss://u:p%40@host", "ward:"),
        ("unix:///run/s.sock?prefix=ward:&db=3", "unix:///run/s.sock?db=3", "ward:"),
        ("unix:///run/s.sock?prefix=", "unix:///run/s.sock", ""),
    ],
)
def test_broker_urls(broker: str, url: str, prefix: str) -> None:
    endpoint = Endpoint.parse(URL(broker))
    assert endpoint == Endpoint(url, prefix)
    connect(endpoint)


def test_a_url_of_something_else_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="not a Redis URL"):
        Endpoint.parse(URL("kafka://host"))


def test_what_passes_and_what_does_not() -> None:
    assert all(map(passes, [RedisConnectionError(), BusyLoadingError(), ReadOnlyError(), OSError()]))
    full = "MISCONF Errors writing to the AOF file: No space left on device"
    assert passes(ResponseError(full))
    # As redis-py tells it of a pipeline.
    assert passes(ResponseError(f"Command # 1 (XADD a) of pipeline caused error: {full}"))
    assert passes(ExecAbortError("Transaction discarded because of: OOM command not allowed"))
    assert not any(map(passes, [AuthenticationError(), ResponseError("ERR no"), ValueError()]))


def test_no_read_blocks_for_as_long_as_a_dead_server() -> None:
    # redis-py takes a read that is blocked for longer than the socket timeout for a dead server.
    assert reader.BLOCK_MS / 1000 + 5 <= client.SOCKET_TIMEOUT_S


def test_a_connection_that_was_reset_is_one_that_passes(redis_server_module: EmbeddedServer) -> None:
    # Under uvloop, as workers run: it has an error of its own for what the peer has reset.
    async def main() -> None:
        async with connect(Endpoint(redis_server_module.url, "")) as one:
            connection = one.connection_pool.make_connection()
            await connection.connect()
            connection._writer.transport.abort()
            await asyncio.sleep(0.01)
            with pytest.raises(RedisConnectionError, match="was reset") as caught:
                await connection.send_command("PING")
            assert passes(caught.value)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_patience_ends_with_the_service(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RedisConnectionError("gone")
        return "answer"

    async def broken() -> None:
        raise RedisConnectionError("gone")

    async def wrong() -> None:
        raise AuthenticationError("wrong password")

    async def main() -> None:
        app = faust.App("test", broker="redis://")
        for stopped in (app.producer, app):
            service = app.producer
            assert await patiently(service, "asking", call) == "answer"
            with pytest.raises(AuthenticationError):
                await patiently(service, "asking", wrong)
            waiting = asyncio.create_task(patiently(service, "asking", broken))
            await asyncio.sleep(0)
            stopped._stopped.set()
            with pytest.raises(StoppedWaitingError):
                await waiting
            stopped._stopped.clear()

    asyncio.run(main())
    assert "waiting for the Redis server (asking): gone" in caplog.text


def test_the_clock_is_the_servers(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        clock = ServerClock()
        async with connect(Endpoint.parse(URL(redis_server.url))) as redis:
            await clock.synchronise(redis)
            seconds, microseconds = await redis.time()
            assert abs(clock.now_ms() - (seconds * 1000 + microseconds // 1000)) < 1000
            # A server whose clock is elsewhere is followed.
            clock.observe("t:a:0", b"5000-3")
            assert 5000 <= clock.now_ms() < 6000

    asyncio.run(main())
