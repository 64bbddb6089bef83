"""What a recorder that was killed leaves behind becomes a whole record, whatever was cut off."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.recording.alarms import add_alarms
from stream.recording.compression import compress
from stream.recording.names import folder_of
from stream.recording.repair import repair, repair_segment
from stream.recording.segment import Segment, beside
from tests.stream.recording.making import LEADS, T0, signal, write_segment
from tests.stream.turmoil import event

FRAMES = 40
ROW = 2 * len(LEADS)
# Up to its newline: as `killed` has it.
FIRST_LINE = 163


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which a segment was left open."""
    folder = tmp_path_factory.mktemp("killed")
    record = write_segment(folder, FRAMES, end=False)
    assert beside(record, ".jsonl").read_bytes().find(b"\n") == FIRST_LINE
    add_alarms(record, [event(1, bed="icu-1")])
    return folder


@settings(max_examples=200, deadline=None)
@given(raw=st.integers(0, FRAMES * ROW), side=st.integers(0, 2000), header=st.integers(0, 2000))
@example(raw=FRAMES * ROW, side=2000, header=2000)
@example(raw=ROW - 1, side=2000, header=0)
@example(raw=ROW, side=FIRST_LINE, header=0)
@example(raw=0, side=0, header=0)
def test_any_prefix_of_its_files_becomes_a_record_of_whole_frames(
    killed: Path, raw: int, side: int, header: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "bed"
        shutil.copytree(killed, folder)
        for suffix, size in ((".dat", raw), (".jsonl", side), (".hea", header)):
            (path,) = folder.glob(f"*{suffix}")
            path.write_bytes(path.read_bytes()[:size])
        record = next(folder.glob("*.dat")).with_suffix("")
        found = repair_segment(record)
        frames = raw // ROW
        if side < FIRST_LINE and raw:
            assert found is None, "what cannot be understood is left as it is"
            assert beside(record, ".dat").stat().st_size == raw
            return
        if not frames or side < FIRST_LINE:
            assert found is None
            assert not list(folder.iterdir())
            return
        assert found is not None
        assert found.end.frames == frames
        assert found.is_raw
        read = wfdb.rdrecord(str(record), physical=False)
        np.testing.assert_array_equal(read.d_signal, signal(0, frames))
        assert [total % 65536 for total in read.checksum] == list(read.calc_checksum())
        again = Segment.open(record)
        assert (again.frames, again.is_open) == (frames, False)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        assert repair_segment(record) == found
        assert {path: path.read_bytes() for path in folder.iterdir()} == before, "repaired once"
        compress(record, found.begin, frames)
        np.testing.assert_array_equal(again.read(0, FRAMES), signal(0, frames))


def _state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_recorder_killed_at_any_step_of_compressing_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / folder_of("icu-1")
    record = write_segment(folder, FRAMES)
    before = _state(folder)
    begin = Segment.open(record).begin
    compress(record, begin, FRAMES)
    after = _state(folder)
    flac = f"{record.name}.flac"
    steps = {
        "half a FLAC file": before | {f"{flac}.tmp": after[flac][:50]},
        "FLAC without header": before | {flac: after[flac]},
        "raw file still there": before | after,
    }
    for what, state in steps.items():
        shutil.rmtree(folder)
        folder.mkdir()
        for name, data in state.items():
            (folder / name).write_bytes(data)
        (found,) = repair(tmp_path)
        assert not list(folder.glob("*.tmp")), what
        if found.is_raw:
            compress(record, found.begin, found.end.frames)
        assert _state(folder) == after, what


def test_a_damaged_segment_that_was_compressed_is_not_thrown_away(tmp_path: Path) -> None:
    record = write_segment(tmp_path, FRAMES)
    compress(record, Segment.open(record).begin, FRAMES)
    first = beside(record, ".jsonl").read_bytes().split(b"\n")[0]
    beside(record, ".jsonl").write_bytes(first)
    found = repair_segment(record)
    assert found is not None
    assert found.end.frames == FRAMES
    np.testing.assert_array_equal(Segment.open(record).read(0, FRAMES), signal(0, FRAMES))
    beside(record, ".jsonl").write_bytes(first)
    beside(record, ".hea").unlink()
    assert repair_segment(record) is None
    assert beside(record, ".flac").exists()


def test_segments_come_in_the_order_in_which_they_were_recorded(tmp_path: Path) -> None:
    folder = tmp_path / folder_of("icu-1")
    late = write_segment(folder, 10, t0=T0 - 10**12, begun_ns=T0 + 5)
    early = write_segment(folder, 10, t0=T0, begun_ns=T0)
    (tmp_path / ".deleted-7").mkdir()
    assert [found.record for found in repair(tmp_path)] == [early, late]
    assert not (tmp_path / ".deleted-7").exists()
