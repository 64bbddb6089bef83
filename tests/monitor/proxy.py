"""A reverse proxy under a path prefix, as nginx has it by default: other Host, page's own Origin."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socket import create_server, socket

import aiohttp
from aiohttp import web

PREFIX = "/bedside"
# What concerns one connection only.
_OWN = ("host", "connection", "transfer-encoding", "content-length", "upgrade")

_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


@dataclass
class Proxy:
    """Where it listens, and where it passes requests on to.

    Attributes
    ----------
    sock : socket.socket
    strip : bool
        It takes the prefix away.
    target : str
        Address of the server behind it, known later than its own.
    """

    sock: socket
    strip: bool
    target: str = ""

    @property
    def name(self) -> str:
        host, port = self.sock.getsockname()
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        return f"http://{self.name}{PREFIX}/"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith(f"{PREFIX}/"):
            return web.Response(status=404, text="the proxy has nothing else")
        path = request.path_qs.removeprefix(PREFIX) if self.strip else request.path_qs
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

    async def serve(self, stop: asyncio.Event) -> None:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        # One that stays idle is no error: alarms may be rare.
        async with aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as self._http:
            await runner.setup()
            await web.SockSite(runner, self.sock).start()
            await stop.wait()
            await runner.cleanup()


@contextmanager
def proxy(*, strip: bool) -> Iterator[Proxy]:
    """Run a proxy; set its `target` when the server behind it is there."""
    made = Proxy(create_server(("127.0.0.1", 0)), strip)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(made.serve(stop),), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
