"""Alarms of intensive-care monitors, true and false, put to the verifier: PhysioNet/CinC Challenge 2015.

The challenge: Clifford GD et al. The PhysioNet/Computing in Cardiology Challenge 2015: reducing false
arrhythmia alarms in the ICU. Comput Cardiol 2015;42:273-276. Each record has an alarm at 5:00. What comes
after is not looked at; of the header only rates, gains and channel names are used, never its comments, and
nothing follows from the record's name. Which kind of alarm it is, a verifier is told.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import wfdb
from scipy.stats import binomtest

from bench.beats import default_folder
from bench.machine import machine, versions
from bench.markdown import table
from ingest.source import IngestError
from ingest.wfdb_files import WfdbRecording
from models.manifest import FilterSpec, WindowSpec
from stream.console import json_option, progress_bar, write_json
from stream.contract import INVALID
from stream.preprocess import Float64Array
from stream.vitals.grid import FS
from stream.vitals.pulse import find_pulses
from stream.vitals.rhythm import Rule
from stream.vitals.verify import LeadsApart, Outcome, Trace, Verification, pulse_trace, verify
from stream.windows import BedWindow

ALARM_S = 300
"""The alarm sounds so long after the first sample; nothing later may be used."""

RULES = {
    "Asystole": Rule.ASYSTOLE,
    "Bradycardia": Rule.BRADYCARDIA,
    "Tachycardia": Rule.TACHYCARDIA,
    "Ventricular_Flutter_Fib": Rule.VENTRICULAR_FIBRILLATION,
    "Ventricular_Tachycardia": Rule.VENTRICULAR_TACHYCARDIA,
}

# Channels that show the pulse; respiration and venous pressures do not.
_PULSATILE = ("PLETH", "ABP", "ART")
# Pulses are compared with the usual one of so long before the alarm.
_PULSE_S = 60
# Length in which the signal is fed, as from a bed.
_CHUNK_S = 2.0

# After the alarm nothing comes for so long (seconds), so that the last beats become final.
_NOTHING_S = 1.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """One line of ALARMS.csv."""

    record: str
    kind: str
    true: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one alarm.

    Attributes
    ----------
    alarm : Alarm
    split : str
        Of the recordings' index; empty where there is none.
    verification, by_ecg : Verification or None
        With all channels, and with the ECG alone; None where the record could not be read.
    error : str
        Why it could not be read.
    """

    alarm: Alarm
    split: str
    verification: Verification | None
    by_ecg: Verification | None = None
    error: str = ""

    @property
    def name(self) -> str:
        return self.alarm.record


def read_alarms(folder: Path) -> list[Alarm]:
    """Return the alarms of a folder.

    Raises
    ------
    click.ClickException
        If there is no ALARMS.csv, or a line is not record, kind, 0 or 1.
    """
    path = folder / "ALARMS.csv"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    alarms = []
    for number, fields in enumerate(csv.reader(lines), 1):
        if not fields:
            continue
        if len(fields) != 3 or fields[1] not in RULES or fields[2] not in ("0", "1"):
            raise click.ClickException(f"{path}, line {number}: not record, kind of alarm, 0 or 1")
        alarms.append(Alarm(fields[0], fields[1], fields[2] == "1"))
    return alarms


def read_splits(folder: Path) -> dict[str, str]:
    """Return the split of each record from the index beside the folder; empty if there is no index."""
    path = folder.parent / "index.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["record"]: row["split"] for row in csv.DictReader(file) if row["dataset"] == folder.name}


def traces_of(path: Path) -> list[Trace]:
    """Return what the witnesses in a record show before its alarm: the leads first, then the pulses.

    Parameters
    ----------
    path : pathlib.Path
        WFDB record without extension.

    Raises
    ------
    IngestError
        If it cannot be read, or ends before the alarm.
    """
    recording = WfdbRecording(path)
    stop = round(ALARM_S * recording.fs)
    if recording.n_samples is not None and recording.n_samples < stop:
        raise IngestError(path, f"ends before the alarm at {ALARM_S} s")
    lsb = recording.read(0, stop)
    millivolts = np.where(lsb == INVALID, np.nan, lsb / np.asarray(recording.gain))
    return _lead_traces(millivolts, recording.leads, recording.fs) + _pulse_traces(path)


def _lead_traces(millivolts: Float64Array, leads: Sequence[str], fs: float) -> list[Trace]:
    # The windows themselves are nobody's here.
    bed = BedWindow(leads, fs, leads, FilterSpec(), WindowSpec(fs=FS, samples=FS, hop=FS))
    apart = LeadsApart(leads, bed.source_index)
    bed.listener = apart
    silence = np.full((round(_NOTHING_S * fs), len(leads)), np.nan)
    step = round(_CHUNK_S * fs)
    for chunk in [*(millivolts[at : at + step] for at in range(0, len(millivolts), step)), silence]:
        for _ in bed.push(bed.next_in, chunk):
            pass
    return apart.traces(ALARM_S * FS)


def _pulse_traces(path: Path) -> list[Trace]:
    header = wfdb.rdheader(str(path))
    names = [name for name in header.sig_name if name in _PULSATILE]
    if not names:
        return []
    stop = round(ALARM_S * header.fs)
    start = stop - round(_PULSE_S * header.fs)
    signals = wfdb.rdrecord(str(path), sampfrom=start, sampto=stop, channel_names=names).p_signal
    return [
        pulse_trace(name, find_pulses(signals[:, column], header.fs), _PULSE_S)
        for column, name in enumerate(names)
    ]


def judge(folder: Path, alarm: Alarm, split: str) -> Result:
    """Return what becomes of one alarm; a record that cannot be read says why."""
    try:
        traces = traces_of(folder / alarm.record)
    except Exception as error:  # Whatever is wrong with one record, the others count.
        return Result(alarm, split, None, error=str(error) or type(error).__name__)
    rule = RULES[alarm.kind]
    return Result(
        alarm, split, verify(rule, traces), verify(rule, [trace for trace in traces if not trace.pulse])
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of some alarms: true ones, those kept, those confirmed, false ones, those suppressed."""

    true: int
    kept: int
    confirmed: int
    false: int
    suppressed: int
    suppressed_by_ecg: int
    kept_by_ecg: int

    @classmethod
    def of(cls, results: Sequence[Result]) -> Tally:
        """Count results; an alarm whose record could not be read is kept."""
        refuted = [_is(result.verification, Outcome.REFUTED) for result in results]
        confirmed = [_is(result.verification, Outcome.CONFIRMED) for result in results]
        by_ecg = [_is(result.by_ecg, Outcome.REFUTED) for result in results]
        true = [result.alarm.true for result in results]
        return cls(
            true=sum(true),
            kept=sum(t and not r for t, r in zip(true, refuted, strict=True)),
            confirmed=sum(t and c for t, c in zip(true, confirmed, strict=True)),
            false=len(true) - sum(true),
            suppressed=sum(r and not t for t, r in zip(true, refuted, strict=True)),
            suppressed_by_ecg=sum(r and not t for t, r in zip(true, by_ecg, strict=True)),
            kept_by_ecg=sum(t and not r for t, r in zip(true, by_ecg, strict=True)),
        )

    @property
    def score(self) -> float | None:
        """The challenge's: a true alarm taken away counts five times."""
        lost = self.true - self.kept
        weight = self.true + self.false + 4 * lost
        return 100.0 * (self.kept + self.suppressed) / weight if weight else None

    def as_json(self) -> dict[str, Any]:
        """Return counts, shares, intervals and score."""
        return {
            "true": self.true,
            "true_kept": self.kept,
            "true_kept_interval": wilson(self.kept, self.true),
            "true_confirmed": self.confirmed,
            "false": self.false,
            "false_suppressed": self.suppressed,
            "false_suppressed_interval": wilson(self.suppressed, self.false),
            "by_ecg_alone": {"true_kept": self.kept_by_ecg, "false_suppressed": self.suppressed_by_ecg},
            "score": None if self.score is None else round(self.score, 2),
        }


def _is(verification: Verification | None, outcome: Outcome) -> bool:
    return verification is not None and verification.outcome is outcome


def wilson(count: int, of: int) -> tuple[float, float] | None:
    """Return the 95 % score interval of a share (Wilson EB. J Am Stat Assoc 1927;22:209-212)."""
    if not of:
        return None
    low, high = binomtest(count, of).proportion_ci(method="wilson")
    return round(low, 4), round(high, 4)


def tallies(results: Sequence[Result]) -> dict[str, Tally]:
    """Return the tally of all results and of each kind of alarm among them."""
    kinds = [kind for kind in RULES if any(result.alarm.kind == kind for result in results)]
    return {"all": Tally.of(results)} | {
        kind: Tally.of([result for result in results if result.alarm.kind == kind]) for kind in kinds
    }


def lines_of(found: dict[str, Tally]) -> list[str]:
    """Return tallies as a table of Markdown."""
    rows = [
        [
            kind.replace("_", " "),
            share(tally.kept, tally.true),
            f"{tally.confirmed}",
            share(tally.suppressed, tally.false),
            f"{tally.suppressed_by_ecg}",
            "–" if tally.score is None else f"{tally.score:.1f}",
        ]
        for kind, tally in found.items()
    ]
    head = ["alarm", "true kept", "of these confirmed", "false suppressed", "of these by ECG alone", "score"]
    return table(head, rows)


def share(count: int, of: int) -> str:
    """Return a share with its interval, such as ``3/4 = 75 % [30, 95]``; a dash of none."""
    interval = wilson(count, of)
    if interval is None:
        return "–"
    return f"{count}/{of} = {100 * count / of:.0f} % [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--split",
    default="all",
    show_default=True,
    help="Of the index beside DIR: train,val or test; all also takes records without one.",
)
@click.option("--verbose", is_flag=True, help="Say what became of each alarm, and why.")
@json_option
def main(folder: Path | None, split: str, verbose: bool, json_path: str | None) -> None:
    """Put the alarms of PhysioNet/CinC 2015 to the verifier.

    DIR holds WFDB records and ALARMS.csv. [default: cinc2015 in the folder that BEDSIDE_DATA names]

    \b
    python -m bench.icu_alarms data/cinc2015
    python -m bench.icu_alarms --split train,val --verbose
    """  # noqa: D301 (click needs the control character)
    folder = (folder or default_folder("cinc2015")).resolve()
    splits = read_splits(folder)
    wanted = set(split.split(","))
    chosen = [
        (alarm, splits.get(alarm.record, ""))
        for alarm in read_alarms(folder)
        if split == "all" or splits.get(alarm.record, "") in wanted
    ]
    if not chosen:
        raise click.ClickException(f"{folder}: no alarms of split {split}")
    results = []
    with progress_bar("alarms", len(chosen)) as done:
        for alarm, of in chosen:
            results.append(judge(folder, alarm, of))
            done(len(results))
    unread = [result for result in results if result.verification is None]
    if verbose:
        for result in results:
            if result.verification is not None:
                outcome, reason = result.verification.outcome, result.verification.reason
                truth = "true" if result.alarm.true else "false"
                click.echo(f"{result.name} {result.alarm.kind} ({truth}): {outcome}, {reason}")
    parts = _parts(results)
    for title, members in parts.items():
        click.echo("\n".join([f"\n{title}\n", *lines_of(tallies(members))]))
    if unread:
        click.echo(f"\nCould not be read, and so kept: {len(unread)}")
        for result in unread:
            click.echo(f"{result.name}: {result.error}")
    if json_path is not None:
        write_json(json.dumps(_as_json(results, parts), indent=1), json_path)


def _parts(results: Sequence[Result]) -> dict[str, list[Result]]:
    # What the limits were set on apart from the rest.
    parts = {
        "train and val": [result for result in results if result.split in ("train", "val")],
        "test": [result for result in results if result.split == "test"],
        "other records": [result for result in results if not result.split],
    }
    parts = {title: members for title, members in parts.items() if members}
    return parts if len(parts) == 1 else {"all": list(results), **parts}


def _as_json(results: Sequence[Result], parts: dict[str, list[Result]]) -> dict[str, Any]:
    return {
        "dataset": "PhysioNet/CinC Challenge 2015",
        "machine": machine(),
        "versions": versions(),
        "parts": {
            title: {kind: tally.as_json() for kind, tally in tallies(members).items()}
            for title, members in parts.items()
        },
        "unread": {result.name: result.error for result in results if result.verification is None},
        "records": {
            result.name: {
                "kind": result.alarm.kind,
                "true": result.alarm.true,
                "split": result.split,
                "outcome": result.verification.outcome,
                "reason": result.verification.reason,
                "by_ecg_alone": result.by_ecg.outcome if result.by_ecg else None,
            }
            for result in results
            if result.verification is not None
        },
    }


if __name__ == "__main__":
    main()
