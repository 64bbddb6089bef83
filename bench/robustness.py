"""What fewer leads, noise and other sampling frequencies cost the shipped models.

Measured on recordings outside the test split: normals of split ``val``, and abnormal recordings of ``train``
and ``val``, which train nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.machine import machine, versions
from models.backends import open_session
from models.bundle import WEIGHTS, BundleError, list_bundles, load_bundle
from models.session import Session
from stream.console import progress_bar
from training.evaluation.bootstrap import RESAMPLES
from training.evaluation.figures import group
from training.evaluation.robustness import changes
from training.evaluation.scored import score_recordings
from training.folds import Labels, fixed_fold
from training.recordings import Entry, IndexFileError, read_index, select

RESULTS = Path(__file__).parent / "results"

_SEED = 0


def development_recordings(entries: Sequence[Entry]) -> list[Entry]:
    """Choose normals of split ``val``, and abnormal recordings of ``train`` and ``val``.

    Parameters
    ----------
    entries : sequence of Entry

    Returns
    -------
    list of Entry
        None of a patient whose normals trained a model.
    """
    labelled = [*select(entries, split="train"), *select(entries, split="val")]
    splits = np.array([entry.split for entry in labelled], np.str_)
    fold = fixed_fold(Labels.of(labelled), splits)[0]
    return [labelled[number] for number in np.flatnonzero(fold.held | fold.abnormal).tolist()]


def robustness(entries: Sequence[Entry], session: Session) -> dict[str, Any]:
    """Return the figures of recordings as they are and changed, of all and of each data set.

    Parameters
    ----------
    entries : sequence of Entry
        All labelled.
    session : Session

    Returns
    -------
    dict
        ``groups``: by data set and ``"all"`` the main figures with ``robustness`` as in the JSON of
        ``bedside evaluate``; data sets of too few recordings are left out. ``skipped``: how many could not be
        scored.
    """
    asked = changes(session.manifest)
    with progress_bar(session.manifest.name, len(entries)) as done:
        scored = score_recordings(entries, session, asked, on_done=done)
    operating = session.manifest.thresholds[session.precision]
    groups = {}
    for name in ["all", *sorted(set(scored.datasets.tolist()))]:
        members = (scored.datasets == name) | (name == "all")
        found = group(scored, members, operating, asked, resamples=RESAMPLES, seed=_SEED)
        if name == "all" or not found.few:
            groups[name] = found.model_dump(
                mode="json",
                include={"n_normal", "n_abnormal", "n_patients", "auroc", "auroc_ci", "robustness"},
            )
    return {"groups": groups, "skipped": len(scored.skipped)}


@click.command()
@click.option(
    "--index", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="CSV."
)
@click.option("--model", "models", multiple=True, metavar="NAME", help="[default: all that are shipped]")
@click.option(
    "--out",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=RESULTS,
    help="Folder for robustness-NAME.json. [default: bench/results]",
)
def main(index: Path, models: tuple[str, ...], out: Path) -> None:
    """Measure what fewer leads, noise and other sampling frequencies cost.

    \b
    python -m bench.robustness --index data/index.csv
    python -m bench.robustness --index data/index.csv --model cae-100hz
    """  # noqa: D301 (click needs the control character)
    try:
        entries = development_recordings(read_index(index))
    except IndexFileError as error:
        raise click.ClickException(str(error)) from error
    if not entries:
        raise click.ClickException(f"{index}: no labelled recordings of the splits train and val")
    for name in models or list_bundles():
        try:
            session = open_session(load_bundle(name))
        except BundleError as error:
            raise click.ClickException(str(error)) from error
        begun = time.process_time()
        found = robustness(entries, session)
        result = {
            "model": name,
            "precision": session.precision,
            # Of what was trained: exported anew it is still the same model.
            "weights_sha256": session.manifest.sha256[WEIGHTS],
            "index_sha256": hashlib.sha256(index.read_bytes()).hexdigest(),
            "machine": machine(),
            "versions": versions(),
            "cpu_s": round(time.process_time() - begun),
            "resamples": RESAMPLES,
            "seed": _SEED,
            **found,
        }
        path = out / f"robustness-{name}.json"
        path.write_text(json.dumps(result) + "\n", encoding="utf-8")
        click.echo(path)


if __name__ == "__main__":
    main()
