"""One segment of a WFDB record: its header, checked, and its samples, in pieces.

The file format is described in header(5) and signal(5) of the WFDB Applications Guide
(https://physionet.org/physiotools/wag/). The decoding of samples is the ``wfdb`` package's; what it
would misread in silence (a missing rate, a truncated file, a unit that is not ASCII) is refused or
corrected here.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import wfdb

from ingest.source import IngestError
from stream.leads import canonical_leads

# Millivolts per unit, by the lower-case name in a header.
_MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "mv": 1.0, "v": 1e3}
# LSB per millivolt beyond which a header is mistaken: one LSB is a volt, or a picovolt.
_GAINS = (1e-3, 1e9)
# wfdb drops what is not ASCII, so that microvolts written with a mu would arrive as volts.
_MICRO_SIGNS = (b"\xb5V", b"\xce\xbcV")

# Channels in volts that are no ECG all the same: sleep and ICU recorders store those so too.
_NOT_ECG = re.compile(
    r"\b(?:resp|pleth|eeg|eog|emg|(?:ppg|spo2|co2|flow|abp|art|pap|cvp|icp|bp|eda|gsr)\b)", re.IGNORECASE
)

# Bits per sample of each format (signal(5)). The lowest value of each marks a missing sample.
_BITS = {
    "80": 8,
    "212": 12,
    "310": 10,
    "311": 10,
    "16": 16,
    "61": 16,
    "160": 16,
    "24": 24,
    "32": 32,
    "508": 8,
    "516": 16,
    "524": 24,
}
_FLAC = ("508", "516", "524")

# A header of thousands of segments is some 100 kB of text; 10 MB is a signal file with a wrong name.
_HEADER_LIMIT = 10_000_000
# A record whose header gives no length must be read at once; 500 MB are a week of two leads.
_UNSIZED_LIMIT = 500_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Channel:
    """One ECG channel of a segment."""

    index: int
    """Position among the signals of the segment."""
    lead: str
    gain: float
    """LSB per millivolt; negative where the file holds the inverted signal."""
    adc_gain: float
    """The same in the header's unit."""
    baseline: int
    per_frame: int
    skew: int
    bits: int

    @property
    def fits(self) -> bool:
        """Whether every value of the file's format fits 16 bits once the baseline is subtracted."""
        half = 1 << (self.bits - 1)
        return half - 1 + abs(self.baseline) < 1 << 15


@dataclass(frozen=True, slots=True)
class Segment:
    """A single-segment WFDB record.

    Attributes
    ----------
    path : pathlib.Path
        Without extension.
    fs : float
        Frames per second.
    frames : int
        Length; a frame holds one sample, or several, of each channel.
    channels : dict of str to Channel
        The ECG channels, by lead.
    """

    path: Path
    fs: float
    frames: int
    channels: dict[str, Channel]
    _whole: list[npt.NDArray[np.float64]] | None = field(default=None, repr=False)

    def read(self, start: int, stop: int, leads: Sequence[str], per_frame: int) -> npt.NDArray[np.float64]:
        """Return digital values with the baseline subtracted.

        Parameters
        ----------
        start, stop : int
            Frames, inside the segment.
        leads : sequence of str
            Which leads; one that this segment lacks is all NaN.
        per_frame : int
            Samples per frame to return; a slower channel is interpolated linearly.

        Returns
        -------
        numpy.ndarray of float, shape ((stop - start) * per_frame, leads)
            In the file's LSB (exact: whole numbers unless interpolated); NaN where a sample is missing.
        """
        values = np.full(((stop - start) * per_frame, len(leads)), np.nan)
        wanted = [(i, self.channels[lead]) for i, lead in enumerate(leads) if lead in self.channels]
        if not wanted:
            return values
        # A skewed channel is taken from later frames; interpolation needs the sample after the last.
        ahead = max(channel.skew for _, channel in wanted) + 1
        raw = self._signals(start, min(stop + ahead, self.frames), [channel.index for _, channel in wanted])
        for (column, channel), signal in zip(wanted, raw, strict=True):
            # Digital values again: exact, for a float64 holds far more than 32 bits.
            shifted = np.rint(signal[channel.skew * channel.per_frame :] * channel.adc_gain)
            if channel.per_frame != per_frame:
                at = np.arange((stop - start) * per_frame) * channel.per_frame / per_frame
                shifted = np.interp(at, np.arange(len(shifted)), shifted) if len(shifted) else shifted
            shifted = shifted[: len(values)]
            values[: len(shifted), column] = shifted
        return values

    def _signals(self, start: int, stop: int, indices: list[int]) -> list[npt.NDArray[np.float64]]:
        if self._whole is not None:
            per_frame = [len(signal) // self.frames for signal in self._whole]
            return [self._whole[i][start * per_frame[i] : stop * per_frame[i]] for i in indices]
        return _read_signals(self.path, sampfrom=start, sampto=stop, channels=indices)


def read_header(path: Path) -> Any:
    """Return the header of a WFDB record.

    Parameters
    ----------
    path : pathlib.Path
        Without extension.

    Returns
    -------
    wfdb.Record or wfdb.MultiRecord

    Raises
    ------
    IngestError
        If it is missing or makes no sense.
    """
    file = path.with_name(path.name + ".hea")
    lines = [line for line in _header_bytes(file).decode("latin-1").splitlines() if line.strip(" \t")]
    fields = next((line.split() for line in lines if not line.lstrip().startswith("#")), [])
    # Checked before wfdb sees it, which skips what it does not understand and puts 250 Hz.
    if len(fields) < 2 or not re.fullmatch(r"[\w.-]+(/\d+)?", fields[0]) or not fields[1].isdecimal():
        raise IngestError(file, "no WFDB header (it should begin with: name, number of signals, rate)")
    name = fields[0].partition("/")[0]
    if "." in name:
        raise IngestError(file, f"the record is called '{name}'; write it without the extension")
    if len(fields) > 2:
        rate = re.fullmatch(r"(\d+\.?\d*|\.\d+)(/\S*)?", fields[2])
        if rate is None or float(rate[1]) == 0:
            raise IngestError(file, f"a sampling frequency of '{fields[2]}' cannot be")
    try:
        header = wfdb.rdheader(str(path))
    except Exception as error:  # wfdb raises whatever its parsing stumbles over
        raise IngestError(file, f"the header cannot be understood: {error}") from error
    if header.n_sig == 0:
        raise IngestError(file, "no signals")
    # A signal need not have a description.
    header.sig_name = [name or "" for name in header.sig_name or ()]
    return header


def open_segment(path: Path, left_out: set[str]) -> Segment:
    """Return a segment whose signal files are there and complete.

    Parameters
    ----------
    path : pathlib.Path
        Without extension.
    left_out : set of str
        The names of channels that are no ECG are added to it.

    Raises
    ------
    IngestError
        If the header or a signal file is missing, damaged or shorter than the header says, or in a
        format that cannot be read in pieces.
    """
    header = read_header(path)
    file = path.with_name(path.name + ".hea")
    if header.n_sig != len(header.file_name or ()):
        raise IngestError(file, f"{header.n_sig} signals promised, {len(header.file_name or ())} described")
    if "~" in header.file_name:
        raise IngestError(file, "the layout of a multi-segment record; open the record itself")
    if header.sig_len == 0:
        raise IngestError(file, "the header says 0 samples")
    for fmt in header.fmt:
        if fmt not in _BITS:
            why = " (it stores differences, which cannot be read from the middle)" if fmt == "8" else ""
            raise IngestError(file, f"signal format {fmt} is not supported{why}; convert it with xform")
    channels = {channel.lead: channel for channel in _channels(file, header, left_out)}
    frames = min(_frames_in(path.parent / name, header) for name in dict.fromkeys(header.file_name))
    whole = None
    if header.sig_len is None:
        whole = _read_whole(path, header)
    return Segment(path, header.fs, header.sig_len or frames, channels, whole)


def _header_bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > _HEADER_LIMIT:
            raise IngestError(file, "too large for a WFDB header")
        return file.read_bytes()
    except OSError as error:
        raise IngestError(file, error.strerror or error) from error


def _channels(file: Path, header: Any, left_out: set[str]) -> list[Channel]:
    in_microvolts = any(sign in _header_bytes(file) for sign in _MICRO_SIGNS)
    found = []
    for index, (name, own_unit) in enumerate(zip(header.sig_name, header.units, strict=True)):
        unit = "uv" if own_unit == "V" and in_microvolts else own_unit.lower()
        if unit not in _MILLIVOLTS or _NOT_ECG.search(name):
            left_out.add(name or f"signal {index}")
        else:
            gain = header.adc_gain[index] / _MILLIVOLTS[unit]
            if not _GAINS[0] <= abs(gain) <= _GAINS[1]:
                raise IngestError(file, f"a gain of {header.adc_gain[index]}/{unit} cannot be ({name})")
            found.append((index, gain))
    leads = canonical_leads([header.sig_name[index] for index, _ in found])
    return [
        Channel(
            index=index,
            lead=lead,
            gain=gain,
            adc_gain=header.adc_gain[index],
            baseline=header.baseline[index] or 0,
            per_frame=header.samps_per_frame[index] or 1,
            skew=header.skew[index] or 0,
            bits=_BITS[header.fmt[index]],
        )
        for lead, (index, gain) in zip(leads, found, strict=True)
    ]


def _frames_in(signal_file: Path, header: Any) -> int:
    # How many frames a signal file holds; an error if the header promises more.
    indices = [i for i, name in enumerate(header.file_name) if name == signal_file.name]
    fmt, offset = header.fmt[indices[0]], header.byte_offset[indices[0]] or 0
    per_frame = sum(header.samps_per_frame[i] or 1 for i in indices)
    if not signal_file.is_file():
        raise IngestError(signal_file, "the signal file that the header names is missing")
    if fmt in _FLAC:
        held = _flac_samples(signal_file) - offset
        frames, unit = held // (per_frame // len(indices)), "samples"
        needed = (header.sig_len or frames) * (per_frame // len(indices))
    else:
        held, unit = signal_file.stat().st_size - offset, "bytes"
        frames = held * 8 // (_BITS[fmt] * per_frame)
        needed = _bytes_of(fmt, (header.sig_len or frames) * per_frame)
    if held < needed:
        raise IngestError(
            signal_file,
            f"truncated: {held} {unit} of signal, where the header ({len(indices)} signals of "
            f"{header.sig_len} frames, format {fmt}) needs {needed}",
        )
    return frames


def _bytes_of(fmt: str, samples: int) -> int:
    if fmt in ("310", "311"):
        # Three samples in four bytes; of a last incomplete group, what wfdb reads.
        return samples // 3 * 4 + (0, 2, 4 if fmt == "310" else 3)[samples % 3]
    return math.ceil(samples * _BITS[fmt] / 8)


def _flac_samples(signal_file: Path) -> int:
    # Imported when needed: it loads a native library that most records have no use for.
    import soundfile  # type: ignore[import-untyped]

    try:
        return int(soundfile.info(str(signal_file)).frames)
    except RuntimeError as error:
        raise IngestError(signal_file, f"no FLAC file: {error}") from error


def _read_whole(path: Path, header: Any) -> list[npt.NDArray[np.float64]]:
    size = sum((path.parent / name).stat().st_size for name in dict.fromkeys(header.file_name))
    if size > _UNSIZED_LIMIT:
        raise IngestError(f"{path}.hea", "gives no number of samples, and the file is too large without it")
    _log.info("%s: the header gives no length; read at once", path.name)
    return _read_signals(path)


def _read_signals(path: Path, **part: Any) -> list[npt.NDArray[np.float64]]:
    # Physical values, because wfdb 4.3 cannot give the digital ones of format 61; without applying the
    # skew, because it fails on channels with different ones.
    try:
        record = wfdb.rdrecord(str(path), smooth_frames=False, ignore_skew=True, **part)
    except Exception as error:  # wfdb raises whatever its parsing stumbles over
        raise IngestError(path, f"the samples cannot be read: {error}") from error
    signals: list[npt.NDArray[np.float64]] = record.e_p_signal
    return signals
