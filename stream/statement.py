"""What an analysis comes to, in words and numbers, the most urgent first.

One text for the terminal, pictures, pages, annotations and programs: an alarm of the patient's outranks
whatever the model says of the shape, and a signal too poor to judge is said where it limits both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from stream.alarms.conditions import (
    ANOMALY,
    ASYSTOLE,
    ATRIAL_FIBRILLATION,
    CONDITIONS,
    EXTREME_BRADYCARDIA,
    EXTREME_TACHYCARDIA,
    FIBRILLATION,
    VENTRICULAR_TACHYCARDIA,
)
from stream.contract import AlarmKind, Priority

if TYPE_CHECKING:
    # It has a statement itself.
    from stream.offline import AlarmResult, Analysis

_NAMES = {
    ASYSTOLE.code: "Asystole",
    FIBRILLATION.code: "Ventricular flutter or fibrillation",
    VENTRICULAR_TACHYCARDIA.code: "Ventricular tachycardia",
    EXTREME_BRADYCARDIA.code: "Extreme bradycardia",
    EXTREME_TACHYCARDIA.code: "Extreme tachycardia",
    ANOMALY.code: "Unusual ECG",
    ATRIAL_FIBRILLATION.code: "Irregular rhythm, as in atrial fibrillation",
}
# The most urgent first.
_RANK = {condition.code: rank for rank, condition in enumerate(CONDITIONS.values())}

# Mean signal quality below which a lead was, most of the time, not used for beats (`stream.vitals.quality`).
_UNUSABLE = 0.4
# Less than a tenth without a verdict, such as a loose electrode for a moment, changes no verdict on the rest.
_LIMITS = 0.1
# From half on, the verdict is on the smaller part of the recording, and has to say so itself.
_MOSTLY = 0.5


class Statement(BaseModel):
    """What an analysis comes to."""

    headline: str
    """A few words: the most urgent physiological alarm, or without one what the model says."""
    priority: Priority | None
    """Of that alarm."""
    sentences: tuple[str, ...]
    """With numbers: each kind of physiological alarm, the most urgent first; the heart rate; what the model
    says; what limits these."""


def duration(seconds: float) -> str:
    """Return a time or a length as people write it: ``9.5 s``, ``1:05``, ``2:00:00``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def why_not_scored(analysis: Analysis) -> str:
    """Return why windows could not be scored, with their numbers; of a recording without any, why."""
    reasons = ", ".join(f"{reason} ({count})" for reason, count in analysis.not_scored.items())
    if not reasons and analysis.record_score is None:
        return "shorter than one window of the model"
    return reasons


def in_words(analysis: Analysis) -> Statement:
    """Say what an analysis comes to."""
    by_code: dict[str, list[AlarmResult]] = {}
    for alarm in analysis.alarms:
        if alarm.kind == AlarmKind.PHYSIOLOGICAL:
            by_code.setdefault(alarm.code, []).append(alarm)
    kinds = [by_code[code] for code in sorted(by_code, key=lambda code: _RANK.get(code, len(_RANK)))]
    if kinds:
        first, times, others = kinds[0][0], len(kinds[0]), len(kinds) - 1
        headline = f"{_NAMES.get(first.code) or first.message} at {duration(first.onset_s)}"
        headline += f", first of {times}" if times > 1 else ""
        headline += f", and {others} other condition{'s' if others > 1 else ''}" if others else ""
    else:
        headline = _judged(analysis)
        share = _unscored(analysis)
        if analysis.record_score is not None and share >= _MOSTLY:
            headline += f", in the {100 * (1 - share):.0f} % that could be scored"
    return Statement(
        headline=headline,
        priority=Priority(kinds[0][0].priority) if kinds else None,
        sentences=(
            *(map(_alarms, kinds) if kinds else [_no_alarm(analysis)]),
            _rate(analysis),
            *_model(analysis),
            *_limits(analysis),
        ),
    )


def _text(alarm: AlarmResult) -> str:
    # Most messages begin with the name; those of a rate say the rate.
    name, message = _NAMES.get(alarm.code, ""), alarm.message
    if message.casefold().startswith(name.casefold()):
        return message[0].upper() + message[1:]
    return f"{name}: {message[0].lower()}{message[1:]}"


def _alarms(alarms: Sequence[AlarmResult]) -> str:
    first = alarms[0]
    end = "and lasts" if first.end_s is None else f"to {duration(first.end_s)}"
    times = f"{len(alarms)} times, first " if len(alarms) > 1 else ""
    return f"{_text(first)}, {times}from {duration(first.onset_s)} {end} ({first.priority} priority)."


def _no_alarm(analysis: Analysis) -> str:
    return "No physiological alarm." if analysis.alarms else "No alarm."


def _rate(analysis: Analysis) -> str:
    beats, rate = len(analysis.beats_s), analysis.heart_rate_bpm
    if rate is None:
        return f"Heart rate not known: {'no' if not beats else 'too few'} beats."
    return f"Heart rate {rate:.0f} bpm (median), {beats} {'beat' if beats == 1 else 'beats'}."


def _judged(analysis: Analysis) -> str:
    if analysis.anomalous is None:
        return "not scored"
    return "unusual" if analysis.anomalous else "as normals are"


def _model(analysis: Analysis) -> list[str]:
    if analysis.record_score is None:
        return [f"Model {analysis.model}: not scored, {why_not_scored(analysis)}."]
    over = sum(window.anomalous for window in analysis.windows)
    return [
        f"Model {analysis.model}: {_judged(analysis)}, score {analysis.record_score:.2f}"
        f"{_compared(analysis.percentile)}, threshold {analysis.threshold:.2f} (95 % of normals are below).",
        f"{over} of {len(analysis.windows)} windows over the alarm threshold"
        f" {analysis.window_threshold:.2f}.",
    ]


def _compared(percentile: float | None) -> str:
    if percentile is None:
        return ""
    if 0.0 < percentile < 100.0:
        # Some are above and some are below: neither is rounded away.
        return f" (above {min(max(round(percentile), 1), 99)} % of normals)"
    return f" ({'above' if percentile else 'below'} all normals)"


def _unscored(analysis: Analysis) -> float:
    without = sum(analysis.not_scored.values())
    return without / (without + len(analysis.windows)) if without else 0.0


def _limits(analysis: Analysis) -> list[str]:
    limits = []
    share = _unscored(analysis)
    if analysis.record_score is not None and share >= _LIMITS:
        limits.append(f"{100 * share:.0f} % of the windows could not be scored: {why_not_scored(analysis)}.")
    poor = [f"{lead} ({mean:.2f})" for lead, mean in analysis.quality.items() if mean < _UNUSABLE]
    if poor and len(poor) == len(analysis.quality):
        limits.append(
            f"No lead was usable most of the time (mean quality {', '.join(poor)}):"
            " beats and rhythm could hardly be judged."
        )
    elif poor:
        limits.append(f"Off or too poor most of the time (mean quality): {', '.join(poor)}.")
    return limits
