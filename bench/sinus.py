"""Stretches of sinus rhythm, as cardiologists annotated it: whatever beats it holds, and however many.

Parts of a ward's quiet hours that the strict reading (every beat normal) leaves out, because one ectopic beat
ends them. Here a rhythm ends only where another one is annotated: bigeminy, trigeminy, fibrillation, a
pacemaker, a run of ventricular beats. An alarm raised from seconds that hold ectopic beats tells of something
that is there; whether it is worth telling is for a clinician to say. So both are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.beats import Times, read_reference
from bench.false_alarms import Heard, Raised, count, listen, poisson_interval
from bench.markdown import table
from bench.rhythms import rhythm_spans
from ingest.source import Recording
from models.manifest import Manifest
from models.session import Session
from stream.alarms.conditions import ANOMALY
from training.calibration.stretches import SHORTEST_S, Stretch

Counts = npt.NDArray[np.intp]

SINUS = "N"
"""What annotations call normal sinus rhythm."""
ECTOPIC = frozenset("AaJSVFrejnE")
"""Beats from elsewhere than the sinus node: premature, fusion and escape beats. One that could not be
classified (Q) is none."""
BLOCK = frozenset("LRB")
"""Beats from the sinus node, a bundle branch blocked: a regular rhythm of an abnormal shape."""


@dataclass(frozen=True, slots=True)
class SinusStretch:
    """A stretch of sinus rhythm, and its annotated beats.

    Attributes
    ----------
    stretch : Stretch
    beats : int
    ectopic_s : tuple of float
        When an ectopic beat is annotated, seconds of the recording.
    block : bool
        Most beats are conducted with a bundle branch block.
    """

    stretch: Stretch
    beats: int
    ectopic_s: tuple[float, ...]
    block: bool

    def ectopic_before(self, at_s: Times, seconds: float) -> Counts:
        """Return the number of ectopic beats in so many seconds up to each of some times of the recording."""
        first = np.searchsorted(self.ectopic_s, at_s - seconds, side="left")
        return np.searchsorted(self.ectopic_s, at_s, side="right") - first

    def share_without(self, manifest: Manifest) -> float:
        """Return the share of the time in which an alarm can be raised whose windows hold no ectopic beat."""
        window, rule = manifest.window, manifest.alarm
        hop_s = window.hop / window.fs
        first_s = self.stretch.start_s + window.seconds + (rule.k - 1) * hop_s
        judged = np.arange(first_s, self.stretch.stop_s, hop_s)
        return float(np.mean(self.ectopic_before(judged, span_s(manifest)) == 0)) if len(judged) else 0.0


@dataclass(frozen=True, slots=True)
class InSinus:
    """What was heard of one stretch of sinus rhythm.

    Attributes
    ----------
    of : SinusStretch
    heard : Heard
    ectopic : tuple of int
        For each of the alarms in `heard`, the ectopic beats in the seconds from which it was raised.
    without_s : float
        Of the time in which an ``anomaly`` alarm could be raised, that without an ectopic beat in the seconds
        from which it would be.
    """

    of: SinusStretch
    heard: Heard
    ectopic: tuple[int, ...]
    without_s: float

    def anomalies(self) -> list[tuple[Raised, int]]:
        """Return the ``anomaly`` alarms, each with the ectopic beats that it was raised from."""
        pairs = zip(self.heard.raised, self.ectopic, strict=True)
        return [(alarm, beats) for alarm, beats in pairs if alarm.rule == ANOMALY.rule]


def sinus_stretches(recording: Recording, annotations: Path, patient: str) -> list[SinusStretch]:
    """Return the stretches of sinus rhythm of a minute or more, uncut.

    Parameters
    ----------
    recording : Recording
    annotations : pathlib.Path
        WFDB annotations ``.atr`` of beats and rhythms.
    patient : str
    """
    reference = read_reference(annotations.with_suffix(""), recording.fs)
    found = []
    for begin, end in rhythm_spans(reference, [SINUS], recording.duration_s or 0.0):
        if end - begin < SHORTEST_S:
            continue
        inside = (reference.beats >= begin) & (reference.beats < end)
        symbols = [symbol for symbol, own in zip(reference.symbols, inside, strict=True) if own]
        times = reference.beats[inside]
        ectopic = times[np.array([symbol in ECTOPIC for symbol in symbols], np.bool_)]
        found.append(
            SinusStretch(
                Stretch(recording, begin, end, patient, "continuous"),
                beats=len(symbols),
                ectopic_s=tuple(ectopic.tolist()),
                block=sum(symbol in BLOCK for symbol in symbols) > len(symbols) / 2,
            )
        )
    return found


def span_s(manifest: Manifest) -> float:
    """Return how far back the windows reach from which an ``anomaly`` alarm is raised, seconds."""
    window, rule = manifest.window, manifest.alarm
    return (rule.n - 1) * window.hop / window.fs + window.seconds


def listen_in_sinus(one: SinusStretch, session: Session, part: str) -> InSinus:
    """Run a stretch of sinus rhythm through the engine.

    Raises
    ------
    IngestError
        If the recording cannot be read.
    """
    heard = listen(one.stretch, session, part)
    raised = np.array([alarm.at_s for alarm in heard.raised])
    ectopic = one.ectopic_before(raised, span_s(session.manifest))
    return InSinus(one, heard, tuple(ectopic.tolist()), heard.watched_s * one.share_without(session.manifest))


def count_sinus(found: Sequence[InSinus]) -> dict[str, Any]:
    """Return the alarms of some stretches of sinus rhythm.

    Returns
    -------
    dict
        As of `bench.false_alarms.count`, and: ``records``, ``beats``, ``ectopic_beats``, and
        ``without_ectopic_beats`` the ``anomaly`` alarms that were raised from seconds without any: number,
        the ``hours`` in which there could be one, ``per_bed_hour`` and ``interval``.
    """
    counted = count([one.heard for one in found])
    without = sum(not ectopic for one in found for _, ectopic in one.anomalies())
    hours = sum(one.without_s for one in found) / 3600
    return counted | {
        "records": sorted({one.heard.record for one in found}),
        "beats": sum(one.of.beats for one in found),
        "ectopic_beats": sum(len(one.of.ectopic_s) for one in found),
        "without_ectopic_beats": {
            "alarms": without,
            "hours": round(hours, 4),
            "per_bed_hour": round(without / hours, 4) if hours else None,
            "interval": poisson_interval(without, hours) if hours else None,
        },
    }


def count_groups(found: Sequence[InSinus]) -> dict[str, dict[str, Any]]:
    """Return the counts of each part, of all but those with a bundle branch block, and of each record."""
    groups: dict[str, list[InSinus]] = {}
    for one in found:
        groups.setdefault(one.heard.part, []).append(one)
    groups = dict(sorted(groups.items()))
    groups["all but bundle branch block"] = [one for one in found if not one.of.block]
    for one in sorted(found, key=lambda one: one.heard.record):
        groups.setdefault(f"record {one.heard.record}", []).append(one)
    return {name: count_sinus(own) for name, own in groups.items() if own}


def sinus_lines(groups: dict[str, dict[str, Any]]) -> list[str]:
    """Return the counts as a table of Markdown, a row for each part and record."""
    head = [
        "sinus rhythm",
        "records",
        "patients",
        "hours",
        "ectopic beats",
        f"`{ANOMALY.rule}` alarms",
        "per bed-hour",
        "without an ectopic beat",
        "per bed-hour",
    ]
    rows = []
    for name, group in groups.items():
        alarms, without = group["rules"][ANOMALY.rule], group["without_ectopic_beats"]
        rows.append(
            [
                name,
                str(len(group["records"])),
                str(group["patients"]),
                f"{group['rules']['physiological']['hours']:.2f}",
                f"{100 * group['ectopic_beats'] / group['beats']:.1f} %",
                f"{alarms['alarms']} in {alarms['hours']:.2f} h",
                _rate(alarms),
                f"{without['alarms']} in {without['hours']:.2f} h",
                _rate(without),
            ]
        )
    return table(head, rows)


def sinus_alarm_lines(found: Sequence[InSinus]) -> list[str]:
    """Return a line for each alarm, with the ectopic beats in the seconds it was raised from."""
    return [
        f"{one.heard.record} at {alarm.at_s:.1f} s: {alarm.rule}{' again' if alarm.again else ''},"
        f" {alarm.message}, {ectopic or 'no'} ectopic beat{'' if ectopic == 1 else 's'}"
        for one in found
        for alarm, ectopic in zip(one.heard.raised, one.ectopic, strict=True)
    ]


def _rate(counted: dict[str, Any]) -> str:
    if counted["interval"] is None:
        return "–"
    low, high = counted["interval"]
    return f"{counted['per_bed_hour']:.2f} [{low:.2f}, {high:.2f}]"
