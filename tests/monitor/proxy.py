"""A reverse proxy under a path prefix, as nginx has it by default: other Host, page's own Origin."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from socket import create_server

import aiohttp
from aiohttp import web

from tests.looped import Looped

PREFIX = "/bedside"
# What concerns one connection only.
_OWN = ("host", "connection", "transfer-encoding", "content-length", "upgrade")

_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class Proxy(Looped):
    """Where it listens, and where it passes requests on to.

    Parameters
    ----------
    strip : bool
        It takes the prefix away.

    Attributes
    ----------
    target : str
        Address of the server behind it, known later than its own.
    body_bytes : float
        Longer bodies are refused, in HTML.
    """

    def __init__(self, *, strip: bool) -> None:
        super().__init__()
        self.target = ""
        self.body_bytes = math.inf
        self._strip = strip
        self._listener = create_server(("127.0.0.1", 0))

    @property
    def name(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        return f"http://{self.name}{PREFIX}/"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith(f"{PREFIX}/"):
            return web.Response(status=404, text="the proxy has nothing else")
        if (request.content_length or 0) > self.body_bytes:
            page = "<html><head><title>413 Request Entity Too Large</title></head></html>"
            return web.Response(status=413, text=page, content_type="text/html")
        path = request.path_qs.removeprefix(PREFIX) if self._strip else request.path_qs
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request, self.target + path, headers)
        async with self._http.request(
            request.method,
            self.target + path,
            data=await request.read(),
            headers=headers,
            allow_redirects=False,
        ) as answer:
            passed = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _OWN:
                    passed.headers.add(name, value)
            await passed.prepare(request)
            # Who has gone away wants no more.
            with suppress(ConnectionResetError):
                async for block in answer.content.iter_any():
                    await passed.write(block)
            return passed

    async def _socket(self, request: web.Request, url: str, headers: dict[str, str]) -> web.StreamResponse:
        wanted = [one.strip() for one in headers.pop("Sec-WebSocket-Protocol", "").split(",") if one.strip()]
        sent = {name: value for name, value in headers.items() if not name.startswith("Sec-WebSocket")}
        try:
            behind = await self._http.ws_connect(url, protocols=wanted, headers=sent, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status)
        before = web.WebSocketResponse(protocols=wanted[:1], max_msg_size=0)
        await before.prepare(request)

        async def pump(one: _Socket, other: _Socket) -> None:
            async for message in one:
                if message.type is aiohttp.WSMsgType.TEXT:
                    await other.send_str(message.data)
                elif message.type is aiohttp.WSMsgType.BINARY:
                    await other.send_bytes(message.data)
            await other.close()

        await asyncio.gather(pump(before, behind), pump(behind, before), return_exceptions=True)
        return before

    async def _begin(self) -> None:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self.handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        # One that stays idle is no error: alarms may be rare.
        self._http = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._http.close()
        await super()._end()
