"""When beats, rhythm and signal quality amount to a condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stream.alarms.conditions import (
    ANOMALY,
    CONDITIONS,
    EXTREME_TACHYCARDIA,
    FIBRILLATION,
    LEAD_OFF,
    MODEL_FAILED,
    NOISE,
    NOT_SCORED,
    VENTRICULAR_TACHYCARDIA,
)
from stream.alarms.machine import Seen, observe, pass_time
from stream.alarms.state import BedState, Moment
from stream.contract import AlarmEvent
from stream.vitals.bed import Block
from stream.vitals.quality import LEAD_OFF as ISSUES_OFF
from stream.vitals.quality import Issue, SecondQuality

BY_WINDOW = (ANOMALY, NOT_SCORED, MODEL_FAILED)
"""What the model's windows decide, and so what is looked at when one has been judged."""

BY_BLOCK = tuple(condition for condition in CONDITIONS.values() if condition not in BY_WINDOW)
"""What is looked at with each block of signal."""

# A heart that beats fast in one of these is not also told to beat fast.
_WORSE = (VENTRICULAR_TACHYCARDIA.rule, FIBRILLATION.rule)


def judge_block(
    state: BedState,
    moment: Moment,
    block: Block,
    leads: Sequence[str],
    source_index: Callable[[int], int],
) -> list[AlarmEvent]:
    """Take half a second of vitals into account.

    Parameters
    ----------
    state : BedState
        Changed in place.
    moment : Moment
        The end of the block.
    block : Block
    leads : sequence of str
        Of the feed.
    source_index : callable
        Takes a grid sample to the source's.

    Returns
    -------
    list of AlarmEvent
        Transitions, in order.
    """
    events: list[AlarmEvent] = []
    worse = any(judged.present and judged.rule in _WORSE for judged in block.judgements)
    for judged in block.judgements:
        if judged.present and judged.rule == EXTREME_TACHYCARDIA.rule and worse:
            # Told already, and by its name.
            continue
        onset = max(0, source_index(judged.onset))
        seen = Seen(judged.present, onset, judged.text or "no longer")
        events += observe(state, CONDITIONS[judged.rule], moment, seen)
    if block.quality is not None:
        quality = block.quality
        troubled = any(quality.issues)
        off, noisy = leads_off(quality, leads) if troubled else [], too_poor(quality)
        # Of a gap nothing is known but that it is one: other alarms tell of it.
        gap = troubled and all(Issue.GAP in issues for issues in quality.issues)
        message = f"lead{'s' if len(off) > 1 else ''} {', '.join(off)} off" if off else "all leads are on"
        seen = Seen(None if gap else bool(off), quality.start, message)
        events += observe(state, LEAD_OFF, moment, seen)
        message = "signal too poor in most leads" if noisy else "the signal is good enough again"
        events += observe(state, NOISE, moment, Seen(None if gap else noisy, quality.start, message))
    return events + pass_time(state, moment, BY_BLOCK)


def leads_off(quality: SecondQuality, leads: Sequence[str]) -> list[str]:
    """Return the leads that carry nothing: off, flat or saturated."""
    return [lead for lead, issues in zip(leads, quality.issues, strict=True) if issues & ISSUES_OFF]


def too_poor(quality: SecondQuality) -> bool:
    """Say whether of the leads that are on, most are not usable."""
    on = [
        usable
        for usable, issues in zip(quality.usable.tolist(), quality.issues, strict=True)
        if not (issues and issues & ISSUES_OFF)
    ]
    return bool(on) and 2 * sum(on) < len(on)
