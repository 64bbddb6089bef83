"""A snapshot as another program reads it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ingest.recordings import open_recording
from ingest.snapshot_files import write_snapshot
from ingest.source import IngestError
from stream.contract import INVALID, SampleChunk
from stream.snapshots.store import Snapshot
from tests.stream.snapshots.test_hindsight import FS, chunks, due, make, signal

GAIN = (1000.0, 204.7, 1 / 3)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    sent = [
        SampleChunk(chunk.header.model_copy(update={"gain": GAIN, "bed": "icu 1/ä"}), chunk.samples)
        for chunk in chunks(signal(60))
    ]
    one = due(40, 45)
    one.raised = one.raised.model_copy(update={"bed": "icu 1/ä", "message": "ungewöhnlich\nECG"})
    # A hole, and beats as a detector finds them.
    made = make(one, [*sent[:210], *sent[213:]])
    beats = np.array([7600, 7800, 9001], np.int64)
    fields = made.header.model_dump(exclude={"arrays"})
    return Snapshot.of(made.arrays | {"beats": beats}, **fields)


def test_the_record_holds_the_samples_to_the_bit(tmp_path: Path, snapshot: Snapshot) -> None:
    header_file, *_ = write_snapshot(snapshot, tmp_path / "new" / "folder")
    assert header_file.name == "icu_1__-abc.hea"
    read = wfdb.rdrecord(str(header_file.with_suffix("")), physical=False)
    np.testing.assert_array_equal(read.d_signal, snapshot.arrays["samples"])
    assert (read.d_signal == INVALID).all(axis=1).sum() == 150
    assert (read.fs, read.sig_name, read.units) == (FS, ["I", "II", "V1"], ["mV"] * 3)
    assert read.fmt == ["16"] * 3
    assert read.adc_gain == pytest.approx(GAIN, rel=1e-12)
    assert read.baseline == [0, 0, 0]
    started = datetime.fromtimestamp(snapshot.header.t0 / 1e9, UTC).replace(tzinfo=None)
    assert abs((read.base_datetime - started).total_seconds()) < 1e-3
    assert "Research software, not a medical device." in read.comments
    # In millivolts a sample that never came is none.
    physical = wfdb.rdrecord(str(header_file.with_suffix(""))).p_signal
    assert np.isnan(physical).sum() == 3 * 150
    # And we read it ourselves.
    again = open_recording(header_file.with_suffix(""))
    np.testing.assert_array_equal(again.read(0, 1000), snapshot.arrays["samples"][:1000])


def test_the_annotations_say_when_and_why(tmp_path: Path, snapshot: Snapshot) -> None:
    _, _, annotations = write_snapshot(snapshot, tmp_path)
    read = wfdb.rdann(str(annotations.with_suffix("")), "bed")
    assert read.fs == FS
    said = dict(
        zip([" ".join(note.split()[:2]) for note in read.aux_note], read.sample.tolist(), strict=True)
    )
    assert said["(alarm abc,"] == 10 * FS
    assert said["raised abc"] == 15 * FS
    assert said["bedside stand-in:"] == 1
    (alarm,) = (note for note in read.aux_note if note.startswith("(alarm"))
    assert alarm == "(alarm abc, medium priority: ungew?hnlich ECG"
    beats = [sample for sample, symbol in zip(read.sample, read.symbol, strict=True) if symbol == "N"]
    assert beats == [100, 300, 1501]
    over = [at for note, at in zip(read.aux_note, read.sample, strict=True) if note.startswith("(over")]
    scores = snapshot.arrays["window_score"] > snapshot.header.threshold
    assert scores.any()
    first = snapshot.arrays["windows"][scores][0, 0] - snapshot.header.n0
    assert over[0] == max(1, first)
    assert max(read.sample) <= len(snapshot.arrays["samples"])


def test_it_may_be_written_again(tmp_path: Path, snapshot: Snapshot) -> None:
    assert write_snapshot(snapshot, tmp_path) == write_snapshot(snapshot, tmp_path)


def test_what_cannot_be_written_is_one_line(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IngestError, match="cannot be written"):
        write_snapshot(snapshot, tmp_path / "file")
    wfdb.wrann("icu_1__-abc", "bed", np.array([5]), ["N"], write_dir=str(tmp_path))
    with pytest.raises(IngestError, match="not written by bedside"):
        write_snapshot(snapshot, tmp_path)
    empty = replace(snapshot, arrays=snapshot.arrays | {"samples": np.empty((0, 3), np.int16)})
    with pytest.raises(IngestError, match="no samples"):
        write_snapshot(empty, tmp_path)
