"""The command ``train``."""

from __future__ import annotations

from pathlib import Path

import click

from models.commands import describe
from stream.console import RefusalError


@click.command("train")
@click.option(
    "--index",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="CSV of recordings: path, label, split and optionally dataset, rhythm_only, patient_id, licence.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the bundle."
)
@click.option("--name", default="cae-100hz", show_default=True, help="Name of the model.")
@click.option("--epochs", type=click.IntRange(1), help="At most so many.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads of torch. [default: its own choice]")
def train(index: Path, out: Path, name: str, epochs: int | None, seed: int, threads: int | None) -> None:
    """Train a model on normal recordings and write it as a bundle (needs the extra `train`).

    A run that was interrupted goes on from its last epoch when it is started again.

    \b
    bedside train --index data/index.csv --out runs/cae-100hz
    bedside analyze RECORD --model runs/cae-100hz
    """
    try:
        from training.fit import FitConfig
        from training.recordings import IndexFileError
        from training.train import train_bundle
    except ModuleNotFoundError as error:
        raise RefusalError(f"training needs {error.name}: pip install 'bedside[train]'") from error
    from rich.console import Console

    config = FitConfig(seed=seed) if epochs is None else FitConfig(seed=seed, epochs=epochs)
    try:
        bundle = train_bundle(
            index, out, name=name, config=config, threads=threads, console=Console(stderr=True)
        )
    except (IndexFileError, ValueError) as error:
        raise RefusalError(str(error)) from error
    click.echo("\n".join([str(bundle.path), *describe(bundle)]))
