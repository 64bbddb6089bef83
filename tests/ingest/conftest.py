"""Fixtures for the tests of ingest."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest


@pytest.fixture(scope="session")
def dicom_ecg() -> Path:
    """Name the 12-lead ECG that comes with pydicom (10 s, 1000 Hz, and a median beat)."""
    return Path(pydicom.__file__).parent / "data" / "test_files" / "waveform_ecg.dcm"
