"""SDC devices of an independent implementation, on loopback."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ingest.live.kit import SourceKit, Stretch
from ingest.live.sdc.source import SDCSource
from ingest.live.source import LiveSource, Piece, Trouble
from ingest.source import IngestError
from stream.contract import Validity
from tests.ingest.live.sdc.provider import Monitor, providing


@pytest.fixture
def number() -> int:
    # Other tests may be on the network.
    return random.getrandbits(63)


def epr(number: int) -> str:
    return f"urn:uuid:00000000-0000-0000-{number >> 48:04x}-{number % 2**48:012x}"


@asynccontextmanager
async def listening(*numbers: int, **options: Any) -> AsyncIterator[SDCSource]:
    source = SDCSource(device=tuple(map(epr, numbers)), **options)
    await source.start()
    try:
        yield source
    finally:
        await source.stop()


async def heard(
    source: SDCSource, enough: Callable[[list[Piece], list[Trouble]], Any]
) -> tuple[list[Piece], list[Trouble]]:
    pieces: list[Piece] = []
    troubles: list[Trouble] = []
    async with asyncio.timeout(30):
        while not enough(pieces, troubles):
            await source.arrived.wait()
            pieces += source.take()
            troubles += source.troubles()
    return pieces, troubles


def seconds(pieces: list[Piece]) -> float:
    return sum(len(p.samples) / p.fs for p in pieces)


@pytest.mark.slow
class TestKit(SourceKit):
    leads = ("I", "II", "V1")
    arrays: ClassVar = {"i": ("131329", "266418"), "ii": ("131330", "266418"), "v1": ("131331", "266418")}

    numbers: ClassVar[list[int]] = []
    monitors: ClassVar[dict[str, Monitor]] = {}

    @classmethod
    def setup_class(cls) -> None:
        cls.numbers = [random.getrandbits(64) for _ in cls.beds]
        cls.beds = tuple(f"ICU-{number}" for number in cls.numbers)
        for number, bed in zip(cls.numbers, cls.beds, strict=True):
            cls.monitors[bed] = Monitor(number, cls.arrays, bed=str(number))

    @classmethod
    def teardown_class(cls) -> None:
        # Each takes seconds to end its threads.
        with ThreadPoolExecutor() as threads:
            list(threads.map(Monitor.stop, cls.monitors.values()))

    def make(self) -> LiveSource:
        return SDCSource(device=tuple(map(epr, self.numbers)))

    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        assert isinstance(source, SDCSource)
        while len(source.connected) < len(self.beds):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for stretch in stretches:
            columns = zip(self.arrays, stretch.millivolts.T, strict=True)
            samples = {handle: [Decimal(f"{value:.3f}") for value in column] for handle, column in columns}
            await asyncio.to_thread(self.monitors[stretch.bed].send, stretch.t_ns / 1e9, samples)


@pytest.mark.slow
def test_takes_a_device_whole_in_its_own_time_and_again_after_it_restarted(number: int) -> None:
    async def run() -> None:
        async with listening(number) as source:
            for _ in range(2):
                with providing(number=number) as device:
                    pieces, troubles = await heard(source, lambda pieces, _: seconds(pieces) > 1)
                    assert troubles == []
                samples = np.concatenate([p.samples for p in pieces])
                counted = np.arange(len(samples)) + samples[0, 0]
                np.testing.assert_array_equal(samples, np.column_stack([counted, -counted]))
                for piece in pieces:
                    assert (piece.bed, piece.fs, piece.leads) == ("ICU-7", 250.0, ("II", "V1"))
                    assert piece.device == f"SDC Bedside 1 SN-{number}"
                    assert piece.valid == (Validity.OK, Validity.QUESTIONABLE)
                    assert piece.t_ns is not None
                    told = device.begin_ns + int(piece.samples[0, 0]) * 4_000_000
                    assert abs(piece.t_ns - told) < 5_000_000
                # The end of the process is noticed, and said.
                _, troubles = await heard(source, lambda _, troubles: bool(troubles))
                assert [t.why for t in troubles] == ["the device has gone; waiting for it to come back"]

    asyncio.run(run())


def test_says_why_it_cannot_take_a_device_and_takes_it_once_it_is_at_a_bed(number: int) -> None:
    expected = {
        (f"SDC Bedside 1 SN-{number}", "no associated location: which bed it is at is not known"),
        (f"SDC Bedside 1 SN-{number + 1}", "II: unknown unit '266016'; volts are needed"),
    }

    async def run() -> None:
        with providing(number=number, bed=None) as device, providing(number=number + 1, unit="266016"):
            async with listening(number, number + 1) as source:
                await heard(source, lambda _, troubles: {(t.device, t.why) for t in troubles} >= expected)
                device.move("8")
                pieces, _ = await heard(source, lambda pieces, _: seconds(pieces) > 0.5)
        beds = {(p.device, p.bed, p.leads) for p in pieces}
        assert beds >= {(f"SDC Bedside 1 SN-{number}", "ICU-8", ("II", "V1"))}

    asyncio.run(run())


@pytest.mark.slow
def test_device_and_consumer_show_each_other_their_certificates(number: int, tmp_path: Path) -> None:
    for name in ("us", "device"):
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
        made = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run(["openssl", "req", "-x509", *kind, *made], check=True, capture_output=True)
    ours, theirs = (
        [str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key"), str(tmp_path / f"{other}.pem")]
        for name, other in (("us", "device"), ("device", "us"))
    )

    async def run() -> None:
        with providing(number=number, tls=theirs):
            async with listening(number, tls_cert=ours[0], tls_key=ours[1], tls_ca=ours[2]) as source:
                pieces, _ = await heard(source, lambda pieces, _: bool(pieces))
                assert pieces[0].bed == "ICU-7"
            # Our own certificate is not one that it trusts.
            async with listening(number, tls_cert=theirs[0], tls_key=theirs[1], tls_ca=theirs[0]) as source:
                _, troubles = await heard(source, lambda _, troubles: bool(troubles))
                assert "cannot be connected to" in troubles[0].why

    asyncio.run(run())


def test_says_why_it_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'ward' does not appear to be an IPv4 or IPv6 address"):
        SDCSource(adapter="ward")
    with pytest.raises(ValueError, match="--tls-ca needs"):
        SDCSource(tls_ca="x")
    with pytest.raises(ValueError, match="go together"):
        SDCSource(tls_cert="x")
    missing = str(tmp_path / "none.pem")
    with pytest.raises(IngestError, match=r"none.pem: cannot be used for TLS"):
        asyncio.run(SDCSource(tls_cert=missing, tls_key=missing).start())
    # An address that this machine does not have (RFC 5737).
    with pytest.raises(IngestError, match=r"192\.0\.2\.1: cannot search"):
        asyncio.run(SDCSource(adapter="192.0.2.1").start())
