"""The fault script: which fault befalls which bed, when, and how badly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ingest.source import IngestError

# A script is written by hand: a page has 3 kB, and PyYAML takes a second for a few hundred.
_LARGEST = 64_000
# What people nest is four deep; PyYAML calls itself for every level.
_DEEPEST = 20
# A year of signal, in seconds: no replay is longer, and its samples still have exact numbers.
_LONGEST_S = 3.2e7
# What divisions of seconds lose, and far less than a sample.
_ROUNDING = 1e-9
# Drawn numbers are multiples of 2^-53, as a double has them.
_STEPS = 2.0**-53

Seconds = Annotated[float, Field(ge=0, le=_LONGEST_S)]
# Twenty a second: shorter ones would all fall into one chunk.
Span = Annotated[float, Field(ge=0.05, le=_LONGEST_S)]
Delay = Annotated[float, Field(gt=0, le=60)]
Share = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True)
class Chance:
    """Random numbers that depend on nothing but what they are for.

    Neither the speed of a replay, nor the other beds, nor the other faults change what a fault draws.

    Parameters
    ----------
    seed : int
    bed : str
    fault : int
        Its place in the script.
    """

    seed: int
    bed: str
    fault: int

    def key(self, number: int) -> int:
        """Return 64 random bits for a chunk, or for an occurrence."""
        text = f"{self.seed} {self.fault} {number} {self.bed}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())

    def uniform(self, number: int) -> float:
        """Return a number from 0 up to, not including, 1."""
        return (self.key(number) >> 11) * _STEPS


class Fault(BaseModel):
    """What all faults have in common: when they happen, and to which beds.

    Times are seconds of the feed, from its first sample; they pass faster when it is played faster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=False)

    at: Seconds = 0.0
    """When it begins."""
    lasts: Span | None = Field(default=None, alias="for")
    """For how long; without it, to the end of the feed."""
    every: Span | None = None
    """It comes back after so long, again and again, each time for `lasts`."""
    beds: Annotated[tuple[Text, ...], Field(min_length=1)] = ("*",)
    """Names, or patterns such as ``icu-*``."""

    by_chunk: ClassVar[bool] = False
    """Whether `probability` is that of each chunk, not that of each time."""

    @model_validator(mode="after")
    def _comes_back_after_its_end(self) -> Self:
        if self.every is not None and (self.lasts is None or self.lasts >= self.every):
            raise ValueError("every: needs a shorter for")
        return self

    def concerns(self, bed: str) -> bool:
        """Say whether it befalls a bed."""
        return any(fnmatchcase(bed, pattern) for pattern in self.beds)

    def occurrence(self, second: float) -> int | None:
        """Return which time it is, from 0, at a second of the feed; None if it is none."""
        since = second - self.at
        if since < 0:
            return None
        number = 0 if self.every is None else math.floor(since / self.every + _ROUNDING)
        inside = since if self.every is None else since - number * self.every
        return number if self.lasts is None or inside < self.lasts - _ROUNDING else None

    def spans(self, begin: float, end: float) -> Iterator[tuple[int, float, float]]:
        """Yield the times that reach into a stretch of the feed: number, first second and last one."""
        number = 0
        if self.every is not None:
            number = max(0, math.floor((begin - self.at) / self.every))
        while True:
            first = self.at + number * (self.every or 0.0)
            last = math.inf if self.lasts is None else first + self.lasts
            if first >= end:
                return
            if last > begin:
                yield number, first, last
            if self.every is None:
                return
            number += 1

    def active_s(self, second: float) -> float:
        """Return for how long it has been there up to a second of the feed, all times together."""
        since = max(0.0, second - self.at)
        lasts = math.inf if self.lasts is None else self.lasts
        if self.every is None:
            return min(since, lasts)
        number = math.floor(since / self.every)
        return number * lasts + min(since - number * self.every, lasts)

    def happens(self, chance: Chance, number: int) -> bool:
        """Say whether it happens to a chunk, or at all this time, by its number."""
        probability: float = getattr(self, "probability", 1.0)
        return probability >= 1 or chance.uniform(number) < probability

    @property
    def what(self) -> str:
        """In a few words."""
        raise NotImplementedError

    @property
    def when(self) -> str:
        """In a few words, such as ``at 10 s for 5 s, every 60 s``."""
        text = f"from {self.at:g} s on" if self.lasts is None else f"at {self.at:g} s for {self.lasts:g} s"
        if self.every is not None:
            text += f", every {self.every:g} s"
        probability: float = getattr(self, "probability", 1.0)
        if probability < 1:
            text += f", {100 * probability:g} % of the {'chunks' if self.by_chunk else 'times'}"
        return text


class _Random(Fault):
    probability: Share = 1.0


class _OfChunks(_Random):
    by_chunk: ClassVar[bool] = True


class _OfLeads(_Random):
    leads: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Names; without it, all."""

    @property
    def which(self) -> str:
        return "all leads" if self.leads is None else " ".join(self.leads)


class Drop(_OfChunks):
    """Chunks do not arrive."""

    fault: Literal["drop"]

    @property
    def what(self) -> str:
        return "drop"


class Duplicate(_OfChunks):
    """Chunks arrive twice."""

    fault: Literal["duplicate"]
    seconds: Annotated[float, Field(ge=0, le=60)] = 0.0
    """How long after the first one the second one comes."""

    @property
    def what(self) -> str:
        return f"duplicate after {self.seconds:g} s"


class Reorder(_OfChunks):
    """Chunks arrive late, and those behind them in time."""

    fault: Literal["reorder"]
    seconds: Delay

    @property
    def what(self) -> str:
        return f"reorder: {self.seconds:g} s late"


class Delayed(_OfChunks):
    """Chunks arrive late, and those behind them wait for them."""

    fault: Literal["delay"]
    seconds: Delay

    @property
    def what(self) -> str:
        return f"delay of {self.seconds:g} s"


class Jitter(_OfChunks):
    """Chunks arrive late by anything up to a time, in order."""

    fault: Literal["jitter"]
    seconds: Delay

    @property
    def what(self) -> str:
        return f"jitter up to {self.seconds:g} s"


class Gap(_Random):
    """The device sends no samples, and goes on counting them."""

    fault: Literal["gap"]

    @property
    def what(self) -> str:
        return "gap"


class Disconnect(_Random):
    """The device is away, and comes back as a new session; without ``for``, never."""

    fault: Literal["disconnect"]

    @property
    def what(self) -> str:
        return "disconnected"


class ClockSkew(Fault):
    """The device's clock goes too fast (or, below 0, too slowly) against its sampling."""

    fault: Literal["clock-skew"]
    ppm: Annotated[float, Field(ge=-500_000, le=500_000)]

    @property
    def what(self) -> str:
        return f"clock skew of {self.ppm:+g} ppm"


class ClockStep(Fault):
    """The device's clock is set; after ``for``, back again."""

    fault: Literal["clock-step"]
    seconds: Annotated[float, Field(ge=-_LONGEST_S, le=_LONGEST_S)]

    @property
    def what(self) -> str:
        return f"clock set by {self.seconds:+g} s"


class RateChange(Fault):
    """The device samples at another rate, in the same session."""

    fault: Literal["rate-change"]
    fs: Annotated[float, Field(ge=20, le=10_000)]
    """Hz."""
    announced: bool = True
    """Whether its chunks say so. Samples at a rate that is not the stated one come too fast or too slowly."""

    @property
    def what(self) -> str:
        return f"rate change to {self.fs:g} Hz" + ("" if self.announced else ", unannounced")


class LeadSet(Fault):
    """The device no longer has some leads, in the same session."""

    fault: Literal["lead-set"]
    leads: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Those that it still sends."""

    @property
    def what(self) -> str:
        return f"only leads {' '.join(self.leads)}"


class SecondDevice(Fault):
    """A second device sends under the same bed, in a session of its own."""

    fault: Literal["second-device"]

    @property
    def what(self) -> str:
        return "a second device"


class LeadOff(_OfLeads):
    """An electrode is off: no samples of the lead, and the device says so."""

    fault: Literal["lead-off"]

    @property
    def what(self) -> str:
        return f"lead off: {self.which}"


class Saturation(_OfLeads):
    """An amplifier is at its rail."""

    fault: Literal["saturation"]
    millivolts: Annotated[float, Field(ge=-1000, le=1000)] = 5.0
    """Where the rail is (IEC 60601-2-27 asks for an input range of 5 mV)."""

    @property
    def what(self) -> str:
        return f"at the rail of {self.millivolts:g} mV: {self.which}"


class Noise(_OfLeads):
    """Noise is added, independent in each lead."""

    fault: Literal["noise"]
    kind: Literal["white", "wander", "muscle"] = "white"
    """All frequencies; 0.05 to 0.5 Hz; 20 to 150 Hz."""
    snr_db: Annotated[float, Field(ge=-60, le=60)]
    """Power of the ECG, within 0.5 to 40 Hz in its first ten seconds, over that of the noise."""

    @property
    def what(self) -> str:
        return f"{self.kind} noise at {self.snr_db:g} dB: {self.which}"


AnyFault = (
    Drop
    | Duplicate
    | Reorder
    | Delayed
    | Jitter
    | Gap
    | Disconnect
    | ClockSkew
    | ClockStep
    | RateChange
    | LeadSet
    | SecondDevice
    | LeadOff
    | Saturation
    | Noise
)
SignalFault = LeadOff | Saturation | Noise | Gap
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class FaultScript(BaseModel):
    """A fault script.

    Attributes
    ----------
    seed : int
        Decides all that is left to chance.
    faults : tuple of Fault
        Their order matters for nothing but what they draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Seed = 0
    faults: Annotated[
        tuple[Annotated[AnyFault, Field(discriminator="fault")], ...], Field(min_length=1, max_length=1000)
    ]

    def of(self, bed: str) -> list[tuple[int, AnyFault]]:
        """Return the faults of a bed, each with its place in the script."""
        return [(place, fault) for place, fault in enumerate(self.faults) if fault.concerns(bed)]

    def check_targets(self, path: str | Path, beds: Mapping[str, Sequence[str]]) -> None:
        """Refuse a fault that would befall nobody.

        Parameters
        ----------
        path : str or pathlib.Path
            Of the script, for the message.
        beds : mapping of str to sequence of str
            The leads of each bed.

        Raises
        ------
        IngestError
        """
        for place, fault in enumerate(self.faults):
            where = f"{path}, faults[{place}] ({fault.fault})"
            named = [bed for bed in beds if fault.concerns(bed)]
            if not named:
                raise IngestError(
                    where, f"no bed is called {' or '.join(fault.beds)}; there are {_some(beds)}"
                )
            leads = dict.fromkeys(lead for bed in named for lead in beds[bed])
            if isinstance(fault, LeadSet):
                for bed in named:
                    if not set(fault.leads) & set(beds[bed]):
                        raise IngestError(
                            where, f"bed {bed} has none of these leads; it has {' '.join(beds[bed])}"
                        )
            for lead in getattr(fault, "leads", None) or ():
                if lead not in leads:
                    raise IngestError(where, f"none of its beds has a lead {lead}; there are {_some(leads)}")


def read_script(path: str | Path) -> FaultScript:
    """Read a fault script from a file.

    Raises
    ------
    IngestError
        If it cannot be read or understood; in one line: the file, the line in it, and what would be right.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IngestError(path, error.strerror or error) from error
    return parse_script(data, str(path))


def parse_script(data: bytes, name: str = "fault script") -> FaultScript:
    """Parse a fault script.

    Parameters
    ----------
    data : bytes
        YAML.
    name : str
        What it is called in an error.

    Raises
    ------
    IngestError
        As `read_script`.
    """
    if len(data) > _LARGEST:
        raise IngestError(name, f"{len(data)} bytes are too many for a fault script ({_LARGEST} at most)")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise IngestError(name, f"no UTF-8 at byte {error.start}") from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = name if mark is None else f"{name}:{mark.line + 1}"
        raise IngestError(where, f"no YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise IngestError(name, f"no YAML: {error}") from error
    if node is None or not isinstance(value, dict):
        raise IngestError(name, "expected 'faults:' and below it a list, each with 'fault:' and its name")
    try:
        return FaultScript.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place, line = _place(node, first["loc"])
        raise IngestError(f"{name}:{line}", _in_words(place, first)) from error


class _Loader(yaml.SafeLoader):
    # Refuses what YAML would take in silence or fall over.

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def fetch_flow_collection_start(self, token: Any) -> None:
        # Before it is composed: the scanner reads on behind a bracket, for a key may begin with it, and looks
        # at all that are open with each token.
        if self.flow_level >= _DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        wrong = None
        if self.check_event(yaml.AliasEvent):
            wrong = "aliases are not supported"
        elif self._depth > _DEEPEST:
            wrong = "nested too deeply"
        if wrong is not None:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def _place(node: yaml.Node, loc: Sequence[str | int]) -> tuple[str, int]:
    # What is wrong, as it stands in the file, and in which line. pydantic also names the kind of fault.
    place = ""
    line = node.start_mark.line + 1
    for part in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            place += f"[{part}]"
        elif isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                # A fault's name, or what is not there.
                continue
            key, node = found[0]
            place += f".{part}" if place else str(part)
            line = key.start_mark.line + 1
            continue
        else:
            continue
        line = node.start_mark.line + 1
    return place, line


_MODELS: dict[str, type[Fault]] = {
    get_args(model.model_fields["fault"].annotation)[0]: model for model in get_args(AnyFault)
}


def _in_words(place: str, error: Any) -> str:
    kind, last = error["type"], error["loc"][-1] if error["loc"] else ""
    where = f"{place}: " if place else ""
    if kind == "union_tag_invalid":
        return f"{where}no such fault; there are {', '.join(_MODELS)}"
    if kind == "union_tag_not_found":
        return f"{where}needs 'fault:' and one of {', '.join(_MODELS)}"
    if kind == "missing":
        return f"{where}needs '{last}:'"
    if kind == "tuple_type":
        example = "a dash before each fault, as in '- fault: drop'" if last == "faults" else "as in [II, V1]"
        return f"{where}expected a list: {example}"
    if kind == "extra_forbidden":
        return f"{where}is not known here{_instead(error['loc'])}"
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}{text[:1].lower()}{text[1:]}"


def _instead(loc: Sequence[str | int]) -> str:
    kinds = [_MODELS[part] for part in loc if isinstance(part, str) and part in _MODELS]
    model: type[BaseModel] = kinds[0] if kinds else FaultScript
    return f"; there are {', '.join(field.alias or name for name, field in model.model_fields.items())}"


def _some(names: Mapping[str, Any]) -> str:
    # A ward of 64 beds would fill the screen.
    listed = list(names)
    return ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")
