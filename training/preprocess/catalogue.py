"""What a data set holds before a signal is read: its records, and those already known to be left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Normals(StrEnum):
    """Which records count as normal."""

    STRICT = "strict"
    """Declared normal, in sinus rhythm, and nothing else said of them."""
    THESIS = "thesis"
    """As in the thesis whose models we reproduce; the rule is with each data set."""


class Reason(StrEnum):
    """Why a record is left out; the order is that of the report."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    CHECKSUM = "checksum"
    BAD_ROW = "bad-row"
    TOO_SHORT = "too-short"
    LEADS = "leads"
    NAN = "nan"
    FLAT = "flat"
    SATURATED = "saturated"
    COPY = "copy"
    NO_DIAGNOSIS = "no-diagnosis"
    NO_PATIENT = "no-patient"
    NOT_TAKEN = "not-taken"
    ABNORMAL = "abnormal"
    PER_PATIENT = "per-patient"


WHY: Mapping[Reason, str] = {
    Reason.MISSING: "there is no such file",
    Reason.UNREADABLE: "a file of it is damaged, shorter than promised, or missing",
    Reason.CHECKSUM: "its samples do not add up to the checksum in its header",
    Reason.BAD_ROW: "its row in the table makes no sense",
    Reason.TOO_SHORT: "shorter than a window",
    Reason.LEADS: "not all twelve leads",
    Reason.NAN: "samples are missing in a lead",
    Reason.FLAT: "a lead that does not move",
    Reason.SATURATED: "a lead that runs at its limit",
    Reason.COPY: "the very samples of another record",
    Reason.NO_DIAGNOSIS: "nobody said whether it is normal",
    Reason.NO_PATIENT: "of PTB-XL, whose patients only `preprocess ptbxl` can keep in one split",
    Reason.NOT_TAKEN: "normal, but not by the rule of the thesis",
    Reason.ABNORMAL: "abnormal (--only-normals)",
    Reason.PER_PATIENT: "a further record of the same patient (--max-per-patient)",
}
"""What each reason says to people."""

UNREADABLE = frozenset({Reason.MISSING, Reason.UNREADABLE, Reason.CHECKSUM, Reason.BAD_ROW})
"""Reasons that speak of a damaged copy of the data set, not of the recording."""

UNWANTED = frozenset(
    {Reason.NO_DIAGNOSIS, Reason.NO_PATIENT, Reason.NOT_TAKEN, Reason.ABNORMAL, Reason.PER_PATIENT}
)
"""Reasons for which a record is not even read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record to be read.

    Attributes
    ----------
    name : str
        What people call it.
    path : str
        Relative to the source folder, with ``/``, without extension.
    dataset : str
    patient : str
        Empty where unknown.
    split : str
        ``"train"``, ``"val"`` or ``"test"``.
    label : int
        0 normal, 1 abnormal.
    rhythm_only : bool
        The only finding is sinus bradycardia, tachycardia or arrhythmia.
    codes : tuple of str
        Diagnoses as the source gives them.
    licence : str
        SPDX identifier; empty where unknown.
    """

    name: str
    path: str
    dataset: str
    patient: str
    split: str
    label: int
    rhythm_only: bool
    codes: tuple[str, ...]
    licence: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record that does not come into the pack.

    Attributes
    ----------
    name : str
    path : str
        As of a `Record`.
    reason : Reason
    detail : str
        What exactly, for people.
    """

    name: str
    path: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The records of a data set.

    Attributes
    ----------
    name : str
        Of the data set.
    total : int
        How many `entries` there are.
    split_by : str
        How records were dealt to train, val and test, for the report.
    tables : mapping of str to str
        SHA-256 of what the catalogue was made from: the same tables make the same catalogue.
    entries : callable
        Begins a new pass over all records, always in the same order.
    """

    name: str
    total: int
    split_by: str
    tables: Mapping[str, str]
    entries: Callable[[], Iterator[Record | LeftOut]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records of a catalogue are wanted.

    Attributes
    ----------
    only_normals : bool
        Leave abnormal records out.
    max_per_patient : int, optional
        At most so many normal, and as many abnormal, records of a known patient.
    limit : int, optional
        Stop after so many records to read.
    """

    only_normals: bool = False
    max_per_patient: int | None = None
    limit: int | None = None

    def of(self, entries: Iterator[Record | LeftOut]) -> Iterator[Record | LeftOut]:
        """Return the entries with those not wanted turned into `LeftOut`, and none beyond the limit."""
        taken: Counter[tuple[str, int]] = Counter()
        read = 0
        for entry in entries:
            judged = self._judged(entry, taken)
            yield judged
            read += isinstance(judged, Record)
            if read == self.limit:
                return

    def _judged(self, entry: Record | LeftOut, taken: Counter[tuple[str, int]]) -> Record | LeftOut:
        if isinstance(entry, LeftOut):
            return entry
        if self.only_normals and entry.label == 1:
            return LeftOut(entry.name, entry.path, Reason.ABNORMAL)
        if self.max_per_patient is not None and entry.patient:
            key = entry.patient, entry.label
            if taken[key] == self.max_per_patient:
                return LeftOut(entry.name, entry.path, Reason.PER_PATIENT, f"patient {entry.patient}")
            taken[key] += 1
        return entry
