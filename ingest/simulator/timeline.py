"""What happens to a simulated patient, and when, as text.

A timeline is a list of episodes separated by blanks, each ``kind[:value[:where]]@start[+duration]`` with
times in seconds::

    sinus:72@0 vt:180@25 asystole@60 leadoff:V1@80+10

Rhythms follow one another: each lasts until the next one begins.

========== ========================== =============================================================
kind       value                      meaning
========== ========================== =============================================================
sinus      beats/min, 20 to 220       sinus rhythm; without a value at the patient's own resting rate
af         beats/min, 40 to 200 (110) atrial fibrillation: irregular, no P waves, fibrillatory waves
vt         beats/min, 100 to 260 (180) monomorphic ventricular tachycardia
vf         mV, 0.05 to 2 (0.5)        ventricular fibrillation of about this amplitude
asystole                              no electrical activity
========== ========================== =============================================================

The others go with any rhythm, for their duration (without one: to the end).

========== ========================== =============================================================
pvc        per minute, 1 to 60 (6)    premature ventricular complexes in sinus rhythm
st         mV, -1 to 1 (0.3)          ST deviation; where: anterior (V3, unless said), inferior (II)
                                      or lateral (V6): the lead in which the value is reached
leadoff    leads, such as V1 or I,II  these leads give no valid samples
motion     mV, 0.05 to 10 (0.5)       motion artefact of about this amplitude
========== ========================== =============================================================

Without a rhythm at 0 s the patient is in sinus rhythm until the first one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from ingest.source import IngestError
from stream.leads import LEADS, canonical_lead


class Kind(StrEnum):
    """What an episode is."""

    SINUS = "sinus"
    AF = "af"
    VT = "vt"
    VF = "vf"
    ASYSTOLE = "asystole"
    PVC = "pvc"
    ST = "st"
    LEAD_OFF = "leadoff"
    MOTION = "motion"


RHYTHMS = frozenset({Kind.SINUS, Kind.AF, Kind.VT, Kind.VF, Kind.ASYSTOLE})

TERRITORIES = ("anterior", "inferior", "lateral")

# Lowest, highest and default value. The rates reach from deep bradycardia to the fastest conducted ones.
_VALUES: dict[Kind, tuple[float, float, float | None]] = {
    Kind.SINUS: (20, 220, None),
    Kind.AF: (40, 200, 110),
    Kind.VT: (100, 260, 180),
    Kind.VF: (0.05, 2, 0.5),
    Kind.PVC: (1, 60, 6),
    Kind.ST: (-1, 1, 0.3),
    Kind.MOTION: (0.05, 10, 0.5),
}

_ITEM = re.compile(r"(?P<what>[^@+]+)@(?P<start>[^@+]+)(?:\+(?P<duration>[^@+]+))?")


@dataclass(frozen=True, slots=True)
class Episode:
    """One entry of a timeline.

    Attributes
    ----------
    kind : Kind
    start_s, stop_s : float
        From the beginning of the recording; `stop_s` is infinity for one that lasts.
    value : float, optional
        Rate or amplitude, by kind; None for the patient's own.
    where : tuple of str
        Leads (lead off) or territory (ST deviation).
    """

    kind: Kind
    start_s: float
    stop_s: float = math.inf
    value: float | None = None
    where: tuple[str, ...] = ()

    def covers(self, time_s: float) -> bool:
        """Whether the episode is under way."""
        return self.start_s <= time_s < self.stop_s


def parse_timeline(text: str) -> tuple[Episode, ...]:
    """Read a timeline.

    Parameters
    ----------
    text : str
        As described in this module.

    Returns
    -------
    tuple of Episode
        By start; a rhythm ends where the next begins, and there is one from 0 s on.

    Raises
    ------
    IngestError
        If an entry makes no sense; the text names it.
    """
    episodes = sorted((_episode(item) for item in text.split()), key=lambda episode: episode.start_s)
    rhythms = [episode for episode in episodes if episode.kind in RHYTHMS]
    if not rhythms or rhythms[0].start_s > 0:
        rhythms.insert(0, Episode(Kind.SINUS, 0.0))
    for earlier, later in pairwise(rhythms):
        if earlier.start_s == later.start_s:
            raise IngestError("timeline", f"two rhythms begin at {later.start_s:g} s")
    ends = [*(rhythm.start_s for rhythm in rhythms[1:]), math.inf]
    bounded = [
        Episode(rhythm.kind, rhythm.start_s, end, rhythm.value, rhythm.where)
        for rhythm, end in zip(rhythms, ends, strict=True)
    ]
    overlays = [episode for episode in episodes if episode.kind not in RHYTHMS]
    return tuple(sorted([*bounded, *overlays], key=lambda episode: episode.start_s))


def _episode(item: str) -> Episode:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise _wrong(item, "expected kind[:value]@start[+duration], such as vt:180@25 or leadoff:V1@80+10")
    name, *details = match["what"].split(":")
    if name not in list(Kind):
        raise _wrong(item, f"no such kind; there are {', '.join(Kind)}")
    kind = Kind(name)
    start = _number(item, "start", match["start"])
    stop = math.inf
    if match["duration"] is not None:
        if kind in RHYTHMS:
            raise _wrong(item, "a rhythm lasts until the next one begins; write when that is instead")
        stop = start + _number(item, "duration", match["duration"])
    if start < 0 or stop <= start:
        raise _wrong(item, "it must begin at 0 s or later and last longer than 0 s")
    if kind is Kind.LEAD_OFF:
        return Episode(kind, start, stop, where=_leads(item, details))
    return Episode(kind, start, stop, *_value(item, kind, details))


def _value(item: str, kind: Kind, details: list[str]) -> tuple[float | None, tuple[str, ...]]:
    where: tuple[str, ...] = ()
    if kind is Kind.ST:
        where = tuple(details[1:]) or TERRITORIES[:1]
        if len(where) > 1 or where[0] not in TERRITORIES:
            raise _wrong(item, f"an ST deviation is {', '.join(TERRITORIES)}")
        details = details[:1]
    if kind not in _VALUES:
        if details:
            raise _wrong(item, f"{kind} takes no value")
        return None, where
    if len(details) > 1:
        raise _wrong(item, f"{kind} takes one value")
    low, high, default = _VALUES[kind]
    if not details:
        return default, where
    value = _number(item, "value", details[0])
    if not low <= value <= high:
        raise _wrong(item, f"the value must be from {low:g} to {high:g}")
    return value, where


def _leads(item: str, details: list[str]) -> tuple[str, ...]:
    leads = tuple(canonical_lead(name) for name in details[0].split(",")) if len(details) == 1 else ()
    if not leads or not set(leads) <= set(LEADS):
        raise _wrong(item, f"name leads of {' '.join(LEADS)}, separated by commas")
    return leads


def _number(item: str, what: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(item, f"the {what} '{text}' is no number")
    return number


def _wrong(item: str, reason: str) -> IngestError:
    return IngestError(f"timeline entry '{item}'", reason)
