"""Whether an arrhythmia alarm that somebody else has raised fits what leads and pulse show.

A verifier of one alarm: it looks back over the last `SPAN_S` seconds and says confirmed, refuted or
undecided. Undecided keeps the alarm, and so does every doubt: a true alarm that is taken away costs more
than a false one that stays. What refutes is always a witness that shows the opposite for the whole time: a
lead by itself, the leads together, or a channel with the pulse. That one electrode is off, or that one lead
is full of artefacts, is the usual cause of a false alarm; the other lead and the pulse know nothing of it.

The definitions are those of `stream.vitals.rhythm`; the limits here lie well inside of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from stream.preprocess import Resampled
from stream.vitals.bed import BedVitals, Block
from stream.vitals.grid import BLOCK, FS
from stream.vitals.pulse import Pulses
from stream.vitals.quality import SecondQuality
from stream.vitals.rhythm import Limits, Rule

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SPAN_S = 14.0
"""How far a verifier looks back: the condition began up to 10 s before its alarm, and lasted for some
seconds by then."""

# Beats and pulses of so long before the alarm may not be known yet.
_OPEN_S = 0.5
# A beat is recognised if it is so much like the bed's usual one.
_ALIKE = 0.8
# So large a part of the beats or pulses of a witness is recognised, or it is none; the last counts where
# every beat matters.
_SHARE, _NEARLY_ALL = 0.8, 0.95
# So long without a recognised beat, seconds, is far from the 4 of asystole and fibrillation, and usual.
_GAP_S = 2.0
# Rates (beats/min) inside the definitions' 40 and 140; and one up to which ventricular tachycardia needs
# more than a rate to be one.
_NOT_SLOW, _NOT_FAST, _NOT_VT = 46.0, 115.0, 105.0
# Beats whose mean rate is compared.
_RUN = 5
# Faster pulses are noise; fewer beats in `SPAN_S` than this say nothing.
_FASTEST, _FEWEST = 150.0, 8
# Standard deviation of the intervals in parts of their mean: below this the rhythm is one all the time. The
# pulse of a run of ventricular beats with its pause has 0.13 or more.
_REGULAR = 0.10
# An interval of so many median ones lacks a beat, which may be one that this lead does not show.
_LACKS = 1.7
# So wide beats may be ventricular all of them, seconds.
_NARROW_S = 0.12
# Seconds of `SPAN_S` in which a lead may have been poor.
_POOR_S = 1.0


class Outcome(StrEnum):
    """What becomes of an alarm; only a refuted one is taken away."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of one alarm.

    Attributes
    ----------
    outcome : Outcome
    reason : str
        For people.
    witness : str or None
        Name of the trace that decided.
    by_pulse : bool
        Whether that is a pulse.
    """

    outcome: Outcome
    reason: str
    witness: str | None = None
    by_pulse: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """What one witness showed in the last `SPAN_S` before an alarm.

    Attributes
    ----------
    name : str
    pulse : bool
        A channel with the pulse; else one lead or all of them together.
    at_s : numpy.ndarray of float64, shape (beats,)
        Seconds, 0 at the alarm, negative before.
    known : numpy.ndarray of bool, shape (beats,)
        Whether it is like the usual beat or pulse.
    ventricular : numpy.ndarray of bool, shape (beats,)
    width_s : float
        Median width of the beats; 0 of a pulse.
    poor_s : float
        For how long the signal was too poor.
    present : frozenset of Rule
        Conditions that the bed's own rhythm found in that time.
    """

    name: str
    pulse: bool
    at_s: Float64Array
    known: BoolArray
    ventricular: BoolArray
    width_s: float = 0.0
    poor_s: float = 0.0
    present: frozenset[Rule] = frozenset()

    @property
    def share(self) -> float:
        """Part of the beats that is recognised; 0 if there are too few."""
        return float(self.known.mean()) if len(self.at_s) >= _FEWEST else 0.0

    @property
    def gap_s(self) -> float:
        """Longest time without a recognised beat."""
        return float(np.diff([-SPAN_S, *self.at_s[self.known], -_OPEN_S]).max())

    @property
    def slowest(self) -> float:
        """Lowest rate of five recognised beats in a row, beats/min; 0 if there are fewer."""
        return float(min(_rates(self.at_s[self.known]), default=0.0))

    @property
    def fastest(self) -> float:
        """Highest rate of five beats in a row, recognised or not, beats/min; 0 if there are fewer."""
        return float(max(_rates(self.at_s), default=0.0))

    @property
    def irregularity(self) -> float:
        """Standard deviation of the intervals in parts of their mean; infinite for less than three beats."""
        intervals = np.diff(self.at_s)
        return float(intervals.std() / intervals.mean()) if len(intervals) > 1 else np.inf

    @property
    def whole(self) -> bool:
        """Whether no beat is missing between two others, nor before the first or behind the last."""
        intervals = np.diff([-SPAN_S, *self.at_s, -_OPEN_S])
        return len(self.at_s) >= _FEWEST and bool(intervals.max() <= _LACKS * np.median(intervals))

    @property
    def regular(self) -> bool:
        """Whether it shows one regular rhythm all the time."""
        return self.whole and self.share >= _SHARE and self.irregularity <= _REGULAR


def _rates(at_s: Float64Array) -> list[float]:
    spans = at_s[_RUN - 1 :] - at_s[: max(0, len(at_s) - _RUN + 1)]
    return [60.0 * (_RUN - 1) / span for span in spans.tolist()]


def ecg_trace(name: str, blocks: Sequence[Block], alarm: int) -> Trace:
    """Return what blocks of a bed's vitals, of all leads or of one, say before an alarm.

    Parameters
    ----------
    name : str
    blocks : sequence of Block
        In order. Of those that end after the alarm only beats before it are taken: they became final late.
    alarm : int
        Grid sample at which the alarm sounded.
    """
    first = alarm - round(SPAN_S * FS)
    recent = [block for block in blocks if first < block.end <= alarm]
    beats = [beat for block in blocks for beat in block.beats if first <= beat.index < alarm]
    poor = sum(block.quality is not None and not block.quality.usable.any() for block in recent)
    present = {
        judgement.rule for block in recent for judgement in block.judgements if judgement.present is True
    }
    return Trace(
        name=name,
        pulse=False,
        at_s=np.array([(beat.index - alarm) / FS for beat in beats]),
        known=np.array([(beat.similarity or 0.0) >= _ALIKE for beat in beats], np.bool_),
        ventricular=np.array([beat.ventricular for beat in beats], np.bool_),
        width_s=float(np.median([beat.width_s for beat in beats])) if beats else 0.0,
        poor_s=poor * BLOCK / FS,
        present=frozenset(present),
    )


def pulse_trace(name: str, pulses: Pulses, alarm_s: float) -> Trace:
    """Return what the pulses of a channel say before an alarm.

    Parameters
    ----------
    name : str
    pulses : Pulses
    alarm_s : float
        When the alarm sounded, on the clock of `pulses`.
    """
    recent = pulses.at_s >= alarm_s - SPAN_S
    return Trace(
        name=name,
        pulse=True,
        at_s=pulses.at_s[recent] - alarm_s,
        known=pulses.trusted[recent],
        ventricular=np.zeros(np.count_nonzero(recent), np.bool_),
    )


class LeadsApart:
    """Vitals of a bed's leads together and of each by itself, of the last `SPAN_S`.

    Hears what `stream.windows.BedWindow` lets a listener hear.

    Parameters
    ----------
    leads : sequence of str
    source_index : callable
        Takes a grid sample to the source's sample at or after it.
    """

    def __init__(self, leads: Sequence[str], source_index: Callable[[int], int]) -> None:
        self._views: list[tuple[str, slice, BedVitals, deque[Block]]] = []
        rows = [slice(row, row + 1) for row in range(len(leads))] if len(leads) > 1 else []
        for name, part in zip(["all leads", *leads], [slice(None), *rows], strict=False):
            size = len(leads) if part == slice(None) else 1
            # Two seconds more than is looked at: the alarm may come a little later than the last block.
            kept: deque[Block] = deque(maxlen=round((SPAN_S + 2) * FS / BLOCK))
            self._views.append((name, part, BedVitals(size, Limits(), source_index), kept))

    def hear(self, stretch: Resampled) -> None:
        """Take conditioned signal of all leads."""
        for _, part, vitals, kept in self._views:
            vitals.hear(replace(stretch, values=stretch.values[part], missing=stretch.missing[part]))
            kept += vitals.advance()

    def rate(self, seconds: Sequence[SecondQuality]) -> None:
        """Take the quality of the next seconds, before the signal behind them."""
        for _, part, vitals, _ in self._views:
            vitals.rate([_part_of(second, part) for second in seconds])

    def traces(self, alarm: int) -> list[Trace]:
        """Return what all leads together, then each by itself, showed before a grid sample."""
        return [ecg_trace(name, kept, alarm) for name, _, _, kept in self._views]


def _part_of(second: SecondQuality, part: slice) -> SecondQuality:
    return replace(
        second,
        index=second.index[part],
        issues=second.issues[part],
        usable=second.usable[part],
        noisy=second.noisy[part],
    )


def verify(rule: Rule, traces: Sequence[Trace]) -> Verification:
    """Say whether an alarm fits what its witnesses showed before it.

    Parameters
    ----------
    rule : Rule
        What the alarm says.
    traces : sequence of Trace
        All leads together first, then any others; the first that refutes decides. What is made of beats (a
        rate, or ventricular beats) and was also found by our own rhythm in a clear signal is not refuted.

    Returns
    -------
    Verification
        Undecided for a rule that cannot be verified.
    """
    against = _AGAINST.get(rule)
    if against is None:
        return Verification(Outcome.UNDECIDED, f"{rule} is not verified")
    same = next((trace for trace in traces if rule in trace.present and _clear(trace)), None)
    if same is None or rule in _WITHOUT_BEATS:
        for trace in traces:
            reason = against(trace)
            if reason is not None:
                return Verification(Outcome.REFUTED, f"{trace.name}: {reason}", trace.name, trace.pulse)
    if same is not None:
        return Verification(Outcome.CONFIRMED, f"{same.name}: {rule} as well", same.name)
    return Verification(Outcome.UNDECIDED, "nothing shows the opposite all the time")


def _beating(trace: Trace) -> bool:
    # Recognisable beats all the time. Noise of a pulse channel is faster than a pulse.
    natural = not trace.pulse or trace.fastest <= _FASTEST
    without_pause = trace.gap_s <= _GAP_S and trace.share >= _SHARE
    return natural and (without_pause or trace.regular)


def _against_asystole(trace: Trace) -> str | None:
    if not _beating(trace):
        return None
    return f"never more than {trace.gap_s:.1f} s without a {_what(trace)}"


def _against_bradycardia(trace: Trace) -> str | None:
    if not _beating(trace) or trace.slowest < _NOT_SLOW:
        return None
    return f"never below {trace.slowest:.0f}/min"


def _against_tachycardia(trace: Trace) -> str | None:
    # A weak beat of a fast rhythm may have no pulse: only a regular one speaks against it.
    reliable = trace.regular if trace.pulse else trace.whole and trace.share >= _SHARE and _clear(trace)
    if not reliable or trace.fastest > _NOT_FAST:
        return None
    return f"never above {trace.fastest:.0f}/min"


def _against_ventricular_tachycardia(trace: Trace) -> str | None:
    slow = trace.fastest <= _NOT_VT
    if trace.pulse:
        # A run of ventricular beats shows in the pulse as weak beats, or as a pause.
        if trace.regular and trace.share >= _NEARLY_ALL and slow:
            return f"steady pulse of at most {trace.fastest:.0f}/min"
        return None
    if not (trace.whole and _clear(trace)):
        return None
    if slow and trace.share >= _SHARE and not _runs(trace):
        return f"at most {trace.fastest:.0f}/min, and no run of ventricular beats"
    narrow = trace.width_s <= _NARROW_S and not trace.ventricular.any()
    if narrow and trace.regular and trace.share >= _NEARLY_ALL:
        return "regular narrow beats, all like the usual one"
    return None


def _clear(trace: Trace) -> bool:
    return trace.poor_s <= _POOR_S


def _runs(trace: Trace) -> bool:
    # Two ventricular beats in a row.
    return bool((trace.ventricular[1:] & trace.ventricular[:-1]).any())


def _what(trace: Trace) -> str:
    return "pulse" if trace.pulse else "usual beat"


# A loose electrode shows these as well as a heart does, so that what one lead shows does not protect them.
_WITHOUT_BEATS = frozenset({Rule.ASYSTOLE, Rule.VENTRICULAR_FIBRILLATION})

_AGAINST: dict[Rule, Callable[[Trace], str | None]] = {
    Rule.ASYSTOLE: _against_asystole,
    Rule.BRADYCARDIA: _against_bradycardia,
    Rule.TACHYCARDIA: _against_tachycardia,
    # What swings like a wave has no recognisable beats either.
    Rule.VENTRICULAR_FIBRILLATION: _against_asystole,
    Rule.VENTRICULAR_TACHYCARDIA: _against_ventricular_tachycardia,
}
