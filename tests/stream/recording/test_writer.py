"""Segments: WFDB records that any tool reads at any moment, with the same bits as came."""

from __future__ import annotations

import json
import stat
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ingest.wfdb_files import WfdbRecording
from stream.contract import INVALID, SampleChunk, Validity
from stream.recording.compression import CompressionError, compress
from stream.recording.segment import Segment, beside
from stream.recording.track import Track
from tests.stream.recording.making import FS, GAIN, HOUR, LEADS, T0, chunk, chunks, signal, write_segment

OK = (Validity.OK,) * len(LEADS)


def recorded(folder: Path, sent: list[SampleChunk], *, stop: bool = True) -> list[Segment]:
    """Return the segments of chunks, in the order in which they were written."""
    track = Track(folder)
    for number, one in enumerate(sent):
        track.take(one, T0 + number)
    track.sync(T0, stop=stop)
    found = [Segment.open(path.with_suffix("")) for path in folder.glob("*.jsonl")]
    return sorted(found, key=lambda segment: (segment.begin.begun_ns, segment.begin.n0))


def rows(segments: list[Segment]) -> list[tuple[int, int]]:
    return [(segment.begin.n0, segment.end) for segment in segments]


def test_what_comes_late_is_written_in_its_place(tmp_path: Path) -> None:
    sent = chunks(0, 3000)
    sent[7], sent[8], sent[10] = sent[10], sent[7], sent[8]
    (segment,) = recorded(tmp_path, sent)
    assert rows([segment]) == [(0, 3000)]
    np.testing.assert_array_equal(segment.read(0, 3000), signal(0, 3000))


def test_what_waits_is_written_when_nothing_else_comes(tmp_path: Path) -> None:
    track = Track(tmp_path)
    for one in (chunk(0), chunk(200)):
        track.take(one, T0)
    track.sync(T0 + 10**9)
    assert track.is_waiting
    track.sync(T0 + 3 * 10**9)
    assert not track.is_waiting
    (path,) = tmp_path.glob("*.jsonl")
    assert Segment.open(path.with_suffix("")).frames == 300


def test_an_open_segment_is_a_record_that_any_tool_reads(tmp_path: Path) -> None:
    track = Track(tmp_path)
    for until in (1, 2, 3):
        for one in chunks((until - 1) * 500, until * 500):
            track.take(one, T0)
        track.sync(T0)
        (path,) = tmp_path.glob("*.hea")
        record = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
        np.testing.assert_array_equal(record.d_signal, signal(0, until * 500))
        assert [total % 65536 for total in record.checksum] == list(record.calc_checksum())
        assert record.init_value == list(signal(0, 1)[0])
    assert (record.fs, record.sig_name, record.adc_gain) == (FS, list(LEADS), list(GAIN))
    assert record.base_datetime == datetime(2025, 11, 29, 10, 30, 0, 123_000)
    exact = json.loads(record.comments[-1])
    assert exact == {"bed": "icu-1", "session": "s", "n0": 0, "t0": T0}


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    record = write_segment(tmp_path / "bed", 100)
    compress(record, Segment.open(record).begin, 100)
    for path in [tmp_path / "bed", *(tmp_path / "bed").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("leads", [1, 2, 8, 9, 12, 64])
@pytest.mark.parametrize("frames", [1, 15, 4097])
def test_compression_changes_no_bit_whatever_reads(tmp_path: Path, leads: int, frames: int) -> None:
    names = [f"x{number}" for number in range(leads)]
    record = write_segment(tmp_path, frames, leads=names, n0=7000)
    raw = beside(record, ".dat").read_bytes()
    segment = Segment.open(record)
    compress(record, segment.begin, segment.frames)
    assert not beside(record, ".dat").exists()
    assert not list(tmp_path.glob("*.tmp"))
    np.testing.assert_array_equal(segment.read(7000, 7000 + frames).reshape(-1), np.frombuffer(raw, "<i2"))
    read = wfdb.rdrecord(str(record), physical=False)
    np.testing.assert_array_equal(read.d_signal, signal(7000, 7000 + frames, leads))
    ours = WfdbRecording(record)
    np.testing.assert_array_equal(ours.read(0, frames), signal(7000, 7000 + frames, leads))
    assert ours.leads == tuple(names)


def test_a_part_of_some_leads_is_that_part(tmp_path: Path) -> None:
    names = [f"x{number}" for number in range(12)]
    record = write_segment(tmp_path, 20_000, leads=names)
    segment = Segment.open(record)
    for _ in ("raw", "compressed"):
        part = segment.read(12_345, 12_445, [11, 0, 6])
        np.testing.assert_array_equal(part, signal(12_345, 12_445, 12)[:, [11, 0, 6]])
        assert segment.read(19_990, 30_000).shape == (10, 12)
        assert segment.read(30_000, 30_001).shape == (0, 12)
        if beside(record, ".dat").exists():
            compress(record, segment.begin, segment.frames)


def test_a_raw_file_that_does_not_fit_stays(tmp_path: Path) -> None:
    record = write_segment(tmp_path, 1000)
    with pytest.raises(CompressionError, match="shorter"):
        compress(record, Segment.open(record).begin, 1001)
    assert beside(record, ".dat").exists()
    np.testing.assert_array_equal(wfdb.rdrecord(str(record), physical=False).d_signal, signal(0, 1000))
    assert not list(tmp_path.glob("*.tmp"))


def test_segments_begin_at_the_full_hour_to_the_sample(tmp_path: Path) -> None:
    # A second before eleven, so that the sample number 500 is the first of the next hour.
    eleven = (T0 // HOUR + 1) * HOUR
    first, second = recorded(tmp_path, _from(eleven - 10**9, 1000, 130))
    assert rows([first, second]) == [(0, 500), (500, 1000)]
    assert second.begin.t0 == eleven
    assert second.record.name == "20251129T110000_000"
    assert first.begin.session == second.begin.session


def _from(t0: int, stop: int, step: int) -> list[SampleChunk]:
    return [chunk(n0, min(step, stop - n0), t0=t0 + round(n0 * 1e9 / FS)) for n0 in range(0, stop, step)]


def test_no_segment_is_shorter_than_a_second_for_the_sake_of_the_hour(tmp_path: Path) -> None:
    eleven = (T0 // HOUR + 1) * HOUR
    (only,) = recorded(tmp_path, _from(eleven - 10**8, 1000, 100))
    assert rows([only]) == [(0, 1000)]


def test_a_short_hole_is_kept_as_missing_samples(tmp_path: Path) -> None:
    (segment,) = recorded(tmp_path, [*chunks(0, 500), *chunks(700, 1000)])
    samples = segment.read(0, 1000)
    assert (samples[500:700] == INVALID).all()
    np.testing.assert_array_equal(samples[700:], signal(700, 1000))
    assert segment.flags_between(0, 1000) == [(500, 700, None), (700, 1000, OK)]
    physical = wfdb.rdrecord(str(segment.record)).p_signal
    assert np.isnan(physical[500:700]).all()
    assert not np.isnan(physical[:500]).any()


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("a long hole", {"n0": 500 + 5001}),
        ("another session", {"n0": 0, "session": "t"}),
        ("another gain", {"n0": 500, "gain": (1000.0, 1000.0, 1000.0)}),
        ("another rate", {"n0": 500, "fs": 250.0}),
        ("other leads", {"n0": 500, "leads": ("I", "II", "III")}),
        ("a clock that was set", {"n0": 500, "t0": T0 + 4 * 10**9}),
        ("a clock that was set back", {"n0": 500, "t0": T0 - HOUR}),
    ],
)
def test_a_new_segment_begins_with(tmp_path: Path, what: str, changes: dict[str, object]) -> None:
    after = chunk(**changes)  # type: ignore[arg-type]
    first, second = recorded(tmp_path, [*chunks(0, 500), after])
    assert rows([first]) == [(0, 500)], what
    assert second.begin.n0 == after.header.n0
    for field in ("session", "gain", "fs", "leads", "t0"):
        assert getattr(second.begin, field) == getattr(after.header, field)
    np.testing.assert_array_equal(second.read(0, 10**6), after.samples)


def test_the_last_chunk_ends_the_segment(tmp_path: Path) -> None:
    ended = recorded(tmp_path, [*chunks(0, 500), chunk(500, 0, last=True)], stop=False)
    assert [segment.is_open for segment in ended] == [False]


def test_repeats_overlaps_and_sessions_that_are_over_are_left_out(tmp_path: Path) -> None:
    first, second = recorded(
        tmp_path,
        [
            *chunks(0, 500),
            *chunks(200, 400),
            chunk(450, 100),
            *chunks(0, 300, session="t"),
            *chunks(550, 800),
            *chunks(300, 400, session="t"),
        ],
    )
    assert rows([first, second]) == [(0, 550), (0, 400)]
    np.testing.assert_array_equal(first.read(0, 550), signal(0, 550))


def test_device_time_is_kept_to_the_millisecond_where_it_drifts(tmp_path: Path) -> None:
    # A clock that is 100 ppm fast: 0.2 ms in a chunk of 2 s.
    sent = [chunk(n0, 1000, t0=T0 + round(n0 * 1.0001e9 / FS)) for n0 in range(0, 100_000, 1000)]
    (segment,) = recorded(tmp_path, sent)
    true = np.array([one.time_of(one.header.n0 + k) for one in sent for k in (0, 999)])
    places = np.array([one.header.n0 + k for one in sent for k in (0, 999)])
    assert abs(segment.times(0, 100_000)[places] - true).max() < 1_000_000
    for one in sent[::9]:
        at = int(segment.times(one.header.n0, one.header.n0 + 1)[0])
        assert segment.samples_between(at, at + 2_000_000) == (one.header.n0, one.header.n0 + 1)


def test_times_are_those_of_the_chunks_to_the_nanosecond(tmp_path: Path) -> None:
    sent = chunks(0, 3600, fs=360.0)
    (segment,) = recorded(tmp_path, sent)
    times = segment.times(0, 3600)
    assert [int(t) for t in times] == [sent[0].time_of(n) for n in range(3600)]
    for n in (0, 1, 7, 3599):
        assert segment.samples_between(int(times[n]), int(times[n]) + 1) == (n, n + 1)


def test_what_the_source_says_of_its_leads_is_kept(tmp_path: Path) -> None:
    off = (Validity.OK, Validity.OFF, Validity.SATURATED)
    (segment,) = recorded(tmp_path, [*chunks(0, 200), *chunks(200, 400, valid=off), *chunks(400, 600)])
    assert segment.flags_between(100, 500) == [(200, 400, off), (400, 500, OK)]
    assert segment.flags_between(250, 300) == [(250, 300, off)]
    assert segment.off(190, 210)[:, 1].tolist() == [False] * 10 + [True] * 10
    np.testing.assert_array_equal(segment.read(0, 600), signal(0, 600))


def test_lead_names_and_gains_of_any_kind_make_a_header_that_can_be_read(tmp_path: Path) -> None:
    leads = ("Ableitung ä", "II\u2028x", "  ", "V1")
    gain = (1e-6 * 3, 1234567.25, 1e20, 1000 / 3)
    record = write_segment(tmp_path, 10, leads=leads, gain=gain, fs=123.456)
    read = wfdb.rdrecord(str(record), physical=False)
    assert read.n_sig == 4
    assert read.adc_gain == list(gain)
    assert read.fs == 123.456
    assert Segment.open(record).begin.leads == leads


def test_recordings_of_the_same_time_do_not_overwrite_one_another(tmp_path: Path) -> None:
    names = {write_segment(tmp_path, 10, session=str(number)).name for number in range(3)}
    assert names == {"20251129T103000_123", "20251129T103000_123-2", "20251129T103000_123-3"}
