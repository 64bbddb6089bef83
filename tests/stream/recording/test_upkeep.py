"""Retention, quota and deletion: the oldest goes first, what is being written never."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.recording.names import folder_of
from stream.recording.segment import Segment, beside
from stream.recording.store import Recordings
from stream.recording.upkeep import Limits, Upkeep, delete_bed
from stream.recording.writer import SegmentWriter
from tests.stream.recording.making import T0, header, signal, write_segment

SECOND = 1_000_000_000


def ended(folder: Path, number: int, *, bed: str = "icu-1") -> Path:
    """Write a segment whose end was recorded `number` seconds after the others began."""
    begin = Segment.open(write_segment(folder, 1000, bed=bed, t0=T0 - number * SECOND, end=False)).begin
    for path in folder.glob("*.jsonl"):
        if Segment.open(path.with_suffix("")).begin == begin:
            with path.open("ab") as file:
                file.write(b'{"frames":1000,"ended_ns":%d}\n' % (T0 + number * SECOND))
            return path.with_suffix("")
    raise AssertionError


def test_what_is_older_than_the_retention_goes_whatever_its_device_time(tmp_path: Path) -> None:
    folder = tmp_path / folder_of("icu-1")
    records = [ended(folder, number) for number in range(5)]
    upkeep = Upkeep(tmp_path, Limits(retention_ns=10 * SECOND))
    size, trouble = upkeep.tidy(T0 + 12 * SECOND)
    assert trouble is None
    assert [beside(record, ".dat").exists() for record in records] == [False, False, True, True, True]
    assert size == Recordings(tmp_path).size("icu-1")
    assert not list(folder.glob(f"{records[0].name}.*"))


def test_beyond_the_quota_the_oldest_of_all_beds_goes_first_and_what_is_written_never(tmp_path: Path) -> None:
    one, other = (tmp_path / folder_of(bed) for bed in ("icu-1", "icu-2"))
    written = write_segment(one, 5000, session="open", begun_ns=0, end=False)
    records = [ended((one, other)[number % 2], number, bed=f"icu-{number % 2 + 1}") for number in range(6)]
    each = sum(path.stat().st_size for path in other.iterdir()) // 3
    total = sum(path.stat().st_size for folder in (one, other) for path in folder.iterdir())
    upkeep = Upkeep(tmp_path, Limits(quota=total - 3 * each + 100))
    size, trouble = upkeep.tidy(T0)
    assert trouble is None
    assert [beside(record, ".dat").exists() for record in records] == [False] * 3 + [True] * 3
    assert size <= total - 3 * each + 100
    _, trouble = Upkeep(tmp_path, Limits(quota=1000)).tidy(T0)
    assert trouble is not None
    assert "quota" in trouble
    assert [beside(record, ".dat").exists() for record in (written, *records)] == [True] + [False] * 6


def test_a_bed_is_deleted_whole_and_no_other(tmp_path: Path) -> None:
    long = "\U0001f3e5" * 64
    for bed in ("icu-1", "icu-2", long, long[:40]):
        write_segment(tmp_path / folder_of(bed), 100, bed=bed)
    assert delete_bed(tmp_path, "icu-1") == 1
    assert delete_bed(tmp_path, long) == 1
    assert Recordings(tmp_path).beds() == sorted(["icu-2", long[:40]])
    with pytest.raises(FileNotFoundError):
        delete_bed(tmp_path, "icu-1")
    assert {path.name for path in tmp_path.iterdir()} == {"icu-2", folder_of(long[:40]).parts[0]}


def test_a_segment_deleted_before_it_was_compressed_holds_up_nothing(tmp_path: Path) -> None:
    folder = tmp_path / folder_of("icu-1")
    upkeep = Upkeep(tmp_path, Limits())
    gone, kept = (write_segment(folder, 100) for _ in range(2))
    for record in (gone, kept):
        segment = Segment.open(record)
        assert segment.side.end is not None
        upkeep.add([(record, segment.begin, segment.side.end)])
    beside(gone, ".dat").unlink()
    assert upkeep.compress_next() is None
    assert upkeep.compress_next() is None
    assert upkeep.waiting == 0
    assert beside(kept, ".flac").exists()


def test_a_writer_whose_segment_was_deleted_says_so(tmp_path: Path) -> None:
    folder = tmp_path / folder_of("icu-1")
    record = write_segment(folder, 100, end=False)
    writer = SegmentWriter(folder, Segment.open(record).begin)
    writer.record = record
    delete_bed(tmp_path, "icu-1")
    made = header(0)
    writer.append(0, made.t0, signal(0, 100), made.valid)
    with pytest.raises(FileNotFoundError):
        writer.sync()
    assert not folder.exists()
