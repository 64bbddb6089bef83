"""WFDB records: exact values whatever the format and the way of reading, and errors that name the file."""

from __future__ import annotations

import csv
import tracemalloc
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.source import IngestError, Recording
from ingest.wfdb_files import WfdbRecording, record_path
from stream.contract import INVALID
from stream.leads import canonical_leads
from tests.ingest.wfdb_writing import RANGE, edit, encoded, missing, random_digital, write_mat, write_record

NARROW = [fmt for fmt, (_, highest) in RANGE.items() if highest <= 32767]


def whole(recording: Recording) -> np.ndarray:
    assert recording.n_samples is not None
    return recording.read(0, recording.n_samples)


@pytest.mark.parametrize("fmt", NARROW)
@pytest.mark.parametrize("channels", [1, 3])
def test_digital_values_and_gain_are_those_of_the_file(tmp_path: Path, fmt: str, channels: int) -> None:
    digital = random_digital(fmt, 501, channels)
    recording = WfdbRecording(write_record(tmp_path, digital, fmt=fmt, gain=217.0))
    assert recording.gain == (217.0,) * channels
    np.testing.assert_array_equal(whole(recording), digital)


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Recording, np.ndarray]]:
    folder = tmp_path_factory.mktemp("formats")
    records = {}
    for fmt in RANGE:
        path = write_record(folder, random_digital(fmt, 303, 3), name=f"fmt{fmt}", fmt=fmt, gain=500.0)
        recording = WfdbRecording(path)
        records[fmt] = recording, whole(recording)
    return records


@settings(max_examples=150, deadline=None)
@given(
    fmt=st.sampled_from(list(RANGE)),
    start=st.integers(0, 310),
    length=st.integers(0, 310),
)
def test_any_piece_equals_that_part_of_the_whole(
    one_of_each: dict[str, tuple[Recording, np.ndarray]], fmt: str, start: int, length: int
) -> None:
    recording, expected = one_of_each[fmt]
    np.testing.assert_array_equal(recording.read(start, start + length), expected[start : start + length])


@pytest.mark.parametrize("fmt", ["80", "212", "16", "516", "24"])
def test_missing_samples_are_marked(tmp_path: Path, fmt: str) -> None:
    digital = np.full((100, 2), 5)
    digital[30:40, 1] = missing(fmt)
    samples = whole(WfdbRecording(write_record(tmp_path, digital, fmt=fmt)))
    assert (samples[30:40, 1] == INVALID).all()
    assert np.count_nonzero(samples == INVALID) == 10


def test_a_baseline_is_subtracted(tmp_path: Path) -> None:
    digital = random_digital("212", 100, 2)
    path = write_record(tmp_path, digital, fmt="212", gain=200.0, baseline=[1024, -7])
    np.testing.assert_array_equal(whole(WfdbRecording(path)), digital - [1024, -7])


def test_a_baseline_that_does_not_overflow_keeps_digital_values(tmp_path: Path) -> None:
    digital = np.arange(20_000, 20_500).reshape(-1, 1)
    recording = WfdbRecording(write_record(tmp_path, digital, gain=4000.0, baseline=-10_000))
    assert recording.gain == (4000.0,)
    np.testing.assert_array_equal(whole(recording), digital + 10_000)


def test_a_baseline_that_overflows_is_rescaled(tmp_path: Path) -> None:
    digital = np.array([[32_000], [-20_000], [0]])
    recording = WfdbRecording(write_record(tmp_path, digital, gain=4000.0, baseline=-20_000))
    assert 2500 < recording.gain[0] < 4000
    expected = (digital + 20_000) / 4000
    np.testing.assert_allclose(whole(recording) / recording.gain[0], expected, atol=1 / recording.gain[0])


@pytest.mark.parametrize("fmt", ["24", "32", "524"])
def test_wide_formats_are_rescaled_without_losing_microvolts(tmp_path: Path, fmt: str) -> None:
    millivolts = np.sin(np.linspace(0, 20, 1000))[:, None] * 2.5
    gain = 400_000.0
    path = write_record(tmp_path, np.rint(millivolts * gain).astype(int), fmt=fmt, gain=gain)
    recording = WfdbRecording(path)
    assert recording.gain[0] > 10_000
    np.testing.assert_allclose(whole(recording) / recording.gain[0], millivolts, atol=1e-4)


def test_what_is_far_out_of_range_saturates_instead_of_costing_resolution(tmp_path: Path) -> None:
    digital = np.zeros((1000, 1), int)
    digital[500] = 8_000_000
    recording = WfdbRecording(write_record(tmp_path, digital, fmt="24", gain=1000.0))
    assert recording.gain == (200.0,)
    assert whole(recording)[500, 0] == 32767


@pytest.mark.parametrize(
    ("unit", "gain"), [("mV", 1000.0), ("MV", 1000.0), ("uV", 1.0), ("V", 1e6), ("nV", 0.001)]
)
def test_units_of_voltage_are_converted(tmp_path: Path, unit: str, gain: float) -> None:
    path = write_record(tmp_path, np.full((10, 1), 500), gain=gain, units=unit)
    recording = WfdbRecording(path)
    assert recording.gain[0] == pytest.approx(1000.0)
    assert whole(recording)[0, 0] == 500


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_microvolts_with_a_mu_are_not_read_as_volts(tmp_path: Path, encoding: str) -> None:
    path = write_record(tmp_path, np.full((10, 1), 500), gain=1.0, units="uV")
    header = tmp_path / "rec.hea"
    header.write_bytes(header.read_text().replace("uV", "µV").encode(encoding))
    assert WfdbRecording(path).gain[0] == pytest.approx(1000.0)


def test_an_inverted_signal_is_turned_upright(tmp_path: Path) -> None:
    path = write_record(tmp_path, np.full((10, 1), 500), gain=1000.0)
    edit(tmp_path / "rec.hea", "1000.0(0)", "-1000.0(0)")
    recording = WfdbRecording(path)
    assert recording.gain == (1000.0,)
    assert whole(recording)[0, 0] == -500


def test_channels_that_are_no_ecg_are_left_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    digital = random_digital("16", 50, 5)
    path = write_record(
        tmp_path, digital, leads=["II", "PLETH", "ABP", "V", "RESP"], units=["mV", "NU", "mmHg", "mV", "mV"]
    )
    recording = WfdbRecording(path)
    assert recording.leads == ("II", "V")
    np.testing.assert_array_equal(whole(recording), digital[:, [0, 3]])
    assert [record.getMessage() for record in caplog.records] == [
        "rec: left out, as no ECG: ABP, PLETH, RESP"
    ]


def test_leads_get_their_standard_names(tmp_path: Path) -> None:
    path = write_record(tmp_path, random_digital("16", 9, 3), leads=["AVR", "MLII", "ECG V1"])
    assert WfdbRecording(path).leads == ("aVR", "II", "V1")


def test_signals_without_a_description_are_told_apart(tmp_path: Path) -> None:
    path = write_record(tmp_path, random_digital("16", 9, 2), leads=["", ""])
    assert WfdbRecording(path).leads == ("?", "?#2")


def test_a_mat_file_of_the_challenges_is_read_behind_its_header(tmp_path: Path) -> None:
    digital = random_digital("16", 1000, 12)
    recording = WfdbRecording(write_mat(tmp_path, digital))
    np.testing.assert_array_equal(recording.read(400, 600), digital[400:600])


def test_the_start_time_is_the_header_s(tmp_path: Path) -> None:
    path = write_record(tmp_path, random_digital("16", 9, 1))
    edit(tmp_path / "rec.hea", "rec 1 250 9", "rec 1 250 9 12:30:15.5 28/02/2021")
    recording = WfdbRecording(path)
    assert recording.start_time == datetime(2021, 2, 28, 12, 30, 15, 500_000)
    assert recording.start_ns == 1_614_515_415_500_000_000


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_a_record_is_found_with_and_without_extension(tmp_path: Path, suffix: str) -> None:
    write_record(tmp_path, random_digital("16", 9, 1))
    assert record_path(tmp_path / f"rec{suffix}") == tmp_path / "rec"


def test_a_skewed_channel_is_aligned_in_any_piece(tmp_path: Path) -> None:
    digital = random_digital("16", 200, 3)
    path = write_record(tmp_path, digital)
    text = (tmp_path / "rec.hea").read_text().splitlines()
    text[2], text[3] = text[2].replace(" 16 ", " 16:3 ", 1), text[3].replace(" 16 ", " 16:7 ", 1)
    (tmp_path / "rec.hea").write_text("\n".join(text) + "\n")
    recording = WfdbRecording(path)
    for start, stop in ((0, 200), (50, 90), (180, 200)):
        got = recording.read(start, stop)
        for channel, skew in enumerate((0, 3, 7)):
            expected = np.full(stop - start, INVALID)
            available = digital[start + skew : stop + skew, channel]
            expected[: len(available)] = available
            np.testing.assert_array_equal(got[:, channel], expected)


def write_several_rates(folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    # 50 frames/s: an ECG of 200 Hz, one of 100 Hz and a pressure of 50 Hz.
    fast, slow = np.arange(400) * 10, np.arange(200) * 20
    frames = np.column_stack([fast.reshape(-1, 4), slow.reshape(-1, 2), np.arange(100)])
    (folder / "rec.dat").write_bytes(encoded(frames.ravel(), "16"))
    (folder / "rec.hea").write_text(
        "rec 3 50 100\n"
        "rec.dat 16x4 1000/mV 16 0 0 0 0 II\n"
        "rec.dat 16x2 1000/mV 16 0 0 0 0 V1\n"
        "rec.dat 16 10/mmHg 16 0 0 0 0 ABP\n"
    )
    return folder / "rec", fast, slow


def test_several_rates_become_that_of_the_fastest_ecg(tmp_path: Path) -> None:
    path, fast, slow = write_several_rates(tmp_path)
    recording = WfdbRecording(path)
    assert (recording.fs, recording.n_samples, recording.leads) == (200.0, 400, ("II", "V1"))
    samples = whole(recording)
    np.testing.assert_array_equal(samples[:, 0], fast)
    np.testing.assert_array_equal(samples[::2, 1], slow)
    # A ramp, interpolated linearly, is a ramp; there is nothing after its last sample.
    np.testing.assert_array_equal(samples[:-1, 1], np.arange(399) * 10)
    np.testing.assert_array_equal(recording.read(101, 213), samples[101:213])


def write_variable_layout(folder: Path) -> tuple[Path, np.ndarray]:
    # 100 samples of II and V, 30 of nothing, 70 of V alone at twice the gain; V1 of the layout never comes.
    first, second = random_digital("212", 100, 2), random_digital("212", 70, 1, seed=1)
    write_record(folder, first, name="m_0001", fmt="212", gain=500.0, leads=["II", "V"])
    write_record(folder, second, name="m_0002", fmt="212", gain=1000.0, leads=["V"])
    (folder / "m_layout.hea").write_text(
        "m_layout 3 250 0\n~ 0 500/mV 0 0 0 0 0 V\n~ 0 500/mV 0 0 0 0 0 V1\n~ 0 500/mV 0 0 0 0 0 II\n"
    )
    (folder / "m.hea").write_text("m/4 3 250 200\nm_layout 0\nm_0001 100\n~ 30\nm_0002 70\n")
    expected = np.full((200, 2), np.nan)
    expected[:100] = first[:, ::-1] / 500
    expected[130:, 0] = second[:, 0] / 1000
    return folder / "m", expected


def test_a_variable_layout_has_the_leads_of_all_segments_and_its_gaps(tmp_path: Path) -> None:
    path, expected = write_variable_layout(tmp_path)
    recording = WfdbRecording(path)
    assert recording.leads == ("V", "II")
    assert recording.n_samples == 200
    for start, stop in ((0, 200), (90, 140), (99, 131), (100, 130), (150, 151)):
        samples = recording.read(start, stop)
        millivolts = np.where(samples == INVALID, np.nan, samples / np.array(recording.gain))
        np.testing.assert_allclose(millivolts, expected[start:stop], atol=1e-3)


def test_a_fixed_layout_runs_on_over_its_segments(tmp_path: Path) -> None:
    digital = random_digital("16", 300, 2)
    for number, part in enumerate(np.split(digital, [120, 170])):
        write_record(tmp_path, part, name=f"f{number}")
    (tmp_path / "f.hea").write_text("f/3 2 250 300\nf0 120\nf1 50\nf2 130\n")
    recording = WfdbRecording(tmp_path / "f")
    np.testing.assert_array_equal(whole(recording), digital)
    np.testing.assert_array_equal(recording.read(119, 171), digital[119:171])


def test_a_header_without_length_is_read_all_the_same(tmp_path: Path) -> None:
    digital = random_digital("212", 100, 3)
    path = write_record(tmp_path, digital, fmt="212")
    edit(tmp_path / "rec.hea", "rec 3 250 100", "rec 3 250")
    recording = WfdbRecording(path)
    assert recording.n_samples == 100
    np.testing.assert_array_equal(recording.read(10, 40), digital[10:40])


def damage(folder: Path, what: str) -> Path:
    path = write_record(folder, random_digital("16", 1000, 2))
    header, signals = folder / "rec.hea", folder / "rec.dat"
    match what:
        case "missing signal file":
            signals.unlink()
        case "truncated":
            signals.write_bytes(signals.read_bytes()[:3000])
        case "garbage":
            header.write_bytes(bytes(range(256)) * 8)
        case "empty":
            header.write_text("")
        case "no signals":
            header.write_text("rec 0 250 1000\n")
        case "rate 0":
            edit(header, "rec 2 250", "rec 2 0")
        case "rate negative":
            edit(header, "rec 2 250", "rec 2 -250")
        case "rate no number":
            edit(header, "rec 2 250", "rec 2 fast")
        case "signal line lost":
            header.write_text("\n".join(header.read_text().splitlines()[:2]))
        case "format 8":
            header.write_text(header.read_text().replace(" 16 ", " 8 "))
        case "format unknown":
            header.write_text(header.read_text().replace(" 16 ", " 99 "))
        case "gain no number":
            header.write_text(header.read_text().replace("1000.0(0)", "abc"))
        case "no samples":
            edit(header, "rec 2 250 1000", "rec 2 250 0")
        case "no ecg":
            header.write_text(header.read_text().replace("/mV", "/mmHg"))
        case "name with extension":
            edit(header, "rec 2", "rec.mat 2")
    return path


@pytest.mark.parametrize(
    ("what", "file", "says"),
    [
        ("missing signal file", "rec.dat", "missing"),
        ("truncated", "rec.dat", "3000 bytes of signal.* needs 4000"),
        ("garbage", "rec.hea", "no WFDB header"),
        ("empty", "rec.hea", "no WFDB header"),
        ("no signals", "rec.hea", "no signals"),
        ("rate 0", "rec.hea", "frequency of '0'"),
        ("rate negative", "rec.hea", "frequency of '-250'"),
        ("rate no number", "rec.hea", "frequency of 'fast'"),
        ("signal line lost", "rec.hea", "2 signals promised, 1 described"),
        ("format 8", "rec.hea", "format 8 is not supported"),
        ("format unknown", "rec.hea", "format 99 is not supported"),
        ("gain no number", "rec.hea", "no ECG channel"),
        ("no samples", "rec.hea", "0 samples"),
        ("no ecg", "rec.hea", "no ECG channel, only I, II"),
        ("name with extension", "rec.hea", "'rec.mat'; write it without"),
    ],
)
def test_a_damaged_record_is_one_line_that_names_the_file(
    tmp_path: Path, what: str, file: str, says: str
) -> None:
    with pytest.raises(IngestError, match=says) as caught:
        WfdbRecording(damage(tmp_path, what))
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


HEADER = (
    b"rec 2 250 1000 12:00:00 01/02/2020\nrec.dat 212:0+0 200(5)/mV 12 0 0 0 0 II\n"
    b"rec.dat 212 200/mV 12 0 0 0 0 V1\n# comment\n"
)


@settings(max_examples=400, deadline=None)
@given(
    at=st.integers(0, len(HEADER)),
    cut=st.integers(0, 12),
    put=st.binary(max_size=8)
    | st.text("0123456789 /.()-+:xe~\nmV", max_size=8).map(str.encode)
    | st.sampled_from([b"99999999999", b"-1", b"1e9", b"/4 "]),
)
def test_a_damaged_header_is_read_or_refused_by_the_one_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, put: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged-headers"
    folder.mkdir(exist_ok=True)
    (folder / "rec.dat").write_bytes(b"\x12\x34\x56" * 1000)
    (folder / "rec.hea").write_bytes(HEADER[:at] + put + HEADER[at + cut :])
    try:
        recording = WfdbRecording(folder / "rec")
    except IngestError:
        return
    samples = recording.read(0, 100)
    assert samples.shape == (min(100, recording.n_samples or 0), len(recording.leads))


def test_a_truncated_flac_file_is_refused(tmp_path: Path) -> None:
    path = write_record(tmp_path, random_digital("516", 1000, 2), fmt="516")
    edit(tmp_path / "rec.hea", "rec 2 250 1000", "rec 2 250 2000")
    with pytest.raises(IngestError, match=r"rec\.dat: truncated: 1000 samples.* needs 2000"):
        WfdbRecording(path)


def test_something_else_than_flac_is_refused(tmp_path: Path) -> None:
    path = write_record(tmp_path, random_digital("516", 1000, 2), fmt="516")
    (tmp_path / "rec.dat").write_bytes(b"no music" * 1000)
    with pytest.raises(IngestError, match=r"rec\.dat: no FLAC file"):
        WfdbRecording(path)


def test_the_layout_header_itself_is_refused(tmp_path: Path) -> None:
    write_variable_layout(tmp_path)
    with pytest.raises(IngestError, match="layout of a multi-segment record"):
        WfdbRecording(tmp_path / "m_layout")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("m_0002 70", "m_0002 71", "m_0002: 71 samples promised, 70 there"),
        ("250 200", "250 201", "do not add up"),
        ("250 200", "500 200", "m_0001: 250 Hz in a record of 500 Hz"),
        ("m_0001", "m_0003", r"m_0003\.hea: No such file"),
    ],
)
def test_segments_that_do_not_fit_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    path, _ = write_variable_layout(tmp_path)
    edit(tmp_path / "m.hea", old, new)
    with pytest.raises(IngestError, match=says):
        WfdbRecording(path)


def test_a_file_that_vanishes_while_reading_is_an_error(tmp_path: Path) -> None:
    path = write_record(tmp_path, random_digital("16", 1000, 2))
    recording = WfdbRecording(path)
    (tmp_path / "rec.dat").unlink()
    with pytest.raises(IngestError, match="cannot be read"):
        recording.read(0, 10)


def test_a_whole_day_is_read_in_the_memory_of_a_piece(tmp_path: Path) -> None:
    # 24 h of two leads at 128 Hz in format 212, as Holter records are: 33 MB in the file, 44 MB as int16.
    samples, fs = 24 * 3600 * 128, 128
    block = random_digital("212", fs * 60, 2)
    write_record(tmp_path, block, fs=fs, fmt="212", gain=200.0)
    minute = (tmp_path / "rec.dat").read_bytes()
    with (tmp_path / "rec.dat").open("ab") as file:
        for _ in range(24 * 60 - 1):
            file.write(minute)
    edit(tmp_path / "rec.hea", f"{fs * 60}", f"{samples}")
    recording = WfdbRecording(tmp_path / "rec")
    recording.read(0, 10 * fs)
    tracemalloc.start()
    try:
        # Every twentieth piece: the last of them is as cheap as the first.
        for start in range(0, samples, 200 * fs):
            piece = recording.read(start, start + 10 * fs)
        np.testing.assert_array_equal(piece[:fs], block[start % (60 * fs) :][:fs])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.data
def test_real_records_have_the_values_that_wfdb_gives(data_dir: Path) -> None:
    with (data_dir / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for row in rows if row["dataset"] in ("mitdb", "ptb", "cpsc2018")] + rows[::40]
    assert len(chosen) > 40
    for row in chosen:
        path = data_dir / row["path"]
        recording = WfdbRecording(path)
        assert recording.n_samples is not None
        start = recording.n_samples // 3
        reference = wfdb.rdrecord(str(path.with_suffix("")), sampfrom=start, sampto=start + 2000)
        columns = [i for i, unit in enumerate(reference.units) if unit == "mV"]
        assert recording.leads == canonical_leads([reference.sig_name[i] for i in columns])
        assert recording.fs == float(row["fs"])
        samples = recording.read(start, start + 2000)
        millivolts = np.where(samples == INVALID, np.nan, samples / np.array(recording.gain))
        np.testing.assert_allclose(millivolts, reference.p_signal[:, columns], atol=1e-9, err_msg=str(path))
