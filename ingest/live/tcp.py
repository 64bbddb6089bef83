"""Devices that send messages over plain TCP: JSON, one a line, or binary frames (``docs/adapters.md``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import struct
from pathlib import Path
from typing import Any

from ingest.live.listening import (
    IDLE_S,
    MAX_CONNECTIONS,
    MAX_MESSAGE,
    MOST_BAD,
    Listening,
    Token,
    address_of,
    listening_options,
    token_in,
    token_option,
)
from ingest.live.messages import read_piece
from ingest.live.source import LiveSource
from ingest.source import IngestError
from stream.clock import Clock, SystemClock

log = logging.getLogger(__name__)

FRAME = 0xEC
"""First byte of a binary frame: JSON begins with none such. Its length follows, 4 bytes, big-endian."""

# Answers that a client does not read are not kept for it.
_MOST_UNREAD = 16_384


class TcpSource(LiveSource):
    """Devices that connect and send, several beds over one connection if they like.

    Parameters
    ----------
    token_file : pathlib.Path, optional
        See `ingest.live.listening.Token`.
    clock : Clock, optional
    **address
        See `ingest.live.listening.Listening.of`.
    """

    command_help = """Devices that send over TCP: JSON, one message a line, or binary frames.

    docs/adapters.md has both formats, and a sender in ten lines.

    \b
    bedside ingest tcp --port 8040
    bedside ingest tcp --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
    """
    command_options = (*listening_options(8040), token_option)

    def __init__(self, *, token_file: Path | None = None, clock: Clock | None = None, **address: Any) -> None:
        self._address = Listening.of(**address)
        super().__init__(f"tcp:{self._address.port}")
        self._token = Token(token_file, self._address)
        self._clock = clock or SystemClock()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def where(self) -> str:
        if self._server is None or not self._server.sockets:
            return self.name
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"TCP at {host}:{port}{' with TLS' if self._address.context else ''}"

    async def start(self, position: Any = None) -> None:
        address = self._address
        try:
            self._server = await asyncio.start_server(
                self._connected, address.host, address.port, limit=MAX_MESSAGE, ssl=address.context
            )
        except OSError as error:
            raise IngestError(self.name, f"cannot listen at {address.host}: {error.strerror}") from error

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender = address_of(writer.get_extra_info("peername"))
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                raise IngestError(sender, f"more than {MAX_CONNECTIONS} connections")
            async with asyncio.timeout(IDLE_S):
                known = not self._token.needed or self._token.is_known(await _first_words(reader))
            if not known:
                raise IngestError(sender, 'token: the first line has to be {"token": "…"} with the right one')
            await self._listen(reader, writer, sender)
        except IngestError as error:
            self.refuse(sender, error)
            _answer(writer, error)
        except TimeoutError:
            self.refuse(sender, f"no message for {IDLE_S:.0f} s: connection closed")
        except (OSError, asyncio.IncompleteReadError) as error:
            # A device that went away: its feed will be lost, and that is said.
            log.info("%s: %s", sender, error)
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                # A client that takes nothing must not keep us.
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sender: str) -> None:
        # One at the very beginning is another protocol, too: a web page that a browser here shows must not
        # send anything by HTTP.
        bad = MOST_BAD - 1
        while True:
            async with asyncio.timeout(IDLE_S):
                data = await next_message(reader, sender)
            if data is None:
                return
            try:
                self.put(read_piece(data, sender=sender, arrived_ns=self._clock.now_ns()))
                bad = 0
            except IngestError as error:
                bad += 1
                if bad == MOST_BAD:
                    raise
                self.refuse(sender, error)
                _answer(writer, error)


async def next_message(reader: asyncio.StreamReader, sender: str) -> bytes | None:
    # None at the end. Blank lines are nothing.
    first = await reader.read(1)
    while first and first in b"\r\n":
        first = await reader.read(1)
    if not first:
        return None
    if first[0] == FRAME:
        (length,) = struct.unpack(">I", await reader.readexactly(4))
        if length > MAX_MESSAGE:
            raise IngestError(sender, f"a frame of {length} bytes; at most {MAX_MESSAGE} are taken")
        return await reader.readexactly(length)
    try:
        return first + await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise IngestError(sender, f"a line of more than {MAX_MESSAGE} bytes") from None
    except asyncio.IncompleteReadError as error:
        # The last line may lack its end.
        return first + error.partial


async def _first_words(reader: asyncio.StreamReader) -> Any:
    # What a device says before it is let in; short, so that nobody else leaves much here.
    try:
        return token_in((await reader.readuntil(b"\n"))[:1024])
    except asyncio.LimitOverrunError:
        return None


def _answer(writer: asyncio.StreamWriter, error: IngestError) -> None:
    # For whoever writes the device; a client that reads nothing gets no more.
    if writer.transport.get_write_buffer_size() < _MOST_UNREAD:
        writer.write(json.dumps({"error": str(error)}).encode() + b"\n")
