"""The ECG in an HL7 v2 message of observations: IHE PCD WCM, Mindray's form of it, and plain arrays.

A waveform is an OBX of type NA. What belongs to it (sampling rate or period, resolution, the value that
means "no sample") stands in OBX of their own whose sub-id (OBX-4) begins with the waveform's, or in its
name, as in ``ECG_WAV^Monitor/ECG_II@100``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingest.live.hl7.message import (
    RefusedMessageError,
    Segment,
    Stamp,
    offset_of,
    read_time,
)
from ingest.live.hl7.mllp import MAX_BLOCK
from ingest.live.mdc import lead_of_code, lead_of_name, volts_of
from ingest.live.source import millivolts_in
from stream.contract import Validity
from stream.leads import LEADS, canonical_lead, canonical_leads

# ORU^W01 is the older "unsolicited waveform", which some monitors send with the same contents.
_MESSAGE_TYPES = {("ORU", "R01"), ("ORU", "W01")}

# How others than the nomenclature name ECG.
_ECG_NAME = re.compile(r"(?:ECG|EKG|LEAD[ _])(?![A-Z]{3})", re.IGNORECASE)
_DIMENSIONLESS = {"262656", "MDC_DIM_DIMLESS", "1", ""}
_SECONDS = {
    "264320": 1.0,
    "264338": 1e-3,
    "264339": 1e-6,
    "MDC_DIM_SEC": 1.0,
    "MDC_DIM_MILLI_SEC": 1e-3,
    "MDC_DIM_MICRO_SEC": 1e-6,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
}
_RATE, _PERIOD = "MDC_ATTR_SAMP_RATE", "MDC_ATTR_TIME_PD_SAMP"
_RESOLUTION, _NO_SAMPLE = "MDC_ATTR_NU_MSMT_RES", "MDC_EVT_INOP"
_FACETS = {_RATE, _PERIOD, _RESOLUTION, _NO_SAMPLE}

# OBX-8 as IHE PCD uses it for the validity of a measurement; OBX-11 X: no result can be obtained.
_QUESTIONABLE, _INVALID = {"QUES", "CAL", "ONG"}, {"INV", "NAV", "NAN", "OFF", "DEM", "TST"}

# Only what a number is made of, so that float() sees neither "1_0" nor "infinity".
_NUMBERS = re.compile(r"[-+0-9.eE^ ]*", re.ASCII)

# 64 beds of 12 leads in one message are more than any gateway sends.
_MOST_WAVES, _MOST_LEADS = 1024, 64


@dataclass(slots=True)
class Waves:
    """ECG of one bed over one stretch of time.

    Attributes
    ----------
    bed, device : str
    fs : float
        Hz.
    leads : tuple of str
        The standard ones first, in their order.
    millivolts : numpy.ndarray of float64, shape (n, leads)
        NaN where there is no sample.
    valid : tuple of Validity
    start : Stamp, optional
        Of the first sample.
    left_out : str
        What was sent for the same time and could not be taken along; empty: nothing.
    """

    bed: str
    device: str
    fs: float
    leads: tuple[str, ...]
    millivolts: npt.NDArray[np.float64]
    valid: tuple[Validity, ...]
    start: Stamp | None
    left_out: str = ""


@dataclass(slots=True)
class _Wave:
    # One NA observation, and what is said of it elsewhere.
    segment: Segment
    where: str
    lead: str
    own_name: str
    bed: str
    patient: int
    start: Stamp | None
    facets: dict[str, Segment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BedField:
    """Where in a message the name of a bed stands, such as PV1-3, PV1-3.3, OBR-3 or MSH-4.

    Attributes
    ----------
    segment : str
    number : int
    component : int, optional
        None: of PV1-3, the unit, room and bed that are given, joined by ``-``; else the first one.
    """

    segment: str = "PV1"
    number: int = 3
    component: int | None = None

    @classmethod
    def parse(cls, text: str) -> BedField:
        """Read ``SEGMENT-FIELD`` or ``SEGMENT-FIELD.COMPONENT``.

        Raises
        ------
        ValueError
            If it is neither, or of a segment that identifies patients.
        """
        found = re.fullmatch(
            r"([A-Z][A-Z0-9]{2})-([1-9]\d?)(?:\.([1-9]\d?))?", text.strip().upper(), re.ASCII
        )
        if found is None:
            raise ValueError(f"{text!r} is no field: such as PV1-3, PV1-3.3 or OBR-3")
        if found[1] not in ("MSH", "PV1", "OBR"):
            raise ValueError(f"{text}: a bed is named by a field of PV1, OBR or MSH (PID names a patient)")
        return cls(found[1], int(found[2]), int(found[3]) if found[3] else None)

    def __str__(self) -> str:
        component = "" if self.component is None else f".{self.component}"
        return f"{self.segment}-{self.number}{component}"

    def read(self, segment: Segment | None) -> str:
        """Return the bed that a segment names; empty if it names none."""
        if segment is None:
            return ""
        if self.component is None and (self.segment, self.number) == ("PV1", 3):
            return "-".join(part for part in segment.components(3)[:3] if part)
        return segment.component(self.number, self.component or 1)


def read_waves(message: list[Segment], bed_field: BedField | None = None) -> list[Waves]:
    """Return the ECG in a message.

    Parameters
    ----------
    message : list of Segment
        As `ingest.live.hl7.message.read_messages` returns it.
    bed_field : BedField, optional
        PV1-3 unless given.

    Returns
    -------
    list of Waves
        In the order of the message; empty if it has no ECG (other waveforms and numbers are passed over).

    Raises
    ------
    RefusedMessageError
        If the message is of another type, or its ECG cannot be understood. A message is taken whole or not at
        all.
    """
    header = message[0]
    kind = (header.component(9, 1).upper(), header.component(9, 2).upper())
    if kind not in _MESSAGE_TYPES:
        raise RefusedMessageError(
            200, f"a message of type {'^'.join(kind)[:40]}: ORU^R01 is taken", "MSH^1^9"
        )
    waves, instruments = _find_waves(message, bed_field or BedField())
    stretches: dict[tuple[int, str, Stamp | None], list[_Wave]] = {}
    for wave in waves:
        stretches.setdefault((wave.patient, wave.bed, wave.start), []).append(wave)
    joined = []
    for (patient, bed, _), same in stretches.items():
        device = "/".join(part for part in (sender_of(header), instruments.get(patient)) if part)
        try:
            joined.append(_joined(same, device))
        except RefusedMessageError as error:
            error.bed = bed
            raise
    return joined


def sender_of(header: Segment) -> str:
    """Return what a message's MSH calls its sender: application and facility."""
    names = ("-".join(part for part in header.components(number)[:2] if part) for number in (3, 4))
    return "/".join(name for name in names if name)


def _find_waves(message: list[Segment], bed_field: BedField) -> tuple[list[_Wave], dict[int, str]]:
    # The waveforms of the message, and by the number of their patient in it the instrument.
    header = message[0]
    zone = offset_of(header.component(7))
    latest: dict[str, Segment] = {"MSH": header}
    waves: list[_Wave] = []
    by_sub_id: dict[str, _Wave] = {}
    # What is said of a waveform may stand before it.
    early: dict[str, dict[str, Segment]] = {}
    last: _Wave | None = None
    instruments: dict[int, str] = {}
    # Most leads have one time.
    stamps: dict[str, Stamp | None] = {}
    patient = observations = 0
    for segment in message[1:]:
        if segment.name == "PID":
            # Another patient: nothing said of the one before holds.
            latest = {"MSH": header}
            by_sub_id, early, last = {}, {}, None
            patient += 1
        if segment.name == "OBR":
            by_sub_id, early, last = {}, {}, None
        if segment.name != "OBX":
            latest[segment.name] = segment
            continue
        observations += 1
        if segment.field(18):
            instruments.setdefault(patient, segment.component(18))
        what, sub_id = segment.components(3), segment.component(4)
        facet = next((part for part in what[:2] if part in _FACETS), None)
        if facet is not None:
            # Not every monitor numbers below the waveform: some give it the same sub-id, or none.
            parent = sub_id.rpartition(".")[0]
            owner = (by_sub_id.get(parent) or by_sub_id.get(sub_id)) if sub_id else last
            if owner is not None:
                owner.facets[facet] = segment
            elif parent:
                early.setdefault(parent, {})[facet] = segment
            continue
        if segment.field(2).strip().upper() != "NA":
            continue
        names = _lead_of(what)
        if names is None:
            # What follows with this sub-id, or without any, is about this one.
            last = None
            by_sub_id.pop(sub_id, None)
            continue
        where = f"OBX^{observations}"
        if len(waves) == _MOST_WAVES:
            raise RefusedMessageError(207, f"more than {_MOST_WAVES} waveforms in one message", where)
        bed = bed_field.read(latest.get(bed_field.segment))
        if not bed:
            raise RefusedMessageError(101, f"no bed in {bed_field}: fill it, or name another field", where)
        order = latest.get("OBR")
        told = segment.component(14) or (order.component(7) if order else "")
        if told not in stamps:
            stamps[told] = read_time(told, zone)
        last = _Wave(segment, where, *names, bed, patient, stamps[told])
        waves.append(last)
        if sub_id:
            by_sub_id[sub_id] = last
            last.facets |= early.pop(sub_id, {})
    return waves, instruments


def _lead_of(what: list[str]) -> tuple[str, str] | None:
    # The lead that OBX-3 names, and its own name for it; None where it is another waveform than ECG.
    code, text = [*what, ""][:2]
    if not text and (lead := lead_of_code(code)) is not None:
        return lead, lead
    own = (text or code).rsplit("@", 1)[0].strip()
    bare = own.rpartition("/")[2]
    if (lead := lead_of_name(bare)) is not None:
        return lead, own
    if code.upper() == "ECG_WAV" or _ECG_NAME.match(bare):
        return canonical_lead(bare) or "ECG", own or "ECG"
    return None


def _joined(waves: list[_Wave], device: str) -> Waves:
    # One array of the leads of the same bed and time.
    first = waves[0]
    read = [(wave, _rate(wave), *_values(wave)) for wave in waves]
    rates = [fs for _, fs, _, _ in read]
    # Where a monitor sends the same ECG finely and coarsely, the rate of most leads is the feed.
    fs = max(dict.fromkeys(rates), key=lambda rate: (rates.count(rate), rate))
    others = [f"{wave.lead} at {rate:g} Hz" for wave, rate, _, _ in read if rate != fs]
    taken = [entry for entry in read if entry[1] == fs]
    if len(taken) > _MOST_LEADS:
        raise RefusedMessageError(
            207, f"{len(taken)} leads of one bed at once; at most {_MOST_LEADS} can be", first.where
        )
    names = _names([wave for wave, *_ in taken])
    order = sorted(
        range(len(taken)), key=lambda at: LEADS.index(names[at]) if names[at] in LEADS else len(LEADS)
    )
    length = max(len(values) for _, _, values, _ in taken)
    # Leads differ by a few samples at most; one sample beside a million would fill memory with gaps.
    if length * len(taken) > MAX_BLOCK:
        raise RefusedMessageError(207, "leads of very different length", first.where)
    millivolts = np.full((length, len(taken)), math.nan)
    for column, at in enumerate(order):
        values = taken[at][2]
        millivolts[: len(values), column] = values
    return Waves(
        first.bed,
        device,
        fs,
        tuple(names[at] for at in order),
        millivolts,
        tuple(taken[at][3] for at in order),
        first.start,
        f"{', '.join(others)} beside {fs:g} Hz: one rate a bed can be taken" if others else "",
    )


def _names(waves: list[_Wave]) -> tuple[str, ...]:
    # Where a monitor and another device both send lead II, the second goes by its own name.
    names: list[str] = []
    for wave in waves:
        names.append(wave.lead if wave.lead not in names else wave.own_name)
    return canonical_leads(names)


def _number(segment: Segment, what: str, where: str) -> float:
    text = segment.component(5)
    try:
        value = float(text) if text and _NUMBERS.fullmatch(text) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RefusedMessageError(102, f"{what} is no number: {text[:40]!r}", where)
    return value


def _rate(wave: _Wave) -> float:
    for facet in (_RATE, _PERIOD):
        if (told := wave.facets.get(facet)) is not None:
            value = _number(told, facet, wave.where)
            if facet == _PERIOD:
                unit = next((part for part in told.components(6)[:2] if part in _SECONDS), None)
                if unit is None:
                    raise RefusedMessageError(
                        103, f"{facet} in {told.component(6)[:40]!r}: s, ms or us can be", wave.where
                    )
                value = 1.0 / (value * _SECONDS[unit]) if value > 0 else 0.0
            break
    else:
        stated = wave.segment.component(3, 2).rpartition("@")[2]
        if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", stated, re.ASCII):
            raise RefusedMessageError(
                101, f"{wave.lead}: no sampling rate; {_RATE} with the sub-id of the lead says it", wave.where
            )
        value = float(stated)
    if not 0 < value <= 100_000:
        raise RefusedMessageError(102, f"{wave.lead}: a sampling rate of {value:g} Hz cannot be", wave.where)
    # A period in microseconds is rarely the rate that was meant to the last digit.
    return round(value, 3)


def _unit(segment: Segment) -> str | None:
    # The voltage that OBX-6 names; empty: none at all; None: one that is no voltage.
    parts = segment.components(6)[:2]
    for part in parts:
        if (volts := volts_of(part)) is not None:
            return volts
        try:
            millivolts_in(part)
        except ValueError:
            continue
        return part
    return "" if _DIMENSIONLESS.issuperset(parts) else None


def _values(wave: _Wave) -> tuple[npt.NDArray[np.float64], Validity]:
    # Millivolts, NaN where there is no sample.
    segment = wave.segment
    marks = segment.delimiters
    text = segment.field(5).replace(marks.repetition, "^").replace(marks.component, "^")
    if not _NUMBERS.fullmatch(text):
        raise RefusedMessageError(102, f"{wave.lead}: samples that are no numbers", f"{wave.where}^5")
    try:
        values = np.array([float(part or "nan") for part in text.split("^")])
    except ValueError:
        try:
            values = np.array([float(part.strip() or "nan") for part in text.split("^")])
        except ValueError:
            raise RefusedMessageError(
                102, f"{wave.lead}: samples that are no numbers", f"{wave.where}^5"
            ) from None
    if (mark := wave.facets.get(_NO_SAMPLE)) is not None:
        values[values == _number(mark, _NO_SAMPLE, wave.where)] = math.nan
    values *= _millivolts_per_unit(wave)
    flags = {part.upper() for part in segment.components(8)}
    if segment.component(11).upper() == "X" or flags & _INVALID:
        values[:] = math.nan
    values[~np.isfinite(values)] = math.nan
    if np.isnan(values).all():
        return values, Validity.OFF
    return values, Validity.QUESTIONABLE if flags & _QUESTIONABLE else Validity.OK


def _millivolts_per_unit(wave: _Wave) -> float:
    # A voltage in OBX-6 means physical values, and the resolution is then for information. Counts (no unit,
    # or "dimensionless") are worth the resolution each.
    unit = _unit(wave.segment)
    if unit:
        return millivolts_in(unit)
    resolution = wave.facets.get(_RESOLUTION)
    step = _unit(resolution) if resolution is not None and unit == "" else None
    if not step or resolution is None:
        stated = wave.segment.field(6) or (resolution.field(6) if resolution else "")
        raise RefusedMessageError(
            103,
            f"{wave.lead}: unknown unit {stated[:40]!r}; volts are needed in OBX-6, or in {_RESOLUTION}",
            f"{wave.where}^6",
        )
    return _number(resolution, _RESOLUTION, wave.where) * millivolts_in(step)
