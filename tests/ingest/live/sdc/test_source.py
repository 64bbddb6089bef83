"""SDC devices of an independent implementation, on loopback."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from sdc11073.xml_types.pm_types import CodedValue

from ingest.live.kit import SourceKit, Stretch
from ingest.live.sdc.source import SDCSource, _millivolts
from ingest.live.source import LiveSource, Piece, Trouble
from ingest.source import IngestError
from stream.contract import INVALID, Validity
from stream.embedded import EmbeddedServer
from tests.ingest.live.feeding import intake_of, until_raised, until_samples
from tests.ingest.live.sdc.provider import Monitor, providing
from tests.ingest.live.test_misuse import Hurried, Message, Send, check, message


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


def test_annotations_that_tell_of_a_leads_validity_are_heeded_and_others_said_once(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {"i": "131329", "ii": "131330", "iii": "131389", "v1": "131331", "v2": "131332", "v3": "131333"}
    off, artifact, pulse = CodedValue("196876"), CodedValue("197040"), CodedValue("4711")
    leads_off = CodedValue("1", coding_system="urn:oid:2.999", symbolic_code_name="MDC_EVT_LEADS_OFF")
    foreign = CodedValue("196876", coding_system="urn:oid:2.999")
    annotations = {
        # Which of several applies to a sample that is there; without that word, all of them do.
        "i": ([pulse, off], [(0, 3), (1, 7)]),
        "ii": ([pulse, artifact, off], [(1, 0), (2, 25), (3, 0)]),
        "iii": ([artifact, leads_off], []),
        "v1": ([foreign], []),
        "v2": ([off], []),
    }
    numbers = [Decimal(at) / 1000 for at in range(25)]

    async def run() -> list[Piece]:
        monitor = await asyncio.to_thread(
            Monitor, number, {handle: (code, "266418") for handle, code in codes.items()}
        )
        try:
            async with listening(number) as source:
                while not source.connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                for report, said in enumerate((annotations, annotations, {})):
                    samples = dict.fromkeys(codes, numbers)
                    begin = 1_796_000_000 + report / 10
                    # What is said of the whole array is no excuse for what its annotation says.
                    await asyncio.to_thread(monitor.send, begin, samples, "v2", said)
                pieces, troubles = await heard(source, lambda pieces, _: seconds(pieces) > 0.29)
                assert troubles == []
        finally:
            await asyncio.to_thread(monitor.stop)
        return pieces

    marked, again, plain = asyncio.run(asyncio.wait_for(run(), 60))
    off_, ok, doubtful = Validity.OFF, Validity.OK, Validity.QUESTIONABLE
    for piece in (marked, again):
        assert piece.leads == ("I", "II", "III", "V1", "V2", "V3")
        assert piece.valid == (off_, doubtful, off_, ok, off_, ok)
        assert (piece.samples[:, [0, 2, 4]] == INVALID).all()
        np.testing.assert_array_equal(piece.samples[:, 1], np.arange(25))
    # It lasts as long as it is said.
    assert plain.valid == (ok, ok, ok, ok, doubtful, ok)
    lines = [line for line in capsys.readouterr().err.splitlines() if "annotation" in line]
    device = f"bedside: SDC Bedside 1 SN-{number}: annotation"
    assert sorted(lines) == [
        f"{device} 196876 of urn:oid:2.999 says nothing of validity that is known; passed over",
        f"{device} 4711 says nothing of validity that is known; passed over",
    ]


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


@pytest.mark.parametrize(
    ("unit", "millivolts"),
    [
        (CodedValue("266419"), 1e-3),
        (CodedValue("uV", coding_system="http://unitsofmeasure.org"), 1e-3),
        (CodedValue("7", coding_system="urn:oid:2.999", symbolic_code_name="MDC_DIM_VOLT"), 1e3),
        # The number is that of µV, in a coding system that is not ours.
        (CodedValue("266419", coding_system="urn:oid:2.999"), None),
        (CodedValue("266016"), None),
        (None, None),
    ],
)
def test_a_unit_is_what_its_own_coding_system_says(unit: CodedValue | None, millivolts: float | None) -> None:
    assert _millivolts(unit) == millivolts


@pytest.mark.slow
def test_two_devices_at_one_bed_and_one_without_a_known_unit_are_told_by_alarms(
    number: int, redis_server: EmbeddedServer
) -> None:
    async def main() -> None:
        source = SDCSource(device=(epr(number), epr(number + 1), epr(number + 2)))
        with (
            providing(number=number),
            providing(number=number + 1),
            providing(number=number + 2, unit="266016", bed="8"),
        ):
            async with intake_of(source, redis_server, "bedside:") as bus:
                conflict = await until_raised(bus, "source-conflict")
                # One that cannot be connected to at once is refused for that first, and tried again.
                wrong = f"{source.name}: SDC Bedside 1 SN-{number + 2}: II: unknown unit '266016'"
                await until_raised(bus, "source-refused", wrong)
        for word in (source.name, f"SN-{number} ", f"SN-{number + 1} ", "claims bed ICU-7"):
            assert word.strip() in conflict.message

    asyncio.run(main())


@contextmanager
def monitor_of(number: int, arrays: dict[str, tuple[str, str]]) -> Iterator[Monitor]:
    monitor = Monitor(number, arrays)
    try:
        yield monitor
    finally:
        monitor.stop()


@pytest.mark.slow
@pytest.mark.parametrize("gains", [False, True], ids=["loses", "gains"])
def test_a_device_whose_description_loses_or_gains_a_lead_is_told_by_an_alarm(
    number: int, gains: bool, redis_server: EmbeddedServer
) -> None:
    before, after, change = {
        False: (("ii", "v1"), ("ii",), "sends II at 250 Hz in the place of II V1 at 250 Hz"),
        True: (("ii",), ("ii", "v1"), "sends II V1 at 250 Hz in the place of II at 250 Hz"),
    }[gains]
    codes = {"ii": "131330", "v1": "131331"}

    async def main(monitor: Monitor) -> None:
        reports = itertools.count()

        async def report(handles: Sequence[str]) -> None:
            samples = {handle: [Decimal(at) / 1000 for at in range(25)] for handle in handles}
            await asyncio.to_thread(monitor.send, 1_796_000_000 + next(reports) / 10, samples)

        source = SDCSource(device=(epr(number),))
        async with intake_of(source, redis_server, "bedside:") as bus:
            while not source.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for _ in range(10):
                await report(before)
            await until_samples(bus, 200)
            if gains:
                await asyncio.to_thread(monitor.add, "v1", "ii", codes["v1"])
            else:
                await asyncio.to_thread(monitor.remove, "v1")
            for _ in range(10):
                await report(after)
            changed = await until_raised(bus, "source-changed")
            assert changed.message == (
                f"{source.name}: SDC Bedside 1 SN-{number}: bed ICU-7: {change}: a new session begins"
            )
            chunks = await until_samples(bus, 450)
        assert [len(leads) for leads, _ in itertools.groupby(c.header.leads for c in chunks)] == [
            len(before),
            len(after),
        ]

    with monitor_of(number, {handle: (codes[handle], "266418") for handle in before}) as monitor:
        asyncio.run(asyncio.wait_for(main(monitor), 90))


@pytest.mark.slow
def test_a_rate_that_is_not_the_stated_one_is_told_by_an_alarm(
    number: int, redis_server: EmbeddedServer
) -> None:
    source = SDCSource(device=(epr(number),), clock=Hurried())

    @asynccontextmanager
    async def device() -> AsyncIterator[Send]:
        begin = time.time()

        async def send(fields: Message) -> None:
            while not source.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            values = [Decimal(f"{value:.3f}") for (value,) in fields["samples"]]
            # By a clock that is right: 125 samples a second.
            await asyncio.to_thread(monitor.send, begin + fields["n0"] / 125, {"ii": values})

        yield send

    with monitor_of(number, {"ii": ("131330", "266418")}) as monitor:
        # By the clock in a hurry 50 samples each 0.4 s.
        chunks = check(
            (lambda: source, device),
            redis_server,
            "bedside:",
            "source-rate",
            lambda n0: [message(n0)],
            (f"SDC Bedside 1 SN-{number}", "bed ICU-7", "250 Hz is stated"),
            pause_s=0.04,
        )
    assert all(f"SN-{number}" in chunk.header.source for chunk in chunks)


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
