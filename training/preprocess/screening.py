"""Which recordings are fit to train and to judge with: one check for each way in which a lead can be useless.

A recording is left out whole if one of its leads fails, because what remains would be another kind of
example: training masks leads itself, at random, and an evaluation with fewer leads takes the same recordings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingest.source import MAX_LSB
from stream.contract import INVALID
from stream.leads import LEADS
from training.preprocess.catalogue import Reason

MIN_S = 8.0
"""Shortest recording: the longest window of a model that we ship."""

FLAT_MV = 0.01
"""A lead with a smaller standard deviation is flat: serving masks it too (`models.manifest.WindowSpec`)."""

FLAT_S = 2.0
"""A lead that keeps one and the same value for so long was off for a while. The noise of a connected
electrode moves it; where a recorder suppresses that, as PTB-XL's does, the value stands still between two
beats, for a third of a second."""

RAIL_MV = 5.0
"""No amplifier of a diagnostic ECG runs into its limits below: IEC 60601-2-25 asks for a range of +-5 mV."""

SATURATED_S = 0.05
"""A lead that stays for so long at its own highest or lowest value, beyond `RAIL_MV`, or at the limit of its
file's format, is cut off there. The top of a wave of that size lasts a few milliseconds, a pacing spike one
or two."""


def fault(raw: npt.NDArray[np.int16], gain: Sequence[float], fs: float) -> tuple[Reason, str] | None:
    """Return why a recording is left out, or None if it is fit.

    Parameters
    ----------
    raw : numpy.ndarray of int16, shape (n, 12)
        In LSB of the source, in the order of `stream.leads.LEADS`; `INVALID` marks a missing sample.
    gain : sequence of float
        LSB per millivolt, per lead.
    fs : float
        Hz.

    Returns
    -------
    tuple of Reason and str, or None
        The reason, and which leads for people.
    """
    if len(raw) < MIN_S * fs:
        return Reason.TOO_SHORT, f"{len(raw) / fs:g} s of {MIN_S:g} s"
    missing = raw == INVALID
    if missing.any():
        return Reason.NAN, _named(missing.any(axis=0), f"{missing.any(axis=1).sum() / fs:g} s in")
    millivolts = raw / np.asarray(gain)
    # Before flatness: a lead that stays at its limit does not move either, and this says more.
    low, high = millivolts.min(axis=0), millivolts.max(axis=0)
    at_rail = (millivolts == low) & (low <= -RAIL_MV) | (millivolts == high) & (high >= RAIL_MV)
    at_limit = np.abs(raw.astype(np.int32)) == MAX_LSB
    saturated = np.array([_longest_run(lead) >= SATURATED_S * fs for lead in (at_rail | at_limit).T])
    if saturated.any():
        return Reason.SATURATED, _named(saturated)
    still = np.array([_longest_run(np.diff(lead) == 0) + 1 >= FLAT_S * fs for lead in raw.T])
    flat = (millivolts.std(axis=0) < FLAT_MV) | still
    if flat.any():
        return Reason.FLAT, _named(flat)
    return None


def _named(leads: npt.NDArray[np.bool_], what: str = "") -> str:
    return " ".join([*([what] if what else []), *(LEADS[at] for at in np.flatnonzero(leads))])


def _longest_run(flags: npt.NDArray[np.bool_]) -> int:
    # Of true values; the zeros around make every run begin and end.
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))
