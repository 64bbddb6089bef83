"""How many heart beats are found on the annotated records of MIT-BIH, beside two detectors of package wfdb.

Bedside's detector gets all leads as a stream of 0.5 s blocks; XQRS and GQRS get the whole first channel at
once, as they are meant to. Whole records count, the first five minutes too; flutter of record 207 (from ``[``
to ``]``) does not, for any of them. A beat is found if a detection lies within 150 ms, one for each.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import wfdb
import wfdb.processing

from bench.machine import machine, versions
from bench.markdown import table
from ingest.wfdb_files import WfdbRecording
from models.manifest import FilterSpec
from stream.console import json_option, progress_bar, write_json
from stream.contract import INVALID
from stream.preprocess import Conditioner, Resampled, group_delay_ms
from stream.vitals.beats import BeatDetector, Beats
from stream.vitals.grid import BLOCK, FS

TOLERANCE_S = 0.15
# Annotations that mark a beat; see https://physionet.org/physiotools/wag/annot-5.htm.
BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
# The first verdict comes after the detector has learned the levels of the leads.
_LEARNING_S = 3.0

DETECTORS = ("Bedside", "XQRS", "GQRS")

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """Annotations of a record; times in seconds.

    Attributes
    ----------
    beats : numpy.ndarray
    symbols : tuple of str
        Of each beat.
    flutter : tuple of (float, float)
        Stretches in which there are no beats to find.
    rhythms : tuple of (float, str)
        When a rhythm begins, and which, such as ``AFIB``.
    """

    beats: Times
    symbols: tuple[str, ...]
    flutter: tuple[tuple[float, float], ...]
    rhythms: tuple[tuple[float, str], ...]


def read_reference(record: Path, fs: float) -> Reference:
    """Read the annotations ``.atr`` of a record."""
    notes = wfdb.rdann(str(record), "atr")
    times = np.asarray(notes.sample, np.float64) / fs
    beat = np.array([symbol in BEAT_SYMBOLS for symbol in notes.symbol])
    begins = [at for at, symbol in zip(times.tolist(), notes.symbol, strict=True) if symbol == "["]
    ends = [at for at, symbol in zip(times.tolist(), notes.symbol, strict=True) if symbol == "]"]
    rhythms = [
        (at, note.strip("\0")[1:])
        for at, note in zip(times.tolist(), notes.aux_note, strict=True)
        if note.startswith("(")
    ]
    return Reference(
        beats=times[beat],
        symbols=tuple(np.array(notes.symbol)[beat].tolist()),
        flutter=tuple(zip(begins, ends, strict=True)),
        rhythms=tuple(rhythms),
    )


def match(reference: Times, found: Times, tolerance_s: float = TOLERANCE_S) -> list[tuple[int, int]]:
    """Pair beats with detections, one to one, each pair within the tolerance.

    Parameters
    ----------
    reference, found : numpy.ndarray
        Seconds, rising.
    tolerance_s : float

    Returns
    -------
    list of (int, int)
        Places in `reference` and in `found`. Where two are in question the nearer one is taken.
    """
    pairs: list[tuple[int, int]] = []
    at = beat = 0
    while beat < len(reference) and at < len(found):
        off = found[at] - reference[beat]
        if off < -tolerance_s:
            at += 1
        elif off > tolerance_s:
            beat += 1
        elif at + 1 < len(found) and abs(found[at + 1] - reference[beat]) < abs(off):
            at += 1
        elif beat + 1 < len(reference) and abs(found[at] - reference[beat + 1]) < abs(off):
            beat += 1
        else:
            pairs.append((beat, at))
            beat, at = beat + 1, at + 1
    return pairs


def read_millivolts(recording: WfdbRecording) -> npt.NDArray[np.float64]:
    """Return a whole recording, shape (leads, n), NaN where a sample is missing."""
    samples = recording.read(0, recording.n_samples or 0)
    millivolts: npt.NDArray[np.float64] = samples / np.asarray(recording.gain)
    millivolts[samples == INVALID] = np.nan
    return np.ascontiguousarray(millivolts.T)


def conditioned(recording: WfdbRecording) -> Resampled:
    """Return a whole recording as the detector sees it."""
    conditioner = Conditioner(FilterSpec(), recording.fs, FS, len(recording.leads))
    return conditioner.push(read_millivolts(recording))


def stream_beats(signal: Resampled) -> list[Beats]:
    """Return what the detector says of conditioned signal that comes block by block."""
    leads, n = signal.values.shape
    detector = BeatDetector(leads, signal.first)
    usable = np.ones(leads, np.bool_)
    blocks: list[Beats] = []
    for at in range(0, n, BLOCK):
        piece = slice(at, at + BLOCK)
        blocks += detector.push(signal.first + at, signal.values[:, piece], signal.missing[:, piece], usable)
    return blocks


def _bedside(recording: WfdbRecording) -> tuple[Times, float, dict[str, float]]:
    signal = conditioned(recording)
    begun = time.process_time()
    blocks = stream_beats(signal)
    spent = time.process_time() - begun
    filter_s = group_delay_ms(FilterSpec(), recording.fs) / 1000
    index = np.array([beat.index for block in blocks for beat in block.found])
    given = np.array([block.first + BLOCK for block in blocks for _ in block.found])
    late = (given - index)[index > _LEARNING_S * FS] / FS
    delays = {"delay_median_s": round(float(np.median(late)), 2), "delay_max_s": round(float(late.max()), 2)}
    return index / FS - filter_s, spent, delays


def _xqrs(recording: WfdbRecording) -> tuple[Times, float, dict[str, float]]:
    channel = np.nan_to_num(read_millivolts(recording)[0])
    begun = time.process_time()
    found = wfdb.processing.xqrs_detect(channel, fs=recording.fs, verbose=False)
    return np.asarray(found) / recording.fs, time.process_time() - begun, {}


def _gqrs(recording: WfdbRecording) -> tuple[Times, float, dict[str, float]]:
    channel = recording.read(0, recording.n_samples or 0)[:, 0].astype(np.int64)
    begun = time.process_time()
    found = wfdb.processing.gqrs_detect(
        d_sig=channel, fs=recording.fs, adc_gain=recording.gain[0], adc_zero=0
    )
    return np.asarray(found) / recording.fs, time.process_time() - begun, {}


_RUN: dict[str, Callable[[WfdbRecording], tuple[Times, float, dict[str, float]]]] = {
    "Bedside": _bedside,
    "XQRS": _xqrs,
    "GQRS": _gqrs,
}


def measure_record(record: Path, detector: str) -> dict[str, Any]:
    """Run one detector on one record.

    Returns
    -------
    dict
        Counts, ``sensitivity``, ``positive_predictivity``, ``rms_error_ms``, ``signal_s_per_s`` (of one
        core), and for Bedside ``delay_median_s`` and ``delay_max_s``: from the R peak to the end of the block
        that gave it, after the first three seconds.
    """
    recording = WfdbRecording(record)
    reference = read_reference(record, recording.fs)
    found, spent, delays = _RUN[detector](recording)
    counted, judged = outside_flutter(reference.beats, reference), outside_flutter(np.sort(found), reference)
    pairs = match(counted, judged)
    errors = np.array([judged[at] - counted[beat] for beat, at in pairs])
    counts = {"tp": len(pairs), "fp": len(judged) - len(pairs), "fn": len(counted) - len(pairs)}
    return {
        "record": record.name,
        "detector": detector,
        **counts,
        **rates(counts),
        "rms_error_ms": round(1000 * float(np.sqrt(np.mean(errors**2))), 1),
        "signal_s_per_s": round((recording.duration_s or 0.0) / spent),
        **delays,
    }


def outside_flutter(times: Times, reference: Reference) -> Times:
    """Return the times that count: there are no beats to find in flutter."""
    inside = np.zeros(len(times), np.bool_)
    for begin, end in reference.flutter:
        inside |= (times >= begin - TOLERANCE_S) & (times <= end + TOLERANCE_S)
    return times[~inside]


def rates(counts: dict[str, int]) -> dict[str, float | None]:
    """Return sensitivity and positive predictivity of the counts ``tp``, ``fp`` and ``fn``.

    None where there are no beats, or none were found.
    """
    tp, there, found = counts["tp"], counts["tp"] + counts["fn"], counts["tp"] + counts["fp"]
    return {
        "sensitivity": round(tp / there, 5) if there else None,
        "positive_predictivity": round(tp / found, 5) if found else None,
    }


def totals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the counts of all records together, a row for each detector."""
    summed = []
    for detector in DETECTORS:
        own = [row for row in rows if row["detector"] == detector]
        counts = {name: sum(row[name] for row in own) for name in ("tp", "fp", "fn")}
        weights = np.array([row["tp"] for row in own])
        errors = np.array([row["rms_error_ms"] for row in own])
        total: dict[str, Any] = {
            "record": "all",
            "detector": detector,
            **counts,
            **rates(counts),
            "rms_error_ms": round(float(np.sqrt(np.average(errors**2, weights=weights))), 1),
            "signal_s_per_s": round(float(np.median([row["signal_s_per_s"] for row in own]))),
        }
        if all("delay_max_s" in row for row in own):
            total["delay_median_s"] = round(float(np.median([row["delay_median_s"] for row in own])), 2)
            total["delay_max_s"] = max(row["delay_max_s"] for row in own)
        summed.append(total)
    return summed


def records_in(folder: Path) -> list[Path]:
    """Return the records of a folder that have annotations, without extension.

    Raises
    ------
    click.ClickException
        If there is none.
    """
    found = sorted(path.with_suffix("") for path in folder.glob("*.atr"))
    if not found:
        raise click.ClickException(f"{folder}: no record with annotations (.atr)")
    return found


def default_folder(name: str) -> Path:
    """Return a folder of recordings in that which ``BEDSIDE_DATA`` names.

    Raises
    ------
    click.ClickException
        If it names none.
    """
    data = os.environ.get("BEDSIDE_DATA")
    if not data:
        raise click.ClickException("name a folder of records, or set BEDSIDE_DATA")
    return Path(data) / name


def _cells(row: dict[str, Any]) -> list[str]:
    delay = f"{row['delay_median_s']:.2f} / {row['delay_max_s']:.2f}" if "delay_max_s" in row else "–"
    return [
        row["record"],
        row["detector"],
        *(str(row[name]) for name in ("tp", "fp", "fn")),
        f"{100 * row['sensitivity']:.2f} %",
        f"{100 * row['positive_predictivity']:.2f} %",
        f"{row['rms_error_ms']:.0f}",
        delay,
        str(row["signal_s_per_s"]),
    ]


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def main(folder: Path | None, json_path: str | None) -> None:
    """Count found, missed and invented beats on annotated records.

    FOLDER holds WFDB records with annotations .atr. [default: mitdb in BEDSIDE_DATA]

    \b
    python -m bench.beats
    python -m bench.beats data/mitdb --json bench/results/beats-mitdb.json
    """  # noqa: D301 (click needs the control character)
    records = records_in(folder or default_folder("mitdb"))
    result: dict[str, Any] = {
        "benchmark": "beats",
        "machine": machine(),
        "versions": versions() | {"wfdb": wfdb.__version__},
    }
    rows = []
    with progress_bar("beats", len(records) * len(DETECTORS)) as done:
        for record in records:
            for detector in DETECTORS:
                rows.append(measure_record(record, detector))
                done(len(rows))
    result |= {"tolerance_ms": round(1000 * TOLERANCE_S), "rows": rows, "totals": totals(rows)}
    head = [
        "record",
        "detector",
        "TP",
        "FP",
        "FN",
        "sensitivity",
        "positive predictivity",
        "RMS error, ms",
        "delay, s: median / max",
        "s of signal per s",
    ]
    click.echo(
        "\n".join(table(head, [_cells(row) for row in [*rows, *result["totals"]]])), err=json_path == "-"
    )
    if json_path:
        write_json(json.dumps(result), json_path)


if __name__ == "__main__":
    main()
