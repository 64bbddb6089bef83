"""The server, fed by an independent HL7 client and by VitalRecorder's own messages."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hl7
import numpy as np
import pytest
from hl7.mllp import open_hl7_connection
from vitalrecorder.server import build_hl7_payload

from bench.ports import free_port
from ingest.live.hl7 import source as server
from ingest.live.hl7.source import HL7Source
from ingest.live.kit import SourceKit, Stretch
from ingest.live.source import LiveSource, Piece
from ingest.source import IngestError
from stream.contract import Validity
from tests.ingest.live.hl7.messages import mindray, plain, text, wcm

SECOND_NS = 1_000_000_000


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[HL7Source]:
    source = HL7Source(port=0, **options)
    await source.start()
    try:
        yield source
    finally:
        await source.stop()


async def send(source: HL7Source, *messages: bytes, **tls: Any) -> list[hl7.Message]:
    """Send messages on one connection, each when the one before is answered."""
    reader, writer = await open_hl7_connection("127.0.0.1", source.port, encoding="utf-8", **tls)
    answers = []
    for message in messages:
        writer.writeblock(message)
        await writer.drain()
        answers.append(await asyncio.wait_for(reader.readmessage(), 10))
    writer.close()
    await writer.wait_closed()
    return answers


def _signed(folder: Path, name: str) -> tuple[str, str]:
    cert, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-keyout", key, "-out", cert]
    subprocess.run(["openssl", "req", "-x509", *kind, *subject, *made], check=True, capture_output=True)
    return cert, key


class TestKit(SourceKit):
    def setup_method(self) -> None:
        self.port = free_port()

    def make(self) -> LiveSource:
        return HL7Source(port=self.port)

    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        assert isinstance(source, HL7Source)
        for answer in await send(source, *map(waveform_content, stretches)):
            assert str(answer["MSA"][0][1]) == "AA"

    async def send_rubbish(self, source: LiveSource) -> bool:
        assert isinstance(source, HL7Source)
        await send(source, b"ECG!")
        return True


def waveform_content(stretch: Stretch) -> bytes:
    moment = datetime.fromtimestamp(stretch.t_ns / 1e9, UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    lines = [
        f"MSH|^~\\&|KIT||||{moment}||ORU^R01^ORU_R01|{stretch.bed}/{stretch.n0}|P|2.6",
        f"PV1||I|^^{stretch.bed}",
        f"OBR|1|||69121^MDC_OBS_WAVE_CTS^MDC|||{moment}",
    ]
    for number, lead in enumerate(stretch.leads):
        array = "^".join(f"{value:.3f}" for value in stretch.millivolts[:, number])
        lines += [
            f"OBX||NA|^MDC_ECG_ELEC_POTL_{lead.upper()}^MDC|1.1.1.{number}|{array}|^MDC_DIM_MILLI_VOLT^MDC",
            f"OBX||NM|0^MDC_ATTR_SAMP_RATE^MDC|1.1.1.{number}.1|{stretch.fs}|^MDC_DIM_PER_SEC^MDC",
        ]
    return text(lines)


def sent(*messages: bytes, **options: Any) -> tuple[list[hl7.Message], list[Piece], list[str]]:
    """Return the answers, the pieces and the troubles of a server that got messages on one connection."""

    async def run() -> tuple[list[hl7.Message], list[Piece], list[str]]:
        async with serving(**options) as source:
            answers = await send(source, *messages)
            return answers, source.take(), [f"{t.device} ({t.bed}): {t.why}" for t in source.troubles()]

    return asyncio.run(run())


def test_takes_beds_of_one_connection_and_answers_each_message() -> None:
    answers, pieces, troubles = sent(
        wcm("A|1".replace("|", "\\F\\")), wcm("2", bed="ICU^2^24"), mindray(), plain()
    )
    assert [(str(a["MSA"][0][1]), a.unescape(str(a["MSA"][0][2]))) for a in answers] == [
        ("AA", "A|1"),
        ("AA", "2"),
        ("AA", "374"),
        ("AA", "7"),
    ]
    assert str(answers[0]["MSH"][0][9]) == "ACK^R01^ACK"
    assert str(answers[0]["MSH"][0][5]) == "ACME_GW^0A0B0C0D0E0F0001^EUI-64"
    assert len({str(a["MSH"][0][10]) for a in answers}) == 4
    assert [p.bed for p in pieces] == ["ICU-2-23", "ICU-2-24", "CCU-7", "BED-1"]
    assert pieces[0].device == "ACME_GW-0A0B0C0D0E0F0001/WARD 3/M-0042 at 127.0.0.1"
    assert pieces[0].valid == (Validity.QUESTIONABLE, Validity.OK)
    assert pieces[0].samples[:3].tolist() == [[1000, 100], [2000, 200], [3000, -300]]
    assert pieces[2].samples[:, 0].tolist() == [200, -200, -32768]
    assert troubles == []


def test_refuses_what_it_cannot_read_names_the_source_but_no_patient_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers, pieces, troubles = sent(wcm(unit="mmHg").replace(b"NU_MSMT_RES", b"OTHER"), b"hello", wcm())
    assert [str(a["MSA"][0][1]) for a in answers] == ["AE", "AR", "AA"]
    assert str(answers[0]["ERR"][0][3]) == "103^Table value not found^HL70357"
    assert str(answers[0]["ERR"][0][2]) == "OBX^2^6"
    assert "unknown unit 'mmHg'" in answers[0].unescape(str(answers[0]["ERR"][0][8]))
    assert len(pieces) == 1
    assert troubles == [
        "ACME_GW-0A0B0C0D0E0F0001/WARD 3 at 127.0.0.1 (ICU-2-23): II: unknown unit 'mmHg';"
        " volts are needed in OBX-6, or in MDC_ATTR_NU_MSMT_RES",
        "127.0.0.1 (None): not an HL7 v2 message: it does not begin with MSH",
    ]
    everything = " ".join([*map(str, answers), *troubles, caplog.text])
    assert not any(private in everything for private in ("ROE", "JANE", "PAT-77"))


def test_answers_as_the_sender_wishes() -> None:
    async def run() -> None:
        async with serving() as source:
            reader, writer = await open_hl7_connection("127.0.0.1", source.port)
            # None; none, for it was taken; and a commit acknowledgment.
            for number, answers in enumerate(("NE|NE", "NE|ER", "AL|NE")):
                writer.writeblock(wcm(str(number), answers=answers))
            answer = await asyncio.wait_for(reader.readmessage(), 10)
            assert (str(answer["MSA"][0][1]), str(answer["MSA"][0][2])) == ("CA", "2")
            writer.close()
            assert len(source.take()) == 3

    asyncio.run(run())


def test_a_repeated_message_is_answered_and_taken_once() -> None:
    answers, pieces, _ = sent(plain(), plain(), plain(control="8"))
    assert [str(a["MSA"][0][1]) for a in answers] == ["AA"] * 3
    assert len(pieces) == 2


def test_samples_follow_each_other_as_far_as_coarse_stamps_can_tell() -> None:
    array = "^".join(["1"] * 100).encode()
    starts = ["00", "01", "03", "04", "09"]
    messages = [
        plain(start=f"202611291015{second}", control=second).replace(b"0.12^^0.15", array)
        for second in starts
    ]
    _, pieces, _ = sent(*messages)
    times = [p.t_ns for p in pieces]
    assert all(t is not None for t in times)
    assert [round((t - times[0]) / SECOND_NS, 3) for t in times if t and times[0]] == [0, 1, 2, 3, 9]


def test_vitalrecorder_comes_through_without_seam_or_loss() -> None:
    # Half a second of lead II a record at 500 Hz, of which VitalRecorder sends every fifth sample; sent each
    # second and a little more, as its timer goes.
    rng = np.random.default_rng(1)
    signal = np.round(rng.normal(0, 0.5, 500 * 30), 4)
    records = [{"dt": 1000.0 + n / 2, "val": signal[250 * n : 250 * (n + 1)]} for n in range(60)]
    track = SimpleNamespace(
        type=1, montype=1, dtname="SNUADC/ECG_II", srate=500, recs=records, unit="mV", mindisp=-1, maxdisp=1
    )
    bed = {"duration": 30.0, "dtstart": 1000.0, "dtend": 1030.0, "tracks": {"SNUADC/ECG_II": track}}
    begin = 1_796_000_000.9
    moments = begin + np.cumsum(np.r_[0, 1.0 + rng.uniform(0.0005, 0.03, 28)])
    sequence = [0]
    payloads = [
        build_hl7_payload({1: bed, 2: bed}, a, b, "OR5", begin, sequence).encode()
        for a, b in pairwise(moments)
    ]
    answers, pieces, troubles = sent(*payloads)
    assert {str(a["MSA"][0][1]) for a in answers} == {"AA"}
    assert troubles == []
    for name in ("BED-1", "BED-2"):
        mine = [p for p in pieces if p.bed == name]
        samples = np.concatenate([p.samples[:, 0] for p in mine])
        np.testing.assert_allclose(samples, np.rint(signal[::5][: len(samples)] * 1000), atol=1)
        assert len(samples) >= 2700
        for before, after in pairwise(mine):
            assert after.t_ns is not None
            assert before.t_ns is not None
            assert after.t_ns - before.t_ns == len(before.samples) * 10_000_000


def test_silent_senders_and_too_many_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)

    async def run() -> None:
        async with serving() as source:
            others = [await asyncio.open_connection("127.0.0.1", source.port) for _ in range(3)]
            others[0][1].write(b"\x0bMSH|^~\\&|")
            assert len(await send(source, wcm("last"))) == 1
            # The fourth place is free again; a fifth connection is closed at once.
            others.append(await asyncio.open_connection("127.0.0.1", source.port))
            reader, writer = await asyncio.open_connection("127.0.0.1", source.port)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            for _, open_one in [*others, (reader, writer)]:
                open_one.close()
            assert [t.why for t in source.troubles()] == ["more than 4 connections"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0bMSH|", "cut off: no whole message"),
        (b"GET / HTTP/1.1\r\n\r\n", "bytes that are no MLLP"),
        (b"\x0b" + b"x" * 2**21 + b"\x1c\r", "a message of more than 1048576 bytes"),
    ],
    ids=["unfinished", "other protocol", "too long"],
)
def test_bounds_what_a_sender_may_do(monkeypatch: pytest.MonkeyPatch, data: bytes, why: str) -> None:
    monkeypatch.setattr(server, "_PATIENCE_S", 0.2)

    async def run() -> list[str]:
        async with serving() as source:
            reader, writer = await asyncio.open_connection("127.0.0.1", source.port)
            writer.write(data)
            # An answer, or the end of the connection.
            await asyncio.wait_for(reader.read(1), 10)
            writer.close()
            return [t.why for t in source.troubles()]

    assert any(why in trouble for trouble in asyncio.run(run()))


def test_senders_show_their_certificate_over_tls(tmp_path: Path) -> None:
    ours, monitors = _signed(tmp_path, "us"), _signed(tmp_path, "monitors")

    async def run() -> None:
        async with serving(
            tls_cert=Path(ours[0]), tls_key=Path(ours[1]), tls_client_ca=Path(monitors[0])
        ) as source:
            context = ssl.create_default_context(cafile=ours[0])
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await send(source, wcm(), ssl=context)
            context.load_cert_chain(*monitors)
            (answer,) = await send(source, wcm(), ssl=context)
            assert str(answer["MSA"][0][1]) == "AA"

    asyncio.run(run())


def test_says_why_it_cannot_start(tmp_path: Path) -> None:
    async def twice() -> None:
        async with serving() as source:
            await HL7Source(port=source.port).start()

    with pytest.raises(IngestError, match=r"^hl7:\d+: cannot listen at 127.0.0.1: .*in use"):
        asyncio.run(twice())
    with pytest.raises(ValueError, match="PID names a patient"):
        HL7Source(bed_field="PID-3")
    with pytest.raises(
        ValueError, match=r"--host 0.0.0.0 lets in other machines.* --trust-network, is needed"
    ):
        HL7Source(host="0.0.0.0")
    assert HL7Source(host="0.0.0.0", trust_network=True).where == "MLLP at 0.0.0.0:0"
    cert, key = (Path(file) for file in _signed(tmp_path, "us"))
    with pytest.raises(ValueError, match="other machines"):
        HL7Source(host="0.0.0.0", tls_cert=cert, tls_key=key)
    HL7Source(host="0.0.0.0", tls_cert=cert, tls_key=key, tls_client_ca=cert)
