"""Alarms of stretches in which there is nothing to tell, counted by rule and per bed-hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import chi2

from bench.markdown import table
from ingest.chunks import chunks_of
from models.session import Session
from stream.alarms.conditions import ANOMALY, CONDITIONS, LEAD_OFF, NOISE, NOT_SCORED
from stream.contract import AlarmEvent, AlarmKind, Presence
from stream.offline import joined, run
from training.calibration.stretches import Stretch

GOAL_PER_BED_HOUR = 1.0
"""Anomaly alarms on quiet signal, at most."""

_BY_KIND = {
    str(kind): [rule for rule, condition in CONDITIONS.items() if condition.kind is kind]
    for kind in AlarmKind
}
# Other technical alarms are about clocks, links and machines, of which there are none here.
_RULES = [*_BY_KIND[AlarmKind.PHYSIOLOGICAL], NOT_SCORED.rule, LEAD_OFF.rule, NOISE.rule]
_OUTSIDE = 0.025


@dataclass(frozen=True, slots=True)
class Raised:
    """An alarm that came on.

    Attributes
    ----------
    rule : str
    at_s : float
        Time in the recording, seconds; of a loop, since it began.
    again : bool
        A latched alarm whose condition came back: the same alarm, heard once more.
    message : str
    """

    rule: str
    at_s: float
    again: bool
    message: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of one stretch.

    Attributes
    ----------
    record, patient, part : str
    seconds : float
        Of signal.
    watched_s : float
        In which an ``anomaly`` alarm could be raised, because the rule had seen enough scored windows.
    raised : tuple of Raised
    """

    record: str
    patient: str
    part: str
    seconds: float
    watched_s: float
    raised: tuple[Raised, ...]


def raised_in(events: Sequence[AlarmEvent]) -> tuple[Raised, ...]:
    """Return the transitions at which an alarm came on; to be told again unacknowledged is none."""
    return tuple(
        Raised(event.rule, event.since / 1e9, event.number > 0, event.message)
        for event in events
        if event.presence is Presence.ON and not event.escalation
    )


def listen(stretch: Stretch, session: Session, part: str) -> Heard:
    """Run a stretch through the engine, as one session of one bed.

    Raises
    ------
    IngestError
        If the recording cannot be read.
    """
    outcome = run(
        joined(
            chunks_of(
                stretch.recording,
                "quiet",
                "quiet",
                start=stretch.start_s,
                stop=stretch.stop_s,
                base_time_ns=round(stretch.start_s * 1e9),
            )
        ),
        session,
    )
    manifest = session.manifest
    scored = sum(finding.score is not None for finding in outcome.findings)
    return Heard(
        record=stretch.recording.name,
        patient=stretch.patient,
        part=part,
        seconds=stretch.stop_s - stretch.start_s,
        watched_s=max(0, scored - manifest.alarm.k + 1) * manifest.window.hop / manifest.window.fs,
        raised=raised_in(outcome.events),
    )


def poisson_interval(count: int, hours: float) -> tuple[float, float]:
    """Return the exact 95 % interval of a rate per hour (Garwood F. Biometrika 1936;28:437-442)."""
    low = chi2.ppf(_OUTSIDE, 2 * count) / 2 if count else 0.0
    high = chi2.ppf(1 - _OUTSIDE, 2 * count + 2) / 2
    return round(float(low) / hours, 4), round(float(high) / hours, 4)


def count(heard: Sequence[Heard]) -> dict[str, Any]:
    """Return the alarms of some stretches.

    Returns
    -------
    dict
        ``stretches``, ``patients``, and ``rules``: by rule, and by ``physiological`` and ``technical``, the
        number of ``alarms``, how often one of them came on ``again``, in how many ``patients``, ``hours``,
        ``per_bed_hour`` and its ``interval``.
    """
    hours = sum(one.seconds for one in heard) / 3600
    watched = sum(one.watched_s for one in heard) / 3600
    rules = {}
    for name, members in ({rule: [rule] for rule in _RULES} | _BY_KIND).items():
        own = [(one.patient, alarm) for one in heard for alarm in one.raised if alarm.rule in members]
        alarms = sum(not alarm.again for _, alarm in own)
        of = watched if name == ANOMALY.rule else hours
        rules[name] = {
            "alarms": alarms,
            "again": len(own) - alarms,
            "patients": len({patient for patient, _ in own}),
            "hours": round(of, 4),
            "per_bed_hour": round(alarms / of, 4) if of else None,
            "interval": poisson_interval(alarms, of) if of else None,
        }
    return {"stretches": len(heard), "patients": len({one.patient for one in heard}), "rules": rules}


def count_parts(heard: Sequence[Heard]) -> dict[str, dict[str, Any]]:
    """Return the counts of each part and of all together."""
    parts = sorted({one.part for one in heard})
    return {part: count([one for one in heard if one.part == part]) for part in parts} | {"all": count(heard)}


def quiet_lines(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Return the counts as a table of Markdown, a row for each rule and a column for each part."""
    rows = [
        [
            rule if rule in CONDITIONS else f"all {rule}",
            *(_rate(part["rules"][rule]) for part in parts.values()),
        ]
        for rule in parts["all"]["rules"]
    ]
    return table(["rule", *parts], rows)


def goal_lines(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Say of each part whether its upper end keeps the goal for ``anomaly`` alarms."""
    lines = []
    for title, part in parts.items():
        interval = part["rules"][ANOMALY.rule]["interval"]
        if interval is not None:
            said = "met" if interval[1] <= GOAL_PER_BED_HOUR else "not shown"
            of = f"{part['stretches']} stretches of {part['patients']} patients"
            lines.append(f"{title} ({of}): at most {interval[1]:.2f} per bed-hour, {said}")
    return lines


def _rate(counted: dict[str, Any]) -> str:
    if counted["interval"] is None:
        return "–"
    low, high = counted["interval"]
    again = f" (+{counted['again']} again)" if counted["again"] else ""
    return (
        f"{counted['alarms']}{again} in {counted['hours']:.2f} h:"
        f" {counted['per_bed_hour']:.2f} [{low:.2f}, {high:.2f}]"
    )
