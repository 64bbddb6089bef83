"""Annotations as another program reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from ingest.annotations import annotation_path, write_annotations
from ingest.source import IngestError
from stream.offline import AlarmResult, Analysis
from stream.results import WindowResult


def analysis(record: str = "100", fs: float = 360.0) -> Analysis:
    scores = {0.0: 1.0, 4.0: 3.0, 8.0: 5.0, 40.0: 1.0, 60.0: 4.0}
    return Analysis(
        record=record,
        model="cae",
        fs=fs,
        leads=("II",),
        duration_s=70.0,
        record_score=2.8,
        threshold=1.5,
        window_threshold=2.0,
        anomalous=True,
        windows=[
            WindowResult(start_s=at, end_s=at + 8, score=score, anomalous=score > 2, lead_scores={})
            for at, score in scores.items()
        ],
        not_scored={},
        alarms=[
            AlarmResult(
                alarm="abc", kind="physiological", code="ECG_ANOMALY", priority="medium",
                message="unusual\nECG", onset_s=4.0, raised_s=12.0, end_s=30.0, score=5.0,
            ),
            AlarmResult(
                alarm="def", kind="technical", code="Y", priority="low", message="ü" * 300,
                onset_s=50.0, raised_s=61.0, end_s=None, score=None,
            ),
        ],
    )  # fmt: skip


@pytest.mark.parametrize("fs", [360.0, 250.0, 999.56])
def test_they_are_read_back_at_the_sources_rate(tmp_path: Path, fs: float) -> None:
    path = write_annotations(analysis(fs=fs), "bed", tmp_path)
    assert path == tmp_path / "100.bed"
    read = wfdb.rdann(str(tmp_path / "100"), "bed")
    assert read.fs == pytest.approx(fs)
    assert set(read.symbol) == {'"'}
    starts = [" ".join(note.split()[:2]) for note in read.aux_note]
    assert starts == [
        "bedside cae:", "(over alarm", "(alarm abc,", "over) alarm", "alarm) abc", "(alarm def,",
        "(over alarm", "over) alarm",
    ]  # fmt: skip
    wanted = np.array([0, 4, 4, 16, 30, 50, 60, 68])
    np.testing.assert_allclose(read.sample, np.maximum(1, np.round(wanted * fs)), atol=1)
    assert read.aux_note[0] == "bedside cae: Unusual ECG at 4.0 s; score 2.80, threshold 1.50"
    assert read.aux_note[1] == "(over alarm threshold 2.00 for 12.0 s, highest score 5.00"
    assert read.aux_note[2] == "(alarm abc, medium priority: unusual ECG"


def test_a_second_run_replaces_its_own_file_and_no_other(tmp_path: Path) -> None:
    write_annotations(analysis(), "bed", tmp_path)
    write_annotations(analysis(), "bed", tmp_path)
    wfdb.wrann("100", "atr", np.array([10, 20]), ["N", "V"], fs=360, write_dir=str(tmp_path))
    before = (tmp_path / "100.atr").read_bytes()
    with pytest.raises(IngestError, match=r"100\.atr: exists and was not written by bedside"):
        write_annotations(analysis(), "atr", tmp_path)
    assert (tmp_path / "100.atr").read_bytes() == before
    (tmp_path / "100.txt").write_text("shopping list")
    with pytest.raises(IngestError, match="was not written by bedside"):
        annotation_path("100", "txt", tmp_path)


@pytest.mark.parametrize("extension", ["", "b1", "a.b", "../x", "hea", "DAT"])
def test_an_extension_that_cannot_be_is_refused(tmp_path: Path, extension: str) -> None:
    with pytest.raises(IngestError, match="extension"):
        annotation_path("100", extension, tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="no such folder"):
        annotation_path("100", "bed", tmp_path / "nowhere")


def test_a_name_that_wfdb_does_not_allow_is_changed(tmp_path: Path) -> None:
    path = write_annotations(analysis("My ECG (2).v1"), "bed", tmp_path)
    assert path.name == "My_ECG__2__v1.bed"
    assert len(wfdb.rdann(str(path.with_suffix("")), "bed").sample) == 8
