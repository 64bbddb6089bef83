"""An analysis as a WFDB annotation file, beside the reference annotations of a record."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import wfdb

from ingest.source import IngestError
from stream.annotations import write_annotations as write_annotation_file
from stream.offline import Analysis
from stream.statement import duration
from stream.stretches import over_threshold

_OURS = "bedside "
# Files of these names are parts of records.
_TAKEN = ("hea", "dat", "mat", "npy", "dcm", "flac")


def annotation_path(record: str, extension: str, folder: str | Path = ".") -> Path:
    """Return where the annotations of a record go, having made sure that nothing else is there.

    Parameters
    ----------
    record : str
        Its name; characters that a WFDB record name must not have become ``_``.
    extension : str
        Name of the annotator: letters.
    folder : str or pathlib.Path

    Returns
    -------
    pathlib.Path

    Raises
    ------
    IngestError
        If the extension is not possible, the folder does not exist, or a file of this name was not
        written by `write_annotations`: reference annotations are not overwritten.
    """
    if not re.fullmatch("[a-zA-Z]+", extension):
        raise IngestError(f"annotations {extension!r}", "an extension is made of letters only, such as 'bed'")
    if extension.lower() in _TAKEN:
        raise IngestError(f"annotations {extension!r}", "the extension of a signal file; take another")
    path = Path(folder) / f"{re.sub(r'[^-A-Za-z0-9_]', '_', record)}.{extension}"
    if not path.parent.is_dir():
        raise IngestError(path, "there is no such folder")
    if path.exists() and not _is_ours(path):
        raise IngestError(path, "exists and was not written by bedside; take another extension")
    return path


def write_notes(path: Path, notes: Sequence[tuple[float, str]], beats_s: Sequence[float], fs: float) -> None:
    """Write comments and beats as a WFDB annotation file.

    Parameters
    ----------
    path : pathlib.Path
        As `annotation_path` returned it.
    notes : sequence of (float, str)
        Seconds from the first sample, and a text. The first one has to begin with ``bedside``.
    beats_s : sequence of float
        R peaks, seconds from the first sample.
    fs : float
        Sampling frequency of the record, Hz.

    Raises
    ------
    IngestError
        If it cannot be written.
    """
    try:
        write_annotation_file(path, notes, beats_s, fs)
    except OSError as error:
        raise IngestError(path, f"cannot be written: {error.strerror or error}") from error


def write_annotations(analysis: Analysis, extension: str, folder: str | Path = ".") -> Path:
    """Write beats, and comments at the beginnings and ends of alarms and of stretches over the threshold.

    Parameters
    ----------
    analysis : Analysis
    extension : str
        Name of the annotator: letters.
    folder : str or pathlib.Path
        Where ``<record name>.<extension>`` is written.

    Returns
    -------
    pathlib.Path
        The file. Its samples count at the source's rate, from the first sample of the recording. The
        first comment is the verdict on the whole; it and all that begins with the recording is at sample 1,
        because readers take out comments at sample 0.

    Raises
    ------
    IngestError
        As `annotation_path`, and if the file cannot be written.
    """
    path = annotation_path(analysis.record, extension, folder)
    write_notes(path, _notes(analysis), analysis.beats_s, analysis.fs)
    return path


def _notes(analysis: Analysis) -> list[tuple[float, str]]:
    head = f"{_OURS}{analysis.model}: {analysis.statement.headline}"
    if analysis.record_score is not None:
        head += f"; score {analysis.record_score:.2f}, threshold {analysis.threshold:.2f}"
    notes = [(0.0, head)]
    notes += threshold_notes(analysis)
    for alarm in analysis.alarms:
        notes.append((alarm.onset_s, f"(alarm {alarm.alarm}, {alarm.priority} priority: {alarm.message}"))
        if alarm.end_s is not None:
            notes.append((alarm.end_s, f"alarm) {alarm.alarm}"))
    return notes


def threshold_notes(analysis: Analysis) -> list[tuple[float, str]]:
    """Return comments, each with its second, on the stretches over the alarm threshold."""
    notes = []
    limit = f"alarm threshold {analysis.window_threshold:.2f}"
    over = [window for window in analysis.windows if window.anomalous]
    starts = [window.start_s for window in over]
    for stretch in over_threshold(analysis):
        inside = over[bisect_left(starts, stretch.start_s) : bisect_left(starts, stretch.end_s)]
        highest = max(window.score for window in inside)
        length = duration(stretch.end_s - stretch.start_s)
        notes += [
            (stretch.start_s, f"(over {limit} for {length}, highest score {highest:.2f}"),
            (stretch.end_s, f"over) {limit}"),
        ]
    return notes


def _is_ours(path: Path) -> bool:
    try:
        notes = wfdb.rdann(str(path.with_suffix("")), path.suffix[1:]).aux_note
    except (OSError, ValueError, LookupError):
        return False
    return bool(notes) and notes[0].startswith(_OURS)
