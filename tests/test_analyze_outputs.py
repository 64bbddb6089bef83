"""`bedside analyze` and the files it writes, as a person meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import wfdb
from pydicom.data import get_testdata_file

import bedside
from stream.overlay import Overlay
from tests.command_line import assert_refused, run

DICOM = str(get_testdata_file("waveform_ecg.dcm", download=False))


def test_all_files_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(
        "analyze", DICOM, "--json", "-", "--png", "a.png", "--html", "a.html", "--arrays", "a.npz",
        "--annotations", "bed",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # Standard output is the JSON alone.
    found = json.loads(result.stdout)
    assert "written: waveform_ecg.bed, a.png, a.html, a.npz" in result.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "waveform_ecg: as normals are" in (tmp_path / "a.html").read_text()
    notes = wfdb.rdann("waveform_ecg", "bed")
    assert notes.fs == 1000
    assert notes.aux_note[0].startswith("bedside cae-100hz: as normals are")
    with np.load("a.npz", allow_pickle=False) as arrays:
        assert arrays["leads"].tolist() == found["leads"]
        assert arrays["window_score"].tolist() == [window["score"] for window in found["windows"]]
        assert arrays["signal_mv"].shape == (12, 1000)
        assert np.isfinite(arrays["reconstruction_mv"]).all()


def test_the_summary_names_what_was_written(tmp_path: Path) -> None:
    file = str(tmp_path / "picture.of.it")
    result = run("analyze", DICOM, "--png", file)
    assert f"written: {file}" in result.stdout
    assert Path(file).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--png", "--html", "--arrays", "--json"])
def test_a_file_that_cannot_be_written_is_refused_at_once(option: str, tmp_path: Path) -> None:
    assert_refused(
        run("analyze", DICOM, option, "/nonexistent/x"), "cannot write /nonexistent/x", "no folder"
    )
    assert_refused(run("analyze", DICOM, option, str(tmp_path)), f"cannot write {tmp_path}", "folder")


@pytest.mark.parametrize("extension", ["b1", "", "a/b", "hea"])
def test_an_extension_that_cannot_be(extension: str) -> None:
    assert_refused(run("analyze", DICOM, "--annotations", extension), "extension")


def test_reference_annotations_are_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wfdb.wrann("waveform_ecg", "atr", np.array([10]), ["N"], fs=1000)
    assert_refused(run("analyze", DICOM, "--annotations", "atr"), "waveform_ecg.atr", "another extension")
    assert wfdb.rdann("waveform_ecg", "atr").symbol == ["N"]


def test_the_arrays_stand_where_the_source_does(
    dicom_signal: tuple[np.ndarray, float], tmp_path: Path
) -> None:
    x, fs = dicom_signal
    assert run("analyze", DICOM, "--arrays", str(tmp_path / "a.npz")).returncode == 0
    _assert_aligned(x[:, 1], fs, tmp_path / "a.npz", "II", np.arange(1.0, 9.0))


@pytest.fixture
def dicom_signal() -> tuple[np.ndarray, float]:
    from ingest.recordings import open_recording

    recording = open_recording(DICOM)
    assert recording.leads[1] == "II"
    return recording.read(0, recording.n_samples or 0) / np.array(recording.gain), recording.fs


def _assert_aligned(x: np.ndarray, fs: float, file: Path, lead: str, seconds: np.ndarray) -> None:
    # The R peak of every second, in the source and in the arrays.
    with np.load(file, allow_pickle=False) as arrays:
        t, signal = arrays["t_s"], arrays["signal_mv"][arrays["leads"].tolist().index(lead)]
    apart = []
    for second in seconds:
        near = slice(round(second * fs), round((second + 1) * fs))
        peak = (near.start + np.argmax(x[near])) / fs
        around = np.abs(t - peak) < 0.06
        apart.append(abs(t[around][np.argmax(signal[around])] - peak))
    assert max(apart) <= 0.02


@pytest.mark.data
def test_peaks_of_a_holter_stand_where_its_annotations_do(data_dir: Path, tmp_path: Path) -> None:
    # Its first 500 beats: ten times as many would not show more.
    seconds = 405
    cut = wfdb.rdrecord(str(data_dir / "mitdb/100"), sampto=seconds * 360, physical=False)
    cut.wrsamp(write_dir=str(tmp_path))
    assert run("analyze", tmp_path / "100", "--arrays", tmp_path / "a.npz").returncode == 0
    reference = wfdb.rdann(str(data_dir / "mitdb/100"), "atr", sampto=seconds * 360)
    beats = [at / 360 for at, kind in zip(reference.sample, reference.symbol, strict=True) if kind == "N"]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        t, signal = arrays["t_s"], arrays["signal_mv"][arrays["leads"].tolist().index("II")]
        assert len(t) == pytest.approx(seconds * 100, abs=50)
    assert len(beats) >= 500
    apart = []
    for beat in beats[5:500]:
        first, stop = np.searchsorted(t, [beat - 0.08, beat + 0.08])
        apart.append(abs(t[first + np.argmax(signal[first:stop])] - beat))
    assert np.percentile(apart, 99) <= 0.02


@pytest.mark.data
def test_the_public_function_and_the_overlay_agree(data_dir: Path) -> None:
    from ingest.recordings import open_recording

    recording = open_recording(data_dir / "ptb/S0004")
    session = bedside.load_model()
    overlay = Overlay(session.manifest, recording.leads, recording.fs, recording.duration_s or 0)
    found = bedside._analyse(recording, session, overlay=overlay)
    assert found == bedside.analyze(data_dir / "ptb/S0004")
    assert overlay.traces().leads == session.manifest.leads
