from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter

pytest.importorskip("torch", reason="needs the extra train")

from models.architectures import NetworkConfig
from models.backends import open_session
from models.bundle import list_bundles, load_bundle
from models.export import export
from stream.console import RefusalError
from tests.command_line import run
from training.calibration.statistics import record_scores, score_windows
from training.commands import train
from training.config import TrainConfig, load_config
from training.dataset import grid_windows
from training.evaluation.by_dataset import LEAD_SETS, figures_by_dataset
from training.golden import golden_input
from training.recordings import Entry, Signal, read_index, select
from training.train import train_bundle

MakeIndex = Callable[..., Path]

TINY = """
name = "tiny"
description = "a small one"
[network]
architecture = "{architecture}"
samples = 200
{network}
[window]
fs = 50.0
samples = 200
hop = 25
[loss]
kind = "{loss}"
[score]
kind = "{score}"
[calibration]
windows = 60
stretches = 1
maps = 2
[fit]
epochs = 3
batch = 8
crops_per_record = 4
[alarm]
k = 9
n = 12
clear = 3
"""
NETWORKS = {
    "cae": ("channels = [8, 8]\nwide_kernel = 5", "mse", "log_mse"),
    "vae-bilstm": (
        "patch = 20\nhidden = 8\nlatent = 4\nlatent_steps = 2\ndecoder_hidden = 8",
        "elbo",
        "log_normalised",
    ),
    "vae-bilstm-mha": (
        "patch = 20\nencoder = [8, 8]\nlatent = 4\nlead_width = 8\ntemporal_width = 8\ndecoder = [8, 8]",
        "elbo",
        "attention_elbo",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def config_file(folder: Path, architecture: str = "cae") -> Path:
    network, loss, score = NETWORKS[architecture]
    path = folder / f"{architecture}.toml"
    path.write_text(TINY.format(architecture=architecture, network=network, loss=loss, score=score))
    return path


def tiny(folder: Path, architecture: str = "cae") -> TrainConfig:
    return load_config(config_file(folder, architecture))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(NETWORKS))
def test_an_index_becomes_a_bundle_that_serves(
    made_up_index: MakeIndex, tmp_path: Path, architecture: str
) -> None:
    index, out = made_up_index(abnormal_of_val=2), tmp_path / "runs" / "tiny"
    config = tiny(tmp_path, architecture)
    bundle = train_bundle([index], out, config, created="2026-11-22", device="cpu")
    session = open_session(load_bundle(out))
    manifest = session.manifest
    assert manifest == bundle.manifest
    assert (manifest.name, manifest.created, manifest.architecture) == ("tiny", "2026-11-22", architecture)
    assert not out.with_name("tiny.checkpoint").exists()
    assert manifest.data["recordings"]["train"] == {"source-0": 4, "source-1": 4}
    assert manifest.data["left_out"] == 0
    assert manifest.data["code"]["bedside"]
    assert str(tmp_path) not in manifest.model_dump_json()
    assert manifest.score.kind == config.score.kind
    assert manifest.thresholds["fp32"].records == 3
    assert "error" in manifest.explanations
    assert ("active_dimensions" in manifest.hyperparameters) == (architecture != "cae")
    assert "undertrained" not in manifest.metrics
    assert "test" not in manifest.metrics
    figures = manifest.metrics["val"]["all"]["all"]
    # Of the two abnormal ones in the split, one is marked rhythm-only.
    assert (figures["n_normal"], figures["n_abnormal"]) == (3, 1)
    assert figures["rhythm_only"]["n_abnormal"] == 1
    assert "test" not in manifest.data["recordings"]
    with out.with_name("tiny.metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["validation_loss"]) == pytest.approx(
        manifest.hyperparameters["history"][-1][1], rel=1e-3
    )

    again = train_bundle([index], tmp_path / "again", config, device="cpu")
    assert again.manifest.sha256 == manifest.sha256
    assert again.manifest.score == manifest.score


def test_what_cannot_be_read_is_named_and_counted(
    made_up_index: MakeIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    index = made_up_index()
    (tmp_path / "r1.dat").unlink()
    (tmp_path / "r2.hea").write_text("no header")
    bundle = train_bundle([index], tmp_path / "out", tiny(tmp_path), epochs=1, console=Console(stderr=True))
    said = " ".join(capsys.readouterr().err.split())
    assert bundle.manifest.data["left_out"] == 2
    assert sum(bundle.manifest.data["recordings"]["train"].values()) == 6
    assert "r1" in said
    assert "2 of these recordings are left out" in said


def test_fewer_epochs_than_meant_are_confessed(made_up_index: MakeIndex, tmp_path: Path) -> None:
    bundle = train_bundle([made_up_index()], tmp_path / "out", tiny(tmp_path), epochs=2)
    assert bundle.manifest.metrics["undertrained"] is True
    found = bundle.manifest.hyperparameters
    assert (found["undertrained"], found["epochs_run"], found["epochs_meant"]) == (True, 2, 3)


def test_the_test_split_is_measured_only_if_it_is_asked_for(made_up_index: MakeIndex, tmp_path: Path) -> None:
    index, config = made_up_index(abnormal_of_val=2), tiny(tmp_path)
    closed = train_bundle([index], tmp_path / "closed", config, epochs=1)
    opened = train_bundle([index], tmp_path / "opened", config, epochs=1, open_test=True)
    assert opened.manifest.metrics["val"] == closed.manifest.metrics["val"]
    # Nothing of the model itself depends on it.
    assert opened.manifest.sha256 == closed.manifest.sha256
    assert opened.manifest.thresholds == closed.manifest.thresholds
    figures = opened.manifest.metrics["test"]["all"]["all"]
    assert (figures["n_normal"], figures["n_abnormal"]) == (3, 2)
    assert opened.manifest.data["recordings"]["test"] == {"source-0": 4, "source-1": 2}


def test_without_the_option_no_file_of_the_test_split_is_opened(
    made_up_index: MakeIndex, tmp_path: Path
) -> None:
    index = made_up_index()
    for entry in select(read_index(index), split="test"):
        entry.path.unlink()
        entry.path.with_suffix(".hea").unlink()
    bundle = train_bundle([index], tmp_path / "out", tiny(tmp_path), epochs=1)
    assert bundle.manifest.data["left_out"] == 0


@pytest.mark.slow
def test_the_command_trains_and_reports(made_up_index: MakeIndex, tmp_path: Path) -> None:
    out, index = tmp_path / "bundle", str(made_up_index(abnormal_of_val=2))
    arguments = [
        "--index",
        index,
        "--index",
        index,
        "--out",
        str(out),
        "--config",
        str(config_file(tmp_path)),
    ]
    arguments += ["--name", "mine", "--seed", "3", "--set", "fit.epochs=2", "--device", "cpu", "--open-test"]
    arguments += ["--tensorboard", str(tmp_path / "events")]
    done = CliRunner().invoke(train, arguments)
    assert done.exit_code == 0, done.output
    assert str(out) in done.stdout
    assert "split val, which chose" in done.stdout
    assert "split test, which chose nothing" in done.stdout
    manifest = load_bundle(out).manifest
    assert manifest.name == "mine"
    assert manifest.hyperparameters["fit"]["seed"] == 3
    assert sum(manifest.data["recordings"]["train"].values()) == 16
    assert any((tmp_path / "events").iterdir())


def test_packs_are_found_below_the_data_folder(made_up_index: MakeIndex, tmp_path: Path) -> None:
    index = made_up_index()
    for name in ("ptbxl", "mimic"):
        folder = tmp_path / "packs" / name
        folder.mkdir(parents=True)
        lines = index.read_text().splitlines()
        (folder / "index.csv").write_text("\n".join([lines[0], *(f"../../{line}" for line in lines[1:])]))
    arguments = ["--data", str(tmp_path / "packs"), "--config", str(config_file(tmp_path)), "--epochs", "1"]
    out = tmp_path / "both"
    done = CliRunner().invoke(train, ["--dataset", "both", "--out", str(out), *arguments])
    assert done.exit_code == 0, done.output
    manifest = load_bundle(out).manifest
    assert sum(manifest.data["recordings"]["train"].values()) == 16
    assert len(manifest.data["index_sha256"].split()) == 2


def interruptible() -> None:
    """Let Ctrl-C reach a child: one that a shell has put in the background ignores it, and so do its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "bedside", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=interruptible,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--index", "INDEX"], "no recordings to train on: normals (label 0) of split train"),
        (["--dataset", "mimic", "--data", "/nowhere"], "no /nowhere/mimic/index.csv: make it with"),
        (["--index", "INDEX", "--config", "none"], "no configuration 'none': name one of"),
        (["--index", "INDEX", "--set", "fit.speed=9"], "cae-100hz.toml: fit.speed: there is no such key"),
        (["--index", "INDEX", "--out", "/proc/none/x"], "cannot write /proc/none: "),
    ],
)
def test_the_command_refuses_what_it_cannot_use(tmp_path: Path, arguments: list[str], said: str) -> None:
    index = tmp_path / "index.csv"
    index.write_text("path,label,split\n")
    given = [str(index) if argument == "INDEX" else argument for argument in arguments]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "b")]
    done = CliRunner().invoke(train, given)
    assert isinstance(done.exception, RefusalError)
    assert str(done.exception).startswith(said)
    assert not (tmp_path / "b").exists()


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text("path,label\nr,2\n")
    process = command("--index", str(index), "--out", str(tmp_path / "b"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == f"bedside: {index}, line 2: label is '2'; it must be 0, 1 or empty"
    assert "Traceback" not in errors


@pytest.mark.slow
def test_an_interrupted_command_goes_on_where_it_stopped(made_up_index: MakeIndex, tmp_path: Path) -> None:
    index, out = str(made_up_index()), tmp_path / "run"
    checkpoint = tmp_path / "run.checkpoint"
    arguments = ["--index", index, "--out", str(out), "--config", str(config_file(tmp_path))]
    process = command(*arguments, "--set", "fit.epochs=3000", "--set", "fit.patience=3000")
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert (
        last
        == f"bedside: stopped; all complete epochs are in {checkpoint}: the same command goes on from there"
    )
    assert "Traceback" not in errors
    # With another number of epochs it is another training.
    refused = run("train", *arguments)
    assert refused.returncode == 1
    assert "fit.epochs was 3000, is 3" in refused.stderr


def test_the_command_explains_itself() -> None:
    done = CliRunner().invoke(train, ["--out", "x"])
    assert done.exit_code == 2
    assert "--dataset or --index" in done.output
    assert "bedside train --dataset both" in CliRunner().invoke(train, ["--help"]).output


@pytest.mark.parametrize("name", list_bundles())
def test_shipped_bundles_are_what_their_parts_say(name: str) -> None:
    bundle = load_bundle(name)
    manifest = bundle.manifest
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) < 10_000_000
    config = TypeAdapter(NetworkConfig).validate_python(manifest.hyperparameters["network"])
    assert export(config, bundle.weights()) == bundle.onnx("fp32")
    x, mask = golden_input(manifest.leads, manifest.window.samples, manifest.window.fs)
    golden = bundle.golden("fp32")
    np.testing.assert_allclose(golden.x, x, atol=1e-5)  # a formula, not a recording
    np.testing.assert_array_equal(golden.mask, mask)


@pytest.fixture(scope="module")
def split_test(data_dir: Path) -> list[tuple[Entry, Signal]]:
    """Read it once for all models."""
    return [(entry, entry.read()) for entry in select(read_index(data_dir / "index.csv"), split="test")]


@pytest.mark.data
@pytest.mark.parametrize("name", list_bundles())
def test_shipped_models_reproduce_their_figures(name: str, split_test: list[tuple[Entry, Signal]]) -> None:
    bundle = load_bundle(name)
    manifest, session = bundle.manifest, open_session(bundle)
    test, signals = zip(*split_test, strict=True)
    windows = grid_windows(signals, manifest.leads, manifest.filter, manifest.window)
    for leads, groups in manifest.metrics.get("test", {}).items():
        chosen = LEAD_SETS[leads]
        given = windows.keep_leads(np.array([chosen is None or lead in chosen for lead in manifest.leads]))
        scores = score_windows(session.run, given, manifest.score).window
        assert np.isfinite(scores).all()
        found = figures_by_dataset(
            record_scores(scores, given.record, len(test)), test, manifest.thresholds["fp32"].record
        )
        for group, figures in groups.items():
            assert found[group]["n_abnormal"] == figures["n_abnormal"]
            if figures["auroc"] is not None:
                assert found[group]["auroc"] == pytest.approx(figures["auroc"], abs=0.002)
