"""The wire contract: what travels on the streams, and nothing else.

A sample chunk is one line of JSON (its header), a newline, and the raw samples. All other messages are
one JSON object. Any program that can write such bytes can feed or follow the system.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

EVERY_BED = "*"
"""In place of a bed's name in an alarm that is about the deployment."""

INVALID = -32768
"""The sample value that says "no valid sample here" (the most negative int16)."""

HEADER_LIMIT = 16_384
"""Bytes: a header with 64 leads of long names stays well below this; a longer one is not ours."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
_NAME: TypeAdapter[str] = TypeAdapter(Name)


# The bounds of numbers on the wire are far beyond use and well within int64 and float32: nothing computed
# from them overflows, whatever a source sends.
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]
SampleIndex = Annotated[int, Field(ge=0, le=2**40)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def is_name(text: str) -> bool:
    """Say whether a bed or a session may be called so."""
    try:
        _NAME.validate_python(text)
    except ValidationError:
        return False
    return True


class MalformedMessageError(ValueError):
    """Bytes that are not a message of this contract; the text says what is wrong."""


class Validity(StrEnum):
    """What the source says of one lead in one chunk (ISO/IEEE 11073-10207 measurement validity, reduced)."""

    OK = "ok"
    OFF = "off"
    SATURATED = "saturated"
    QUESTIONABLE = "questionable"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a message from the wire.

        Raises
        ------
        MalformedMessageError
            If the bytes are not such a message.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise MalformedMessageError(first_error(error)) from error

    def encode(self) -> bytes:
        """Return the message as it goes on the wire."""
        return self.model_dump_json().encode()


def first_error(error: ValidationError) -> str:
    """Return the first thing that is wrong, and where, as one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def header_end(data: bytes) -> int:
    """Return where the header line of a message with a payload ends: the place of its newline.

    Raises
    ------
    MalformedMessageError
        If there is none where a header could end.
    """
    newline = data.find(b"\n", 0, HEADER_LIMIT)
    if newline < 0:
        raise MalformedMessageError("no header line")
    return newline


class ChunkHeader(_Message):
    """Everything of a sample chunk but the samples."""

    v: Literal[1] = 1
    """Version of the contract."""
    bed: Name
    session: Name
    """Identifier of one continuous feed; a new one starts sample and sequence numbers at 0."""
    seq: SampleIndex
    """Number of the chunk in its session, from 0."""
    t0: Nanoseconds
    """Device time of the first sample, ns since the epoch, UTC."""
    ingest_ns: Nanoseconds
    """When the chunk entered the system, by the publisher's clock, ns since the epoch, UTC."""
    n0: SampleIndex
    """Index of the first sample since the start of the session."""
    fs: Annotated[float, Field(gt=0, le=100_000)]
    """Sampling frequency, Hz."""
    leads: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    gain: tuple[Annotated[float, Field(ge=1e-6)], ...]
    """LSB per millivolt, per lead."""
    valid: tuple[Validity, ...]
    pace: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Device seconds per real second: 1 live, 0 as fast as possible."""
    last: bool = False
    """True in the chunk that ends its session on purpose: silence after it is not a lost feed."""
    source: Annotated[str, Field(max_length=256)] = ""
    """The device and the adapter that it comes in by, for people. Who states it watches the rate itself."""

    @model_validator(mode="after")
    def _one_value_per_lead(self) -> Self:
        if len(set(self.leads)) != len(self.leads):
            raise ValueError("leads: a name stands twice")
        for field in ("gain", "valid"):
            if len(getattr(self, field)) != len(self.leads):
                raise ValueError(f"{field}: needs one value for each of the {len(self.leads)} leads")
        return self


@dataclass(frozen=True, slots=True)
class SampleChunk:
    """A stretch of samples of one bed.

    Attributes
    ----------
    header : ChunkHeader
    samples : numpy.ndarray of int16, shape (n, leads)
        In LSB; divide by ``header.gain`` for millivolts. `INVALID` marks a missing sample.
    """

    header: ChunkHeader
    samples: npt.NDArray[np.int16]

    @property
    def end(self) -> int:
        """Index of the sample after the last one."""
        return self.header.n0 + len(self.samples)

    def time_of(self, sample: float) -> int:
        """Return the device time, in ns, of a sample index of this chunk's session."""
        return self.header.t0 + round((sample - self.header.n0) * 1e9 / self.header.fs)

    def encode(self) -> bytes:
        """Return the chunk as it goes on the wire: header line, newline, int16 little-endian samples."""
        payload = np.ascontiguousarray(self.samples, dtype="<i2").tobytes()
        return self.header.encode() + b"\n" + payload

    @classmethod
    def decode(cls, data: bytes) -> SampleChunk:
        """Read a chunk from the wire.

        Parameters
        ----------
        data : bytes
            As written by `encode`. The samples are a read-only view of it, not a copy.

        Raises
        ------
        MalformedMessageError
            If the header is missing or invalid, or the payload does not hold whole rows of samples.
        """
        newline = header_end(data)
        header = ChunkHeader.decode(data[:newline])
        size, row = len(data) - newline - 1, 2 * len(header.leads)
        if size % row:
            raise MalformedMessageError(f"payload: {size} bytes are no whole number of {row}-byte rows")
        if size == 0 and not header.last:
            raise MalformedMessageError("payload: no samples")
        samples = np.frombuffer(data, dtype="<i2", offset=newline + 1).reshape(-1, len(header.leads))
        return cls(header, samples)


class Stamps(_Message):
    """When a finding passed each station, ns since the epoch, UTC, by the clock of the machine it was at."""

    ingest_ns: int
    dequeued_ns: int
    ready_ns: int
    begun_ns: int = 0
    """When the model began with the batch that the window was in."""
    inferred_ns: int = 0
    published_ns: int = 0


class Finding(_Message):
    """What the model says of one window of one bed.

    A window that could not be scored has a `reason` and no `score`.
    """

    bed: Name
    session: Name
    model: str
    window: int
    """Number of the window on the session's grid: it starts at ``window * hop``."""
    start: int
    """First sample of the window, at the source's sampling frequency."""
    end: int
    """Sample after the last one of the window."""
    t_start: int
    t_end: int
    score: float | None
    threshold: float
    percentile: float | None
    """Share of validation normals with a lower score, 0 to 100."""
    lead_scores: dict[str, float]
    anomalous: bool
    reason: str | None = None
    stamps: Stamps


class Vitals(_Message):
    """Heart rate, beats and signal quality of a bed: one message for each second of signal."""

    bed: Name
    session: Name
    start: int
    """First sample of the second, at the source's sampling frequency."""
    end: int
    """Sample after the last one."""
    t_end: int
    heart_rate: float | None
    """Beats per minute; None where it cannot be told."""
    rr_irregularity: float | None
    """How much successive intervals differ, as a share of their mean; see `stream.vitals.rhythm`."""
    beats: tuple[int, ...]
    """Samples of the R peaks that have been found since the message before, in order."""
    quality: dict[str, float]
    """By lead: 1 good, 0 useless."""
    issues: dict[str, tuple[str, ...]]
    """By lead, where there are any; see `stream.vitals.quality.Issue`."""
    clock_skew_s: float | None = None
    """Seconds that the device's clock has fallen behind ours since the worker first heard the feed; negative
    if it has run ahead; None where it cannot be told, as of a feed that does not come in real time."""
    ingest_ns: int
    """Ingest time of the chunk that completed the second."""


class AlarmKind(StrEnum):
    """BICEPS AlertConditionKind."""

    PHYSIOLOGICAL = "physiological"
    TECHNICAL = "technical"


class Priority(StrEnum):
    """BICEPS AlertConditionPriority, with information signals (IEC 60601-1-8)."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"


class Presence(StrEnum):
    """BICEPS AlertSignalPresence."""

    ON = "on"
    OFF = "off"
    LATCHED = "latched"
    ACKNOWLEDGED = "acknowledged"


class AlarmEvent(_Message):
    """One transition of one alarm."""

    alarm: str
    """Same for every transition of one alarm; see `alarm_id`."""
    event: str
    """``alarm`` and the number of the transition (0 raise, 1, 2 …): sinks drop repeats by it."""
    bed: Name
    session: Name
    rule: str
    kind: AlarmKind
    code: str
    priority: Priority
    presence: Presence
    onset: int
    """Sample index at which the condition began; of a latched alarm whose condition came back: again."""
    onset_t: int
    """Device time of the onset, ns."""
    since: int
    """Device time of this transition, ns."""
    score: float | None = None
    message: str
    escalation: int = 0
    """Rises when the alarm is told again because nobody acknowledged it in time."""
    who: str = ""
    """Who acknowledged or paused it, where somebody did."""
    snapshot: str | None = None
    """Of physiological alarms: names the alarm's snapshot (`stream.snapshots.store`), from the first event
    on, although it is stored only some ten seconds later."""
    ingest_ns: int
    """Ingest time of the chunk that brought this transition about, for measuring the delay of delivery."""

    @property
    def number(self) -> int:
        """Number of the transition: 0 for the raise, 1, 2 … for what followed."""
        number = self.event.rpartition("-")[2]
        return int(number) if number.isdecimal() else 0


class ExplanationHeader(_Message):
    """Everything of an explanation but the arrays."""

    bed: Name
    session: Name
    window: int
    start: int
    end: int
    """Source samples that the window covers, end exclusive."""
    t_start: int
    """Device time of the first point, ns, with the filter's delay already taken off."""
    fs: float
    """Sampling frequency of the arrays, Hz (the model's)."""
    leads: tuple[Name, ...]
    shapes: dict[str, tuple[Annotated[int, Field(ge=0)], ...]]
    """Shape of each array, in the order in which they follow."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a window got its score: arrays over the window, for drawing over the leads.

    Attributes
    ----------
    header : ExplanationHeader
    arrays : dict of str to numpy.ndarray of float16
        ``reconstruction``, shape (leads, samples), mV: what the model expected, after the band-pass;
        ``error``, shape (leads, samples), mV: its distance from the band-passed signal. NaN where a lead
        took no part or a point does not count.
        Where the model has them, ``spread``, shape (leads, samples), mV: the standard deviation that it
        expected; ``temporal_attention``, shape (steps,); ``lead_attention``, shape (leads, steps).
    """

    header: ExplanationHeader
    arrays: dict[str, npt.NDArray[np.float16]]

    def encode(self) -> bytes:
        """Return the explanation as it goes on the wire: header line, newline, float16 little-endian."""
        payload = b"".join(np.ascontiguousarray(a, dtype="<f2").tobytes() for a in self.arrays.values())
        return self.header.encode() + b"\n" + payload

    @classmethod
    def decode(cls, data: bytes) -> Explanation:
        """Read an explanation from the wire.

        Raises
        ------
        MalformedMessageError
            If header and payload do not fit.
        """
        newline = header_end(data)
        header = ExplanationHeader.decode(data[:newline])
        offset, arrays = newline + 1, {}
        for name, shape in header.shapes.items():
            size = math.prod(shape)
            if offset + 2 * size > len(data):
                raise MalformedMessageError(f"payload: too short for {name}")
            arrays[name] = np.frombuffer(data, dtype="<f2", count=size, offset=offset).reshape(shape)
            offset += 2 * size
        return cls(header, arrays)


class CommandKind(StrEnum):
    """What an operator or a display may ask of the worker that holds a bed."""

    ACKNOWLEDGE = "acknowledge"
    PAUSE = "pause"
    RESUME = "resume"
    SET_MODEL = "set_model"
    SET_THRESHOLD = "set_threshold"
    SET_LIMITS = "set_limits"
    CONFIRM_BASELINE = "confirm_baseline"
    WATCH = "watch"
    ADMIT = "admit"
    DISCHARGE = "discharge"


class Command(_Message):
    """One request about one bed."""

    id: Name
    bed: Name
    kind: CommandKind
    value: Any = None
    """``acknowledge``: an alarm's id, or None for all of the bed. ``pause``: seconds. ``resume``: nothing.
    ``watch``: seconds for which explanations of the bed are wanted; a display asks again before."""
    who: str = ""
    """A person; must not be empty for ``acknowledge``, ``pause`` and ``resume``."""
    at: int
    """When it was asked for, ns since the epoch, by the clock of who asks."""
    expires: int
    """By the same clock. A command that is as long as from `at` to here on the stream, by the server's clock,
    is refused: whose clock is off does not matter."""


class Audit(_Message):
    """One line of the audit log: what was asked for or happened, and what came of it.

    The log is a chain: each entry holds the digest of the one before it; see `stream.audit.log`.
    """

    # Fields that a later version adds are part of the digest, too.
    model_config = ConfigDict(extra="allow")

    entry: Name
    """Id of the command that this answers, or of the alarm event that this records."""
    bed: Name
    kind: Name
    """A `CommandKind`, or what happened to an alarm: ``raise``, ``end``, ``latch``, ``escalate`` …"""
    who: str
    at: int
    """When, ns since the epoch, UTC, by the clock of the machine that wrote it."""
    done: bool
    value: Any = None
    message: str
    number: Annotated[int, Field(ge=0)]
    """Place in the chain, from 0."""
    previous: Digest
    """Digest of the entry before it; sixty-four zeros in the first."""
    digest: Digest
    """SHA-256, in hexadecimal, over all other fields as canonical JSON; see `stream.audit.log.digest_of`."""


def alarm_id(bed: str, session: str, rule: str, onset: int) -> str:
    """Return the identity of an alarm: a pure function of what happened, so that a replay names it alike."""
    text = "\x1f".join((bed, session, rule, str(onset)))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def to_lsb(millivolts: npt.NDArray[np.floating[Any]], gain: float = 1000.0) -> npt.NDArray[np.int16]:
    """Quantise millivolts for the wire; what is not finite becomes `INVALID`, what is too large saturates."""
    scaled = np.rint(np.where(np.isfinite(millivolts), millivolts, 0.0) * gain)
    lsb = np.clip(scaled, INVALID + 1, 32767).astype(np.int16)
    lsb[~np.isfinite(millivolts)] = INVALID
    return lsb


def to_millivolts(chunks: Sequence[SampleChunk]) -> list[npt.NDArray[np.float64]]:
    """Return the samples of chunks in millivolts.

    Returns
    -------
    list of numpy.ndarray of float64, shape (n, leads)
        For each chunk, NaN where a sample is invalid or its lead is off. Views of common arrays.
    """
    alike: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, chunk in enumerate(chunks):
        alike[chunk.samples.shape].append(place)
    converted: list[npt.NDArray[np.float64]] = [np.empty((0, 0))] * len(chunks)
    for places in alike.values():
        samples = np.array([chunks[place].samples for place in places])
        millivolts = samples / np.array([chunks[place].header.gain for place in places])[:, np.newaxis, :]
        invalid = samples == INVALID
        if invalid.any():
            millivolts[invalid] = math.nan
        for place, values in zip(places, millivolts, strict=True):
            valid = chunks[place].header.valid
            if Validity.OFF in valid:
                values[:, [column for column, flag in enumerate(valid) if flag is Validity.OFF]] = math.nan
            converted[place] = values
    return converted
