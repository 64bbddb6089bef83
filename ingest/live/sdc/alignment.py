"""Leads that a device sends one by one become stretches in which each has a sample at each time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream.contract import Validity

# A device samples its leads together, but begins to count each at a time of its own: reports end a sample
# apart, and times are told in milliseconds.
_SLACK_SAMPLES = 1
_SLACK_NS = 1_000_000
# A lead that is further behind the others than this is not coming: a report is sent each 100 ms or so.
_LATEST_S = 0.2
# Times within a lead that differ by more than this are a hole, as for the intake; a larger hole is no use to
# be filled.
_HOLE_NS = 50_000_000
_LARGEST_HOLE_S = 2.0

# From good to bad; what is invalid has no samples at all.
_RANKS = (Validity.OK, Validity.QUESTIONABLE, Validity.SATURATED)


@dataclass(slots=True)
class _Lead:
    # What has come and was not passed on: when its first sample was taken, values, and the rank of each.
    begin_ns: int = 0
    values: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    ranks: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))

    def append(self, values: npt.NDArray[np.float64], rank: int) -> None:
        self.values = np.concatenate([self.values, values])
        self.ranks = np.concatenate([self.ranks, np.full(len(values), rank, np.int8)])

    def clear(self) -> None:
        self.values, self.ranks = np.empty(0), np.empty(0, np.int8)

    def prepend(self, missing: int) -> None:
        self.values = np.concatenate([np.full(missing, math.nan), self.values])
        self.ranks = np.concatenate([np.zeros(missing, np.int8), self.ranks])

    def cut(self, samples: int, period_ns: float) -> tuple[npt.NDArray[np.float64], Validity]:
        # The first samples; beyond what there is, none.
        values = np.full(samples, math.nan)
        there = min(samples, len(self.values))
        values[:there] = self.values[:there]
        worst = int(self.ranks[:there].max(initial=0))
        self.values, self.ranks = self.values[there:], self.ranks[there:]
        self.begin_ns += round(there * period_ns)
        return values, Validity.OFF if np.isnan(values).all() else _RANKS[worst]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Samples of all leads over the same time.

    Attributes
    ----------
    t_ns : int
        Device time of the first.
    millivolts : numpy.ndarray of float64, shape (n, leads)
        NaN where there is none.
    valid : tuple of Validity
    """

    t_ns: int
    millivolts: npt.NDArray[np.float64]
    valid: tuple[Validity, ...]


class Alignment:
    """Puts the leads of one bed side by side.

    Parameters
    ----------
    leads : int
        How many there are.
    fs : float
        Hz, of all.
    """

    def __init__(self, leads: int, fs: float) -> None:
        self._leads = [_Lead() for _ in range(leads)]
        self._fs = fs
        self._period_ns = 1e9 / fs

    def add(self, lead: int, t_ns: int, millivolts: npt.NDArray[np.float64], valid: Validity) -> None:
        """Take samples of one lead.

        Parameters
        ----------
        lead : int
        t_ns : int
            Device time of the first.
        millivolts : numpy.ndarray of float64, shape (n,)
        valid : Validity
            OFF: none of them counts.
        """
        held = self._leads[lead]
        off = valid is Validity.OFF
        values = np.full(len(millivolts), math.nan) if off else millivolts
        if len(held.values):
            end_ns = held.begin_ns + round(len(held.values) * self._period_ns)
            missing = round((t_ns - end_ns) / self._period_ns)
            if abs(missing) > _LARGEST_HOLE_S * self._fs:
                # Another time altogether.
                held.clear()
            elif t_ns - end_ns > _HOLE_NS:
                held.append(np.full(missing, math.nan), 0)
            elif end_ns - t_ns > _HOLE_NS:
                # It came before.
                values = values[-missing:]
        if not len(values):
            return
        held.append(values, 0 if off else _RANKS.index(valid))
        # The newest stamp says where all of it lies, so that nothing adds up.
        held.begin_ns = t_ns + round((len(millivolts) - len(held.values)) * self._period_ns)

    def take(self) -> Stretch | None:
        """Return what has come of all leads, or can no longer be waited for; None: nothing yet."""
        there = [lead for lead in self._leads if len(lead.values)]
        if not there:
            return None
        newest_ns = max(lead.begin_ns for lead in there)
        for lead in there:
            if newest_ns - lead.begin_ns > _LARGEST_HOLE_S * 1e9:
                # The clock was set, and this is from before.
                lead.clear()
        there = [lead for lead in there if len(lead.values)]
        begin_ns = min(lead.begin_ns for lead in there)
        for lead in there:
            later_ns = lead.begin_ns - begin_ns
            if later_ns > _SLACK_NS + _SLACK_SAMPLES * self._period_ns:
                lead.prepend(round(later_ns / self._period_ns))
                lead.begin_ns = begin_ns
        longest = max(len(lead.values) for lead in there)
        shortest = min(len(lead.values) for lead in self._leads)
        if longest - shortest > _LATEST_S * self._fs:
            shortest = longest
        if shortest == 0:
            return None
        cut = [lead.cut(shortest, self._period_ns) for lead in self._leads]
        return Stretch(begin_ns, np.column_stack([v for v, _ in cut]), tuple(valid for _, valid in cut))
