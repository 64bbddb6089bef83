"""Names of ECG leads."""

from __future__ import annotations

import re
from collections.abc import Sequence

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve standard leads, in the order in which every model sees them."""

# Spellings that mean a standard lead. MLII ("modified limb II") is the Holter electrode position of
# MIT-BIH: torso electrodes, the axis of lead II; MCL1 and MCL6 are the monitoring forms of V1 and V6.
_ALIASES = {lead.lower(): lead for lead in LEADS} | {
    "mli": "I",
    "mlii": "II",
    "mliii": "III",
    "mv1": "V1",
    "mv2": "V2",
    "mv5": "V5",
    "mcl1": "V1",
    "mcl6": "V6",
    "d1": "I",
    "d2": "II",
    "d3": "III",
    "c1": "V1",
    "c2": "V2",
    "c3": "V3",
    "c4": "V4",
    "c5": "V5",
    "c6": "V6",
}
# "ECG II", "ECG_II", "Lead aVR (Einthoven)", "ECG lead V1", "MDC_ECG_LEAD_V1", "MDC_ECG_ELEC_POTL_II"
_PREFIX = re.compile(
    r"^(?:mdc[ _]ecg[ _](?:lead|elec[ _]potl)|ecg|ekg|lead|ch(?:annel)?)[ _:.-]+", re.IGNORECASE
)
_SUFFIX = re.compile(r"\s*\([^)]*\)$")


def canonical_lead(name: str) -> str:
    """Return the standard name of a lead, or the source's own name where it means none of the twelve.

    Parameters
    ----------
    name : str
        A channel name as a file or device gives it, such as ``"MLII"``, ``"ECG II"``, ``"AVR"`` or
        ``"Lead V1 (Einthoven)"``.

    Returns
    -------
    str
        One of `LEADS`, or `name` with surrounding blanks removed.
    """
    bare = _SUFFIX.sub("", name.strip())
    while (shorter := _PREFIX.sub("", bare)) != bare:
        bare = shorter
    return _ALIASES.get(bare.strip().lower(), name.strip())


def canonical_leads(names: Sequence[str]) -> tuple[str, ...]:
    """Return the standard name of every channel of a source, each name once.

    Where two channels would get the same name, the first keeps it and the others keep the source's
    own name, numbered if that is taken too, because a lead name identifies a channel on the wire.
    An empty name becomes ``"?"``.
    """
    taken: list[str] = []
    for position, name in enumerate(names):
        own = name.strip() or "?"
        lead = canonical_lead(own)
        if lead in taken:
            lead = own
        if lead in taken:
            lead = f"{own}#{position + 1}"
        taken.append(lead)
    return tuple(taken)
