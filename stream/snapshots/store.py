"""Alarm snapshots: what an alarm looked like, kept for later.

A snapshot holds the samples around an alarm as they came, and what the model says of them: one line of JSON,
a newline, then the arrays, each row after row, little-endian, in the order in which the header names them.
They lie in Redis, one key an alarm; how one is made is in `stream.snapshots.hindsight`, when and by whom in
`stream.snapshots.keeper`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stream.asking import newest_event
from stream.bus import Bus
from stream.contract import (
    HEADER_LIMIT,
    AlarmEvent,
    AlarmKind,
    MalformedMessageError,
    Name,
    Nanoseconds,
    SampleIndex,
    Validity,
    first_error,
    header_end,
)
from stream.settings import Settings

VALIDITIES = tuple(Validity)
"""What the numbers in the array ``valid`` mean, from 0."""

Array = npt.NDArray[Any]
Kind = Literal["i2", "i8", "u1", "f2", "f4"]


class ArraySpec(BaseModel):
    """How an array lies behind the header."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    """NumPy's name of its type; little-endian."""
    shape: tuple[Annotated[int, Field(ge=0, le=2**31)], ...]


class SnapshotHeader(BaseModel):
    """Everything of a snapshot but the arrays."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: Literal[1] = 1
    alarm: AlarmEvent
    """The event that raised the alarm."""
    model: str
    precision: str
    threshold: float
    """Alarm threshold of the window scores that was in force for the bed, on the scale of this precision."""
    fs: Annotated[float, Field(ge=0, le=100_000)]
    """Sampling frequency of the samples, Hz; 0 if nothing was left of the feed."""
    leads: tuple[Name, ...]
    gain: tuple[Annotated[float, Field(ge=1e-6)], ...]
    """LSB per millivolt, per lead."""
    n0: SampleIndex
    """Index of the first sample in its session."""
    t0: Nanoseconds
    """Device time of the first sample."""
    trace_fs: float
    """Sampling frequency of what the model says, Hz."""
    trace_leads: tuple[Name, ...]
    """The leads that the model knows, in its order."""
    trace_t0: Nanoseconds
    """Device time of the first point of the traces, the filter's delay taken off."""
    maps: dict[str, str | None]
    """What the model says beside its reconstruction, each with the reason if it is not shown."""
    remarks: tuple[str, ...]
    """What is not as it should be: cut, missing, not explained; for people."""
    admitted_t: int | None = None
    """Device time of the admission of the patient, if the bed is used with admissions."""
    made_ns: Nanoseconds
    arrays: dict[str, ArraySpec]

    @model_validator(mode="after")
    def _arrays_fit(self) -> Self:
        if len(self.gain) != len(self.leads):
            raise ValueError(f"gain: needs one value for each of the {len(self.leads)} leads")
        sizes: dict[str, int] = {"leads": len(self.leads), "rows": len(self.trace_leads), "2": 2}
        for name, (kind, dimensions) in _LAYOUT.items():
            found = self.arrays.get(name)
            if found is None:
                if name in _OPTIONAL:
                    continue
                raise ValueError(f"arrays: {name} is missing")
            if found.kind != kind or len(found.shape) != len(dimensions):
                raise ValueError(f"arrays: {name} is not {kind} of {len(dimensions)} dimensions")
            for dimension, size in zip(dimensions, found.shape, strict=True):
                if sizes.setdefault(dimension, size) != size:
                    raise ValueError(f"arrays: {name} has {size} {dimension}, not {sizes[dimension]}")
        return self


# By array: its type, and what its dimensions count.
_LAYOUT: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "samples": ("i2", ("samples", "leads")),
    "chunks": ("i8", ("chunks", "2")),
    "valid": ("u1", ("chunks", "leads")),
    "windows": ("i8", ("windows", "2")),
    "window_score": ("f4", ("windows",)),
    "window_lead_score": ("f4", ("windows", "rows")),
    "beats": ("i8", ("beats",)),
    "signal": ("f2", ("rows", "points")),
    "reconstruction": ("f2", ("rows", "points")),
    "error": ("f2", ("rows", "points")),
    "spread": ("f2", ("rows", "points")),
    "temporal_attention": ("f2", ("points",)),
    "lead_attention": ("f2", ("rows", "points")),
}
_OPTIONAL = ("spread", "temporal_attention", "lead_attention")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The samples around an alarm and what the model says of them.

    Attributes
    ----------
    header : SnapshotHeader
    arrays : dict of str to numpy.ndarray
        ``samples`` (n, leads), int16: LSB as they came, `stream.contract.INVALID` where there is none.
        ``chunks`` (k, 2), int64: first sample and the one after the last of each chunk that came, counted
        from the start of the session; ``valid`` (k, leads), uint8: what the source said of each lead in it,
        as places in `VALIDITIES`.
        ``windows`` (w, 2), int64: first sample and the one after the last of each scored window, counted
        alike; ``window_score`` (w,) and ``window_lead_score`` (w, rows), float32: NaN where a lead took no
        part. ``beats`` (b,), int64: R peaks, where they are known.
        On the model's grid, float16, a row for each of ``header.trace_leads``, NaN where there is nothing:
        ``signal``, ``reconstruction`` and ``error`` (rows, m), and, of models that have them, ``spread``
        (rows, m), mV; ``temporal_attention`` (m,) and ``lead_attention`` (rows, m), in multiples of an even
        share. All as in `stream.overlay.Traces`; the error is the absolute one.
    """

    header: SnapshotHeader
    arrays: dict[str, Array]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], **fields: Any) -> Snapshot:
        """Put a snapshot together: arrays by name, and the header's fields but ``arrays``."""
        laid = {
            name: np.ascontiguousarray(array, dtype=f"<{_LAYOUT[name][0]}") for name, array in arrays.items()
        }
        specs = {name: ArraySpec(kind=_LAYOUT[name][0], shape=array.shape) for name, array in laid.items()}
        return cls(SnapshotHeader(arrays=specs, **fields), laid)

    @property
    def seconds(self) -> float:
        """Length of the samples."""
        return len(self.arrays["samples"]) / self.header.fs if self.header.fs else 0.0

    @property
    def onset_s(self) -> float:
        """Where the alarm's onset lies, in seconds from the first sample; negative if that was cut off."""
        return (self.header.alarm.onset_t - self.header.t0) / 1e9

    @property
    def raised_s(self) -> float:
        """Where the alarm was raised, in seconds from the first sample."""
        return (self.header.alarm.since - self.header.t0) / 1e9

    def gaps(self) -> Iterator[tuple[int, int]]:
        """Yield the stretches that never came: first sample and the one after the last, from 0."""
        at = 0
        for start, end in (self.arrays["chunks"] - self.header.n0).tolist():
            if start > at:
                yield at, start
            at = end

    def encode(self) -> bytes:
        """Return the snapshot as it is stored."""
        payload = b"".join(array.tobytes() for array in self.arrays.values())
        return self.header.model_dump_json().encode() + b"\n" + payload

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """Read a snapshot.

        Parameters
        ----------
        data : bytes
            As written by `encode`. The arrays are read-only views of it.

        Raises
        ------
        MalformedMessageError
            If header and payload are not those of a snapshot of this version.
        """
        header, offset = _header(data)
        arrays: dict[str, Array] = {}
        for name, spec in header.arrays.items():
            dtype = np.dtype(f"<{spec.kind}")
            count = math.prod(spec.shape)
            if offset + count * dtype.itemsize > len(data):
                raise MalformedMessageError(f"payload: too short for {name}")
            arrays[name] = np.frombuffer(data, dtype, count, offset).reshape(spec.shape)
            offset += count * dtype.itemsize
        if offset != len(data):
            raise MalformedMessageError(f"payload: {len(data) - offset} bytes too many")
        return cls(header, arrays)


def _header(data: bytes) -> tuple[SnapshotHeader, int]:
    # And where the payload begins.
    newline = header_end(data)
    try:
        return SnapshotHeader.model_validate_json(data[:newline]), newline + 1
    except ValidationError as error:
        raise MalformedMessageError(first_error(error)) from error


class Listed(NamedTuple):
    """One snapshot in a list."""

    header: SnapshotHeader
    size: int
    """Bytes."""
    former: bool
    """It belongs to a patient who has left the bed since."""


# Store a snapshot once, and forget those that are too old or too many.
#
# KEYS: the snapshot, the index (alarm and bed by time of storing)
# ARGV: the snapshot, alarm and bed, time to keep (ms), the most of them, start of a snapshot's key
_PUT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local kept = tonumber(ARGV[3])
if not redis.call('SET', KEYS[1], ARGV[1], 'PX', kept, 'NX') then return 0 end
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - kept)
local extra = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[4])
if extra > 0 then
    for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, extra - 1)) do
        redis.call('DEL', ARGV[5] .. string.match(member, '^%S+'))
    end
    redis.call('ZREMRANGEBYRANK', KEYS[2], 0, extra - 1)
end
return 1
"""


class SnapshotStore:
    """The snapshots of a deployment.

    ``<prefix>snapshot:<alarm>`` holds one, ``<prefix>snapshots`` which there are, and
    ``<prefix>snapshots:left`` when a patient last left each bed.

    Parameters
    ----------
    bus : Bus
    settings : Settings, optional
        For how long those that are put are kept, and how many; default those of this process.
    """

    def __init__(self, bus: Bus, settings: Settings | None = None) -> None:
        self._client = bus.client
        self._start = f"{bus.prefix}snapshot:"
        self._index = f"{bus.prefix}snapshots"
        self._left = f"{bus.prefix}snapshots:left"
        self._settings = settings
        self._put = bus.client.register_script(_PUT)

    async def has(self, alarm: str) -> bool:
        """Say whether there is a snapshot of an alarm."""
        return bool(await self._client.exists(self._start + alarm))

    async def put(self, snapshot: Snapshot) -> bool:
        """Store a snapshot; False if its alarm has one already, which stays."""
        event = snapshot.header.alarm
        # Who only looks has no need of files of settings.
        settings = self._settings or Settings()
        stored = await self._put(
            keys=[self._start + event.alarm, self._index],
            args=[
                snapshot.encode(),
                f"{event.alarm} {event.bed}",
                round(settings.snapshot_hours * 3_600_000),
                settings.snapshots,
                self._start,
            ],
        )
        return bool(stored)

    async def get(self, alarm: str) -> Snapshot | None:
        """Return the snapshot of an alarm; None if it is not stored yet, or no more.

        Raises
        ------
        MalformedMessageError
            If what is there is no snapshot of this version.
        """
        data: Any = await self._client.get(self._start + alarm)
        return None if data is None else Snapshot.decode(data)

    async def listed(self, bed: str | None = None) -> list[Listed]:
        """Return what there is, of one bed or of all, in the order in which it was stored."""
        alarms = [alarm for alarm, of_bed in await self._members() if bed is None or of_bed == bed]
        left: Any = await self._client.hgetall(self._left)
        pipeline = self._client.pipeline(transaction=False)
        for alarm in alarms:
            pipeline.getrange(self._start + alarm, 0, HEADER_LIMIT - 1)
            pipeline.strlen(self._start + alarm)
        replies = await pipeline.execute()
        found = []
        for begin, size in zip(replies[::2], replies[1::2], strict=True):
            # Nothing: its time has come since the index was read.
            if begin:
                header, _ = _header(begin)
                since = int(left.get(header.alarm.bed.encode(), 0))
                found.append(Listed(header, size, header.alarm.since <= since))
        return found

    async def delete(self, bed: str) -> int:
        """Delete all snapshots of a bed and return how many there were."""
        members = [(alarm, of_bed) for alarm, of_bed in await self._members() if of_bed == bed]
        if not members:
            return 0
        pipeline = self._client.pipeline(transaction=True)
        pipeline.delete(*(self._start + alarm for alarm, _ in members))
        pipeline.zrem(self._index, *(f"{alarm} {of_bed}" for alarm, of_bed in members))
        deleted, _ = await pipeline.execute()
        return int(deleted)

    async def patient_left(self, bed: str, t: int) -> None:
        """Note that a patient has left a bed at a device time, ns: what is older is history from now on."""
        await self._client.hset(self._left, bed, str(t))

    async def _members(self) -> list[tuple[str, str]]:
        members: Any = await self._client.zrange(self._index, 0, -1)
        pairs = (member.decode().partition(" ") for member in members)
        return [(alarm, bed) for alarm, _, bed in pairs]


async def missing_reason(bus: Bus, alarm: str) -> str:
    """Return why there is no snapshot of an alarm, one line."""
    event = await newest_event(bus, alarm)
    if event is None:
        return f"there is no alarm {alarm}, or no more"
    if event.kind is AlarmKind.TECHNICAL:
        return f"alarm {alarm} is technical ({event.message}): such alarms have no snapshot"
    return (
        f"alarm {alarm} of {event.bed} has no snapshot: it is stored ten seconds after an alarm was raised,"
        " and kept for as long as the settings snapshots and snapshot_hours of the workers say"
    )
