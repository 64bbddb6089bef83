"""DICOM waveforms: pydicom's own ECG, and variations of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from ingest.dicom_files import DicomRecording
from ingest.source import IngestError
from stream.contract import INVALID
from stream.leads import LEADS


def saved(dataset: Any, folder: Path) -> Path:
    dataset.save_as(folder / "x.dcm")
    return folder / "x.dcm"


@pytest.fixture
def dataset(dicom_ecg: Path) -> Any:
    return pydicom.dcmread(dicom_ecg)


def test_the_rhythm_is_read_in_millivolts(dicom_ecg: Path, dataset: Any) -> None:
    recording = DicomRecording(dicom_ecg)
    assert recording.leads == LEADS
    assert (recording.fs, recording.n_samples) == (1000.0, 10_000)
    assert recording.gain == (800.0,) * 12
    assert recording.start_time == datetime(2013, 1, 25, 10, 59, 19)
    microvolts = dataset.waveform_array(0)
    np.testing.assert_allclose(recording.read(0, 10_000) / 0.8, microvolts, atol=1e-9)


def test_digital_values_are_the_file_s(dicom_ecg: Path, dataset: Any) -> None:
    raw = np.frombuffer(dataset.WaveformSequence[0].WaveformData, "<i2").reshape(-1, 12)
    np.testing.assert_array_equal(DicomRecording(dicom_ecg).read(0, 10_000), raw)


def test_the_median_beat_is_not_taken_even_if_it_comes_first(dataset: Any, tmp_path: Path) -> None:
    dataset.WaveformSequence.reverse()
    assert DicomRecording(saved(dataset, tmp_path)).n_samples == 10_000


def test_without_labels_the_longest_group_is_taken(dataset: Any, tmp_path: Path) -> None:
    for group in dataset.WaveformSequence:
        del group.MultiplexGroupLabel
    assert DicomRecording(saved(dataset, tmp_path)).n_samples == 10_000


def test_baseline_correction_and_unit_count(dataset: Any, tmp_path: Path) -> None:
    channel = dataset.WaveformSequence[0].ChannelDefinitionSequence[1]
    channel.ChannelBaseline = "0.5"
    channel.ChannelSensitivity = "0.002"
    channel.ChannelSensitivityCorrectionFactor = "2"
    channel.ChannelSensitivityUnitsSequence[0].CodeValue = "mV"
    raw = np.frombuffer(dataset.WaveformSequence[0].WaveformData, "<i2").reshape(-1, 12)
    recording = DicomRecording(saved(dataset, tmp_path))
    assert recording.gain[1] == pytest.approx(250.0)
    np.testing.assert_array_equal(recording.read(0, 10_000)[:, 1], raw[:, 1] + 125)


def test_padding_is_missing(dataset: Any, tmp_path: Path) -> None:
    group = dataset.WaveformSequence[0]
    raw = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).copy()
    raw[100:200, 3] = -9999
    group.WaveformData = raw.tobytes()
    group.add_new("WaveformPaddingValue", "OW", (-9999).to_bytes(2, "little", signed=True))
    samples = DicomRecording(saved(dataset, tmp_path)).read(0, 10_000)
    assert (samples[100:200, 3] == INVALID).all()
    assert np.count_nonzero(samples == INVALID) == 100


def test_channels_in_other_units_are_left_out(dataset: Any, tmp_path: Path) -> None:
    channel = dataset.WaveformSequence[0].ChannelDefinitionSequence[11]
    channel.ChannelSensitivityUnitsSequence[0].CodeValue = "mm[Hg]"
    assert DicomRecording(saved(dataset, tmp_path)).leads == LEADS[:11]


def test_unsigned_samples_beyond_16_bits_are_rescaled(dataset: Any, tmp_path: Path) -> None:
    group = dataset.WaveformSequence[0]
    raw = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).astype(np.int32) + 50_000
    group.WaveformData = raw.astype("<u2").tobytes()
    group.WaveformSampleInterpretation = "US"
    recording = DicomRecording(saved(dataset, tmp_path))
    assert max(recording.gain) < 800
    millivolts = recording.read(0, 10_000) / np.array(recording.gain)
    np.testing.assert_allclose(millivolts, raw * 0.00125, atol=0.002)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WaveformSampleInterpretation", "MB", "coding MB is not linear"),
        ("NumberOfWaveformSamples", 20_000, "damaged"),
        ("SamplingFrequency", "0", "damaged"),
        ("ChannelDefinitionSequence", None, "damaged"),
    ],
)
def test_a_damaged_waveform_is_refused(
    dataset: Any, tmp_path: Path, name: str, value: object, says: str
) -> None:
    setattr(dataset.WaveformSequence[0], name, value)
    with pytest.raises(IngestError, match=says) as caught:
        DicomRecording(saved(dataset, tmp_path))
    assert "x.dcm" in str(caught.value)


def test_without_a_waveform_it_is_refused(dataset: Any, tmp_path: Path) -> None:
    del dataset.WaveformSequence
    with pytest.raises(IngestError, match="without a waveform"):
        DicomRecording(saved(dataset, tmp_path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(IngestError, match=r"x\.dcm: no DICOM file"):
        DicomRecording(tmp_path / "x.dcm")
