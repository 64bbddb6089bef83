"""TLS and SASL PLAIN in front of a Kafka broker that has neither.

Requests of Kafka's protocol: size, key, version, number (https://kafka.apache.org/protocol).
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.looped import Looped

USER, PASSWORD = "ward", "hidden word@1"
_HANDSHAKE, _VERSIONS, _AUTHENTICATE = 17, 18, 36
_FAILED = 58  # SASL_AUTHENTICATION_FAILED
_NO_TEXT = struct.pack(">h", -1)


class Door(Looped):
    """A port that lets clients through to a broker, in a thread of its own.

    Attributes
    ----------
    port : int
    authority : pathlib.Path
        Certificate that clients check the door's by.
    let_in : int
        Connections that have shown the password.
    """

    def __init__(self, folder: Path, port: int, behind: int) -> None:
        super().__init__()
        self.port = port
        self.authority = folder / "door.pem"
        self.let_in = 0
        self._behind = behind
        key = folder / "door.key"
        names = ("-subj", "/CN=door", "-addext", "subjectAltName=IP:127.0.0.1")
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-nodes", "-days", "2", *names, "-keyout", str(key), "-out", str(self.authority)),
            ],
            check=True,
            capture_output=True,
        )
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(self.authority, key)

    async def _begin(self) -> None:
        await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside = await asyncio.open_connection("127.0.0.1", self._behind)
        with suppress(asyncio.IncompleteReadError, OSError):
            if await self._is_known(reader, writer, inside):
                self.let_in += 1
                ways = [_carry(reader, inside[1]), _carry(inside[0], writer)]
                tasks = [asyncio.ensure_future(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        inside[1].transport.abort()
        writer.transport.abort()

    async def _is_known(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        inside: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> bool:
        while True:
            request = await _message(reader)
            key, _, number = struct.unpack(">hhi", request[:8])
            if key == _VERSIONS:
                _put(inside[1], request)
                _put(writer, await _message(inside[0]))
            elif key == _HANDSHAKE:
                _put(writer, struct.pack(">ihi", number, 0, 1) + struct.pack(">h", 5) + b"PLAIN")
            elif key == _AUTHENTICATE:
                right = request.endswith(f"\0{USER}\0{PASSWORD}".encode())
                error = 0 if right else _FAILED
                # The session lasts as long as the connection.
                _put(writer, struct.pack(">ih", number, error) + _NO_TEXT + struct.pack(">iq", 0, 0))
                await writer.drain()
                return right
            else:
                return False


async def _message(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _put(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(struct.pack(">i", len(message)) + message)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
