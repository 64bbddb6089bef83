"""What is read from messages of monitors, and what is said of one that cannot be read."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.live.hl7.message import RefusedMessageError, Stamp, read_messages, read_time
from ingest.live.hl7.mllp import MAX_BLOCK
from ingest.live.hl7.waveforms import BedField, Waves, read_waves
from stream.contract import Validity
from tests.docs.test_examples import DOCS
from tests.ingest.live.hl7.messages import EXAMPLES, mindray, plain, text, wcm

SECOND_NS = 1_000_000_000
CET = timezone(timedelta(hours=1))


def ns(*moment: int, zone: timezone = CET) -> int:
    return round(datetime(*moment, tzinfo=zone).timestamp()) * SECOND_NS  # type: ignore[misc,arg-type]


def read(block: bytes, bed_field: str = "PV1-3") -> list[Waves]:
    return [w for message in read_messages(block) for w in read_waves(message, BedField.parse(bed_field))]


def test_reads_a_waveform_content_message_in_physical_units() -> None:
    (waves,) = read(wcm())
    assert (waves.bed, waves.fs, waves.leads) == ("ICU-2-23", 500.0, ("I", "II"))
    # The blank of lead II is no sample; its resolution is for information.
    np.testing.assert_array_equal(waves.millivolts, [[1, 0.1], [2, 0.2], [3, -0.3], [4, math.nan]])
    assert waves.valid == (Validity.QUESTIONABLE, Validity.OK)
    assert waves.start == Stamp(ns(2026, 11, 29, 10, 15), 1_000_000)
    assert waves.device == "ACME_GW-0A0B0C0D0E0F0001/WARD 3/M-0042"


def test_reads_counts_with_their_resolution_and_the_value_for_no_sample() -> None:
    (waves,) = read(mindray())
    assert (waves.bed, waves.fs, waves.leads) == ("CCU-7", 250.0, ("I", "V1"))
    np.testing.assert_allclose(waves.millivolts[:, 0], [0.2, -0.2, math.nan])
    assert waves.valid == (Validity.OK, Validity.OFF)
    assert waves.start == Stamp(ns(2026, 11, 29, 10, 15) + 250_000_000, 1_000_000)


def test_reads_plain_arrays_with_the_rate_in_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    try:
        first, second = read(plain() + plain("BED-2"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (first.bed, second.bed) == ("BED-1", "BED-2")
    assert (first.fs, first.leads) == (100.0, ("II", "V5"))
    np.testing.assert_allclose(first.millivolts, [[0.12, 0.001], [math.nan, 0.002], [0.15, 0.003]])
    # Without an offset it is local time, of which a second is all that is told.
    assert first.start == Stamp(ns(2026, 11, 29, 1, 15, zone=UTC), SECOND_NS)


def test_reads_the_message_of_the_documentation() -> None:
    (example,) = re.findall(r"```hl7\n(.*?)```", (DOCS / "adapters.md").read_text(), flags=re.DOTALL)
    (waves,) = read(example.encode())
    assert (waves.bed, waves.fs, waves.leads) == ("ICU-7", 500.0, ("II",))
    np.testing.assert_array_equal(waves.millivolts[:, 0], [0.12, 0.13, math.nan, 0.15])


@pytest.mark.parametrize(
    ("observation", "lead"),
    [
        ("131389^MDC_ECG_ELEC_POTL_III^MDC", "III"),
        ("131134^MDC_ECG_LEAD_AVR^MDC", "aVR"),
        ("131074", "II"),
        ("131336^^MDC", "V6"),
        ("MDC_ECG_ELEC_POTL_V2", "V2"),
        ("131415^MDC_ECG_ELEC_POTL_V^MDC", "V"),
        ("X^ECG Lead V3^L", "V3"),
        ("ECG_WAV^Bx50/ECG1@500", "ECG1"),
        ("150452^MDC_PULS_OXIM_PLETH^MDC", None),
        ("EEG_WAV^BIS/EEG1_WAV@128", None),
        ("131072", None),
    ],
)
def test_tells_the_lead_by_code_or_name(observation: str, lead: str | None) -> None:
    block = wcm().replace(b"131330^MDC_ECG_ELEC_POTL_II^MDC", observation.encode())
    (waves,) = read(block)
    assert waves.leads == (("I",) if lead is None else ("I", lead))


def test_a_second_lead_of_one_name_goes_by_its_own_and_another_rate_is_left_out() -> None:
    array = "OBX|9|NA|ECG_WAV^{}@{}||1^2^3|mV|||||R"
    extra = [array.format("Other/ECG_II", 100), array.format("Fine/ECG_II", 500)]
    (waves,) = read(plain() + text(extra))
    assert waves.leads == ("II", "V5", "Other/ECG_II")
    assert waves.left_out == "II at 500 Hz beside 100 Hz: one rate a bed can be taken"


def test_tells_patients_and_times_of_one_message_apart() -> None:
    later = wcm(start="20261129101501.000+0100").split(b"OBR", 1)[1]
    other = wcm(bed="ICU^2^24").split(b"PID", 1)[1]
    first, second, third = read(wcm() + b"OBR" + later + b"PID" + other)
    assert [w.bed for w in (first, second, third)] == ["ICU-2-23", "ICU-2-23", "ICU-2-24"]
    assert first.start is not None
    assert second.start is not None
    assert second.start.t_ns - first.start.t_ns == SECOND_NS


def test_understands_other_delimiters_facets_that_come_first_and_a_period() -> None:
    lines = wcm().decode().split("\r")
    period = lines[6].replace("SAMP_RATE", "TIME_PD_SAMP").replace("|500|", "|4|")
    lines[5], lines[6] = period.replace("264608^MDC_DIM_PER_SEC", "264338^MDC_DIM_MILLI_SEC"), lines[5]
    lines[9] = lines[9].replace("|500|", "|250|")
    block = "\r".join(lines).translate(str.maketrans("|^~\\&", "*:;!?")).replace("ICU:2", "I!S!U:2")
    (waves,) = read(block.encode())
    assert (waves.bed, waves.fs, waves.leads) == ("I:U-2-23", 250.0, ("I", "II"))


@pytest.mark.parametrize(
    ("block", "condition", "word"),
    [
        (b"GET / HTTP/1.1\r\n", 200, "MSH"),
        (b"\r\r", 200, "MSH"),
        (b"MSHabcde", 102, "divide"),
        (wcm().replace(b"ORU^R01", b"ADT^A01"), 200, "ADT^A01"),
        (wcm(bed=""), 101, "no bed in PV1-3"),
        (wcm(unit="266016^MDC_DIM_MMHG^MDC"), 103, "needed in OBX-6, or in MDC_ATTR_NU_MSMT_RES"),
        (wcm(unit="").replace(b"NU_MSMT_RES", b"OTHER"), 103, "unknown unit ''"),
        (wcm(samples="1^x"), 102, "no numbers"),
        (wcm(samples="1^--2"), 102, "no numbers"),
        (wcm(samples="1_0^2"), 102, "no numbers"),
        (wcm(fs="fast"), 102, "MDC_ATTR_SAMP_RATE is no number"),
        (wcm(fs="0"), 102, "0 Hz cannot be"),
        (wcm(fs="1e9"), 102, "1e+09 Hz cannot be"),
        (wcm().replace(b"MDC_ATTR_SAMP_RATE", b"MDC_ATTR_OTHER"), 101, "no sampling rate"),
        (plain() + text(["OBX|1|NA|ECG_WAV^A/ECG@100||1|mV"] * 70), 207, "at most 64"),
        (plain() + text(["OBX|1|NA|ECG_WAV^A/ECG@100||1|mV"] * 1100), 207, "more than 1024"),
        (
            plain()
            + text(
                [f"OBX|1|NA|ECG_WAV^A/ECG@100||{'^' * 200_000}|mV", *["OBX|1|NA|ECG_WAV^A/X@100||1|mV"] * 11]
            ),
            207,
            "different length",
        ),
    ],
)
def test_says_why_a_message_is_refused(block: bytes, condition: int, word: str) -> None:
    with pytest.raises(RefusedMessageError, match=word.replace("^", r"\^").replace("+", r"\+")) as refused:
        read(block)
    assert refused.value.condition == condition
    assert "\n" not in str(refused.value)


def test_the_bed_may_stand_elsewhere_but_never_in_what_names_the_patient() -> None:
    assert read(wcm(), "PV1-3.3")[0].bed == "23"
    assert read(wcm(), "OBR-3.2")[0].bed == "ACME"
    assert read(wcm(), "msh-4")[0].bed == "WARD 3"
    assert str(BedField.parse("PV1-3.3")) == "PV1-3.3"
    for field in ("PID-5", "PV1", "PV1-0", "PV1-3-1", ""):
        with pytest.raises(ValueError, match="PV1"):
            BedField.parse(field)


@pytest.mark.parametrize(
    ("told", "moment"),
    [
        ("202611291015", Stamp(ns(2026, 11, 29, 10, 15), 60 * SECOND_NS)),
        ("20261129101500.100-400", Stamp(ns(2026, 11, 29, 15, 15) + 100_000_000, 1_000_000)),
        ("20261129101500.1-0330", Stamp(ns(2026, 11, 29, 14, 45) + 100_000_000, 100_000_000)),
        ("20261329101500", None),
        ("20261129101500+9959", None),
        ("00010101000000+0100", None),
        ("99991231235959-2300", None),
        ("19700101000000+0100", None),
        ("٢٠٢٦١١٢٩١٠١٥٠٠", None),
        ("", None),
    ],
)
def test_reads_times(told: str, moment: Stamp | None) -> None:
    assert read_time(told, CET) == moment


def _refuses_or_reads(block: bytes) -> None:
    try:
        found = read(block)
    except RefusedMessageError as refused:
        assert 0 < len(str(refused)) < 300  # noqa: PT017
        return
    for waves in found:
        assert waves.millivolts.shape == (len(waves.millivolts), len(waves.leads))
        assert waves.millivolts.size <= MAX_BLOCK
        assert 0 < waves.fs <= 100_000
        assert len(set(waves.leads)) == len(waves.leads) == len(waves.valid)
        assert waves.bed
        assert not np.isinf(waves.millivolts).any()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(block: bytes) -> None:
    _refuses_or_reads(block)
    _refuses_or_reads(b"MSH|^~\\&|" + block)


TOKENS = [
    *b"|^~\\&\r\n",
    *(bytes(line) for line in b"".join(EXAMPLES).replace(b"\n", b"\r").split(b"\r") if len(line) < 200),
    *[b"1e999", b"-", b"^^^", b"@", b"@0", b"nan", b"\xff\xfe", "µV".encode(), b"\\S\\", b"PID|", b"1.1.1.2"],
]


@st.composite
def broken_messages(draw: st.DrawFn) -> bytes:
    """Examples of which stretches are cut out, repeated, or replaced by parts of others."""
    block = draw(st.sampled_from(EXAMPLES))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(block)))
        upto = draw(st.integers(at, min(len(block), at + 80)))
        token = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)))
        put = bytes([token]) if isinstance(token, int) else token
        block = block[:at] + put * draw(st.integers(0, 3)) + block[upto:]
    return block


@settings(max_examples=300, deadline=None)
@given(broken_messages())
def test_broken_messages_are_read_or_refused(block: bytes) -> None:
    _refuses_or_reads(block)


@pytest.mark.parametrize(
    "value",
    [
        b"9" * MAX_BLOCK,
        b"^" * MAX_BLOCK,
        b"1^" * (MAX_BLOCK // 2),
        b"~",
        b"1e" + b"9" * MAX_BLOCK,
        b"&" * MAX_BLOCK,
    ],
    ids=["digits", "blanks", "samples", "repetition", "exponent", "subcomponents"],
)
def test_a_message_of_the_greatest_length_is_soon_read(value: bytes) -> None:
    for place in (b"0.12^^0.15", b"Monitor/ECG_II", b"BED-1", b"72", b"20261129101500"):
        began = time.process_time()
        _refuses_or_reads(plain().replace(place, value[: MAX_BLOCK - 1000], 1))
        assert time.process_time() - began < 2
