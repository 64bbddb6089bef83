"""From indices of recordings and a configuration to a model bundle."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from safetensors.numpy import save as save_safetensors
from torch import nn

from models.backends import open_session
from models.bundle import WEIGHTS, Bundle, GoldenData, golden_file, onnx_file, write_bundle
from models.export import export
from models.manifest import Golden, Manifest, ScoreSpec, Thresholds, WindowSpec
from models.networks.build import build
from models.scoring import score
from stream.leads import LEADS
from stream.preprocess import group_delay_ms
from training.calibration.recalibrate import choose
from training.config import TrainConfig
from training.fitting.display import Report, csv_log, progress_bars, tensorboard_log
from training.fitting.fit import Device, Fitted, choose_device, fit
from training.golden import golden_input
from training.measure import figures_of, finish, maps_of, network_run, operating_points_of, statistics_of
from training.provenance import code_provenance, data_provenance, split_hash
from training.recordings import Entry, read_index, select
from training.sources import Source, read_source, some_windows

FloatArray = npt.NDArray[np.float32]

# What a bundle may differ by when it is opened on another processor, whose float32 sums run in another
# order: reconstructions are of order 1, and so are scores.
_RTOL, _ATOL = 1e-4, 1e-5

# Recordings that choose the epoch: their windows are held in memory, half a gigabyte, and the mean loss of
# so many is known far better than it differs from one epoch to the next. Thresholds use all.
_VALIDATION_RECORDINGS = 2000
# Recordings left out that are named; the rest is counted.
_NAMED = 5


def train_bundle(
    indices: Sequence[Path],
    out_dir: Path,
    config: TrainConfig,
    *,
    epochs: int | None = None,
    open_test: bool = False,
    created: str | None = None,
    threads: int | None = None,
    device: Device = "auto",
    tensorboard: Path | None = None,
    console: Console | None = None,
) -> Bundle:
    """Train a model on normal recordings and write it as a bundle.

    Weights are fitted to the normals of split ``train`` and chosen by those of ``val``; scores are
    standardised on the former, thresholds set on the latter. The recordings of split ``test`` are not
    looked at unless it is asked for.

    Parameters
    ----------
    indices : sequence of pathlib.Path
        See `training.recordings.read_index`.
    out_dir : pathlib.Path
        Folder for the bundle. A checkpoint stands beside it, as ``<out_dir>.checkpoint``, until the bundle
        is complete; if there is one, training goes on from it. ``<out_dir>.metrics.csv`` has a row for each
        epoch.
    config : TrainConfig
    epochs : int, optional
        In place of those of `config`; a model that had fewer is marked as undertrained.
    open_test : bool
        Whether to measure the recordings of split ``test`` at the end. Whoever trains many times and looks
        at them each time chooses by them, whether he means to or not.
    created : str, optional
        Date in the manifest, ISO 8601; default today.
    threads : int, optional
        Of torch.
    device : {"auto", "cpu", "cuda"}
    tensorboard : pathlib.Path, optional
        Folder for TensorBoard's event files.
    console : rich.console.Console, optional
        Where progress is shown; nowhere if not given.

    Returns
    -------
    Bundle

    Raises
    ------
    IndexFileError
        If an index cannot be used.
    ValueError
        If there is too little to train, validate or calibrate with, or the training fails.
    OSError
        If something cannot be written.
    """
    where = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    run_config = config
    if epochs is not None:
        run_config = config.model_copy(update={"fit": config.fit.model_copy(update={"epochs": epochs})})
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    reports = [csv_log(out_dir.with_name(out_dir.name + ".metrics.csv"))]
    if tensorboard is not None:
        reports.append(tensorboard_log(tensorboard))
    entries = [entry for index in indices for entry in read_index(index)]
    chosen = choose(entries)
    torch.manual_seed(config.fit.seed)
    model = build(config.network)
    checkpoint = out_dir.with_name(out_dir.name + ".checkpoint")
    with progress_bars(console) as progress:

        def read(what: str, some: Sequence[Entry]) -> Source:
            source = read_source(
                some, config, what=f"reading {what}", folder=out_dir.parent, progress=progress
            )
            _name(source.left_out, console)
            return source

        sources = {
            "train": read("normals of train", select(entries, split="train", label=0)),
            "val": read("normals of val", select(entries, split="val", label=0)),
        }
        fitted = fit(
            model,
            sources["train"].signals,
            some_windows(sources["val"], _VALIDATION_RECORDINGS),
            run_config,
            data=split_hash({split: source.entries for split, source in sources.items()}),
            device=device,
            checkpoint=checkpoint,
            report=_all(reports),
            progress=progress,
        )
        weights = finish(model, fitted.weights, sources["train"], config)
        run = network_run(model, where, config.score.kind)
        measuring = progress.add_task("measuring how normals score", total=None)
        spec = statistics_of(run, sources["train"], config)
        progress.update(measuring, total=1, completed=1)
        abnormal = read("abnormal ones of val", select(entries, split="val", label=1))
        operating, unused = operating_points_of(
            run,
            spec,
            config,
            normals=sources["val"],
            abnormal=abnormal,
            lasting=chosen.lasting,
            progress=progress,
        )
        _name(unused, console)
        maps = maps_of(run, spec, config, sources["val"], progress)
        sources["val_abnormal"] = abnormal
        figures = {"val": figures_of(run, spec, [sources["val"], abnormal], operating.record, progress)}
        if open_test:
            sources["test"] = read("test", select(entries, split="test"))
            figures["test"] = figures_of(run, spec, [sources["test"]], operating.record, progress)

    manifest = _manifest(config, run_config, fitted, spec, operating).model_copy(
        update={
            "created": created or date.today().isoformat(),
            "explanations": maps,
            "metrics": _metrics(config, run_config, figures),
            "data": data_provenance(
                indices,
                {split: source.entries for split, source in sources.items()},
                [line for source in sources.values() for line in source.left_out],
            )
            | {"code": code_provenance(where)},
        }
    )
    bundle = write_bundle(
        out_dir,
        manifest,
        {
            WEIGHTS: save_safetensors(weights),
            onnx_file("fp32"): export(config.network, weights, "fp32"),
            golden_file("fp32"): _golden(model, config.window, spec).to_bytes(),
        },
    )
    open_session(bundle)
    checkpoint.unlink(missing_ok=True)
    return bundle


def _name(left_out: Sequence[str], console: Console | None) -> None:
    if not left_out or console is None:
        return
    for line in left_out[:_NAMED]:
        console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
    more = f", {len(left_out) - _NAMED} more than are named" if len(left_out) > _NAMED else ""
    console.print(f"{len(left_out)} of these recordings are left out{more}", highlight=False)


def _all(reports: Sequence[Report]) -> Report:
    def report(history: Any) -> None:
        for one in reports:
            one(history)

    return report


def _manifest(
    config: TrainConfig, run_config: TrainConfig, fitted: Fitted, spec: ScoreSpec, operating: Thresholds
) -> Manifest:
    return Manifest(
        name=config.name,
        architecture=config.network.architecture,
        description=config.description,
        created="",
        leads=LEADS,
        filter=config.filter.model_copy(update={"delay_ms": round(group_delay_ms(config.filter), 1)}),
        window=config.window,
        score=spec,
        thresholds={"fp32": operating},
        alarm=config.alarm,
        golden={"fp32": Golden(file=golden_file("fp32"), rtol=_RTOL, atol=_ATOL)},
        max_batch=config.max_batch,
        parameters=sum(value.size for value in fitted.weights.values()),
        hyperparameters=_hyperparameters(config, run_config, fitted),
        metrics={},
        data={},
        sha256={},
    )


def _undertrained(config: TrainConfig, run_config: TrainConfig) -> dict[str, bool]:
    # Said only of a model of which it is true.
    return {"undertrained": True} if run_config.fit.epochs < config.fit.epochs else {}


def _metrics(config: TrainConfig, run_config: TrainConfig, figures: dict[str, Any]) -> dict[str, Any]:
    what = (
        "figures by split, with 95 % bootstrap intervals over patients; normals of val chose the epoch and "
        "the threshold, so that its figures look better than they are; test, if it is there, chose nothing; "
        "the score of a recording is the mean of its windows'; rhythm_only recordings stand apart"
    )
    return {"what": what, **_undertrained(config, run_config), **figures}


def _hyperparameters(config: TrainConfig, run_config: TrainConfig, fitted: Fitted) -> dict[str, Any]:
    last = fitted.history[fitted.epoch - 1]
    return {
        **run_config.model_dump(
            mode="json", include={"network", "loss", "fit", "augmentation"}, exclude_none=True
        ),
        "epochs_meant": config.fit.epochs,
        "epochs_run": len(fitted.history),
        "epoch": fitted.epoch,
        "history": [[_rounded(epoch.loss), _rounded(epoch.validation_loss)] for epoch in fitted.history],
        **({} if last.active is None else {"active_dimensions": last.active}),
        **_undertrained(config, run_config),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _golden(model: nn.Module, window: WindowSpec, spec: ScoreSpec) -> GoldenData:
    x, mask = golden_input(LEADS, window.samples, window.fs)
    outputs = dict(network_run(model, torch.device("cpu"), spec.kind)(x, mask))
    counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
    return GoldenData(x, mask, outputs, score(x, outputs, counted, mask, spec).window)
