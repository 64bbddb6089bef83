"""How many false alarms quiet real ECG raises, and how many abnormal recordings raise one at that setting.

Quiet signal: the parts of annotated records (MIT-BIH) in which all beats and the rhythm are normal, and
recordings labelled normal, each looped for five minutes (`training.calibration.stretches`). Every stretch is
one session of one bed. Normals of split ``train`` trained the model, so that they say something of the other
rules only; the annotated parts and normals of ``val`` chose its alarm threshold; those of ``test`` nothing.

Beside it, the wider reading: all stretches of sinus rhythm, with their ectopic beats (`bench.sinus`).

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

from bench.beats import default_folder
from bench.false_alarms import GOAL_PER_BED_HOUR, Heard, count_parts, goal_lines, listen, quiet_lines
from bench.icu_alarms import share, wilson
from bench.machine import machine, versions
from bench.markdown import table
from bench.sinus import (
    InSinus,
    count_groups,
    listen_in_sinus,
    sinus_alarm_lines,
    sinus_lines,
    sinus_stretches,
    span_s,
)
from ingest.looping import LoopedRecording
from ingest.source import IngestError
from models.backends import open_session
from models.bundle import BundleError, load_bundle
from models.manifest import Manifest
from models.session import Session
from stream.alarms.conditions import ANOMALY
from stream.console import json_option, model_option, progress_bar, write_json
from stream.settings import Settings
from training.calibration.stretches import (
    Stretch,
    annotations_of,
    recording_of,
    stretches_of,
    with_stretches,
)
from training.evaluation.diagnoses import diagnoses, diagnosis_name
from training.recordings import Entry, IndexFileError, read_index, select

ABNORMAL_S = 60.0
"""Of each abnormal recording: the alarm rule has seen its windows after a quarter of it."""

# Of fewer recordings with a diagnosis the share says nothing.
_FEWEST = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether an abnormal recording raised an ``anomaly`` alarm."""

    entry: Entry
    raised: bool


@dataclass(slots=True)
class Measured:
    """What came of all recordings; `left_out` says which could not be used, and why."""

    heard: list[Heard] = field(default_factory=list)
    sinus: list[InSinus] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


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
    """Choose quiet recordings, a calibration's and others, and abnormal ones of val and test."""
    normals = [entry for split in ("train", "test") for entry in select(entries, split=split, label=0)]
    # A calibration leaves them alone.
    unseen = [entry for entry in entries if entry.split == "test" and annotations_of(entry) is not None]
    quiet = [*with_stretches(select(entries, split="val", label=0), entries), *unseen, *normals]
    return quiet, [entry for split in ("val", "test") for entry in select(entries, split=split, label=1)]


def measure(
    entries: Sequence[Entry], session: Session, on_done: Callable[[float], None], *, calibrated: bool
) -> Measured:
    """Listen to the quiet stretches, or a minute, of recordings.

    Parameters
    ----------
    entries : sequence of Entry
        As `choose` gives them.
    session : Session
    on_done : callable
        Called with the number of recordings that are done.
    calibrated : bool
        The model's thresholds were chosen on the index that they are from.
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
                stretches = stretches_of(entry)
                measured.heard += [listen(stretch, session, _part(stretch, entry)) for stretch in stretches]
                chose = calibrated and entry.split != "test" and bool(stretches)
                measured.sinus += _in_sinus(entry, session, chose=chose)
        except (IngestError, OSError) as error:
            measured.left_out.append(" ".join(str(error).split()))
        on_done(number)
    return measured


def _part(stretch: Stretch, entry: Entry) -> str:
    if entry.label is not None:
        return f"{stretch.source}, {entry.split}"
    return f"{stretch.source}, annotated{' (test)' if entry.split == 'test' else ''}"


def _in_sinus(entry: Entry, session: Session, *, chose: bool) -> list[InSinus]:
    annotations = annotations_of(entry)
    if annotations is None:
        return []
    # Whatever the beats of a block did, they are not what a model of normal shapes can call normal.
    part = "records that set the threshold" if chose else "other records"
    stretches = sinus_stretches(recording_of(entry), annotations, entry.person)
    return [listen_in_sinus(one, session, "bundle branch block" if one.block else part) for one in stretches]


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


def _origin(manifest: Manifest, precision: str, *, calibrated: bool) -> str:
    level = manifest.thresholds[precision].window
    threshold = f"The alarm threshold of {manifest.name} ({precision}: {level:.2f}) was chosen on"
    if not calibrated:
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
    if measured.sinus:
        lines += ["\nAlarms in sinus rhythm, ectopic beats and all\n"]
        lines += sinus_lines(count_groups(measured.sinus))
        lines += ["\nRaised in sinus rhythm\n", *sinus_alarm_lines(measured.sinus)]
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
    calibrated = manifest.data.get("index_sha256") == index_sha256
    origin = _origin(manifest, precision, calibrated=calibrated)
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
        measured = measure([*quiet, *abnormal], session, done, calibrated=calibrated)
    click.echo("\n".join(_lines(measured, origin)), err=json_path == "-")
    if json_path is not None:
        result |= {
            "parts": count_parts(measured.heard),
            "raised": [
                {"record": one.record, "part": one.part, **asdict(alarm)}
                for one in measured.heard
                for alarm in one.raised
            ],
            "sinus_rhythm": {
                "ectopic_within_s": span_s(manifest),
                "groups": count_groups(measured.sinus),
                "raised": [
                    {"record": one.heard.record, "part": one.heard.part, **asdict(alarm), "ectopic": ectopic}
                    for one in measured.sinus
                    for alarm, ectopic in zip(one.heard.raised, one.ectopic, strict=True)
                ],
            },
            "abnormal_s": ABNORMAL_S,
            "sensitivity": sensitivity(measured.answers),
            "left_out": measured.left_out,
        }
        write_json(json.dumps(result, indent=1), json_path)


if __name__ == "__main__":
    main()
