"""One segment of a recording: a WFDB record, and beside it what WFDB has no place for.

``NAME.hea`` with ``NAME.dat`` (while it is written) or FLAC files (later) is the record. ``NAME.jsonl`` says,
a line of JSON each and only ever longer, what the segment is, and what changed on the way: device time,
validity, alarms, the end. ``NAME.alm`` holds the alarms as WFDB annotations.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stream.contract import (
    AlarmEvent,
    MalformedMessageError,
    Name,
    Nanoseconds,
    SampleIndex,
    Validity,
    first_error,
)

SIDE = ".jsonl"
RAW = ".dat"
HEADER = ".hea"
FLAC = ".flac"
ALARMS = ".alm"

FLAC_CHANNELS = 8
"""The most that FLAC takes in one file."""

# A recorder brings to the disk each second what came; a hole of ten seconds lies within a segment, and a disk
# that is busy takes its time.
_LATELY_NS = 20_000_000_000

Flags = tuple[Validity, ...]


class Begin(BaseModel):
    """What a segment is: the first line beside it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: Literal[1] = 1
    bed: Name
    session: Name
    n0: SampleIndex
    """Index of its first sample in the session."""
    t0: Nanoseconds
    """Device time of its first sample."""
    fs: Annotated[float, Field(gt=0, le=100_000)]
    leads: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    gain: tuple[Annotated[float, Field(ge=1e-6)], ...]
    """LSB per millivolt, per lead."""
    begun_ns: Nanoseconds
    """When it was begun, by the recorder's clock."""

    @model_validator(mode="after")
    def _one_gain_per_lead(self) -> Begin:
        if len(self.gain) != len(self.leads):
            raise ValueError(f"gain: needs one value for each of the {len(self.leads)} leads")
        return self

    @property
    def row(self) -> int:
        """Bytes of one frame: a sample of each lead."""
        return 2 * len(self.leads)


class End(NamedTuple):
    """What the last line beside a segment says."""

    frames: int
    ended_ns: int
    """When its last sample was recorded, by the recorder's clock."""


@dataclass(slots=True)
class Side:
    """Everything that lies beside a segment.

    Attributes
    ----------
    begin : Begin
    times : list of (int, int)
        Samples of the session, ascending, and their device times, ns: where time goes on from.
    flags : list of (int, tuple of Validity or None)
        Samples of the session, ascending, and what the source said of the leads from there on; None: nothing
        came.
    alarms : list of AlarmEvent
    end : End, optional
        None while it is written, and when its recorder was killed.
    """

    begin: Begin
    times: list[tuple[int, int]] = field(default_factory=list)
    flags: list[tuple[int, Flags | None]] = field(default_factory=list)
    alarms: list[AlarmEvent] = field(default_factory=list)
    end: End | None = None

    @classmethod
    def parse(cls, data: bytes) -> Side:
        """Read it; lines that are not understood (the last one may be cut off) are passed over.

        Raises
        ------
        MalformedMessageError
            If the first line is not what it must be.
        """
        first, *lines = data.split(b"\n")
        try:
            side = cls(Begin.model_validate_json(first))
        except ValidationError as error:
            raise MalformedMessageError(first_error(error)) from error
        side.times.append((side.begin.n0, side.begin.t0))
        for line in lines:
            try:
                side._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return side

    def _take(self, line: dict[str, Any]) -> None:
        if "alarm" in line:
            self.alarms.append(AlarmEvent.model_validate(line["alarm"]))
        elif "t" in line:
            self.times.append((int(line["n"]), int(line["t"])))
        elif "valid" in line:
            valid = line["valid"]
            flags = None if valid is None else tuple(Validity(flag) for flag in valid)
            if flags is None or len(flags) == len(self.begin.leads):
                self.flags.append((int(line["n"]), flags))
        elif "frames" in line:
            self.end = End(int(line["frames"]), int(line["ended_ns"]))


def line(**fields: Any) -> bytes:
    """Return a line as it lies beside a segment."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def beside(record: Path, suffix: str) -> Path:
    """Return a file of a record."""
    return record.with_name(record.name + suffix)


def flac_files(record: Path, leads: int) -> list[tuple[Path, slice]]:
    """Return the FLAC files of a record of so many leads, each with those that are in it."""
    count = -(-leads // FLAC_CHANNELS)
    each = -(-leads // count)
    # "_" is in the names of no two records: `NAME-2` is another record, `NAME_2.flac` a part of this one.
    return [
        (beside(record, FLAC if count == 1 else f"_{number + 1}{FLAC}"), slice(at, min(at + each, leads)))
        for number, at in enumerate(range(0, leads, each))
    ]


def files_of(record: Path, leads: int) -> list[Path]:
    """Return all files that a record of so many leads may have; what tells of the others comes last."""
    flac = [path for path, _ in flac_files(record, leads)]
    return [*flac, *(beside(record, suffix) for suffix in (RAW, HEADER, ALARMS, SIDE))]


class Segment:
    """A segment as it can be read, while it is written or later.

    Parameters
    ----------
    record : pathlib.Path
        Without extension.
    side : Side
    frames : int
        Samples of each lead that are there.

    Attributes
    ----------
    record, side, frames
    """

    def __init__(self, record: Path, side: Side, frames: int) -> None:
        self.record, self.side, self.frames = record, side, frames
        self._times = np.array([at for at in side.times if at[0] < self.end] or side.times[:1], np.int64)

    @classmethod
    def open(cls, record: Path) -> Segment:
        """Look at a segment.

        Raises
        ------
        MalformedMessageError
            If what lies beside it is not what it must be.
        OSError
            If it is not there (any more).
        """
        side = Side.parse(beside(record, SIDE).read_bytes())
        return cls(record, side, frames_of(record, side))

    @property
    def begin(self) -> Begin:
        """What the segment is."""
        return self.side.begin

    @property
    def is_open(self) -> bool:
        """Whether it may still grow."""
        return self.side.end is None

    def is_growing(self, now_ns: int) -> bool:
        """Whether something has been written into it of late: a recorder that is killed leaves it open."""
        if not self.is_open:
            return False
        try:
            written_ns = beside(self.record, RAW).stat().st_mtime_ns
        except FileNotFoundError:
            return False
        # A clock may have been set back since.
        return abs(now_ns - written_ns) < _LATELY_NS

    @property
    def end(self) -> int:
        """Index in the session of the sample after the last one."""
        return self.begin.n0 + self.frames

    @property
    def t_end(self) -> int:
        """Device time at which the sample after the last one would be, ns."""
        return int(self.times(self.end, self.end + 1)[0])

    def times(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the device times, ns, of the samples from `start` up to `stop` of the session."""
        samples = np.arange(start, stop)
        place = np.maximum(np.searchsorted(self._times[:, 0], samples, side="right") - 1, 0)
        since = samples - self._times[place, 0]
        times: npt.NDArray[np.int64] = np.rint(since * 1e9 / self.begin.fs).astype(np.int64)
        times += self._times[place, 1]
        return times

    def samples_between(self, t0: int, t1: int) -> tuple[int, int]:
        """Return the samples of the session, first and the one after the last, from `t0` up to `t1`, ns."""
        return self._first_at(t0), self._first_at(t1)

    def _first_at(self, t: int) -> int:
        # Where a source's time runs back a little, the last stretch that begins before.
        starts = np.maximum.accumulate(self._times[:, 1])
        place = max(0, int(np.searchsorted(starts, t, side="right")) - 1)
        sample, at = (int(value) for value in self._times[place])
        # Times are rounded to a ns: one that was rounded up still belongs to its sample.
        found = sample + math.ceil(((t - at) - 0.51) * self.begin.fs / 1e9)
        stop = int(self._times[place + 1, 0]) if place + 1 < len(self._times) else self.end
        return max(self.begin.n0, min(found, stop))

    def flags_between(self, start: int, stop: int) -> list[tuple[int, int, Flags | None]]:
        """Return what the source said of the leads: first sample, the one after the last, flags or None."""
        flags = self.side.flags
        if not flags or stop <= start:
            return []
        at = max(0, bisect_right([sample for sample, _ in flags], start) - 1)
        edges = [max(start, sample) for sample, _ in flags[at:]] + [self.end]
        return [
            (begin, min(until, stop), flag)
            for begin, until, (_, flag) in zip(edges, edges[1:], flags[at:], strict=False)
            if begin < min(until, stop)
        ]

    def read(self, start: int, stop: int, leads: Sequence[int] | None = None) -> npt.NDArray[np.int16]:
        """Return samples as they came.

        Parameters
        ----------
        start, stop : int
            Samples of the session; what lies outside the segment is left out.
        leads : sequence of int, optional
            Columns; all of them unless given.

        Returns
        -------
        numpy.ndarray of int16, shape (n, leads)
            In LSB; `stream.contract.INVALID` where nothing came.

        Raises
        ------
        OSError
            If the files are gone or damaged.
        """
        first = max(start, self.begin.n0) - self.begin.n0
        count = max(0, min(stop - self.begin.n0, self.frames) - first)
        columns = list(range(len(self.begin.leads)) if leads is None else leads)
        if not count or not columns:
            return np.empty((0, len(columns)), np.int16)
        try:
            return self._raw(first, count)[:, columns]
        except FileNotFoundError:
            # Compressed, perhaps since we looked.
            return self._flac(first, count, columns)

    def off(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Return which samples are of a lead that its source called off; shape (stop - start, leads)."""
        off = np.zeros((stop - start, len(self.begin.leads)), np.bool_)
        for begin, until, flags in self.flags_between(start, stop):
            if flags is not None and Validity.OFF in flags:
                off[begin - start : until - start] = [flag is Validity.OFF for flag in flags]
        return off

    def _raw(self, first: int, count: int) -> npt.NDArray[np.int16]:
        row, columns = self.begin.row, len(self.begin.leads)
        values = np.fromfile(beside(self.record, RAW), "<i2", count * columns, offset=first * row)
        if len(values) < count * columns:
            raise OSError(f"{self.record}{RAW}: shorter than it was")
        return values.reshape(count, columns).astype(np.int16, copy=False)

    def _flac(self, first: int, count: int, columns: Iterable[int]) -> npt.NDArray[np.int16]:
        # Imported when needed: it loads a native library.
        import soundfile  # type: ignore[import-untyped]

        wanted = list(columns)
        values = np.empty((count, len(wanted)), np.int16)
        for path, held in flac_files(self.record, len(self.begin.leads)):
            places = [place for place, column in enumerate(wanted) if held.start <= column < held.stop]
            if not places:
                continue
            try:
                with path.open("rb") as file, soundfile.SoundFile(file) as sound:
                    sound.seek(first)
                    block = sound.read(count, dtype="int16", always_2d=True)
            except RuntimeError as error:
                raise OSError(f"{path}: {error}") from error
            if len(block) < count:
                raise OSError(f"{path}: shorter than the segment")
            values[:, places] = block[:, [wanted[place] - held.start for place in places]]
        return values


def frames_of(record: Path, side: Side) -> int:
    """Return how many whole frames of a segment are there."""
    if side.end is not None:
        return side.end.frames
    try:
        return beside(record, RAW).stat().st_size // side.begin.row
    except FileNotFoundError:
        # Its first samples have not been written yet.
        return 0
