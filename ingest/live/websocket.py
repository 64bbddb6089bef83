"""Devices that send messages over WebSocket: texts of JSON, or binary ones (``docs/adapters.md``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from ingest.live.listening import (
    IDLE_S,
    MAX_CONNECTIONS,
    MAX_MESSAGE,
    MOST_BAD,
    Listening,
    Token,
    listening_options,
    token_in,
    token_option,
)
from ingest.live.messages import read_piece
from ingest.live.source import LiveSource
from ingest.source import IngestError
from stream.clock import Clock, SystemClock

# A client that takes no answer, or no farewell, is not waited for.
_PATIENCE_S = 1.0


class WebSocketSource(LiveSource):
    """Devices, or pages in a browser, that connect and send; several beds over one connection if they like.

    Parameters
    ----------
    token_file : pathlib.Path, optional
        See `ingest.live.listening.Token`.
    clock : Clock, optional
    **address
        See `ingest.live.listening.Listening.of`.
    """

    command_help = """Devices that send over WebSocket: JSON as texts, or binary messages.

    docs/adapters.md has both formats, and a sender.

    \b
    bedside ingest ws --port 8041
    bedside ingest ws --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
    """
    command_options = (*listening_options(8041), token_option)

    def __init__(self, *, token_file: Path | None = None, clock: Clock | None = None, **address: Any) -> None:
        self._address = Listening.of(**address)
        super().__init__(f"ws:{self._address.port}")
        self._token = Token(token_file, self._address)
        self._clock = clock or SystemClock()
        self._runner: web.AppRunner | None = None
        self._connections: set[web.WebSocketResponse] = set()

    @property
    def where(self) -> str:
        if self._runner is None or not self._runner.addresses:
            return self.name
        host, port = self._runner.addresses[0][:2]
        return f"{'wss' if self._address.context else 'ws'}://{host}:{port}/"

    async def start(self, position: Any = None) -> None:
        address = self._address
        application = web.Application()
        application.router.add_get("/", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, address.host, address.port, ssl_context=address.context).start()
        except OSError as error:
            await self.stop()
            raise IngestError(self.name, f"cannot listen at {address.host}: {error.strerror}") from error

    async def stop(self) -> None:
        if self._runner is not None:
            await asyncio.gather(*map(_close, list(self._connections)))
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        sender = request.remote or "this machine"
        if len(self._connections) >= MAX_CONNECTIONS:
            self.refuse(sender, f"more than {MAX_CONNECTIONS} connections")
            raise web.HTTPServiceUnavailable
        if "Origin" in request.headers and not self._token.needed:
            # Any page that a browser on this machine shows could send otherwise.
            self.refuse(sender, f"a page of {request.headers['Origin']}: pages need a token (--token-file)")
            raise web.HTTPForbidden
        connection = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False, timeout=_PATIENCE_S)
        await connection.prepare(request)
        self._connections.add(connection)
        try:
            if self._token.needed and not self._token.is_known(await _first_words(connection)):
                raise IngestError(sender, 'token: the first message has to be {"token": "…"}, the right one')
            await self._listen(connection, sender)
        except IngestError as error:
            self.refuse(sender, error)
            await _answer(connection, error)
        except TimeoutError:
            self.refuse(sender, f"no message for {IDLE_S:.0f} s: connection closed")
        finally:
            self._connections.discard(connection)
            await _close(connection)
        return connection

    async def _listen(self, connection: web.WebSocketResponse, sender: str) -> None:
        bad = 0
        while True:
            async with asyncio.timeout(IDLE_S):
                message = await connection.receive()
            if message.type is WSMsgType.ERROR:
                raise IngestError(sender, connection.exception() or "no WebSocket message")
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            try:
                self.put(read_piece(data, sender=sender, arrived_ns=self._clock.now_ns()))
                bad = 0
            except IngestError as error:
                bad += 1
                if bad == MOST_BAD:
                    raise
                self.refuse(sender, error)
                await _answer(connection, error)


async def _first_words(connection: web.WebSocketResponse) -> Any:
    async with asyncio.timeout(IDLE_S):
        message = await connection.receive()
    return token_in(message.data) if message.type is WSMsgType.TEXT else None


async def _close(connection: web.WebSocketResponse) -> None:
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(2 * _PATIENCE_S):
            await connection.close()


async def _answer(connection: web.WebSocketResponse, error: IngestError) -> None:
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_PATIENCE_S):
            await connection.send_str(json.dumps({"error": str(error)}))
