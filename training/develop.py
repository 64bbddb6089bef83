"""Development figures of a configuration: how well it does on patients whom it has not seen.

A tool for those who change the models; it never reads a recording of split ``test``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from models.networks.build import build
from stream.console import RefusalError, check_writable, write_json, writing
from stream.leads import LEADS
from training.calibration.statistics import record_scores
from training.config import TrainConfig, load_config
from training.evaluation.by_dataset import LEAD_SETS
from training.fitting.display import progress_bars
from training.fitting.fit import choose_device, fit
from training.folds import Fold, Labels, fixed_fold, hospital_folds, patient_folds, summarise
from training.measure import finish, network_run, statistics_of
from training.provenance import code_provenance, split_hash
from training.recordings import read_index, select
from training.sources import Source, read_source, score_source

Float64Array = npt.NDArray[np.float64]
Scores = dict[str, Float64Array]
"""By set of leads: a score of each recording, NaN where it has none."""


@dataclass(frozen=True, slots=True)
class Study:
    """A configuration, the recordings that it is tried on, and how they are divided.

    Attributes
    ----------
    config : TrainConfig
    source : Source
        Labelled recordings of the splits ``train`` and ``val``.
    folds : list of Fold
    """

    config: TrainConfig
    source: Source
    folds: list[Fold]

    @property
    def labels(self) -> Labels:
        """What is known of the recordings."""
        return Labels.of(self.source.entries)

    def settings(self) -> dict[str, Any]:
        """Return what results must share to be put together."""
        config = self.config.model_dump(mode="json", exclude={"name", "description", "alarm", "max_batch"})
        del config["fit"]["seed"]
        return {
            "config": config,
            "split_sha256": split_hash({"": self.source.entries}),
            "held": [int(fold.held.sum()) for fold in self.folds],
        }


def run_fold(
    study: Study,
    number: int,
    seed: int,
    *,
    device: torch.device,
    checkpoint: Path | None = None,
    on_epoch: Any = None,
) -> Scores:
    """Train on the normals of all other folds and score what this one holds.

    All epochs are run and the last weights are taken, so that nothing is chosen by what is measured.

    Parameters
    ----------
    study : Study
    number : int
        Of the fold.
    seed : int
    device : torch.device
    checkpoint : pathlib.Path, optional
        See `training.fitting.fit.fit`.
    on_epoch : callable, optional
        Called with the epochs that are over.

    Returns
    -------
    dict of str to numpy.ndarray of float64, shape (recordings,)
    """
    fold = study.folds[number]
    config = study.config.model_copy(update={"fit": study.config.fit.model_copy(update={"seed": seed})})
    torch.manual_seed(seed)
    network = build(config.network)
    train = np.flatnonzero(fold.train)
    fitted = fit(
        network,
        study.source.signals,
        None,
        config,
        records=train,
        data=f"{split_hash({'': study.source.entries})} {number}",
        device="cuda" if device.type == "cuda" else "cpu",
        checkpoint=checkpoint,
        report=None if on_epoch is None else lambda history: on_epoch(len(history)),
    )
    finish(network, fitted.weights, study.source, config, train)
    run = network_run(network, device, config.score.kind)
    spec = statistics_of(run, study.source, config, train)
    scores: Scores = {}
    for leads, chosen in LEAD_SETS.items():
        kept = np.array([chosen is None or lead in chosen for lead in LEADS])
        wanted = np.flatnonzero(fold.held | fold.abnormal)
        windows, record = score_source(run, study.source, spec, kept, records=wanted)
        scores[leads] = record_scores(windows, record, len(study.source.entries))
    return scores


class ResultFile:
    """Results of the folds that are over, a line of JSON each: an interrupted study goes on from there.

    Parameters
    ----------
    path : pathlib.Path
    settings : mapping of str to object

    Raises
    ------
    RefusalError
        If the file holds results of another study, or cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.results: dict[tuple[int, int], Scores] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        whole = [parsed for line in lines if (parsed := _parsed(line)) is not None]
        if whole and whole[0] != {"settings": settings}:
            raise RefusalError(f"{path} holds results of another configuration or other data: remove it")
        for result in whole[1:]:
            scores = {leads: np.array(values, np.float64) for leads, values in result["scores"].items()}
            self.results[result["seed"], result["fold"]] = scores
        # Anew, without a line that a crash left unfinished.
        self._write("w", [json.dumps(line) for line in whole or [{"settings": settings}]])

    def add(self, seed: int, fold: int, scores: Scores) -> None:
        """Keep the scores of a fold."""
        self.results[seed, fold] = scores
        # None for NaN, which JSON does not have.
        listed = {
            leads: [None if np.isnan(value) else round(value, 6) for value in values.tolist()]
            for leads, values in scores.items()
        }
        self._write("a", [json.dumps({"seed": seed, "fold": fold, "scores": listed})])

    def _write(self, mode: str, lines: list[str]) -> None:
        with writing(str(self._path)), self._path.open(mode, encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return parsed


def table(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures as lines of text."""
    lines = [
        f"{'leads':8} {'data':24} {'mean':>6} {'±folds':>7} {'±seeds':>7}  {'pooled [95 %]':20} {'normal':>7}"
        f" {'abnormal':>8}"
    ]
    for leads, groups in figures.items():
        for name, group in groups.items():
            for part, found in ((name, group), (f"{name}, rhythm only", group.get("rhythm_only"))):
                if found is None or found["mean"] is None:
                    continue
                ends = found["pooled_ci"]
                pooled = "" if ends is None else f"{found['pooled']:.3f} [{ends[0]:.2f}, {ends[1]:.2f}]"
                lines.append(
                    f"{leads:8} {part:24} {found['mean']:6.3f} {_number(found['sd_folds']):>7}"
                    f" {_number(found['sd_seeds']):>7}  {pooled:20} {found['n_normal']:7}"
                    f" {found['n_abnormal']:8}"
                )
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


@click.command()
@click.option("--config", "config_name", metavar="NAME|FILE", required=True)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a key.")
@click.option(
    "--index",
    "indices",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--split",
    type=click.Choice(["folds", "fixed", "hospitals"]),
    default="folds",
    show_default=True,
    help="Folds by patient over the normals of train and val; or, for slow models, train against val; or each"
    " data set against a model that saw none of its normals.",
)
@click.option("--folds", "n_folds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="In place of the configuration's.")
@click.option("--json", "json_path", metavar="FILE", help="Result; FILE.folds holds those that are over.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def main(
    config_name: str,
    overrides: tuple[str, ...],
    indices: tuple[Path, ...],
    split: str,
    n_folds: int,
    seeds: int,
    epochs: int | None,
    json_path: str | None,
    threads: int | None,
    device: Any,
) -> None:
    """Measure how well a configuration separates abnormal recordings from held-out normals.

    \b
    python -m training.develop --config cae-100hz --index data/index.csv --json cae.json
    python -m training.develop --config thesis-vae-bilstm --index data/index.csv --split fixed --seeds 1
    python -m training.develop --config cae-100hz --index data/index.csv --split hospitals --seeds 1
    """  # noqa: D301 (click needs the control character)
    given = [*overrides, *([] if epochs is None else [f"fit.epochs={epochs}"])]
    config = load_config(config_name, given)
    where = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if json_path is not None:
        check_writable(json_path)
    entries = [entry for index in indices for entry in read_index(index)]
    entries = [*select(entries, split="train"), *select(entries, split="val")]
    console = Console(stderr=True)
    with progress_bars(console) as progress:
        source = read_source(entries, config, what="reading recordings", progress=progress)
        for line in source.left_out:
            console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
        labels = Labels.of(source.entries)
        splits = np.array([entry.split for entry in source.entries], np.str_)
        folds = {
            "folds": lambda: patient_folds(labels, n_folds),
            "fixed": lambda: fixed_fold(labels, splits),
            "hospitals": lambda: hospital_folds(labels),
        }[split]()
        study = Study(config, source, folds)
        kept = None if json_path is None else ResultFile(Path(f"{json_path}.folds"), study.settings())
        results = {} if kept is None else kept.results
        started = time.monotonic()
        whole = progress.add_task("folds", total=seeds * len(folds))
        epoch = progress.add_task("epochs", total=config.fit.epochs)
        for seed in range(seeds):
            for number in range(len(folds)):
                if (seed, number) not in results:
                    progress.reset(epoch, description=f"seed {seed}, fold {number}: epochs")
                    part = None if json_path is None else Path(f"{json_path}.seed{seed}-fold{number}")
                    scores = run_fold(
                        study,
                        number,
                        seed,
                        device=where,
                        checkpoint=part,
                        on_epoch=lambda done: progress.update(epoch, completed=done),
                    )
                    results[seed, number] = scores
                    if kept is not None:
                        kept.add(seed, number, scores)
                    if part is not None:
                        part.unlink()
                progress.update(whole, advance=1)
    wanted = {key: value for key, value in results.items() if key[0] < seeds}
    figures = {
        leads: summarise(labels, folds, {key: scores[leads] for key, scores in wanted.items()})
        for leads in LEAD_SETS
    }
    click.echo("\n".join(table(figures)))
    if json_path is not None:
        result = {
            "config": config.model_dump(mode="json"),
            "split": split,
            "folds": len(folds),
            "seeds": seeds,
            "recordings": len(source.entries),
            "left_out": len(source.left_out),
            "seconds": round(time.monotonic() - started),
            "code": code_provenance(where),
            "figures": figures,
        }
        write_json(result, json_path)


if __name__ == "__main__":
    try:
        main(prog_name="python -m training.develop", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    except (RefusalError, ValueError) as error:
        click.echo(f"develop: {error}", err=True)
        sys.exit(1)
