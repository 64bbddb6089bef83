"""Reading recordings back: any moment, while they are written, compressed and deleted."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stream.contract import SampleChunk, Validity
from stream.recording.alarms import add_alarms
from stream.recording.compression import compress
from stream.recording.names import folder_of
from stream.recording.segment import Segment
from stream.recording.store import Recordings
from stream.recording.track import Track
from tests.stream.recording.making import FS, GAIN, HOUR, T0, chunk, chunks, signal, write_segment
from tests.stream.turmoil import event

ELEVEN = (T0 // HOUR + 1) * HOUR
MS = 1_000_000


def millivolts(start: int, stop: int) -> np.ndarray:
    return (signal(start, stop) / np.array(GAIN)).astype(np.float32)


def record(root: Path, sent: list[SampleChunk], *, stop: bool = True) -> Track:
    track = Track(root / folder_of(sent[0].header.bed))
    for one in sent:
        track.take(one, T0)
    track.sync(T0, stop=stop)
    for path, begin, end in track.take_ended():
        compress(path, begin, end.frames)
    return track


def test_nothing_recorded_is_nothing_and_no_error(tmp_path: Path) -> None:
    for recordings in (Recordings(tmp_path), Recordings(tmp_path / "not there")):
        assert recordings.beds() == []
        assert recordings.span("icu-1") is None
        assert recordings.read("icu-1", 0, 2**62) == []
        assert recordings.alarms("icu-1", 0, 2**62) == []
        assert recordings.size("icu-1") == 0


def test_a_moment_over_the_full_hour_is_one_stretch_of_the_right_samples(tmp_path: Path) -> None:
    start = ELEVEN - 2 * 10**9
    record(tmp_path, [chunk(n, 100, t0=start + n * 2 * MS) for n in range(0, 2000, 100)])
    recordings = Recordings(tmp_path)
    assert [segment.frames for segment in recordings.segments("icu-1")] == [1000, 1000]
    assert recordings.span("icu-1") == (start, start + 2000 * 2 * MS)
    (stretch,) = recordings.read("icu-1", ELEVEN - 100 * MS, ELEVEN + 100 * MS)
    assert (stretch.n0, stretch.end) == (950, 1050)
    assert (stretch.bed, stretch.session, stretch.fs, stretch.leads) == ("icu-1", "s", FS, ("I", "II", "V1"))
    np.testing.assert_array_equal(stretch.millivolts, millivolts(950, 1050))
    np.testing.assert_array_equal(stretch.t_ns, ELEVEN - 100 * MS + np.arange(100) * 2 * MS)
    (part,) = recordings.read("icu-1", ELEVEN - 100 * MS, ELEVEN + 100 * MS, ["V1", "V9", "I"])
    assert part.leads == ("V1", "I")
    np.testing.assert_array_equal(part.millivolts, millivolts(950, 1050)[:, [2, 0]])
    assert recordings.read("icu-1", start - 10**9, start) == []
    assert recordings.read("icu-1", start, start + 1)[0].end == 1


def test_gaps_and_leads_that_are_off_are_nan_and_a_long_gap_ends_the_stretch(tmp_path: Path) -> None:
    off = (Validity.OK, Validity.OFF, Validity.OK)
    sent = [*chunks(0, 500), *chunks(600, 700), *chunks(700, 800, valid=off), *chunks(9000, 9100)]
    record(tmp_path, sent)
    first, second = Recordings(tmp_path).read("icu-1", 0, 2**62)
    assert (first.n0, first.end, second.n0, second.end) == (0, 800, 9000, 9100)
    missing = np.isnan(first.millivolts)
    assert missing[500:600].all()
    assert missing[700:, 1].all()
    assert missing.sum() == 300 + 100
    assert second.t_ns[0] == sent[-1].header.t0


def test_what_is_being_written_can_be_read(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path)
    track = record(tmp_path, chunks(0, 500), stop=False)
    assert recordings.read("icu-1", 0, 2**62)[0].end == 500
    assert recordings.segments("icu-1")[0].is_open
    for one in chunks(500, 600):
        track.take(one, T0)
    track.sync(T0, stop=True)
    assert recordings.read("icu-1", 0, 2**62)[0].end == 600
    assert not recordings.segments("icu-1")[0].is_open


def test_reading_never_fails_while_segments_are_compressed_and_deleted(tmp_path: Path) -> None:
    folder = tmp_path / folder_of("icu-1")
    records = [write_segment(folder, 50_000, n0=n * 50_000, t0=T0 + n * 10**11) for n in range(12)]
    recordings = Recordings(tmp_path)
    expected = {n * 50_000: signal(n * 50_000, n * 50_000 + 40, 3) for n in range(12)}
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        # As the page does, in a thread of its own.
        while not done.is_set():
            try:
                for segment in recordings.segments("icu-1"):
                    n0 = segment.begin.n0
                    if not np.array_equal(segment.read(n0, n0 + 40), expected[n0]):
                        wrong.append(n0)
            except FileNotFoundError:
                continue
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for path in records:
        compress(path, Segment.open(path).begin, 50_000)
        recordings.read("icu-1", T0, T0 + 10**12)
    shutil.rmtree(folder)
    done.set()
    reader.join()
    assert wrong == []
    assert recordings.read("icu-1", 0, 2**62) == []


def test_a_moment_of_a_compressed_hour_is_read_without_the_hour(tmp_path: Path) -> None:
    folder = tmp_path / folder_of("icu-1")
    leads = tuple(f"x{number}" for number in range(12))
    path = write_segment(folder, 1_000_000, leads=leads)
    compress(path, Segment.open(path).begin, 1_000_000)
    recordings = Recordings(tmp_path)

    def seconds(t0: int, t1: int) -> float:
        begun = time.perf_counter()
        recordings.read("icu-1", t0, t1)
        return time.perf_counter() - begun

    late = T0 + 1_900 * 10**9
    moment = min(seconds(late, late + 10**10) for _ in range(3))
    assert moment < seconds(0, 2**62) / 5


def test_alarms_come_back_as_they_were_each_once_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / folder_of("icu-1")
    first = write_segment(folder, 1000)
    second = write_segment(folder, 1000, n0=1000, t0=T0 + 2 * 10**9)
    raised = [event(number, "icu-1", since=T0 + number * 10**9) for number in range(4)]
    add_alarms(second, [raised[3], raised[2]])
    add_alarms(first, [raised[0], raised[1], raised[0]])
    add_alarms(second, [raised[3]])
    recordings = Recordings(tmp_path)
    assert recordings.alarms("icu-1", 0, 2**62) == raised
    assert recordings.alarms("icu-1", T0 + 10**9, T0 + 3 * 10**9) == raised[1:3]
    assert len(Segment.open(second).side.alarms) == 2


@pytest.mark.parametrize("bed", ["../x", "Bett 7/ä", "\U0001f3e5" * 64])
def test_beds_of_any_name_are_found(tmp_path: Path, bed: str) -> None:
    record(tmp_path, chunks(0, 100, bed=bed))
    recordings = Recordings(tmp_path)
    assert recordings.beds() == [bed]
    assert recordings.size(bed) > 0
    assert recordings.read(bed, 0, 2**62)[0].end == 100
