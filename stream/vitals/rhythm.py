"""What the beats of a bed amount to: heart rate, and the arrhythmias that a monitor must tell of.

Definitions: Clifford GD et al. The PhysioNet/Computing in Cardiology Challenge 2015. Comput Cardiol
2015;42:273-276. Asystole: no QRS complex for 4 s. Extreme bradycardia: below 40/min for five beats in a row.
Extreme tachycardia: above 140/min for 17 beats in a row. Ventricular tachycardia: five or more ventricular
beats in a row at more than 100/min. Ventricular flutter or fibrillation: an oscillatory waveform for 4 s.
Here a rate below the limit that has lasted as long as five beats at the limit also counts, so that the
slowest rates are not told last. Atrial fibrillation is suspected where hardly any RR interval is like those
before it.

Each judgement is about the newest block. `present` is None where it cannot be told: no usable lead, or not
for long enough.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from stream.vitals.beats import Beat, Beats
from stream.vitals.grid import BLOCK, FS
from stream.vitals.memory import Arrays, optional, whole

# The heart rate is that of the median of so many intervals, and of this many at least.
_RATE_INTERVALS, _RATE_LEAST = 8, 2
# Beats kept: those of the longest rule.
_KEPT = 64
# After this long without a beat (seconds) the rate is no longer known.
_STALE_S = 5.0
# A condition of the rate ends when the rate is this far inside the limit again.
_INSIDE = 0.05
# So long without a beat, seconds, and a tachycardia is over.
_OVER_S = 2.0
# In a bradycardia no interval is shorter than this part of the limit's, and there are at least so many: a
# pause is no bradycardia.
_UNEVEN, _LEAST_SLOW = 0.85, 2
# In a ventricular tachycardia one beat may look otherwise or be missed.
_EXCEPTIONS = 1
# So large a part of the beats that it takes are of one kind; artefacts are not. Where no two beats are alike
# the oscillation tells.
_ALIKE = 0.5
# Above this the last seconds are a wave without beats; it ends below the second.
_WAVE, _NO_WAVE = 0.5, 0.35
# When it is found it has lasted for so long, seconds, which is less than the 4 that it is looked for in.
_WAVE_AT_ONCE_S = 3
# A beat so much like the dominant one is a recognisable beat.
_RECOGNISABLE = 0.9
# Irregularity from which atrial fibrillation is suspected, and below which no longer.
_IRREGULAR, _REGULAR = 0.09, 0.07
_AF_BEATS, _AF_LEAST = 63, 24


class Rule(StrEnum):
    """Conditions that are looked for."""

    ASYSTOLE = "asystole"
    BRADYCARDIA = "extreme-bradycardia"
    TACHYCARDIA = "extreme-tachycardia"
    VENTRICULAR_TACHYCARDIA = "ventricular-tachycardia"
    VENTRICULAR_FIBRILLATION = "ventricular-fibrillation"
    ATRIAL_FIBRILLATION = "atrial-fibrillation"


class Limits(BaseModel):
    """From where on something is an alarm; adjustable per bed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asystole_s: float = Field(4.0, ge=2.0, le=10.0)
    """So long without a beat, seconds."""
    bradycardia_bpm: float = Field(40.0, ge=15.0, le=100.0)
    bradycardia_beats: int = Field(5, ge=3, le=20)
    """A rate below the limit for so many beats in a row."""
    tachycardia_bpm: float = Field(140.0, ge=80.0, le=300.0)
    tachycardia_beats: int = Field(17, ge=5, le=30)
    """A rate above the limit for so many beats in a row."""
    vt_bpm: float = Field(100.0, ge=80.0, le=200.0)
    vt_beats: int = Field(5, ge=3, le=30)
    """So many ventricular beats in a row, faster than the limit."""
    vf_s: float = Field(4.0, ge=2.0, le=10.0)
    """An oscillation without beats for so long, seconds."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a condition is present.

    Attributes
    ----------
    rule : Rule
    present : bool or None
        None: cannot be told.
    onset : int
        Grid index at which the condition began; where it is not present, that of the block.
    value : float or None
        Rate (beats/min) or duration (s) behind the judgement.
    text : str
        For people; empty where the condition is not present.
    """

    rule: Rule
    present: bool | None
    onset: int
    value: float | None = None
    text: str = ""


class Rhythm:
    """Rhythm of one bed.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        """May be replaced at any time; counts from the next block on."""
        self.heart_rate_bpm: float | None = None
        """Of the median of the last intervals; 0 in asystole; None where it is not known."""
        self.rr_irregularity: float | None = None
        """How unlike the last RR intervals are, in parts of the median one; None before there are enough."""
        self._beats: list[Beat] = []
        # Interval before each of these beats, samples; None where a stretch without leads lies in between.
        # And how many of the newest are none of those.
        self._intervals: list[int | None] = []
        self._unbroken = 0
        # The same, NaN beside a ventricular beat: such an interval says nothing about the atria.
        self._atrial: list[float] = []
        # From where on there has been a usable lead all the time.
        self._seen_from: int | None = None
        self._wave_from: int | None = None
        self._wave_until = 0
        self._onsets: dict[Rule, int] = {}

    @property
    def beating(self) -> bool:
        """Whether there has been a beat."""
        return bool(self._beats)

    def update(self, block: Beats) -> list[Judgement]:
        """Take a block and return a judgement for each rule.

        Parameters
        ----------
        block : Beats
            The blocks of a bed in order.

        Returns
        -------
        list of Judgement
        """
        stop = block.first + BLOCK
        if not block.leads:
            self._seen_from = None
        elif self._seen_from is None:
            self._seen_from = block.first
        for beat in block.found:
            self._add(beat)
        blind = self._seen_from is None
        if blind:
            self.rr_irregularity = None
        elif block.found:
            self.rr_irregularity = self._irregularity()
        wave = self._wave(block)
        judgements = [
            self._asystole(block, wave),
            self._bradycardia(block, wave),
            self._tachycardia(block),
            self._ventricular_tachycardia(block),
            self._ventricular_fibrillation(stop, wave),
            self._atrial_fibrillation(stop),
        ]
        if blind:
            judgements = [Judgement(judgement.rule, None, block.first) for judgement in judgements]
            self._onsets.clear()
        # A wave may still be a tachycardia whose beats can be counted.
        unknown = blind or (wave and not self._held(Rule.VENTRICULAR_TACHYCARDIA))
        self.heart_rate_bpm = None if unknown else self._rate(block.settled)
        return judgements

    def remember(self) -> Arrays:
        """Return the state."""
        rows = [
            (
                *(beat.index, beat.height, beat.width_s, beat.amplitude_mv, optional(beat.similarity)),
                *(beat.kind, beat.ventricular, optional(interval), atrial),
            )
            for beat, interval, atrial in zip(self._beats, self._intervals, self._atrial, strict=True)
        ]
        since = (self._seen_from, self._wave_from, self._wave_until, self._unbroken)
        onsets = (self._onsets.get(rule) for rule in Rule)
        found = {"rhythm": np.array([optional(one) for one in (self.rr_irregularity, *since, *onsets)])}
        return found | ({"beats": np.array(rows)} if rows else {})

    def recall(self, state: Arrays) -> None:
        """Take the state that another one had at the same block; the limits stay."""
        irregularity, seen_from, wave_from, wave_until, unbroken, *onsets = state["rhythm"].tolist()
        self.rr_irregularity = None if np.isnan(irregularity) else irregularity
        self._seen_from, self._wave_from = whole(seen_from), whole(wave_from)
        self._wave_until, self._unbroken = int(wave_until), int(unbroken)
        self._onsets = {
            rule: int(onset) for rule, onset in zip(Rule, onsets, strict=True) if not np.isnan(onset)
        }
        self._beats, self._intervals, self._atrial = [], [], []
        for row in state.get("beats", ()):
            index, height, width_s, amplitude_mv, similarity, *rest = row.tolist()
            kind, ventricular, interval, atrial = rest
            alike = None if np.isnan(similarity) else similarity
            beat = Beat(int(index), height, width_s, amplitude_mv, alike, int(kind), bool(ventricular))
            self._beats.append(beat)
            self._intervals.append(whole(interval))
            self._atrial.append(atrial)

    def _add(self, beat: Beat) -> None:
        previous = self._beats[-1] if self._beats else None
        whole = previous is not None and self._seen_from is not None and previous.index >= self._seen_from
        interval = beat.index - previous.index if whole and previous else None
        beside = beat.ventricular or (previous is not None and previous.ventricular)
        self._intervals.append(interval)
        self._atrial.append(np.nan if interval is None or beside else interval)
        self._beats.append(beat)
        self._unbroken = 0 if interval is None else min(self._unbroken + 1, _KEPT)
        del self._intervals[:-_KEPT], self._atrial[:-_KEPT], self._beats[:-_KEPT]

    def _last_intervals(self, count: int) -> list[int]:
        # The newest, back to the newest interruption.
        count = min(count, self._unbroken)
        return cast(list[int], self._intervals[-count:]) if count else []

    def _open(self, settled: int) -> int:
        # Samples without a beat up to where all is decided; since the last one, since there has been a lead,
        # or since the end of an oscillation, in which there are no beats to be found.
        if self._seen_from is None:
            return 0
        since = max(self._seen_from, self._wave_until)
        if self._beats:
            since = max(since, self._beats[-1].index)
        return max(0, settled - since)

    def _rate(self, settled: int) -> float | None:
        if self._held(Rule.ASYSTOLE):
            return 0.0
        intervals = self._last_intervals(_RATE_INTERVALS)
        if len(intervals) < _RATE_LEAST or self._open(settled) > _STALE_S * FS:
            return None
        ordered = sorted(intervals)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        return 60.0 * FS / median

    def _held(self, rule: Rule) -> bool:
        return rule in self._onsets

    def _judge(self, rule: Rule, onset: int | None, stop: int, value: float | None, text: str) -> Judgement:
        # `onset` is None where the condition is not present. It keeps the onset that it began with.
        if onset is None:
            self._onsets.pop(rule, None)
            return Judgement(rule, False, stop - BLOCK, value)
        return Judgement(rule, True, self._onsets.setdefault(rule, onset), value, text)

    def _asystole(self, block: Beats, wave: bool) -> Judgement:
        stop, rule = block.first + BLOCK, Rule.ASYSTOLE
        length = self._open(block.settled)
        seconds = length / FS
        if wave or length < self.limits.asystole_s * FS:
            judgement = self._judge(rule, None, stop, seconds, "")
            known = wave or (
                self._beats and self._seen_from is not None and self._beats[-1].index >= self._seen_from
            )
            return judgement if known else Judgement(rule, None, stop - BLOCK)
        return self._judge(rule, block.settled - length, stop, seconds, f"No heart beat for {seconds:.0f} s")

    def _bradycardia(self, block: Beats, wave: bool) -> Judgement:
        rule, stop = Rule.BRADYCARDIA, block.first + BLOCK
        limit = 60.0 * FS / self.limits.bradycardia_bpm
        if self._held(rule):
            limit *= 1 - _INSIDE
        needed = self.limits.bradycardia_beats - 1
        intervals = self._last_intervals(needed)
        if not intervals:
            return Judgement(rule, None, stop - BLOCK)
        # The interval that is not over yet counts as soon as it is too long.
        waiting = self._open(block.settled)
        closed = len(intervals)
        if waiting > limit:
            intervals.append(waiting)
        slow: list[int] = []
        for interval in reversed(intervals):
            if interval <= _UNEVEN * limit or sum(slow) >= needed * limit:
                break
            slow.append(interval)
        rate = 60.0 * FS * len(slow) / sum(slow) if slow else None
        if wave or not _LEAST_SLOW <= len(slow) <= needed or sum(slow) < needed * limit:
            return self._judge(rule, None, stop, rate, "")
        onset = block.settled - sum(slow) - (waiting if len(intervals) == closed else 0)
        return self._judge(rule, onset, stop, rate, f"Heart rate {rate:.0f}/min")

    def _tachycardia(self, block: Beats) -> Judgement:
        rule, stop, needed = Rule.TACHYCARDIA, block.first + BLOCK, self.limits.tachycardia_beats - 1
        limit = 60.0 * FS / self.limits.tachycardia_bpm
        if self._held(rule):
            limit /= 1 - _INSIDE
        intervals = self._last_intervals(needed)
        if not intervals:
            return Judgement(rule, None, stop - BLOCK)
        rate = 60.0 * FS * len(intervals) / sum(intervals)
        over = self._open(block.settled) > _OVER_S * FS
        if over or len(intervals) < needed or sum(intervals) > needed * limit:
            return self._judge(rule, None, stop, rate, "")
        onset = self._beats[-1].index - sum(intervals)
        return self._judge(rule, onset, stop, rate, f"Heart rate {rate:.0f}/min")

    def _ventricular_tachycardia(self, block: Beats) -> Judgement:
        rule, stop = Rule.VENTRICULAR_TACHYCARDIA, block.first + BLOCK
        if not self._last_intervals(1):
            return Judgement(rule, None, stop - BLOCK)
        count, first, last, missed, alike = self._run()
        limit = 60.0 * FS / self.limits.vt_bpm
        length = last - first
        enough = count >= self.limits.vt_beats and alike >= _ALIKE * self.limits.vt_beats
        over = self._open(block.settled) > _OVER_S * FS
        if over or not enough or length > (count - 1 + missed) * limit:
            return self._judge(rule, None, stop, None, "")
        rate = 60.0 * FS * (count - 1 + missed) / length
        text = f"Ventricular tachycardia, {count} beats at {rate:.0f}/min"
        return self._judge(rule, first, stop, rate, text)

    def _run(self) -> tuple[int, int, int, int, int]:
        # The run of fast ventricular beats that ends with the newest beat: how many, where its first and
        # last one are, how many other or missed beats are in it, and how many are of its commonest kind.
        limit = 60.0 * FS / self.limits.vt_bpm
        count, first, last, missed, other = 0, 0, 0, 0, 0
        kinds: defaultdict[int, int] = defaultdict(int)
        for beat, interval in zip(reversed(self._beats), reversed(self._intervals), strict=True):
            if beat.ventricular:
                count, first, last, missed = count + 1, beat.index, last or beat.index, missed + other
                other = 0
                kinds[beat.kind] += 1
            elif not count or missed + other >= _EXCEPTIONS:
                break
            else:
                other += 1
            if interval is None or interval > 2 * limit:
                break
            if interval > limit:
                if missed + other >= _EXCEPTIONS:
                    break
                other += 1
        return count, first, last, missed, max(kinds.values(), default=0)

    def _wave(self, block: Beats) -> bool:
        # Whether the last seconds are a wave without recognisable beats.
        enough = block.oscillation >= (_NO_WAVE if self._held(Rule.VENTRICULAR_FIBRILLATION) else _WAVE)
        if not enough or not block.leads or self._recognisable(block.first - 3 * FS):
            self._wave_from = None
            return False
        if self._wave_from is None:
            # The measure covers 4 s; it has to stay, which a chance does not.
            self._wave_from = max(0, block.first + BLOCK - _WAVE_AT_ONCE_S * FS)
        self._wave_until = block.first + BLOCK
        return True

    def _recognisable(self, since: int) -> bool:
        # Whether most beats from a grid index on are recognisable ones.
        recent = [beat for beat in self._beats if beat.index >= since]
        known = sum((beat.similarity or 0.0) >= _RECOGNISABLE and beat.width_s < 0.12 for beat in recent)
        return known * 2 > len(recent)

    def _ventricular_fibrillation(self, stop: int, wave: bool) -> Judgement:
        rule = Rule.VENTRICULAR_FIBRILLATION
        if not wave or self._wave_from is None:
            seen = self._seen_from is not None and stop - self._seen_from >= self.limits.vf_s * FS
            judgement = self._judge(rule, None, stop, None, "")
            return judgement if seen else Judgement(rule, None, stop - BLOCK)
        seconds = (stop - self._wave_from) / FS
        onset = self._wave_from if seconds >= self.limits.vf_s else None
        return self._judge(
            rule, onset, stop, seconds, f"Ventricular flutter or fibrillation for {seconds:.0f} s"
        )

    def _irregularity(self) -> float | None:
        count = min(_AF_BEATS, self._unbroken)
        return None if count < _AF_LEAST else _irregularity(np.array(self._atrial[-count:], np.float64))

    def _atrial_fibrillation(self, stop: int) -> Judgement:
        rule, irregularity = Rule.ATRIAL_FIBRILLATION, self.rr_irregularity
        if irregularity is None:
            return Judgement(rule, None, stop - BLOCK)
        if irregularity < (_REGULAR if self._held(rule) else _IRREGULAR):
            return self._judge(rule, None, stop, irregularity, "")
        onset = self._beats[-1].index - sum(self._last_intervals(_AF_BEATS))
        return self._judge(rule, onset, stop, irregularity, "Irregular rhythm, as in atrial fibrillation")


def _irregularity(x: npt.NDArray[np.float64]) -> float | None:
    # The median difference of intervals one, two, three and four beats apart, whichever is the least:
    # bigeminy repeats after two, trigeminy after three, and single ectopic beats do not move a median.
    least = np.inf
    for lag in (1, 2, 3, 4):
        differences, known = _ordered(np.abs(x[lag:] - x[:-lag]))
        if known < _AF_LEAST // 2:
            return None
        least = min(least, float(differences[known // 2]))
    usual, known = _ordered(x)
    return least / float(usual[known // 2])


def _ordered(x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], int]:
    # Sorted, and how many are numbers: the sort puts NaN last.
    ordered = np.sort(x)
    return ordered, int(ordered.searchsorted(np.inf))
