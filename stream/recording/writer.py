"""Writing one segment: samples are gathered, and brought to the disk together, each second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.contract import INVALID, ChunkHeader, Validity
from stream.recording import files
from stream.recording.header import Summary, header_text
from stream.recording.names import segment_name
from stream.recording.segment import HEADER, RAW, SIDE, Begin, Flags, beside, line

FILLED_S = 10.0
"""A hole in a feed up to so long is kept as missing samples, a longer one begins a new segment. Ten seconds:
a feed that drops out every minute does not fill the folder with files, and a hole costs little space."""

# A device whose clock was set begins a new segment: the header has one time for all samples of one.
_STEP_NS = 1_000_000_000
# Device time that goes on otherwise than by the sampling frequency is noted from so much on.
_TIME_NS = 1_000_000
_HOUR_NS = 3_600_000_000_000
# A segment is not begun for what an unsteady clock leaves before the full hour.
_SHORTEST_NS = 1_000_000_000


class SegmentWriter:
    """The segment of a bed that is being written.

    Nothing is on the disk until `sync`: a recorder that is killed loses what came since.

    Parameters
    ----------
    folder : pathlib.Path
        Of the bed.
    begin : Begin

    Attributes
    ----------
    begin : Begin
    end : int
        Index in the session of the sample that comes next.
    record : pathlib.Path or None
        Path of the record, without extension; None before the first `sync`.
    """

    def __init__(self, folder: Path, begin: Begin) -> None:
        self.begin = begin
        self.end = begin.n0
        self.record: Path | None = None
        self._folder = folder
        self._pieces: list[npt.NDArray[np.int16]] = []
        self._lines: list[bytes] = []
        self._on_disk = 0
        self._header_due = False
        self._summary = Summary(len(begin.leads))
        self._flags: Flags | None = (Validity.OK,) * len(begin.leads)
        self._time = (begin.n0, begin.t0)
        hour = (begin.t0 // _HOUR_NS + 1) * _HOUR_NS
        self._until_ns = hour if hour - begin.t0 >= _SHORTEST_NS else hour + _HOUR_NS

    @property
    def boundary(self) -> int:
        """Index in the session of the first sample that belongs to the next hour."""
        sample, t = self._time
        return sample + math.ceil((self._until_ns - t) * self.begin.fs / 1e9)

    def continues(self, header: ChunkHeader, n0: int, t: int) -> bool:
        """Say whether samples from `n0` on, of device time `t`, belong into this segment."""
        begin = self.begin
        return (
            (header.session, header.fs, header.leads, header.gain)
            == (begin.session, begin.fs, begin.leads, begin.gain)
            and self.end <= n0 <= self.end + FILLED_S * begin.fs
            and n0 < self.boundary
            and abs(t - self._time_of(n0)) < _STEP_NS
        )

    def append(self, n0: int, t: int, samples: npt.NDArray[np.int16], flags: Sequence[Validity]) -> None:
        """Take samples from `n0` on, not before `end`; a hole is filled with missing ones.

        Parameters
        ----------
        n0 : int
        t : int
            Device time of the first, ns.
        samples : numpy.ndarray of int16, shape (n, leads)
        flags : sequence of Validity
            What the source says of the leads.
        """
        if n0 > self.end:
            self._note(self.end, None)
            self._add(np.full((n0 - self.end, len(self.begin.leads)), INVALID, np.int16))
        self._note(n0, tuple(flags))
        if abs(t - self._time_of(n0)) >= _TIME_NS:
            self._time = n0, t
            self._lines.append(line(n=n0, t=t))
        self._add(samples)

    def sync(self, ended_ns: int | None = None) -> None:
        """Bring everything to the disk.

        It may be repeated when it has failed.

        Parameters
        ----------
        ended_ns : int, optional
            That this is the end, and the recorder's time of it.

        Raises
        ------
        FileNotFoundError
            If the segment has been deleted.
        OSError
            If it cannot be written; what was gathered is kept.
        """
        if self.record is None:
            self.record = self._create()
        if self._pieces:
            # What is said of samples before the samples: a reader passes over what it says of none.
            self._write_lines()
            samples = np.concatenate(self._pieces).astype("<i2", copy=False)
            row = self.begin.row
            files.write_at(beside(self.record, RAW), samples.reshape(-1).data, self._on_disk * row)
            self._summary.add(samples)
            self._on_disk += len(samples)
            self._pieces.clear()
            self._header_due = True
        if self._header_due:
            text = header_text(self.record, self.begin, self._on_disk, self._summary, flac=False)
            files.replace(beside(self.record, HEADER), text)
            self._header_due = False
        if ended_ns is not None:
            self._lines.append(line(frames=self._on_disk, ended_ns=ended_ns))
            try:
                self._write_lines()
            except OSError:
                self._lines.pop()
                raise

    def _create(self) -> Path:
        files.make_folder(self._folder)
        name = segment_name(self.begin.t0)
        number = 1
        while True:
            record = self._folder / (name if number == 1 else f"{name}-{number}")
            try:
                files.create(beside(record, SIDE), self.begin.model_dump_json().encode() + b"\n")
                break
            except FileExistsError:
                # A device clock that went back, or a recording that is replayed with its own times.
                number += 1
        try:
            files.create(beside(record, RAW))
            files.sync_folder(self._folder)
        except OSError:
            for suffix in (RAW, SIDE):
                beside(record, suffix).unlink(missing_ok=True)
            raise
        return record

    def _write_lines(self) -> None:
        if self._lines:
            assert self.record is not None
            files.append(beside(self.record, SIDE), b"".join(self._lines))
            self._lines.clear()

    def _note(self, sample: int, flags: Flags | None) -> None:
        if flags != self._flags:
            self._flags = flags
            self._lines.append(line(n=sample, valid=flags))

    def _add(self, samples: npt.NDArray[np.int16]) -> None:
        if len(samples):
            self._pieces.append(samples)
            self.end += len(samples)

    def _time_of(self, sample: int) -> int:
        since, t = self._time
        return t + round((sample - since) * 1e9 / self.begin.fs)
