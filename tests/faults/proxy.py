"""The way to the server: one address that can be slow, break, and lead to another server."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path

from tests.looped import Looped

_PIECE = 65_536
# SO_LINGER with no time to linger: closing sends a reset instead of an end.
_RESET = struct.pack("ii", 1, 0)


class Proxy(Looped):
    """TCP on loopback in front of a server's unix socket, in a thread of its own.

    Attributes
    ----------
    target : pathlib.Path
        The server's socket; new connections go there.
    delay_s : float
        How long everything takes, each way.
    """

    def __init__(self, target: Path) -> None:
        super().__init__()
        self.target = target
        self.delay_s = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def _begin(self) -> None:
        await asyncio.start_server(self._serve, sock=self._listener)

    def reset(self) -> int:
        """Break all connections, and return how many there were."""
        return self._do(self._reset())

    async def _end(self) -> None:
        await self._reset()
        await super()._end()
        self._listener.close()

    async def _reset(self) -> int:
        broken = list(self._open)
        for writer in broken:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        return len(broken)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind = await asyncio.open_unix_connection(str(self.target))
        except OSError:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            ways = [self._carry(reader, behind[1]), self._carry(behind[0], writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._open.discard(writer)
            writer.transport.abort()
            behind[1].transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            writer.write(piece)
            await writer.drain()
