"""From the scores of an index to everything that is reported of them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.manifest import Manifest
from models.session import Session
from training.evaluation.bootstrap import RESAMPLES
from training.evaluation.figures import group
from training.evaluation.results import Evaluation, SkippedRecording
from training.evaluation.scored import Change, Scored
from training.recordings import Entry


def summarise(
    scored: Scored,
    session: Session,
    index: Path,
    *,
    split: str | None = None,
    dataset: str | None = None,
    unlabelled: int = 0,
    changes: Sequence[Change] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Return the figures of all recordings and of each data set.

    Parameters
    ----------
    scored : Scored
    session : Session
        That scored them.
    index : pathlib.Path
        Where they are listed.
    split, dataset : str, optional
        What was chosen of the index.
    unlabelled : int
        Rows that were left out.
    changes : sequence of Change, optional
        Those that were scored, if robustness was asked for.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    Evaluation
    """
    manifest = session.manifest
    operating = manifest.thresholds[session.precision]
    drawing = {"resamples": resamples, "seed": seed}
    everything = np.ones(len(scored.entries), np.bool_)
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    return Evaluation(
        model=manifest.name,
        backend=session.backend,
        precision=session.precision,
        model_sha256=manifest.sha256.get(f"model-{session.precision}.onnx"),
        index=index.name,
        index_sha256=digest,
        split=split,
        dataset=dataset,
        notes=_notes(manifest, digest, split),
        unlabelled=unlabelled,
        skipped=tuple(
            SkippedRecording(path=shown_path(skipped.entry, index), why=skipped.why)
            for skipped in scored.skipped
        ),
        groups={
            str(name): group(scored, scored.datasets == name, operating, changes, **drawing)
            for name in np.unique(scored.datasets)
            if name
        },
        **drawing,
        **dict(group(scored, everything, operating, changes, **drawing)),
    )


def _notes(manifest: Manifest, digest: str, split: str | None) -> tuple[str, ...]:
    # Only of the very indices that the model was made from is known what is in which split.
    if digest not in str(manifest.data.get("index_sha256", "")).split():
        return ()
    notes = []
    if split in (None, "train"):
        notes.append(
            "the model was trained on the normals of split train,"
            " so specificity and AUROC look better than they are"
        )
    if split in (None, "val"):
        notes.append(
            "the threshold was set on the normals of split val,"
            " so specificity and calibration look better than they are"
        )
    return tuple(notes)


def shown_path(entry: Entry, index: Path) -> str:
    """Return a recording's path as the index has it, with its name where several share one file."""
    path = entry.path
    if path.is_relative_to(index.parent):
        path = path.relative_to(index.parent)
    return str(path) if entry.piece is None else f"{path}#{entry.record}"


def write_scores(file: Path, scored: Scored, session: Session, index: Path) -> None:
    """Write one row for each scored recording, as CSV.

    Parameters
    ----------
    file : pathlib.Path
    scored : Scored
    session : Session
    index : pathlib.Path

    Raises
    ------
    OSError
        If it cannot be written.
    """
    operating = session.manifest.thresholds[session.precision]
    columns = (
        "path",
        "record",
        "dataset",
        "label",
        "rhythm_only",
        "score",
        "percentile",
        "anomalous",
        "patient",
    )
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(columns)
        for entry, score in zip(scored.entries, scored.score.tolist(), strict=True):
            rows.writerow(
                (
                    shown_path(entry, index),
                    entry.record,
                    entry.dataset,
                    entry.label,
                    int(entry.rhythm_only),
                    f"{score:.6f}",
                    f"{operating.percentile(score):.2f}",
                    int(score > operating.record),
                    entry.patient,
                )
            )
