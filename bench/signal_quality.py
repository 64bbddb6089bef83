"""What the signal quality finds of disturbances put on real recordings, and what it says of them untouched.

Recordings are those of the splits train and val. Each labelled one, normal or abnormal, is disturbed in turn
by everything in `bench.disturbances`, at each level, and rated as a stream would be. A lead-second, one lead
in one second, counts if it had no issue untouched and at least half of it is disturbed.

What it does for the beats is measured on annotated records with noise from beginning to end, in the first
lead or in all, with the quality and without. A signal-to-noise ratio is the variance of a lead behind the
band-pass of the beat detector over that of the noise, before any filter.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from bench.beats import Times, default_folder, match, outside_flutter, rates, read_reference
from bench.disturbances import DISTURBANCES, LOW_MUSCLE, MOTION, MUSCLE, Clean, Disturbance
from bench.machine import machine, versions
from bench.markdown import table
from ingest.source import IngestError
from models.manifest import FilterSpec
from stream.console import json_option, progress_bar, write_json
from stream.preprocess import Conditioner, group_delay_ms
from stream.vitals.bed import BedVitals
from stream.vitals.grid import FS
from stream.vitals.quality import Issue, QualityMeter, SecondQuality
from stream.vitals.rhythm import Limits
from training.evaluation.robustness import ecg_power
from training.recordings import Entry, IndexFileError, Signal, read_index, select

BoolArray = npt.NDArray[np.bool_]

BEATS_S = 300.0
"""So much of each annotated record, from its beginning."""
IN_BEATS = (MUSCLE, LOW_MUSCLE, MOTION)
"""What the beats are looked for in."""

_SEED = 0
_SPLITS = ("train", "val")
# A lead-second is disturbed from this share of its samples on.
_DISTURBED = 0.5
# Beats become final so long after their R peak at the latest.
_FINAL_S = 1.5


@dataclass(slots=True)
class Count:
    """Lead-seconds, and what was said of them."""

    n: int = 0
    right: int = 0
    unusable: int = 0
    noisy: int = 0
    index: float = 0.0

    def add(self, second: SecondQuality, leads: BoolArray, right: frozenset[Issue]) -> None:
        """Count some leads of a second, and how many have one of the right issues."""
        self.n += int(leads.sum())
        self.right += sum(bool(second.issues[lead] & right) for lead in np.flatnonzero(leads))
        self.unusable += int((leads & ~second.usable).sum())
        self.noisy += int((leads & second.noisy).sum())
        self.index += float(second.index[leads].sum())

    def as_json(self) -> dict[str, Any]:
        """Return ``n``, shares of it, and the mean index."""
        parts = {"right": self.right, "unusable": self.unusable, "noisy": self.noisy, "index": self.index}
        return {"n": self.n} | {name: round(value / max(self.n, 1), 4) for name, value in parts.items()}


def rated(signal: Signal) -> list[SecondQuality]:
    """Return the quality of all seconds of a recording."""
    return QualityMeter(len(signal.leads), signal.fs).push(0, signal.millivolts)


def clean_of(signal: Signal) -> Clean:
    """Return a recording as one that can be disturbed."""
    return Clean(signal.millivolts, signal.fs, np.sqrt(ecg_power(signal, FilterSpec(), FS)))


def count_disturbed(
    signal: Signal, disturbances: Sequence[Disturbance], counts: Sequence[Sequence[Count]]
) -> None:
    """Disturb a recording, and count what is said of it.

    Parameters
    ----------
    signal : Signal
    disturbances : sequence of Disturbance
    counts : sequence of sequence of Count
        By disturbance, by level; added to.
    """
    clean = clean_of(signal)
    untouched = [np.array([not issues for issues in second.issues]) for second in rated(signal)]
    for disturbance, of in zip(disturbances, counts, strict=True):
        for level, count in zip(disturbance.levels, of, strict=True):
            # The same noise at every level.
            x, inside = disturbance.apply(clean, level, _generator(signal, disturbance.name))
            for good, second in zip(untouched, rated(replace(signal, millivolts=x)), strict=True):
                hit = inside[second.start : second.end].mean(axis=0) >= _DISTURBED
                count.add(second, hit & good, disturbance.issues)


def _generator(signal: Signal, name: str) -> np.random.Generator:
    samples = zlib.crc32(np.ascontiguousarray(signal.millivolts).tobytes())
    return np.random.default_rng([_SEED, samples, zlib.crc32(name.encode())])


def count_untouched(signal: Signal) -> Counter[str]:
    """Count what is said of a recording as it is.

    Returns
    -------
    Counter
        Lead-seconds: ``n``, ``unusable``, ``noisy``, and by issue.
    """
    seconds = rated(signal)
    count = Counter(
        n=len(seconds) * len(signal.leads),
        unusable=sum(int((~second.usable).sum()) for second in seconds),
        noisy=sum(int(second.noisy.sum()) for second in seconds),
    )
    for second in seconds:
        for issues in second.issues:
            count.update(issue.value for issue in issues)
    return count


def found_beats(signal: Signal, *, with_quality: bool) -> Times:
    """Return when the stream's beat detector finds beats, seconds."""
    leads = len(signal.leads)
    conditioner = Conditioner(FilterSpec(), signal.fs, FS, leads)
    vitals = BedVitals(leads, Limits(), conditioner.source_index)
    if with_quality:
        vitals.rate(rated(signal))
    vitals.hear(conditioner.push(np.ascontiguousarray(signal.millivolts.T)))
    found = [beat.index / FS for block in vitals.advance() for beat in block.beats]
    return np.sort(np.array(found)) - group_delay_ms(FilterSpec(), signal.fs) / 1000


def count_beats(entry: Entry, seconds: float = BEATS_S) -> list[dict[str, Any]]:
    """Count found, missed and invented beats of a record without noise and at each level of each noise.

    Parameters
    ----------
    entry : Entry
        With annotations .atr beside it.
    seconds : float
        So much of it, from its beginning.

    Returns
    -------
    list of dict
        ``noise``, ``snr_db``, ``leads`` that have the noise, ``seconds``, ``seconds_unusable`` in which no
        lead is usable, and counts ``with_quality`` and ``without``.
    """
    whole = entry.read()
    signal = replace(whole, millivolts=whole.millivolts[: round(seconds * whole.fs)])
    reference = read_reference(entry.path.with_suffix(""), signal.fs)
    last = len(signal.millivolts) / signal.fs - _FINAL_S
    counted = outside_flutter(reference.beats[reference.beats < last], reference)
    clean = clean_of(signal)

    def row(noise: str, snr_db: float | None, leads: str, noisy: Signal) -> dict[str, Any]:
        rating = rated(noisy)
        of: dict[str, Any] = {
            "noise": noise,
            "snr_db": snr_db,
            "leads": leads,
            "seconds": len(rating),
            "seconds_unusable": sum(not second.usable.any() for second in rating),
        }
        for name, with_quality in (("with_quality", True), ("without", False)):
            times = found_beats(noisy, with_quality=with_quality)
            judged = outside_flutter(times[times < last], reference)
            tp = len(match(counted, judged))
            of[name] = {"tp": tp, "fp": len(judged) - tp, "fn": len(counted) - tp}
        return of

    rows = [row("none", None, "–", signal)]
    for disturbance in IN_BEATS:
        for snr_db in disturbance.levels:
            x, _ = disturbance.apply(clean, snr_db, _generator(signal, disturbance.name))
            first = np.column_stack([x[:, :1], signal.millivolts[:, 1:]])
            rows.append(row(disturbance.name, snr_db, "first", replace(signal, millivolts=first)))
            rows.append(row(disturbance.name, snr_db, "all", replace(signal, millivolts=x)))
    return rows


def _beat_totals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    # Of all records together, a row for each noise, level and set of leads, in the order in which they came.
    kinds = list(dict.fromkeys((row["noise"], row["snr_db"], row["leads"]) for row in rows))
    totals = []
    for noise, snr_db, leads in kinds:
        own = [row for row in rows if (row["noise"], row["snr_db"], row["leads"]) == (noise, snr_db, leads)]
        total: dict[str, Any] = {"noise": noise, "snr_db": snr_db, "leads": leads}
        for name in ("seconds", "seconds_unusable"):
            total[name] = sum(row[name] for row in own)
        for name in ("with_quality", "without"):
            counts = {kind: sum(row[name][kind] for row in own) for kind in ("tp", "fp", "fn")}
            total[name] = counts | rates(counts)
        totals.append(total)
    return totals


def _read(entry: Entry) -> Signal:
    try:
        return entry.read()
    except IngestError as error:
        raise click.ClickException(str(error)) from error


def _untouched(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    counts: dict[str, Counter[str]] = {}
    recordings = Counter(entry.dataset for entry in entries)
    with progress_bar("untouched", len(entries)) as done:
        for number, entry in enumerate(entries, 1):
            counts.setdefault(entry.dataset, Counter()).update(count_untouched(_read(entry)))
            done(number)
    return [
        {"dataset": name, "recordings": recordings[name], "n": count["n"]}
        | {key: round(count[key] / count["n"], 5) for key in ("unusable", "noisy", *Issue)}
        for name, count in sorted(counts.items())
    ]


def _disturbed(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    counts = [[Count() for _ in disturbance.levels] for disturbance in DISTURBANCES]
    with progress_bar("disturbed", len(entries)) as done:
        for number, entry in enumerate(entries, 1):
            count_disturbed(_read(entry), DISTURBANCES, counts)
            done(number)
    return [
        {
            "disturbance": disturbance.name,
            "level": level,
            "unit": disturbance.unit,
            "right_issues": sorted(disturbance.issues),
            **count.as_json(),
        }
        for disturbance, of in zip(DISTURBANCES, counts, strict=True)
        for level, count in zip(disturbance.levels, of, strict=True)
    ]


def _beats(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with progress_bar("beats", len(entries)) as done:
        for number, entry in enumerate(entries, 1):
            rows += count_beats(entry)
            done(number)
    return _beat_totals(rows)


def _percent(share: float | None, decimals: int) -> str:
    return "–" if share is None else f"{100 * share:.{decimals}f} %"


def _disturbed_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    # A line for each disturbance; what is disturbed is the same at all levels.
    lines = []
    for name, group in groupby(rows, key=itemgetter("disturbance")):
        own = list(group)
        lines.append(
            [
                name,
                " or ".join(f"`{issue}`" for issue in own[0]["right_issues"]),
                str(own[0]["n"]),
                _slashed(f"{row['level']:g}" for row in own) + " " + own[0]["unit"],
                *(
                    _slashed(f"{100 * row[share]:.0f}" for row in own) + " %"
                    for share in ("right", "unusable", "noisy")
                ),
                _slashed(f"{row['index']:.2f}" for row in own),
            ]
        )
    head = ["disturbance", "right", "lead-seconds", "level", "named", "unusable", "noisy", "mean index"]
    return table(head, lines)


def _slashed(cells: Iterable[str]) -> str:
    return " / ".join(cells)


def _untouched_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    names = ("unusable", "noisy", *Issue)
    head = ["database", "recordings", "lead-seconds", "unusable", "noisy", *(f"`{issue}`" for issue in Issue)]
    return table(
        head,
        [
            [
                row["dataset"],
                str(row["recordings"]),
                str(row["n"]),
                *(_percent(row[name], 2) for name in names),
            ]
            for row in rows
        ],
    )


def _beats_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = [
        "noise",
        "leads with noise",
        "SNR",
        "beats",
        "no lead usable",
        "sensitivity / positive predictivity",
        "without the quality",
    ]
    lines = [
        [
            row["noise"],
            row["leads"],
            "–" if row["snr_db"] is None else f"{row['snr_db']:g} dB",
            str(row["without"]["tp"] + row["without"]["fn"]),
            _percent(row["seconds_unusable"] / row["seconds"], 1),
            *(
                _slashed(_percent(row[name][rate], 1) for rate in ("sensitivity", "positive_predictivity"))
                for name in ("with_quality", "without")
            ),
        ]
        for row in rows
    ]
    return table(head, lines)


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def main(folder: Path | None, json_path: str | None) -> None:
    """Measure what the signal quality finds of disturbances put on real recordings.

    FOLDER holds index.csv and the recordings that it names. [default: BEDSIDE_DATA]

    \b
    python -m bench.signal_quality
    python -m bench.signal_quality data --json bench/results/signal-quality.json
    """  # noqa: D301 (click needs the control character)
    index = (folder or default_folder(".")) / "index.csv"
    try:
        entries = read_index(index)
    except IndexFileError as error:
        raise click.ClickException(str(error)) from error
    labelled = [entry for split in _SPLITS for entry in select(entries, split=split)]
    if not labelled:
        raise click.ClickException(f"{index}: no labelled recordings of the splits train and val")
    open_to_us = [entry for entry in entries if entry.split in _SPLITS]
    annotated = [entry for entry in open_to_us if entry.path.with_suffix(".atr").is_file()]
    parts = {
        "Disturbed": (disturbed := _disturbed(labelled), _disturbed_table),
        "Untouched": (untouched := _untouched(open_to_us), _untouched_table),
        "Beats in noise": (beats := _beats(annotated), _beats_table),
    }
    for title, (rows, lines_of) in parts.items():
        click.echo("\n".join([f"\n{title}\n", *lines_of(rows)]), err=json_path == "-")
    if json_path:
        result = {
            "benchmark": "signal-quality",
            "machine": machine(),
            "versions": versions(),
            "index_sha256": hashlib.sha256(index.read_bytes()).hexdigest(),
            "seed": _SEED,
            "recordings": len(labelled),
            "annotated_s": BEATS_S,
            "disturbed": disturbed,
            "untouched": untouched,
            "beats": beats,
        }
        write_json(json.dumps(result), json_path)


if __name__ == "__main__":
    main()
