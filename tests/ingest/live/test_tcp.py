"""Devices over TCP and WebSocket: both formats, who may come in, and clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.ports import free_port
from ingest.live import tcp, websocket
from ingest.live.kit import SourceKit, Stretch
from ingest.live.listening import MAX_MESSAGE
from ingest.live.messages import read_piece
from ingest.live.source import LiveSource, Piece
from ingest.live.tcp import FRAME, TcpSource
from ingest.live.websocket import WebSocketSource
from ingest.source import IngestError
from stream.contract import INVALID, Validity


def text(stretch: Stretch) -> bytes:
    fields = header(stretch) | {"unit": "mV", "samples": stretch.millivolts.tolist()}
    return json.dumps(fields).encode()


def binary(stretch: Stretch) -> bytes:
    samples = (stretch.millivolts * 1000).round().astype("<i2")
    return json.dumps(header(stretch) | {"gain": 1000}).encode() + b"\n" + samples.tobytes()


def header(stretch: Stretch) -> dict[str, Any]:
    return {
        "bed": stretch.bed,
        "device": "kit",
        "fs": stretch.fs,
        "leads": stretch.leads,
        "t": stretch.t_ns / 1e9,
        "n0": stretch.n0,
    }


def framed(message: bytes) -> bytes:
    return bytes([FRAME]) + struct.pack(">I", len(message)) + message


class _Tcp(SourceKit):
    def setup_method(self) -> None:
        self.port = free_port()

    def make(self) -> LiveSource:
        return TcpSource(port=self.port)

    async def say(self, data: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def send_rubbish(self, source: LiveSource) -> bool:
        await self.say(b'{"bed": 1}\n')
        return True


class TestTcpJson(_Tcp):
    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        # The last line may lack its end.
        await self.say(b"\n".join(text(stretch) for stretch in stretches))


class TestTcpBinary(_Tcp):
    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        # Both kinds over one connection.
        first, *others = stretches
        await self.say(text(first) + b"\n" + b"".join(framed(binary(stretch)) for stretch in others))


class TestWebSocket(SourceKit):
    def setup_method(self) -> None:
        self.port = free_port()

    def make(self) -> LiveSource:
        return WebSocketSource(port=self.port)

    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(self.url) as connection:
            for number, stretch in enumerate(stretches):
                if number % 2:
                    await connection.send_bytes(binary(stretch))
                else:
                    await connection.send_str(text(stretch).decode())

    async def send_rubbish(self, source: LiveSource) -> bool:
        async with aiohttp.ClientSession() as session, session.ws_connect(self.url) as connection:
            await connection.send_str("ECG!")
            assert "error" in await connection.receive_json()
        return True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


# ---- messages --------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {"bed": "b", "fs": 250, "leads": ["II"], "unit": "mV", "samples": [[0.5], [None]]}


def read(message: Any, **options: Any) -> Piece:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return read_piece(data, sender="10.0.0.7", arrived_ns=5, **options)


def test_what_a_message_may_say() -> None:
    piece = read(PLAIN)
    assert (piece.bed, piece.device, piece.t_ns, piece.n0, piece.last) == ("b", "10.0.0.7", None, None, False)
    assert piece.samples.tolist() == [[500], [INVALID]]
    # Over several lines, with whole numbers, flags, a time and an end.
    fields = PLAIN | {"gain": [200], "samples": [[3], [-7]], "valid": ["questionable"], "t": 1.5, "n0": 4}
    del fields["unit"]
    piece = read(json.dumps(fields | {"last": True, "device": "x"}, indent=1).encode())
    assert (piece.samples.tolist(), piece.gain) == ([[3], [-7]], (200.0,))
    assert (piece.valid, piece.t_ns, piece.n0, piece.last) == (
        (Validity.QUESTIONABLE,),
        1_500_000_000,
        4,
        True,
    )
    assert piece.device == "x"
    assert (
        len(read({key: PLAIN[key] for key in ("bed", "fs", "leads", "unit")} | {"last": True}).samples) == 0
    )
    nameless = {key: value for key, value in PLAIN.items() if key != "bed"}
    assert read(nameless, bed="of the topic").bed == "of the topic"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"unit": "mmHg"}, "unknown unit 'mmHg'"),
        ({"unit": None}, "unit or gain"),
        ({"gain": 1000}, "unit or gain"),
        ({"n_0": 1}, "n_0"),
        ({"fs": "250"}, "fs"),
        ({"fs": -1}, "frequency"),
        ({"bed": None}, "bed: missing"),
        ({"t": -1}, "t:"),
        ({"samples": [[0.5, 1]]}, "shape"),
        ({"samples": [[0.5], [1, 2]]}, "one for each lead"),
        ({"samples": [0.5]}, "shape"),
        ({"samples": "x"}, "one for each lead"),
        ({"samples": []}, "no samples"),
        ({"unit": None, "gain": 1000, "samples": [[0.5]]}, "whole numbers"),
        ({"unit": None, "gain": 1000, "samples": [[40_000]]}, "whole numbers"),
        ({"unit": None, "gain": [1, 2], "samples": [[4]]}, "gains"),
        ({"valid": ["fine"]}, "valid"),
    ],
)
def test_what_is_wrong_with_a_message_is_said_to_its_developer(change: dict[str, Any], word: str) -> None:
    with pytest.raises(IngestError) as raised:
        read(PLAIN | change)
    assert word in str(raised.value)
    assert str(raised.value).startswith("10.0.0.7: ")
    with pytest.raises(IngestError, match="rows"):
        read(json.dumps({"bed": "b", "fs": 250, "leads": ["II"], "gain": 1}).encode() + b"\nabc")
    with pytest.raises(IngestError, match="LSB"):
        read(json.dumps({"bed": "b", "fs": 250, "leads": ["II"], "unit": "mV"}).encode() + b"\nab")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
_fields = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["bed", "device", "fs", "leads", "unit", "gain", "t", "n0", "valid", "last", "samples"], _json
    ),
)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(lambda change: json.dumps(PLAIN | change).encode(), _fields),
        st.builds(
            lambda change, payload: json.dumps(PLAIN | {"samples": None} | change).encode() + b"\n" + payload,
            _fields,
            st.binary(max_size=40),
        ),
    )
)
@settings(max_examples=400, deadline=None)
def test_whatever_is_sent_is_a_piece_or_refused(data: bytes) -> None:
    with contextlib.suppress(IngestError):
        assert isinstance(read(data), Piece)


# ---- the server ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def listening(source: LiveSource) -> AsyncIterator[tuple[str, int]]:
    await source.start()
    try:
        host, port = source.where.split()[2].split(":")
        yield host, int(port)
    finally:
        await source.stop()


async def taken(source: LiveSource, count: int) -> list[Piece]:
    pieces: list[Piece] = []
    async with asyncio.timeout(20):
        while len(pieces) < count:
            await source.arrived.wait()
            pieces += source.take()
            await asyncio.sleep(0)
            if source.troubles():
                continue
    return pieces


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.booleans())
@settings(max_examples=20, deadline=None)
def test_where_a_stream_is_cut_does_not_matter(cuts: list[int], end: bool) -> None:
    lines = [json.dumps(PLAIN).encode(), framed(json.dumps(PLAIN).encode()), json.dumps(PLAIN).encode()]
    data = lines[0] + b"\r\n\n" + lines[1] + lines[2] + (b"\n" if end else b"")

    async def main() -> None:
        reader = asyncio.StreamReader(limit=MAX_MESSAGE)

        async def feed() -> None:
            rest, number = data, 0
            while rest:
                length = cuts[number % len(cuts)]
                reader.feed_data(rest[:length])
                rest, number = rest[length:], number + 1
                await asyncio.sleep(0)
            reader.feed_eof()

        feeding = asyncio.create_task(feed())
        messages = []
        while (message := await tcp.next_message(reader, "x")) is not None:
            messages.append(read(message).samples.tolist())
        await feeding
        assert messages == [[[500], [INVALID]]] * 3

    asyncio.run(main())


def test_one_bad_client_harms_no_other() -> None:
    async def main() -> None:
        source = TcpSource()
        async with listening(source) as (host, port):
            good_reader, good = await asyncio.open_connection(host, port)
            good.write(json.dumps(PLAIN).encode() + b"\n")
            await taken(source, 1)
            # One is told what is wrong and may go on; HTTP, too long lines and frames are put out.
            good.write(b'{"bed": "b"}\n')
            assert "fs" in json.loads(await good_reader.readline())["error"]
            for rubbish in (
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + json.dumps(PLAIN).encode() + b"\n",
                b"x" * (MAX_MESSAGE + 1000),
                bytes([FRAME]) + b"\xff\xff\xff\xff" + b"x" * 100,
            ):
                reader, writer = await asyncio.open_connection(host, port)
                with contextlib.suppress(ConnectionError):
                    writer.write(rubbish)
                    assert b"error" in await asyncio.wait_for(reader.read(), 20)
                writer.close()
            # One says nothing more in the middle of a message, one takes no answer and is cut off.
            _, silent = await asyncio.open_connection(host, port)
            silent.write(bytes([FRAME]) + b"\x00\x00\x10\x00half")
            source.take()
            source.troubles()
            good.write(json.dumps(PLAIN).encode() + b"\n")
            (piece,) = await taken(source, 1)
            assert piece.bed == "b"
            silent.close()
            good.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_idle_and_surplus_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "IDLE_S", 0.3)
    monkeypatch.setattr(tcp, "MAX_CONNECTIONS", 2)

    async def main() -> None:
        source = TcpSource()
        async with listening(source) as (host, port):
            opened = [await asyncio.open_connection(host, port) for _ in range(3)]
            answers = [await reader.read() for reader, _ in opened]
            assert answers[:2] == [b"", b""]
            assert b"connections" in answers[2]
            for _, writer in opened:
                writer.close()
            assert "no message for" in source.troubles()[-1].why

    asyncio.run(asyncio.wait_for(main(), 60))


def test_off_loopback_a_token_is_needed(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    for source_type in (TcpSource, WebSocketSource):
        with pytest.raises(ValueError, match="--token-file is needed"):
            source_type(host="0.0.0.0")
        with pytest.raises(ValueError, match="go together"):
            source_type(tls_cert=cert)
        with pytest.raises(IngestError, match="cannot be used for TLS"):
            source_type(tls_cert=file, tls_key=file)
    short = tmp_path / "short"
    short.write_text("guess me\n")
    with pytest.raises(IngestError, match="16 characters"):
        TcpSource(token_file=short)
    trust = ssl.create_default_context(cafile=str(cert))

    async def main() -> None:
        source = TcpSource(host="0.0.0.0", token_file=file, tls_cert=cert, tls_key=key)
        async with listening(source) as (_, port):
            for first, comes_in in (
                (b'{"token": "0123456789abcdef"}', True),
                (b'{"token": "x"}', False),
                (b"1", False),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
                writer.write(first + b"\n" + json.dumps(PLAIN).encode() + b"\n")
                if comes_in:
                    assert len(await taken(source, 1)) == 1
                else:
                    assert b"token" in await reader.read()
                    assert source.take() == []
                writer.close()
        web = WebSocketSource(token_file=file, tls_cert=cert, tls_key=key)
        await web.start()
        async with aiohttp.ClientSession() as session:
            url = web.where.replace("wss", "https")
            async with session.ws_connect(url, ssl=trust, origin="https://anywhere") as connection:
                await connection.send_json({"token": "0123456789abcdef"})
                await connection.send_json(PLAIN)
                assert len(await taken(web, 1)) == 1
            async with session.ws_connect(url, ssl=trust) as connection:
                await connection.send_json(PLAIN)
                assert "token" in (await connection.receive_json())["error"]
                assert web.take() == []
        await web.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_web_page_of_somebody_else_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_CONNECTIONS", 1)

    async def main() -> None:
        source = WebSocketSource()
        await source.start()
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await session.ws_connect(source.where, origin="https://elsewhere.example")
            assert "elsewhere" in source.troubles()[0].why
            async with session.ws_connect(source.where) as connection:
                with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                    await session.ws_connect(source.where)
                await connection.send_bytes(b"x" * (MAX_MESSAGE + 1))
                assert (await connection.receive()).type is not aiohttp.WSMsgType.BINARY
        await source.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_an_address_in_use_is_one_line() -> None:
    async def main() -> None:
        with socket.socket() as taken_by_another:
            taken_by_another.bind(("127.0.0.1", 0))
            taken_by_another.listen()
            port = taken_by_another.getsockname()[1]
            for source in (TcpSource(port=port), WebSocketSource(port=port)):
                with pytest.raises(IngestError, match="cannot listen at"):
                    await source.start()

    asyncio.run(main())
