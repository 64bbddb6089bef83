"""Recordings in WFDB format (PhysioNet's): a ``.hea`` header with ``.dat``, ``.mat`` or FLAC files."""

from __future__ import annotations

import logging
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.source import MAX_LSB, IngestError, Recording, fitting_gain
from ingest.wfdb_segments import Segment, open_segment, read_header
from stream.contract import to_lsb
from stream.leads import canonical_leads

_log = logging.getLogger(__name__)

_SUFFIXES = (".hea", ".dat", ".mat", ".flac")
# Pieces in which the range of a file is looked through: a minute of 12 leads is 3 MB as float.
_SCAN_S = 60.0


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    stop: int
    """Frames of the record, from `start` up to `stop`."""
    segment: Segment | None
    """None for a gap."""


def record_path(path: Path) -> Path | None:
    """Return the path, without extension, of the WFDB record that `path` means; None if there is none."""
    candidates = [path, path.with_suffix("")] if path.suffix.lower() in _SUFFIXES else [path]
    for candidate in candidates:
        if candidate.name and candidate.with_name(candidate.name + ".hea").is_file():
            return candidate
    return None


class WfdbRecording(Recording):
    """A WFDB record: one segment or many, any format but 8, any rate, any leads.

    Parameters
    ----------
    path : pathlib.Path
        With or without extension.

    Raises
    ------
    IngestError
        If the header or a signal file is missing, damaged, shorter than the header says or in a format
        that cannot be read, or if no channel is an ECG.

    Notes
    -----
    Channels that are no ECG (by unit, and by name for those in volts) are left out, which is logged.

    Digital values and gains are the file's own wherever the values fit 16 bits once the baseline is
    subtracted; else the lead is rescaled (`ingest.source.fitting_gain`). A file whose format could
    exceed 16 bits is looked through once, when it is opened, to know whether it does. A lead whose gain
    changes between segments gets one gain for all.

    A record of several rates (more than one sample per frame) gets the rate of its fastest ECG channel;
    slower ones are interpolated linearly.

    Memory does not grow with the record, except for one whose header gives no length.
    """

    def __init__(self, path: Path) -> None:
        base = record_path(path)
        if base is None:
            raise IngestError(path, "no such WFDB record (there is no .hea file of this name)")
        header = read_header(base)
        left_out: set[str] = set()
        self._path = base
        self._spans = _spans(base, header, left_out)
        self._starts = [span.start for span in self._spans]
        segments = [span.segment for span in self._spans if span.segment is not None]
        channels = [channel for segment in segments for channel in segment.channels.values()]
        if not channels:
            only = f", only {', '.join(sorted(left_out))}" if left_out else ""
            raise IngestError(f"{base}.hea", f"no ECG channel{only}")
        if left_out:
            _log.info("%s: left out, as no ECG: %s", base.name, ", ".join(sorted(left_out)))
        # In the order of the layout header, where there is one: segments may each hold other leads.
        order = canonical_leads(header.sig_name) if header.sig_name else ()
        leads = dict.fromkeys(lead for segment in segments for lead in segment.channels)
        ordered = sorted(leads, key=lambda lead: order.index(lead) if lead in order else len(order))
        self._per_frame = max(channel.per_frame for channel in channels)
        gains = [[abs(c.gain) for c in channels if c.lead == lead] for lead in ordered]
        super().__init__(
            name=base.name,
            fs=header.fs * self._per_frame,
            leads=ordered,
            # The finest gain, at which what the coarsest can express still fits.
            gain=[fitting_gain(max(own), MAX_LSB / min(own)) for own in gains],
            n_samples=self._spans[-1].stop * self._per_frame,
            start_time=header.base_datetime,
        )
        if not all(channel.fits for channel in channels):
            peaks = self._peaks_mv()
            self.gain = tuple(fitting_gain(max(own), peak) for own, peak in zip(gains, peaks, strict=True))

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        first = start // self._per_frame
        offset = start - first * self._per_frame
        millivolts_times_gain = self._values(first, -(-stop // self._per_frame))
        return to_lsb(millivolts_times_gain[offset : offset + stop - start], 1.0)

    def _values(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        # Frames to values in LSB of the recording's gain, NaN where missing, shape (samples, leads).
        pieces = []
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            span = self._spans[at]
            until = min(stop, span.stop)
            pieces.append(self._piece(span, start, until))
            start, at = until, at + 1
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]

    def _piece(self, span: _Span, start: int, stop: int) -> npt.NDArray[np.float64]:
        if span.segment is None:
            return np.full(((stop - start) * self._per_frame, len(self.leads)), np.nan)
        values = span.segment.read(start - span.start, stop - span.start, self.leads, self._per_frame)
        for column, lead in enumerate(self.leads):
            channel = span.segment.channels.get(lead)
            # Unequal only where the gain changes, so that digital values otherwise stay exact.
            if channel is not None and channel.gain != self.gain[column]:
                values[:, column] *= self.gain[column] / channel.gain
        return values

    def _peaks_mv(self) -> list[float]:
        frames = self._spans[-1].stop
        step = max(1, round(_SCAN_S * self.fs / self._per_frame))
        peaks = np.zeros(len(self.leads))
        for start in range(0, frames, step):
            values = self._values(start, min(start + step, frames))
            peaks = np.maximum(peaks, np.nan_to_num(np.abs(values)).max(axis=0))
        return list(peaks / np.asarray(self.gain))


def _spans(base: Path, header: Any, left_out: set[str]) -> list[_Span]:
    if getattr(header, "seg_name", None) is None:
        only = open_segment(base, left_out)
        return [_Span(0, only.frames, only)]
    file = f"{base}.hea"
    spans: list[_Span] = []
    at = 0
    for name, length in zip(header.seg_name, header.seg_len, strict=True):
        # A segment without samples is the layout of a variable-layout record: names and order only.
        if length == 0:
            if name != "~":
                header.sig_name = read_header(base.with_name(name)).sig_name
            continue
        segment = None if name == "~" else open_segment(base.with_name(name), left_out)
        if segment is not None and segment.frames < length:
            raise IngestError(file, f"segment {name}: {length} samples promised, {segment.frames} there")
        if segment is not None and segment.fs != header.fs:
            raise IngestError(file, f"segment {name}: {segment.fs} Hz in a record of {header.fs} Hz")
        spans.append(_Span(at, at + length, segment))
        at += length
    if len(header.seg_name) != header.n_seg or (header.sig_len or at) != at or not spans:
        raise IngestError(file, "the segments do not add up to the record")
    return spans
