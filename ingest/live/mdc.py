"""ECG leads, units and what is said of a signal, in the nomenclature of ISO/IEEE 11073-10101 (MDC)."""

from __future__ import annotations

import re

from stream.contract import Validity
from stream.leads import LEADS, canonical_lead

# Lead codes are those of partition 2: block 0 names the lead (MDC_ECG_LEAD_...), block 1 the potential
# measured there (MDC_ECG_ELEC_POTL_...).
_PARTITION_2 = range(2 << 16, (2 << 16) + 512)
_LEAD_NUMBERS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"} | {
    number: f"V{number - 2}" for number in range(3, 9)
}
_NAME = re.compile(r"MDC_ECG_(?:LEAD|ELEC_POTL)(?:_|$)", re.IGNORECASE)

_VOLTS = {
    "266400": "V",
    "266418": "mV",
    "266419": "uV",
    "266420": "nV",
    "MDC_DIM_VOLT": "V",
    "MDC_DIM_MILLI_VOLT": "mV",
    "MDC_DIM_MICRO_VOLT": "uV",
    "MDC_DIM_NANO_VOLT": "nV",
}

# Of the events (partition 3), and of annotated ECG (partition 10, ISO/IEEE 11073-10102), those that say of a
# waveform that it is none, or is disturbed. DICOM PS3.16 prints LEAD_DISCONN and WAVE_ARTIF_ERR (CID 3039),
# and both noises (CID 3335). LEADS_OFF and NOISY are those of the data export of Philips monitors, which
# numbers the events alike.
_VALIDITIES = {
    "196876": Validity.OFF,
    "MDC_EVT_LEAD_DISCONN": Validity.OFF,
    "196882": Validity.OFF,
    "MDC_EVT_LEADS_OFF": Validity.OFF,
    "196682": Validity.QUESTIONABLE,
    "MDC_EVT_NOISY": Validity.QUESTIONABLE,
    "197040": Validity.QUESTIONABLE,
    "MDC_EVT_WAVE_ARTIF_ERR": Validity.QUESTIONABLE,
    # Beats can be detected, and not classified; beats can be neither.
    "666576": Validity.QUESTIONABLE,
    "666592": Validity.QUESTIONABLE,
}


def lead_of_code(code: str) -> str | None:
    """Return the standard lead of a code such as ``"131330"``; None where it is none of the twelve."""
    if not re.fullmatch(r"\d{6}", code, re.ASCII) or int(code) not in _PARTITION_2:
        return None
    return _LEAD_NUMBERS.get((int(code) - _PARTITION_2.start) % 256)


def lead_of_name(name: str) -> str | None:
    """Return the lead of a name such as ``"MDC_ECG_ELEC_POTL_II"``.

    Returns
    -------
    str or None
        The standard name, or what the nomenclature calls another lead (``"V"``); None for what is no ECG.
    """
    if not _NAME.match(name):
        return None
    lead = canonical_lead(name)
    return lead if lead in LEADS else _NAME.sub("", name) or "ECG"


def volts_of(unit: str) -> str | None:
    """Return V, mV, uV or nV for a unit's code or name; None where it is no voltage."""
    return _VOLTS.get(unit)


def validity_of(event: str) -> Validity | None:
    """Return what an event's code or name says of the signal it happens to; None where it says nothing."""
    return _VALIDITIES.get(event)
