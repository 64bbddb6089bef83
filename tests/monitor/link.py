"""A link between a browser and a dashboard that can be made slow."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from tests.looped import Looped

# Little: what waits for a slow link is to wait in the dashboard, where it can be left out.
_BUFFER = 4096


class Link(Looped):
    """A TCP relay.

    Attributes
    ----------
    target : int
        Port of the dashboard; to be set before anything comes.
    bytes_per_s : float
        How fast the way to the browser is.
    carried : int
        Bytes that went there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.target = 0
        self.bytes_per_s = float("inf")
        self.carried = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    async def _begin(self) -> None:
        await asyncio.start_server(self._serve, sock=self._listener)

    async def _end(self) -> None:
        await super()._end()
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Until either side ends it.
        way = socket.socket()
        way.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        way.connect(("127.0.0.1", self.target))
        back, forth = await asyncio.open_connection(sock=way, limit=_BUFFER)
        try:
            await asyncio.gather(self._carry(reader, forth), self._carry(back, writer, counted=True))
        finally:
            writer.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_BUFFER):
                if counted:
                    self.carried += len(data)
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
        writer.close()
