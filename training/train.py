"""From an index of recordings to a model bundle."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.numpy import save as save_safetensors

from models.architectures import CaeConfig
from models.backends import open_session
from models.bundle import WEIGHTS, Bundle, GoldenData, golden_file, onnx_file, write_bundle
from models.export import export_cae
from models.manifest import AlarmRule, FilterSpec, Golden, Manifest, ScoreSpec, WindowSpec
from models.networks.cae import Cae
from models.scoring import score
from stream.leads import LEADS
from stream.preprocess import group_delay_ms
from training.calibrate import Run, score_statistics, score_windows, thresholds
from training.dataset import CropSource, grid_windows
from training.evaluate import evaluate
from training.fit import FitConfig, fit
from training.golden import golden_input
from training.recordings import Entry, Signal, read_index, select

FloatArray = npt.NDArray[np.float32]

WINDOW = WindowSpec(fs=100.0, samples=800, hop=50)
"""Eight seconds at 100 Hz, every half second: of those tried, the rate and length that separate best."""

ALARM_RULE = AlarmRule(k=17, n=24, clear=8)
"""A single moment lies in 16 windows of 8 s, half a second apart: with 17 no single disturbance raises an
alarm. They are sought among 24 windows, which span 19.5 s, more than two window lengths, because windows that
overlap are not independent; when two thirds of those are below the threshold, it ends."""

_FILTER = FilterSpec()
# What a bundle may differ by when it is opened on another processor, whose float32 sums run in another
# order: reconstructions are of order 1, and so are scores.
_RTOL, _ATOL = 1e-4, 1e-5
# On the CPU a window costs the same in a batch of any size (0.29 ms on one core); 32 bounds the wait of the
# first one in a batch to 10 ms, and the memory of the run.
_MAX_BATCH = 32


def train_bundle(
    index: Path,
    out_dir: Path,
    *,
    name: str = "cae-100hz",
    network: CaeConfig | None = None,
    config: FitConfig | None = None,
    created: str | None = None,
    threads: int | None = None,
    console: Console | None = None,
) -> Bundle:
    """Train a model on normal recordings and write it as a bundle.

    Weights are fitted to the normals of split ``train`` and chosen by those of ``val``; scores are
    standardised on the former, thresholds set on the latter. The recordings of split ``test`` are only
    measured, once, at the end.

    Parameters
    ----------
    index : pathlib.Path
        See `training.recordings.read_index`.
    out_dir : pathlib.Path
        Folder for the bundle. A checkpoint stands beside it, as ``<out_dir>.checkpoint``, until the bundle
        is complete; if there is one, training goes on from it.
    name : str
        Of the model.
    network : CaeConfig, optional
    config : FitConfig, optional
    created : str, optional
        Date in the manifest, ISO 8601; default today.
    threads : int, optional
        Of torch.
    console : rich.console.Console, optional
        Where progress is shown; nowhere if not given.

    Returns
    -------
    Bundle

    Raises
    ------
    IndexFileError
        If the index cannot be used.
    ValueError
        If it names too few normals to train or validate with.
    """
    network, config = network or CaeConfig(), config or FitConfig()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    model = Cae(network)
    entries = read_index(index)
    train = select(entries, split="train", label=0)
    validation = select(entries, split="val", label=0)
    test = select(entries, split="test")
    with _progress(console) as progress:
        train_signals = _read(train, "reading normals to train on", progress)
        validation_signals = _read(validation, "reading normals to validate with", progress)
        test_signals = _read(test, "reading test recordings", progress)
        validation_windows = grid_windows(validation_signals, LEADS, _FILTER, WINDOW)
        checkpoint = out_dir.with_name(out_dir.name + ".checkpoint")
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        crops = CropSource(train_signals, LEADS, _FILTER, WINDOW)
        fitted = fit(model, crops, validation_windows, config, checkpoint=checkpoint, progress=progress)

    model.load_state_dict({key: torch.from_numpy(value) for key, value in fitted.weights.items()})
    run = _runner(model)
    train_windows = grid_windows(train_signals, LEADS, _FILTER, WINDOW)
    complete = train_windows.select(np.asarray(train_windows.mask.all(axis=1)))
    spec = score_statistics(run, complete, seed=config.seed)
    scores = score_windows(run, validation_windows, spec).window
    operating = thresholds(scores, validation_windows.record, len(validation))
    test_windows = grid_windows(test_signals, LEADS, _FILTER, WINDOW)
    metrics = evaluate(run, test_windows, test, LEADS, spec, operating) if test else {}

    manifest = Manifest(
        name=name,
        architecture=network.architecture,
        description="Convolutional autoencoder for any subset of twelve leads, 8 s at 100 Hz; "
        "research use only, not a medical device",
        created=created or date.today().isoformat(),
        leads=LEADS,
        filter=_FILTER.model_copy(update={"delay_ms": round(group_delay_ms(_FILTER), 1)}),
        window=WINDOW,
        score=spec,
        thresholds={"fp32": operating},
        alarm=ALARM_RULE,
        golden={"fp32": Golden(file=golden_file("fp32"), rtol=_RTOL, atol=_ATOL)},
        max_batch=_MAX_BATCH,
        parameters=sum(value.size for value in fitted.weights.values()),
        hyperparameters={
            "network": network.model_dump(mode="json"),
            "fit": asdict(config),
            "epoch": fitted.epoch,
            "history": [[round(value, 5) for value in pair] for pair in fitted.history],
        },
        metrics={
            "what": "development figures on recordings of split test: AUROC of record scores (mean of "
            "window scores) with a 95 % bootstrap interval; rhythm_only recordings stand apart",
            "test": metrics,
        },
        data=_provenance(index, {"train": train, "val": validation, "test": test}),
        sha256={},
    )
    bundle = write_bundle(
        out_dir,
        manifest,
        {
            WEIGHTS: save_safetensors(fitted.weights),
            onnx_file("fp32"): export_cae(network, fitted.weights),
            golden_file("fp32"): _golden(run, spec).to_bytes(),
        },
    )
    open_session(bundle)
    checkpoint.unlink(missing_ok=True)
    return bundle


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=console is None)


def _read(entries: Sequence[Entry], what: str, progress: Progress) -> list[Signal]:
    return [entry.read() for entry in progress.track(entries, description=what)]


def _runner(model: Cae) -> Run:
    model.eval()

    def run(x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        with torch.no_grad():
            outputs = model(torch.from_numpy(x), torch.from_numpy(mask))
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def _golden(run: Run, spec: ScoreSpec) -> GoldenData:
    x, mask = golden_input(LEADS, WINDOW.samples, WINDOW.fs)
    outputs = dict(run(x, mask))
    counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
    return GoldenData(x, mask, outputs, score(x, outputs, counted, mask, spec).window)


def _provenance(index: Path, used: dict[str, Sequence[Entry]]) -> dict[str, Any]:
    # Counts and licences, no paths: a bundle leaves the machine on which it was made.
    everything = [entry for entries in used.values() for entry in entries]
    licences: dict[str, set[str]] = {}
    for entry in everything:
        licences.setdefault(entry.dataset, set()).add(entry.licence or "unknown")
    return {
        "index_sha256": hashlib.sha256(index.read_bytes()).hexdigest(),
        "recordings": {
            split: dict(sorted(Counter(entry.dataset for entry in entries).items()))
            for split, entries in used.items()
        },
        "licences": {dataset: sorted(found) for dataset, found in sorted(licences.items())},
        "use": "normals (label 0) of train: weights and score statistics; normals of val: choice of the "
        "epoch and thresholds; test: metrics only",
    }
