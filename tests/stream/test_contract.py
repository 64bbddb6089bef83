"""The wire contract: what is written is what is read, and any other bytes are refused by one error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream.audit.log import Head, sealed
from stream.contract import (
    INVALID,
    AlarmEvent,
    AlarmKind,
    Audit,
    ChunkHeader,
    Command,
    CommandKind,
    Explanation,
    ExplanationHeader,
    Finding,
    MalformedMessageError,
    Presence,
    Priority,
    SampleChunk,
    Stamps,
    Validity,
    alarm_id,
    to_lsb,
    to_millivolts,
)

NANOSECONDS = st.integers(0, 2**63 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


@st.composite
def chunks(draw: st.DrawFn) -> SampleChunk:
    leads = tuple(draw(st.lists(NAMES, min_size=1, max_size=12, unique=True)))
    n, last = draw(st.integers(0, 40)), draw(st.booleans())
    header = ChunkHeader(
        bed=draw(NAMES),
        session=draw(NAMES),
        seq=draw(st.integers(0, 2**40)),
        t0=draw(NANOSECONDS),
        ingest_ns=draw(NANOSECONDS),
        n0=draw(st.integers(0, 2**40)),
        fs=draw(st.floats(0.1, 100_000)),
        leads=leads,
        gain=tuple(draw(st.floats(1e-3, 1e9)) for _ in leads),
        valid=tuple(draw(st.sampled_from(Validity)) for _ in leads),
        pace=draw(st.floats(0, 1000)),
        last=last or n == 0,
    )
    return SampleChunk(header, draw(hnp.arrays(np.int16, (n, len(leads)))))


def small_chunk(**changes: Any) -> SampleChunk:
    fields: dict[str, Any] = {
        "bed": "b",
        "session": "s",
        "seq": 3,
        "t0": 1_000,
        "ingest_ns": 2_000,
        "n0": 300,
        "fs": 500.0,
        "leads": ("II", "V1"),
        "gain": (1000.0, 200.0),
        "valid": (Validity.OK, Validity.OFF),
    }
    return SampleChunk(ChunkHeader(**(fields | changes)), np.arange(8, dtype=np.int16).reshape(4, 2))


@given(chunks())
def test_a_chunk_is_read_as_it_was_written(chunk: SampleChunk) -> None:
    read = SampleChunk.decode(chunk.encode())
    assert read.header == chunk.header
    np.testing.assert_array_equal(read.samples, chunk.samples)
    assert read.end == chunk.header.n0 + len(chunk.samples)


def test_the_layout_on_the_wire_is_the_documented_one() -> None:
    header, _, payload = small_chunk().encode().partition(b"\n")
    assert json.loads(header) == {
        "v": 1,
        "bed": "b",
        "session": "s",
        "seq": 3,
        "t0": 1000,
        "ingest_ns": 2000,
        "n0": 300,
        "fs": 500.0,
        "leads": ["II", "V1"],
        "gain": [1000.0, 200.0],
        "valid": ["ok", "off"],
        "pace": 1.0,
        "last": False,
        "source": "",
    }
    assert payload == b"".join(k.to_bytes(2, "little") for k in range(8))


def test_big_endian_and_strided_samples_go_as_little_endian_rows() -> None:
    header = small_chunk().header
    array: npt.NDArray[np.int16] = np.arange(16, dtype=">i2").reshape(4, 4)[:, ::2]
    np.testing.assert_array_equal(SampleChunk.decode(SampleChunk(header, array).encode()).samples, array)


def test_the_samples_are_a_view_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        SampleChunk.decode(small_chunk().encode()).samples[0] = 1


def test_a_newer_field_is_ignored_and_a_newer_version_is_refused() -> None:
    header, _, payload = small_chunk().encode().partition(b"\n")
    fields = json.loads(header)
    newer = json.dumps(fields | {"colour": "blue"}).encode()
    assert SampleChunk.decode(newer + b"\n" + payload).header == small_chunk().header
    with pytest.raises(MalformedMessageError, match="v:"):
        SampleChunk.decode(json.dumps(fields | {"v": 2}).encode() + b"\n" + payload)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bed": ""}, "bed"),
        ({"bed": "a\nb"}, "bed"),
        ({"bed": "x" * 65}, "bed"),
        ({"seq": -1}, "seq"),
        ({"n0": -1}, "n0"),
        ({"n0": 2**40 + 1}, "n0"),
        ({"t0": -1}, "t0"),
        ({"t0": 2**63}, "t0"),
        ({"fs": 0}, "fs"),
        ({"fs": 100_001}, "fs"),
        ({"leads": []}, "leads"),
        ({"leads": ["II", "II"]}, "a name stands twice"),
        ({"leads": [f"x{k}" for k in range(65)]}, "leads"),
        ({"gain": [1000.0]}, "gain: needs one value for each of the 2 leads"),
        ({"gain": [1000.0, 0.0]}, "gain"),
        ({"gain": [1000.0, -1.0]}, "gain"),
        ({"valid": ["ok"]}, "valid: needs one value"),
        ({"valid": ["ok", "fine"]}, "valid"),
        ({"pace": -1}, "pace"),
        ({"pace": 1e7}, "pace"),
        ({"last": "perhaps"}, "last"),
    ],
)
def test_a_header_that_cannot_be_is_refused_and_named(changes: dict[str, Any], says: str) -> None:
    header, _, payload = small_chunk().encode().partition(b"\n")
    with pytest.raises(MalformedMessageError, match=says) as caught:
        SampleChunk.decode(json.dumps(json.loads(header) | changes).encode() + b"\n" + payload)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "field", ["bed", "session", "seq", "t0", "ingest_ns", "n0", "fs", "leads", "gain", "valid"]
)
def test_a_missing_field_is_named(field: str) -> None:
    header, _, payload = small_chunk().encode().partition(b"\n")
    fields = json.loads(header)
    del fields[field]
    with pytest.raises(MalformedMessageError, match=f"{field}: Field required"):
        SampleChunk.decode(json.dumps(fields).encode() + b"\n" + payload)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_of_a_header_is_infinite(number: str) -> None:
    data = small_chunk().encode().replace(b"500.0", number.encode(), 1)
    with pytest.raises(MalformedMessageError):
        SampleChunk.decode(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no header line"),
        (b"no newline", "no header line"),
        (b"x" * 20_000 + b"\n", "no header line"),
        (b"\n\0\0", "EOF|JSON"),
        (b"[]\n", "object|dictionary|instance"),
        (b"\xff\xfe\n\0\0", "JSON|utf"),
        (small_chunk().encode()[:-1], "15 bytes are no whole number of 4-byte rows"),
        (small_chunk().encode()[:-2], "14 bytes are no whole number of 4-byte rows"),
        (small_chunk().encode()[:-16], "no samples"),
    ],
)
def test_bytes_that_are_no_chunk_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(MalformedMessageError, match=f"(?i){says}"):
        SampleChunk.decode(data)


def test_an_empty_chunk_may_end_a_session() -> None:
    chunk = SampleChunk(small_chunk(last=True).header, np.empty((0, 2), np.int16))
    assert SampleChunk.decode(chunk.encode()).samples.shape == (0, 2)


DECODERS = [SampleChunk, Explanation, Finding, AlarmEvent, Command, Audit, ChunkHeader]


@given(data=st.binary(max_size=300), kind=st.sampled_from(DECODERS))
def test_random_bytes_are_refused_by_the_one_error(data: bytes, kind: Any) -> None:
    with pytest.raises(MalformedMessageError):
        kind.decode(data)


@settings(max_examples=400)
@given(
    at=st.integers(0, 400),
    cut=st.integers(0, 30),
    put=st.binary(max_size=30) | st.sampled_from([b"null", b"-1", b"{}", b'"', b"\n", b"1e400", b"[[[[["]),
)
def test_a_damaged_chunk_is_read_whole_or_refused_by_the_one_error(at: int, cut: int, put: bytes) -> None:
    data = small_chunk().encode()
    damaged = data[:at] + put + data[at + cut :]
    try:
        chunk = SampleChunk.decode(damaged)
    except MalformedMessageError:
        return
    assert chunk.samples.shape[1] == len(chunk.header.leads) == len(chunk.header.gain)


EXPLANATION = Explanation(
    ExplanationHeader(
        bed="b",
        session="s",
        window=4,
        start=0,
        end=500,
        t_start=0,
        fs=100.0,
        leads=("II", "V1"),
        shapes={"reconstruction": (2, 3), "error": (2, 3)},
    ),
    {
        "reconstruction": np.arange(6, dtype=np.float16).reshape(2, 3),
        "error": np.full((2, 3), np.nan, np.float16),
    },
)


def test_an_explanation_is_read_as_it_was_written() -> None:
    read = Explanation.decode(EXPLANATION.encode())
    assert read.header == EXPLANATION.header
    for name, array in EXPLANATION.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)


def test_half_an_explanation_is_refused() -> None:
    data = EXPLANATION.encode()
    for end in range(len(data)):
        with pytest.raises(MalformedMessageError):
            Explanation.decode(data[:end])


STAMPS = Stamps(ingest_ns=1, dequeued_ns=2, ready_ns=3)
MESSAGES = [
    STAMPS,
    Finding(
        bed="b",
        session="s",
        model="m",
        window=4,
        start=0,
        end=500,
        t_start=0,
        t_end=10**9,
        score=1.5,
        threshold=2.0,
        percentile=70.0,
        lead_scores={"II": 1.0},
        anomalous=False,
        stamps=STAMPS,
    ),
    Finding(
        bed="b",
        session="s",
        model="m",
        window=4,
        start=0,
        end=500,
        t_start=0,
        t_end=10**9,
        score=None,
        threshold=2.0,
        percentile=None,
        lead_scores={},
        anomalous=False,
        reason="gap",
        stamps=STAMPS,
    ),
    AlarmEvent(
        alarm="a",
        event="a-0",
        bed="b",
        session="s",
        rule="anomaly",
        kind=AlarmKind.PHYSIOLOGICAL,
        code="MODEL",
        priority=Priority.MEDIUM,
        presence=Presence.ON,
        onset=100,
        onset_t=1,
        since=2,
        message="Auffälliges EKG",
        ingest_ns=3,
    ),
    Command(id="c", bed="b", kind=CommandKind.SET_LIMITS, value={"high": 120}, at=1, expires=2),
    sealed(
        Head(), entry="c", bed="b", kind="pause", who="nurse", at=1, done=True, message="paused", value=60
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_read_as_it_was_written(message: Any) -> None:
    data = message.encode()
    assert b"\n" not in data
    assert type(message).decode(data) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_half_a_message_is_refused(message: Any) -> None:
    data = message.encode()
    for end in range(len(data)):
        with pytest.raises(MalformedMessageError):
            type(message).decode(data[:end])


def test_the_time_of_a_sample_goes_by_the_chunk_s_own_first_one() -> None:
    chunk = small_chunk(t0=10**18, n0=300)
    assert chunk.time_of(300) == 10**18
    assert chunk.time_of(chunk.end) == 10**18 + 8_000_000
    assert chunk.time_of(299) == 10**18 - 2_000_000


def test_an_alarm_s_identity_is_a_function_of_what_happened() -> None:
    assert alarm_id("b", "s", "r", 5) == alarm_id("b", "s", "r", 5)
    others = [
        ("b2", "s", "r", 5),
        ("b", "s2", "r", 5),
        ("b", "s", "r2", 5),
        ("b", "s", "r", 6),
        ("bs", "", "r", 5),
    ]
    assert len({alarm_id(*what) for what in [("b", "s", "r", 5), *others]}) == 6


@given(hnp.arrays(np.float64, (7, 2), elements=st.floats(-40, 40)), st.floats(10, 800))
def test_millivolts_survive_the_wire_to_half_a_bit(millivolts: npt.NDArray[np.float64], gain: float) -> None:
    chunk = SampleChunk(
        small_chunk(gain=(gain, gain), valid=(Validity.OK, Validity.OK)).header, to_lsb(millivolts, gain)
    )
    np.testing.assert_allclose(to_millivolts([chunk])[0], millivolts, atol=0.5000001 / gain)


def test_what_is_not_finite_is_invalid_and_what_is_too_large_saturates() -> None:
    lsb = to_lsb(np.array([np.nan, np.inf, -np.inf, 40.0, -40.0, 0.0]))
    np.testing.assert_array_equal(lsb, [INVALID, INVALID, INVALID, 32767, -32767, 0])
    chunk = SampleChunk(small_chunk(valid=(Validity.OK, Validity.OK)).header, lsb.reshape(3, 2))
    assert np.isnan(to_millivolts([chunk])[0]).sum() == 3
