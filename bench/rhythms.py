"""Which arrhythmias are found on the annotated records of MIT-BIH, and how many are found that are none.

What there is to find follows the rules' own definitions, from the annotations of beats and rhythms:

- ventricular tachycardia: runs of at least five beats annotated V or E, faster than 100/min;
- ventricular flutter: stretches of rhythm VFL of at least 4 s;
- atrial fibrillation: stretches of rhythm AFIB or AFL, in seconds, because it lasts and is not an event.

An event is found if the alarm is on at some time between its beginning and 10 s after it, or its end if that
is later. An alarm is false if no event of its kind is under way, or has been in the 5 s before. An alarm of
ventricular tachycardia during flutter, and one of fibrillation during a run of ventricular beats, is neither.

MIT-BIH has few runs of five beats. So ventricular tachycardia is also looked for with limits of three beats.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.beats import (
    Reference,
    conditioned,
    default_folder,
    read_reference,
    records_in,
    stream_beats,
)
from bench.machine import machine, versions
from bench.markdown import table
from ingest.wfdb_files import WfdbRecording
from stream.console import json_option, progress_bar, write_json
from stream.vitals.beats import Beats
from stream.vitals.grid import BLOCK, FS
from stream.vitals.rhythm import Limits, Rhythm, Rule

# Rules whose events are counted, and the run of the second of them.
_EVENTS = ("vt", "vt_3_beats", "vf")
_SHORT_RUN = 3
# An alarm is due within this time of the onset, and one that ends so long after the event is not a new one.
_DUE_S, _AFTER_S = 10.0, 5.0

Spans = list[tuple[float, float]]


def listen(blocks: Sequence[Beats], limits: Limits) -> dict[Rule, Spans]:
    """Return, by rule, from when to when an alarm is on, seconds."""
    rhythm = Rhythm(limits)
    alarms: dict[Rule, Spans] = {rule: [] for rule in Rule}
    for block in blocks:
        stop = (block.first + BLOCK) / FS
        for judgement in rhythm.update(block):
            if judgement.present:
                spans = alarms[judgement.rule]
                if spans and spans[-1][1] >= stop - BLOCK / FS:
                    spans[-1] = spans[-1][0], stop
                else:
                    spans.append((stop, stop))
    return alarms


def rhythm_spans(reference: Reference, names: Sequence[str], seconds: float) -> Spans:
    """Return when one of the named rhythms is annotated; stretches that touch are one."""
    spans: Spans = []
    for (begin, name), (end, _) in pairwise([*reference.rhythms, (seconds, "")]):
        if name in names:
            if spans and spans[-1][1] == begin:
                spans[-1] = spans[-1][0], end
            else:
                spans.append((begin, end))
    return spans


def ventricular_runs(reference: Reference, limits: Limits) -> Spans:
    """Return the runs of ventricular beats that are a ventricular tachycardia by the limits."""
    runs: Spans = []
    run: list[float] = []
    for at, symbol in zip([*reference.beats.tolist(), np.inf], [*reference.symbols, ""], strict=True):
        fast = not run or at - run[-1] < 60.0 / limits.vt_bpm
        if symbol in ("V", "E") and fast:
            run.append(at)
            continue
        if len(run) >= limits.vt_beats:
            runs.append((run[0], run[-1]))
        run = [at] if symbol in ("V", "E") else []
    return runs


def count_events(events: Spans, other: Spans, alarms: Spans) -> dict[str, Any]:
    """Count events that were found and alarms that were false.

    Parameters
    ----------
    events : list of (float, float)
        What there is to find, seconds.
    other : list of (float, float)
        During which an alarm is neither true nor false.
    alarms : list of (float, float)

    Returns
    -------
    dict
        ``events``, ``found``, ``delays_s`` (from the onset to the alarm), ``alarms``, ``false``.
    """
    delays = []
    for begin, end in events:
        until = max(end, begin + _DUE_S)
        heard = [start for start, stop in alarms if start <= until and stop >= begin]
        if heard:
            delays.append(round(max(0.0, heard[0] - begin), 2))
    true = sum(
        any(start <= end + _AFTER_S and stop >= begin for begin, end in [*events, *other])
        for start, stop in alarms
    )
    return {
        "events": len(events),
        "found": len(delays),
        "delays_s": delays,
        "alarms": len(alarms),
        "false": len(alarms) - true,
    }


def measure_record(record: Path) -> dict[str, Any]:
    """Return the counts of one record, by rule."""
    recording = WfdbRecording(record)
    reference = read_reference(record, recording.fs)
    seconds = recording.duration_s or 0.0
    blocks = stream_beats(conditioned(recording))
    alarms = listen(blocks, Limits())
    shorter = Limits(vt_beats=_SHORT_RUN)
    runs = ventricular_runs(reference, Limits())
    flutter = [
        (begin, end)
        for begin, end in rhythm_spans(reference, ["VFL"], seconds)
        if end - begin >= Limits().vf_s
    ]
    grid = np.arange(0.0, seconds, BLOCK / FS)
    there = _covered(grid, rhythm_spans(reference, ["AFIB", "AFL"], seconds))
    told = _covered(grid, alarms[Rule.ATRIAL_FIBRILLATION])
    return {
        "record": record.name,
        "seconds": seconds,
        "vt": count_events(runs, flutter, alarms[Rule.VENTRICULAR_TACHYCARDIA]),
        "vt_3_beats": count_events(
            ventricular_runs(reference, shorter),
            flutter,
            listen(blocks, shorter)[Rule.VENTRICULAR_TACHYCARDIA],
        ),
        "vf": count_events(flutter, runs, alarms[Rule.VENTRICULAR_FIBRILLATION]),
        "af": {
            "present_s": float(there.sum()) * BLOCK / FS,
            "found_s": float((there & told).sum()) * BLOCK / FS,
            "absent_s": float((~there).sum()) * BLOCK / FS,
            "false_s": float((~there & told).sum()) * BLOCK / FS,
        },
        "others": {
            rule.value: len(alarms[rule]) for rule in (Rule.ASYSTOLE, Rule.BRADYCARDIA, Rule.TACHYCARDIA)
        },
    }


def _covered(
    grid: np.ndarray[Any, np.dtype[np.float64]], spans: Spans
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    covered = np.zeros(len(grid), np.bool_)
    for begin, end in spans:
        covered |= (grid >= begin) & (grid < end)
    return covered


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all records together."""
    hours = sum(row["seconds"] for row in rows) / 3600
    figures: dict[str, Any] = {"hours": round(hours, 2)}
    for rule in _EVENTS:
        own = [row[rule] for row in rows]
        delays = [delay for one in own for delay in one["delays_s"]]
        sums = {name: sum(one[name] for one in own) for name in ("events", "found", "alarms", "false")}
        figures[rule] = {
            **sums,
            "false_per_hour": round(sums["false"] / hours, 2),
            "delay_median_s": round(float(np.median(delays)), 1) if delays else None,
            "delay_max_s": max(delays, default=None),
        }
    own = [row["af"] for row in rows]
    sums = {name: sum(one[name] for one in own) for name in ("present_s", "found_s", "absent_s", "false_s")}
    figures["af"] = {
        **sums,
        "sensitivity": round(sums["found_s"] / sums["present_s"], 3) if sums["present_s"] else None,
        "specificity": round(1 - sums["false_s"] / sums["absent_s"], 3) if sums["absent_s"] else None,
    }
    return figures


def _cells(row: dict[str, Any]) -> list[str]:
    atrial = row["af"]
    cells = [row["record"]]
    for rule in _EVENTS:
        cells += [f"{row[rule]['found']} of {row[rule]['events']}", str(row[rule]["false"])]
    there = f"{100 * atrial['found_s'] / atrial['present_s']:.0f} %" if atrial["present_s"] else "–"
    absent = f"{100 * atrial['false_s'] / atrial['absent_s']:.0f} %" if atrial["absent_s"] else "–"
    return [*cells, there, absent]


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def main(folder: Path | None, json_path: str | None) -> None:
    """Count found, missed and invented arrhythmias on annotated records.

    FOLDER holds WFDB records with annotations .atr. [default: mitdb in BEDSIDE_DATA]

    \b
    python -m bench.rhythms
    python -m bench.rhythms data/mitdb --json bench/results/rhythms-mitdb.json
    """  # noqa: D301 (click needs the control character)
    records = records_in(folder or default_folder("mitdb"))
    result: dict[str, Any] = {"benchmark": "rhythms", "machine": machine(), "versions": versions()}
    rows = []
    with progress_bar("rhythms", len(records)) as done:
        for record in records:
            rows.append(measure_record(record))
            done(len(rows))
    figures = totals(rows)
    result |= {"limits": Limits().model_dump(), "rows": rows, "totals": figures}
    head = [
        "record",
        "VT found",
        "VT false",
        "VT of 3 beats found",
        "VT of 3 beats false",
        "VFL found",
        "VF false",
        "AF time found",
        "AF time false",
    ]
    all_records = {"record": "all", **figures}
    click.echo("\n".join(table(head, [_cells(row) for row in [*rows, all_records]])), err=json_path == "-")
    if json_path:
        write_json(json.dumps(result), json_path)


if __name__ == "__main__":
    main()
