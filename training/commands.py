"""The commands ``train`` and ``export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from models.commands import describe
from stream.console import RefusalError, model_option, progress_bar, writing
from stream.settings import Settings

if TYPE_CHECKING:
    from models.bundle import Bundle
    from training.precisions import Extended

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
@click.option(
    "--open-test",
    is_flag=True,
    help="Measure the recordings of split test too. Once, of the model that you keep; until then its figures"
    " are those of split val.",
)
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
    open_test: bool,
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
    bedside train --index data/index.csv --out runs/release --open-test
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
            open_test=open_test,
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


@click.command("export")
@model_option
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp16", "bf16", "int8"]),
    help="To add; may be given several times. With --engine: whose engine. [default: all that there are]",
)
@click.option(
    "--index",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV of recordings that thresholds are set on: path, label, split, dataset, patient_id.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the bundle with the new precisions; it may be that of the model itself.",
)
@click.option(
    "--backend", metavar="NAME", help="What sets the thresholds. [default: the first that runs the precision]"
)
@click.option("--engine", is_flag=True, help="Build TensorRT engines ahead, into the user's cache folder.")
@click.option("--lean", is_flag=True, help="With --engine: engines for TensorRT's lean runtime.")
def export(
    model: str | None,
    precisions: tuple[str, ...],
    index: Path | None,
    out: Path | None,
    backend: str | None,
    engine: bool,
    lean: bool,
) -> None:
    """Add precisions to a model, each with thresholds of its own, or build TensorRT engines ahead.

    Thresholds are set on the recordings of split `val`, by running the model in that very precision; what it
    costs in score and AUROC is printed. docs/backends.md says what runs what.

    \b
    bedside export --model cae-100hz --precision bf16 --index data/index.csv --out runs/cae
    bedside export --model runs/vae --precision fp16 --precision int8 --index data/index.csv --out runs/vae
    bedside export --model runs/vae --engine
    """
    from models.bundle import load_bundle

    bundle = load_bundle(model or Settings().model)
    if engine:
        if index is not None or out is not None:
            raise click.UsageError("--engine takes neither --index nor --out: it changes no model")
        _build_engines(bundle, precisions, lean=lean)
        return
    if not precisions or index is None or out is None:
        raise click.UsageError("name --precision, --index and --out, or --engine")
    _check_bundle_folder(out, bundle)
    try:
        from training.precisions import add_precisions
    except ModuleNotFoundError as error:
        raise _needs(error) from error
    from models.bundle import write_bundle

    wanted = list(dict.fromkeys(precisions))
    try:
        with progress_bar(f"exporting {bundle.name}", 1.0) as done:
            extended = add_precisions(bundle, wanted, index, backend=backend, on_done=done)
    except ModuleNotFoundError as error:
        raise _needs(error) from error
    except ValueError as error:
        raise RefusalError(f"{bundle.name}: {error}") from error
    with writing(str(out)):
        written = write_bundle(out, extended.manifest, extended.files)
    click.echo("\n".join([str(written.path), *_told(extended)]))


def _check_bundle_folder(out: Path, bundle: Bundle) -> None:
    # What cannot be written is said before the work, not after it.
    if out.is_dir() and any(out.iterdir()) and out.resolve() != bundle.path.resolve():
        raise RefusalError(f"{out} is not empty: name a new folder, or that of the model")


def _told(extended: Extended) -> list[str]:
    lines = []
    for report in extended.reports:
        thresholds = extended.manifest.thresholds[report.precision]
        lines += [
            f"  {report.precision}: thresholds by {report.backend}: record {thresholds.record:.3f},"
            f" window {thresholds.window:.3f}; executed here by {', '.join(report.verified)}",
            f"    score of a recording differs from float32 by {report.score_error:.4f} on average,"
            f" {report.worst_score_error:.4f} at most",
        ]
        if report.auroc is not None and report.loss is not None:
            lines.append(
                f"    AUROC {report.auroc:.4f}, {-report.loss:+.4f} against float32"
                f" ({report.normals} normals of val, {report.abnormal} abnormal of val and train)"
            )
    return [*lines, *(f"  left out: {line}" for line in extended.left_out)]


def _build_engines(bundle: Bundle, precisions: tuple[str, ...], *, lean: bool) -> None:
    from models.backends import BACKENDS
    from models.backends.cuda import CudaDevice, CudaError
    from models.backends.engines import engine_file, engine_key, engine_of, find_library

    library = find_library()
    if lean and library.name != "tensorrt":
        raise RefusalError(f"engines for the lean runtime are built by tensorrt; {library.name} is installed")
    try:
        device, executed = CudaDevice().name, "built; it is verified when the model is opened"
    except CudaError as error:
        if not library.portable:
            raise RefusalError(f"{library.name} builds engines for the GPU that it finds: {error}") from error
        device, executed = None, f"built, not executed ({error})"
    for precision in precisions or tuple(bundle.manifest.thresholds):
        if precision not in BACKENDS["tensorrt"].precisions:
            click.echo(f"{bundle.name} {precision}: left out, TensorRT does not run it", err=True)
            continue
        engine_of(library, bundle, precision, device, lean=lean)
        file = engine_file(engine_key(library, bundle.onnx(precision), device, lean=lean))
        click.echo(f"{bundle.name} {precision}: {executed}: {file}")


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
    return RefusalError(f"training and exporting need {error.name}: pip install 'bedside[train]'")
