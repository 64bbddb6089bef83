"""Recordings as DICOM waveforms (PS3.3 A.34 and C.10.9): resting, general and ambulatory ECG."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.valuerep import DT
from pydicom.waveforms.numpy_handler import multiplex_array

from ingest.source import ArrayRecording, IngestError, fitting_gain
from stream.contract import to_lsb
from stream.leads import canonical_leads

_log = logging.getLogger(__name__)

# Millivolts per unit (UCUM codes, which tell case apart).
_MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}
# The linear codings; the others are sound (mu-law and A-law).
_LINEAR = ("SB", "UB", "SS", "US", "SL", "UL")


@dataclass(frozen=True, slots=True)
class _Channel:
    index: int
    name: str
    gain: float
    """LSB per millivolt."""
    offset: float
    """Millivolts at the digital value 0."""


class DicomRecording(ArrayRecording):
    """The rhythm strip of a DICOM ECG.

    Of several multiplex groups the one labelled RHYTHM is taken, else the longest (a median beat is
    the other usual one).

    Parameters
    ----------
    path : pathlib.Path

    Raises
    ------
    IngestError
        If the file is no DICOM waveform, is damaged, or has no ECG channel.

    Notes
    -----
    The file is held in memory: a DICOM element has to be parsed as a whole. A skew between channels
    is not corrected.
    """

    def __init__(self, path: Path) -> None:
        dataset = _dataset(path)
        try:
            group, index = _rhythm(dataset)
            channels, left_out = _channels(group)
            if group.WaveformSampleInterpretation not in _LINEAR:
                raise ValueError(f"the coding {group.WaveformSampleInterpretation} is not linear")
            raw = multiplex_array(dataset, index, as_raw=True)
            fs = float(group.SamplingFrequency)
        except IngestError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            # pydicom checks elements when they are used, each in its own way.
            raise IngestError(path, f"the waveform is damaged or not supported: {error}") from error
        if not channels:
            raise IngestError(path, f"no ECG channel, only {', '.join(left_out)}")
        if left_out:
            _log.info("%s: left out, as no ECG: %s", path.name, ", ".join(left_out))
        own_gain = np.array([channel.gain for channel in channels])
        values = raw[:, [channel.index for channel in channels]].astype(np.float64)
        if (padding := group.get("WaveformPaddingValue")) is not None:
            values[values == _padding(padding, raw.dtype)] = np.nan
        values += own_gain * [channel.offset for channel in channels]
        peaks = np.nan_to_num(np.abs(values)).max(axis=0, initial=0.0) / np.abs(own_gain)
        gain = [fitting_gain(abs(own), peak) for own, peak in zip(own_gain, peaks, strict=True)]
        super().__init__(
            # Unequal only where a lead does not fit 16 bits, so that digital values otherwise stay exact.
            to_lsb(values * (np.array(gain) / own_gain), 1.0),
            name=path.stem,
            fs=fs,
            leads=canonical_leads([channel.name for channel in channels]),
            gain=gain,
            start_time=_start_time(dataset),
        )


def _dataset(path: Path) -> Any:
    try:
        dataset = pydicom.dcmread(path)
    except OSError as error:
        raise IngestError(path, error.strerror or error) from error
    except (InvalidDicomError, ValueError, EOFError) as error:
        raise IngestError(path, f"no DICOM file: {error}") from error
    if not dataset.get("WaveformSequence"):
        raise IngestError(path, "a DICOM file without a waveform")
    return dataset


def _rhythm(dataset: Any) -> tuple[Any, int]:
    def preference(item: tuple[int, Any]) -> tuple[bool, float]:
        group = item[1]
        labelled = "RHYTHM" in str(group.get("MultiplexGroupLabel", "")).upper()
        return labelled, group.NumberOfWaveformSamples / float(group.SamplingFrequency)

    index, group = max(enumerate(dataset.WaveformSequence), key=preference)
    return group, index


def _channels(group: Any) -> tuple[list[_Channel], list[str]]:
    found, left_out = [], []
    for index, definition in enumerate(group.ChannelDefinitionSequence):
        source = definition.get("ChannelSourceSequence")
        name = str(source[0].get("CodeMeaning", "")) if source else ""
        name = name or str(definition.get("ChannelLabel", f"channel {index + 1}"))
        units = definition.get("ChannelSensitivityUnitsSequence")
        unit = str(units[0].CodeValue) if units else "?"
        if unit not in _MILLIVOLTS:
            left_out.append(f"{name} ({unit})")
            continue
        correction = float(definition.get("ChannelSensitivityCorrectionFactor", 1.0))
        millivolts = float(definition.ChannelSensitivity) * correction * _MILLIVOLTS[unit]
        if not math.isfinite(millivolts) or millivolts == 0:
            raise ValueError(f"channel sensitivity of {name}: {millivolts} mV")
        offset = float(definition.get("ChannelBaseline", 0.0)) * _MILLIVOLTS[unit]
        found.append(_Channel(index, name, 1.0 / millivolts, offset))
    return found, left_out


def _padding(value: bytes | int, dtype: np.dtype[Any]) -> int:
    # "OB or OW": the bytes of one sample, unless the reader has made a number of them.
    return int(np.frombuffer(value, dtype)[0]) if isinstance(value, bytes) else int(value)


def _start_time(dataset: Any) -> datetime | None:
    text = str(dataset.get("AcquisitionDateTime", "") or "")
    try:
        start = DT(text) if text else None
    except ValueError:
        return None
    return datetime.fromisoformat(start.isoformat()) if start is not None else None
