from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs the extra train")

from models.architectures import CaeConfig
from models.backends import open_session
from models.bundle import list_bundles, load_bundle
from models.export import export_cae
from training.calibrate import score_windows
from training.commands import train
from training.dataset import grid_windows
from training.evaluate import evaluate
from training.fit import FitConfig
from training.golden import golden_input
from training.recordings import read_index, read_signal, select
from training.train import train_bundle

MakeIndex = Callable[[], Path]
TINY = CaeConfig(channels=(8, 8, 8), wide_kernel=5)


@pytest.mark.slow
def test_an_index_becomes_a_bundle_that_serves(made_up_index: MakeIndex, tmp_path: Path) -> None:
    index, out = made_up_index(), tmp_path / "runs" / "tiny"
    config = FitConfig(epochs=3, crops_per_record=4, batch=8)
    bundle = train_bundle(index, out, name="tiny", network=TINY, config=config, created="2026-11-22")
    session = open_session(load_bundle(out))
    manifest = session.manifest
    assert manifest == bundle.manifest
    assert (manifest.name, manifest.created) == ("tiny", "2026-11-22")
    assert not out.with_name("tiny.checkpoint").exists()
    assert manifest.data["recordings"]["train"] == {"source-0": 4, "source-1": 4}
    assert str(tmp_path) not in manifest.model_dump_json()
    figures = manifest.metrics["test"]["all"]["all"]
    # Of the three abnormal ones in the test split, one is marked rhythm-only.
    assert (figures["n_normal"], figures["n_abnormal"]) == (3, 2)
    assert figures["rhythm_only"]["n_abnormal"] == 1

    again = train_bundle(index, tmp_path / "again", name="tiny", network=TINY, config=config)
    assert again.manifest.sha256 == manifest.sha256
    assert again.manifest.score == manifest.score


@pytest.mark.slow
def test_the_command_trains_and_reports(made_up_index: MakeIndex, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    arguments = ["--index", str(made_up_index()), "--out", str(out), "--epochs", "1", "--name", "mine"]
    done = CliRunner().invoke(train, arguments)
    assert done.exit_code == 0, done.output
    assert str(out) in done.stdout
    assert "AUROC" in done.stdout
    assert load_bundle(out).name == "mine"


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text("path,label,split\n")
    arguments = ["--index", str(index), "--out", str(tmp_path / "b")]
    done = subprocess.run(
        [sys.executable, "-m", "bedside", "train", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    said = "bedside: 0 recordings to train on, 0 windows to validate with"
    assert done.stderr.splitlines()[-1] == said
    assert "Traceback" not in done.stderr


def test_the_command_explains_itself() -> None:
    assert CliRunner().invoke(train, ["--out", "x"]).exit_code == 2
    assert "bedside train --index" in CliRunner().invoke(train, ["--help"]).output


@pytest.mark.parametrize("name", list_bundles())
def test_shipped_bundles_are_what_their_parts_say(name: str) -> None:
    bundle = load_bundle(name)
    manifest = bundle.manifest
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) < 5_000_000
    config = CaeConfig.model_validate(manifest.hyperparameters["network"])
    assert export_cae(config, bundle.weights()) == bundle.onnx("fp32")
    x, mask = golden_input(manifest.leads, manifest.window.samples, manifest.window.fs)
    golden = bundle.golden("fp32")
    np.testing.assert_allclose(golden.x, x, atol=1e-5)  # a formula, not a recording
    np.testing.assert_array_equal(golden.mask, mask)


@pytest.mark.data
def test_the_shipped_model_reproduces_its_figures(data_dir: Path) -> None:
    bundle = load_bundle("cae-100hz")
    manifest, session = bundle.manifest, open_session(bundle)
    test = select(read_index(data_dir / "index.csv"), split="test")
    signals = (read_signal(entry.path) for entry in test)
    windows = grid_windows(signals, manifest.leads, manifest.filter, manifest.window)
    found = evaluate(
        session.run,
        windows,
        test,
        manifest.leads,
        manifest.score,
        manifest.thresholds["fp32"],
    )
    for leads, groups in manifest.metrics["test"].items():
        for group, figures in groups.items():
            assert found[leads][group]["n_abnormal"] == figures["n_abnormal"]
            if figures["auroc"] is not None:
                assert found[leads][group]["auroc"] == pytest.approx(figures["auroc"], abs=0.002)
    assert found["all"]["ptb-xl"]["auroc"] > 0.8
    assert np.isfinite(score_windows(session.run, windows, manifest.score).window).all()
