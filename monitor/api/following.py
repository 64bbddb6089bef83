"""Alarms as they come: ``GET /api/alarms/stream`` (Server-Sent Events) and ``/api/alarms/ws`` (WebSocket).

Each follower has a subscription of its own, which reads only what the follower has taken: one that is slow is
dropped after a while, and goes on from its last position when it comes again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from redis.exceptions import RedisError
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from monitor.api.access import ApiHandler, RefusedError
from stream.bus import BusUnavailableError
from stream.subscription.follow import Alarm, Subscription, Wanted
from stream.subscription.positions import SinceError, after

log = logging.getLogger(__name__)

# More than displays and programs of one ward; each holds a connection to Redis.
_FOLLOWERS = 64
# Several within the ten seconds after which a client may take the service for dead.
_HEARTBEAT_S = 3.0
# A follower that has not taken what it was sent within this is dropped.
_SLOW_S = 10.0
# A browser comes again after so many ms.
_RETRY_MS = 1_000
_INTERNAL_ERROR = 1011


class _Following(ApiHandler):
    # What stream and socket have in common.
    _filter: Wanted
    _since: str | None = None

    def prepare(self) -> None:
        super().prepare()
        self._filter = self.wanted()
        # A browser that comes again says so; the address is still that of its first visit.
        self._since = self.request.headers.get("Last-Event-ID") or self.get_query_argument("since", None)
        try:
            if self._since is not None:
                after(self._since, 0)
        except SinceError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        if self.access.followers >= _FOLLOWERS:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"{_FOLLOWERS} others follow already")

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[Subscription]:
        access = self.access
        access.followers += 1
        try:
            subscription = await Subscription.open(
                access.redis_url,
                prefix=access.prefix,
                since=self._since,
                wanted=self._filter,
                clock=access.clock,
            )
            async with subscription:
                yield subscription
        finally:
            access.followers -= 1

    async def follow(self, subscription: Subscription) -> AsyncIterator[Alarm | str]:
        # Transitions, and positions as signs of life in between.
        clock = self.access.clock
        said_ns = 0
        while True:
            for event in await subscription.next():
                yield event
                said_ns = clock.now_ns()
            if clock.now_ns() - said_ns >= _HEARTBEAT_S * 1e9:
                yield subscription.position
                said_ns = clock.now_ns()


def _stream(request: HTTPServerRequest) -> IOStream:
    assert isinstance(request.connection, HTTP1Connection)
    return request.connection.stream


async def _taken(sending: Awaitable[None]) -> None:
    # Raises TimeoutError if the follower does not take what it is sent.
    await asyncio.wait_for(asyncio.ensure_future(sending), _SLOW_S)


class AlarmStream(_Following):
    """Server-Sent Events: one message per transition, its id the position; and events ``heartbeat``."""

    _reading: asyncio.Task[Any] | None = None

    async def get(self) -> None:
        """Send transitions until the follower goes away."""
        self._reading = asyncio.current_task()
        try:
            async with self.subscription() as subscription:
                self.set_header("Content-Type", "text/event-stream")
                self.set_header("X-Accel-Buffering", "no")
                self.write(f"retry: {_RETRY_MS}\n\n")
                await _taken(self.flush())
                async for what in self.follow(subscription):
                    if isinstance(what, Alarm):
                        self.write(f"id: {what.position}\ndata: {what.model_dump_json()}\n\n")
                    else:
                        self.write(f'event: heartbeat\nid: {what}\ndata: {{"position": "{what}"}}\n\n')
                    await _taken(self.flush())
        except BusUnavailableError as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        except TimeoutError:
            log.warning("dropped a slow follower of the alarm stream")
            _stream(self.request).close()
        except StreamClosedError:
            pass
        except asyncio.CancelledError:
            if not self._gone():
                raise

    def on_connection_close(self) -> None:
        """Stop reading for a follower that has gone."""
        super().on_connection_close()
        if self._reading is not None:
            self._reading.cancel()

    def _gone(self) -> bool:
        return bool(_stream(self.request).closed())


class AlarmSocket(_Following, WebSocketHandler):
    """WebSocket: one text message per transition, JSON, and ``{"heartbeat": POSITION}`` in between."""

    _sending: asyncio.Task[None] | None = None

    def check_origin(self, origin: str) -> bool:
        """Take whom the gate has let in: it compares with the names of this server."""
        return True

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin to send."""
        self._sending = asyncio.create_task(self._send())

    def on_message(self, message: str | bytes) -> None:
        """Followers have nothing to say here."""

    def on_close(self) -> None:
        """Stop reading for a follower that has gone."""
        if self._sending is not None:
            self._sending.cancel()

    async def _send(self) -> None:
        try:
            async with self.subscription() as subscription:
                async for what in self.follow(subscription):
                    text = (
                        what.model_dump_json() if isinstance(what, Alarm) else json.dumps({"heartbeat": what})
                    )
                    await _taken(self.write_message(text))
        except (BusUnavailableError, RedisError) as error:
            log.warning("a follower of the alarms: %s", error)
            self.close(_INTERNAL_ERROR, "the Redis server does not answer")
        except TimeoutError:
            log.warning("dropped a slow follower of the alarms")
            # A farewell would wait behind what it does not take.
            if self.ws_connection is not None and self.ws_connection.stream is not None:
                self.ws_connection.stream.close()
        except (StreamClosedError, WebSocketClosedError):
            pass
