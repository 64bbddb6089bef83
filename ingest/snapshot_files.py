"""An alarm snapshot as a WFDB record that any program reads, with annotations beside it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import wfdb

from ingest.annotations import annotation_path, threshold_notes, write_notes
from ingest.source import IngestError
from stream.snapshots.hindsight import analysis_of
from stream.snapshots.store import Snapshot

EXTENSION = "bed"
"""Of the annotations: as ``bedside analyze --annotations bed`` has it in its examples."""


def record_name(snapshot: Snapshot) -> str:
    """Return what the record of a snapshot is called: bed and alarm, with ``_`` where WFDB takes no more."""
    alarm = snapshot.header.alarm
    return re.sub(r"[^-A-Za-z0-9_]", "_", f"{alarm.bed}-{alarm.alarm}")


def write_snapshot(snapshot: Snapshot, folder: str | Path) -> list[Path]:
    """Write a snapshot as a WFDB record of format 16: samples, rate and gains as they came.

    Parameters
    ----------
    snapshot : Snapshot
    folder : str or pathlib.Path
        It is made if it is not there.

    Returns
    -------
    list of pathlib.Path
        Header, signal and annotation file (``.bed``): onset and raise of the alarm and stretches over its
        threshold as comments, and beats where they are known.

    Raises
    ------
    IngestError
        If the snapshot holds no samples, or a file cannot be written or is not ours to overwrite.
    """
    header, samples = snapshot.header, snapshot.arrays["samples"]
    name, folder = record_name(snapshot), Path(folder)
    if not len(samples):
        raise IngestError(name, "the snapshot holds no samples")
    alarm = header.alarm
    # A comment of a header is one line.
    message = " ".join(alarm.message.split())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        annotations = annotation_path(name, EXTENSION, folder)
        wfdb.wrsamp(
            name,
            fs=header.fs,
            units=["mV"] * len(header.leads),
            sig_name=list(header.leads),
            d_signal=samples.astype(np.int64),
            fmt=["16"] * len(header.leads),
            adc_gain=list(header.gain),
            baseline=[0] * len(header.leads),
            base_datetime=datetime.fromtimestamp(header.t0 / 1e9, UTC).replace(tzinfo=None),
            comments=[
                f"Bedside snapshot of alarm {alarm.alarm}, bed {alarm.bed}: {message}",
                "Research software, not a medical device.",
                *header.remarks,
            ],
            write_dir=str(folder),
        )
    except OSError as error:
        raise IngestError(folder, f"cannot be written: {error.strerror or error}") from error
    notes = [
        (0.0, f"bedside {header.model}: snapshot of alarm {alarm.alarm}, bed {alarm.bed}"),
        (snapshot.onset_s, f"(alarm {alarm.alarm}, {alarm.priority} priority: {alarm.message}"),
        (snapshot.raised_s, f"raised {alarm.alarm}"),
    ]
    analysis = analysis_of(snapshot, name)
    # What lies beyond the record is not annotated.
    inside = [(at, text) for at, text in threshold_notes(analysis) if at <= snapshot.seconds]
    write_notes(annotations, notes + inside, analysis.beats_s, header.fs)
    return [folder / f"{name}.hea", folder / f"{name}.dat", annotations]
