"""How many false alarms quiet real ECG raises, and how many abnormal recordings raise one at that setting.

Quiet signal: the parts of annotated records (MIT-BIH) in which all beats and the rhythm are normal, and
recordings labelled normal, each looped for five minutes (`training.calibration.stretches`). Every stretch is
one session of one bed. Normals of split ``train`` trained the model, so that they say something of the other
rules only; the annotated parts and normals of ``val`` chose its alarm threshold; those of ``test`` nothing.

At the same setting: recordings labelled abnormal that raise an ``anomaly`` alarm when looped for a minute.
Nothing is chosen by them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from scipy.stats import chi2

from bench.beats import default_folder
from bench.icu_alarms import share, wilson
from bench.machine import machine, versions
from bench.markdown import table
from ingest.chunks import chunks_of
from ingest.looping import LoopedRecording
from ingest.source import IngestError
from models.backends import open_session
from models.bundle import BundleError, load_bundle
from models.manifest import Manifest
from models.session import Session
from stream.alarms.conditions import ANOMALY, CONDITIONS, LEAD_OFF, NOISE, NOT_SCORED
from stream.console import json_option, model_option, progress_bar, write_json
from stream.contract import AlarmEvent, AlarmKind, Presence
from stream.offline import run
from stream.settings import Settings
from training.calibration.stretches import Stretch, recording_of, stretches_of, with_stretches
from training.evaluation.diagnoses import diagnoses, diagnosis_name
from training.recordings import Entry, IndexFileError, read_index, select

GOAL_PER_BED_HOUR = 1.0
"""Anomaly alarms on quiet signal, at most."""
ABNORMAL_S = 60.0
"""Of each abnormal recording: the alarm rule has seen its windows after a quarter of it."""

_BY_KIND = {
    str(kind): [rule for rule, condition in CONDITIONS.items() if condition.kind is kind]
    for kind in AlarmKind
}
# Other technical alarms are about clocks, links and machines, of which there are none here.
_RULES = [*_BY_KIND[AlarmKind.PHYSIOLOGICAL], NOT_SCORED.rule, LEAD_OFF.rule, NOISE.rule]
# Of fewer recordings with a diagnosis the share says nothing.
_FEWEST = 5
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


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether an abnormal recording raised an ``anomaly`` alarm."""

    entry: Entry
    raised: bool


@dataclass(slots=True)
class Measured:
    """What came of all recordings; `left_out` says which could not be used, and why."""

    heard: list[Heard] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


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
        chunks_of(
            stretch.recording,
            "quiet",
            "quiet",
            start=stretch.start_s,
            stop=stretch.stop_s,
            base_time_ns=round(stretch.start_s * 1e9),
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


def sensitivity(answers: Sequence[Answer]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return how many abnormal recordings raised an ``anomaly`` alarm, by split and group.

    Returns
    -------
    dict
        By split, then by group: ``recordings``, ``raised`` and the ``interval`` of the share. Groups are
        ``"rhythm only"`` (nothing else was found), ``"shape"``, and data sets and diagnoses of the latter.
    """
    found: dict[str, dict[str, list[bool]]] = {}
    for answer in answers:
        groups = found.setdefault(answer.entry.split, {})
        for name in _groups(answer.entry):
            groups.setdefault(name, []).append(answer.raised)
    return {
        split: {
            name: {"recordings": len(own), "raised": sum(own), "interval": wilson(sum(own), len(own))}
            for name, own in groups.items()
        }
        for split, groups in found.items()
    }


def _groups(entry: Entry) -> Iterator[str]:
    if entry.rhythm_only:
        yield "rhythm only"
        return
    yield "shape"
    yield f"data set {entry.dataset}"
    yield from sorted({f"diagnosis {diagnosis_name(code)}" for code in diagnoses(entry.codes)})


def choose(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Choose quiet recordings, a calibration's and other normals, and abnormal ones of val and test."""
    normals = [entry for split in ("train", "test") for entry in select(entries, split=split, label=0)]
    quiet = [*with_stretches(select(entries, split="val", label=0), entries), *normals]
    return quiet, [entry for split in ("val", "test") for entry in select(entries, split=split, label=1)]


def measure(entries: Sequence[Entry], session: Session, on_done: Callable[[float], None]) -> Measured:
    """Listen to the quiet stretches, or a minute, of recordings.

    Parameters
    ----------
    entries : sequence of Entry
        As `choose` gives them.
    session : Session
    on_done : callable
        Called with the number of recordings that are done.
    """
    measured = Measured()
    for number, entry in enumerate(entries, 1):
        try:
            if entry.label == 1:
                looped = LoopedRecording(recording_of(entry))
                minute = Stretch(looped, 0.0, ABNORMAL_S, entry.person, "looped")
                raised = listen(minute, session, entry.split).raised
                measured.answers.append(Answer(entry, any(alarm.rule == ANOMALY.rule for alarm in raised)))
            else:
                measured.heard += [
                    listen(stretch, session, _part(stretch, entry)) for stretch in stretches_of(entry)
                ]
        except (IngestError, OSError) as error:
            measured.left_out.append(" ".join(str(error).split()))
        on_done(number)
    return measured


def _part(stretch: Stretch, entry: Entry) -> str:
    return f"{stretch.source}, {'annotated' if entry.label is None else entry.split}"


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


def sensitivity_lines(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return the shares as a table of Markdown; groups that are small in every split are left out."""
    groups = dict.fromkeys(name for split in found.values() for name in split)
    rows = []
    for name in sorted(groups, key=_order):
        own = [split.get(name, {"recordings": 0, "raised": 0}) for split in found.values()]
        if max(one["recordings"] for one in own) >= _FEWEST:
            rows.append([name, *(share(one["raised"], one["recordings"]) for one in own)])
    return table(["abnormal recordings", *(f"split {split}" for split in found)], rows)


def _order(group: str) -> tuple[int, str]:
    first = ("shape", "rhythm only")
    return (first.index(group), "") if group in first else (len(first), group)


def _rate(counted: dict[str, Any]) -> str:
    if counted["interval"] is None:
        return "–"
    low, high = counted["interval"]
    again = f" (+{counted['again']} again)" if counted["again"] else ""
    return (
        f"{counted['alarms']}{again} in {counted['hours']:.2f} h:"
        f" {counted['per_bed_hour']:.2f} [{low:.2f}, {high:.2f}]"
    )


def _origin(manifest: Manifest, precision: str, index_sha256: str) -> str:
    level = manifest.thresholds[precision].window
    threshold = f"The alarm threshold of {manifest.name} ({precision}: {level:.2f}) was chosen on"
    if manifest.data.get("index_sha256") != index_sha256:
        return f"{threshold} another index."
    return (
        f"{threshold} the annotated stretches and those of split val, its weights on split train;"
        " split test chose nothing."
    )


def _lines(measured: Measured, origin: str) -> list[str]:
    lines = []
    if measured.heard:
        parts = count_parts(measured.heard)
        lines += ["Alarms on quiet signal, per bed-hour\n", *quiet_lines(parts), f"\n{origin}"]
        lines += [f"\nGoal: at most {GOAL_PER_BED_HOUR:g} {ANOMALY.rule} alarm per bed-hour\n"]
        lines += goal_lines(parts)
    raised = [(one, alarm) for one in measured.heard for alarm in one.raised]
    if raised:
        lines.append("\nRaised on quiet signal\n")
    for one, alarm in raised:
        again = " again" if alarm.again else ""
        where = f"{one.record} ({one.part}) at {alarm.at_s:.1f} s"
        lines.append(f"{where}: {alarm.rule}{again}, {alarm.message}")
    if measured.answers:
        lines.append(f"\nAbnormal recordings that raise an {ANOMALY.rule} alarm within {ABNORMAL_S:g} s\n")
        lines += sensitivity_lines(sensitivity(measured.answers))
    if measured.left_out:
        lines += [f"\nCould not be used: {len(measured.left_out)}", *measured.left_out]
    return lines


@click.command()
@click.option(
    "--index",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV. [default: index.csv in the folder that BEDSIDE_DATA names]",
)
@model_option
@json_option
def main(index: Path | None, model: str | None, json_path: str | None) -> None:
    """Count false alarms on quiet real ECG, and abnormal recordings that raise one at the same setting.

    \b
    python -m bench.quiet
    python -m bench.quiet --index data/index.csv --json bench/results/quiet-cae-100hz.json
    """  # noqa: D301 (click needs the control character)
    index = index or default_folder("index.csv")
    try:
        quiet, abnormal = choose(read_index(index))
        session = open_session(load_bundle(model or Settings().model))
    except (IndexFileError, BundleError) as error:
        raise click.ClickException(str(error)) from error
    if not quiet:
        raise click.ClickException(f"{index}: no annotated records, and no normals with a split")
    manifest, precision = session.manifest, session.precision
    index_sha256 = hashlib.sha256(index.read_bytes()).hexdigest()
    origin = _origin(manifest, precision, index_sha256)
    result: dict[str, Any] = {
        "benchmark": "quiet",
        "machine": machine(),
        "versions": versions(),
        "model": manifest.name,
        "precision": precision,
        "index_sha256": index_sha256,
        "alarm_threshold": manifest.thresholds[precision].window,
        "origin": origin,
    }
    with progress_bar("recordings", len(quiet) + len(abnormal)) as done:
        measured = measure([*quiet, *abnormal], session, done)
    click.echo("\n".join(_lines(measured, origin)), err=json_path == "-")
    if json_path is not None:
        result |= {
            "parts": count_parts(measured.heard),
            "raised": [
                {"record": one.record, "part": one.part, **asdict(alarm)}
                for one in measured.heard
                for alarm in one.raised
            ],
            "abnormal_s": ABNORMAL_S,
            "sensitivity": sensitivity(measured.answers),
            "left_out": measured.left_out,
        }
        write_json(json.dumps(result, indent=1), json_path)


if __name__ == "__main__":
    main()
