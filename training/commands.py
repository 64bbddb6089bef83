"""The command ``train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from models.commands import describe
from stream.console import RefusalError

_DATASETS = {"ptbxl": ("ptbxl",), "mimic": ("mimic",), "both": ("ptbxl", "mimic")}


@click.command("train")
@click.option(
    "--dataset",
    type=click.Choice(list(_DATASETS)),
    help="Recordings that `bedside preprocess` wrote below --data.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default="packs",
    show_default=True,
    help="Folder with the packs ptbxl and mimic.",
)
@click.option(
    "--index",
    "indices",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of recordings: path, label, split and optionally dataset, rhythm_only, patient_id, licence."
    " May be given several times.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the bundle."
)
@click.option(
    "--config",
    "config_name",
    metavar="NAME|FILE",
    default="cae-100hz",
    show_default=True,
    help="What to train: a configuration that comes with the package, or a TOML file.",
)
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a key, such as fit.batch=64."
)
@click.option("--name", help="Name of the model. [default: the configuration's]")
@click.option("--epochs", type=click.IntRange(1), help="In place of the configuration's.")
@click.option("--seed", type=click.IntRange(0), help="In place of the configuration's.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch. [default: its own choice]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--tensorboard",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write event files for TensorBoard too. A CSV file of all epochs is always written beside --out.",
)
def train(
    dataset: str | None,
    data: Path,
    indices: tuple[Path, ...],
    out: Path,
    config_name: str,
    overrides: tuple[str, ...],
    name: str | None,
    epochs: int | None,
    seed: int | None,
    threads: int | None,
    device: Literal["auto", "cpu", "cuda"],
    tensorboard: Path | None,
) -> None:
    """Train a model on normal recordings and write it as a bundle (needs the extra `train`).

    A run that was interrupted goes on from its last epoch when it is started again. docs/training.md says
    what stands in a configuration.

    \b
    bedside train --index data/index.csv --out runs/cae-100hz
    bedside train --dataset both --config vae-bilstm-100hz --out runs/vae
    bedside train --index data/index.csv --config mine.toml --set fit.batch=64 --out runs/mine
    bedside analyze RECORD --model runs/mine
    """
    if not dataset and not indices:
        raise click.UsageError("name recordings with --dataset or --index")
    from training.config import ConfigError, load_config

    given = list(overrides)
    if name is not None:
        given.append(f"name={json.dumps(name)}")
    if seed is not None:
        given.append(f"fit.seed={seed}")
    try:
        config = load_config(config_name, given)
    except ConfigError as error:
        raise RefusalError(str(error)) from error
    packs = _packs(dataset, data)
    # After everything that is quickly refused: it takes seconds.
    try:
        from training.train import train_bundle
    except ModuleNotFoundError as error:
        raise _needs(error) from error
    from rich.console import Console

    checkpoint = out.with_name(out.name + ".checkpoint")
    try:
        bundle = train_bundle(
            [*packs, *indices],
            out,
            config,
            epochs=epochs,
            threads=threads,
            device=device,
            tensorboard=tensorboard,
            console=Console(stderr=True),
        )
    except ModuleNotFoundError as error:
        raise _needs(error) from error
    except ValueError as error:
        raise RefusalError(str(error)) from error
    except OSError as error:
        raise RefusalError(f"cannot write {error.filename or out}: {error.strerror}") from error
    except KeyboardInterrupt:
        raise RefusalError(
            f"stopped; all complete epochs are in {checkpoint}: the same command goes on from there"
            if checkpoint.exists()
            else "stopped before the first epoch was complete: nothing is kept"
        ) from None
    click.echo("\n".join([str(bundle.path), *describe(bundle)]))


def _packs(dataset: str | None, data: Path) -> list[Path]:
    # Indices of the packs that `bedside preprocess` wrote.
    indices = []
    for name in _DATASETS.get(dataset or "", ()):
        index = data / name / "index.csv"
        if not index.is_file():
            raise RefusalError(
                f"no {index}: make it with `bedside preprocess {name} SOURCE --out {index.parent}`,"
                " or say with --data where it is"
            )
        indices.append(index)
    return indices


def _needs(error: ModuleNotFoundError) -> RefusalError:
    return RefusalError(f"training needs {error.name}: pip install 'bedside[train]'")
