"""The command ``evaluate``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.console import (
    RefusalError,
    check_writable,
    json_option,
    model_option,
    progress_bar,
    write_json,
    writing,
)
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.evaluation.results import Evaluation
    from training.recordings import Entry

# Columns below which tables lose digits, and those of a file or a log, where a line may be as long as it is.
_LEAST_WIDTH, _LOG_WIDTH = 106, 140


@click.command("evaluate")
@model_option
@click.option(
    "--index",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="CSV of recordings: path, label and optionally rhythm_only, dataset (or group), patient_id, split,"
    " codes.",
)
@click.option("--split", metavar="NAME", help="Only the rows of this split. [default: all rows]")
@click.option("--dataset", metavar="NAME", help="Only the rows of this data set. [default: all rows]")
@click.option(
    "--robustness",
    is_flag=True,
    help="Score once more with fewer leads, noise and other sampling frequencies: ten times the work.",
)
@click.option(
    "--backend", default="onnxruntime", show_default=True, metavar="NAME", help="What runs the model."
)
@click.option("--precision", default="fp32", show_default=True, metavar="P")
@json_option
@click.option("--html", metavar="FILE", help="Write a page of its own: curves, histograms, worst examples.")
@click.option("--scores", metavar="FILE", help="Write the score of every recording as CSV.")
def evaluate(
    model: str | None,
    index: Path,
    split: str | None,
    dataset: str | None,
    robustness: bool,
    backend: str,
    precision: str,
    json_path: str | None,
    html: str | None,
    scores: str | None,
) -> None:
    """Say how well a model separates abnormal recordings from normal ones.

    The pipeline is that of serving, the threshold the stored one. Rows without a label are left out; a
    recording that cannot be scored is named, and the rest goes on.

    \b
    bedside evaluate --index data/index.csv --split test
    bedside evaluate --model runs/mine --index ward.csv --json ward.json --html ward.html
    bedside evaluate --index data/index.csv --split val --dataset ptb-xl --robustness --scores val.csv
    """
    from models.backends import open_session
    from models.bundle import load_bundle
    from training.evaluation.robustness import changes
    from training.evaluation.scored import score_recordings
    from training.evaluation.summary import summarise, write_scores
    from training.recordings import IndexFileError, read_index

    for file in (json_path, html, scores):
        if file and file != "-":
            check_writable(file)
    try:
        entries = _chosen(read_index(index), index, split, dataset)
    except IndexFileError as error:
        raise RefusalError(str(error)) from error
    labelled = [entry for entry in entries if entry.label is not None]
    if not labelled:
        raise RefusalError(f"{index}: none of the {len(entries)} rows chosen has a label (0 or 1)")
    session = open_session(load_bundle(model or Settings().model), backend=backend, precision=precision)
    asked = changes(session.manifest) if robustness else None
    with progress_bar(f"evaluating {session.manifest.name}", len(labelled)) as done:
        scored = score_recordings(labelled, session, asked or (), on_done=done)
    if not scored.entries:
        first = scored.skipped[0]
        raise RefusalError(
            f"{index}: none of {len(labelled)} recordings could be scored;"
            f" the first, {first.entry.path}: {first.why}"
        )
    evaluation = summarise(
        scored,
        session,
        index,
        split=split,
        dataset=dataset,
        unlabelled=len(entries) - len(labelled),
        changes=asked,
    )
    if json_path:
        write_json(evaluation.model_dump_json(), json_path)
    if scores:
        with writing(scores):
            write_scores(Path(scores), scored, session, index)
    if html:
        from training.evaluation.page import write_html

        with writing(html):
            write_html(Path(html), evaluation, scored, session, index)
    written = [file for file in (html, scores, json_path) if file and file != "-"]
    if json_path != "-":
        _print(evaluation)
    if written:
        # Standard output may be the JSON.
        click.echo(f"written: {', '.join(written)}", err=json_path == "-")


def _print(evaluation: Evaluation) -> None:
    from rich.console import Console

    from training.evaluation.text import described

    console = Console(highlight=False)
    console.width = max(console.width, _LEAST_WIDTH) if console.is_terminal else _LOG_WIDTH
    for part in described(evaluation):
        console.print(part)


def _chosen(entries: Sequence[Entry], index: Path, split: str | None, dataset: str | None) -> list[Entry]:
    if not entries:
        raise RefusalError(f"{index}: no rows")
    chosen = list(entries)
    for column, wanted in (("split", split), ("dataset", dataset)):
        if wanted is None:
            continue
        found = Counter(getattr(entry, column) for entry in chosen)
        if wanted not in found:
            names = ", ".join(f"{name} ({n})" for name, n in sorted(found.items()) if name)
            where = f" in split {split}" if column == "dataset" and split is not None else ""
            raise RefusalError(f"{index}: no {column} {wanted!r}{where}: {names or 'its rows name none'}")
        chosen = [entry for entry in chosen if getattr(entry, column) == wanted]
    return chosen
