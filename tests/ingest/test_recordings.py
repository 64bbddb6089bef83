"""Opening a recording by its path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.dicom_files import DicomRecording
from ingest.npy_files import NpyRecording
from ingest.recordings import open_recording
from ingest.source import IngestError
from ingest.wfdb_files import WfdbRecording
from tests.ingest.wfdb_writing import random_digital, write_mat, write_record


def test_each_format_is_recognised(tmp_path: Path, dicom_ecg: Path) -> None:
    write_record(tmp_path, random_digital("16", 99, 2))
    write_mat(tmp_path, random_digital("16", 99, 12))
    np.save(tmp_path / "a.npy", np.zeros((99, 12)))
    (tmp_path / "no-extension").write_bytes(dicom_ecg.read_bytes())
    assert isinstance(open_recording(tmp_path / "rec"), WfdbRecording)
    assert isinstance(open_recording(str(tmp_path / "rec.dat")), WfdbRecording)
    assert isinstance(open_recording(tmp_path / "E1.mat"), WfdbRecording)
    assert isinstance(open_recording(tmp_path / "a.npy", fs=100), NpyRecording)
    assert isinstance(open_recording(dicom_ecg), DicomRecording)
    assert isinstance(open_recording(tmp_path / "no-extension"), DicomRecording)


def test_a_record_whose_name_has_a_dot_is_found(tmp_path: Path) -> None:
    write_record(tmp_path, random_digital("16", 99, 2))
    (tmp_path / "rec.v2.hea").write_text((tmp_path / "rec.hea").read_text())
    assert open_recording(tmp_path / "rec.v2").name == "rec.v2"


def test_the_rate_given_is_for_files_without_one(tmp_path: Path) -> None:
    write_record(tmp_path, random_digital("16", 99, 2), fs=250)
    assert open_recording(tmp_path / "rec", fs=500).fs == 250


def test_a_missing_file_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"100: not found \(neither .* WFDB header 100\.hea\)"):
        open_recording(tmp_path / "100")


def test_a_folder_names_recordings_in_it(tmp_path: Path) -> None:
    write_record(tmp_path, random_digital("16", 99, 2))
    with pytest.raises(IngestError, match=f"a folder; name the recordings in it, such as {tmp_path}/rec$"):
        open_recording(tmp_path)


def test_a_folder_without_recordings_says_so(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="holds no WFDB records"):
        open_recording(tmp_path)


def test_a_signal_file_without_header_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x.mat").write_bytes(b"\0" * 100)
    with pytest.raises(IngestError, match=r"without its WFDB header x\.hea"):
        open_recording(tmp_path / "x.mat")


def test_an_unknown_format_says_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.edf").write_bytes(b"0       ")
    with pytest.raises(IngestError, match=r"\.npy arrays and DICOM waveforms"):
        open_recording(tmp_path / "x.edf")
