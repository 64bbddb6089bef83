from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs the extra train")

from stream.console import RefusalError
from tests.training.test_train import config_file
from training.develop import ResultFile, main

MakeIndex = Callable[[], Path]


@pytest.fixture
def study(made_up_index: MakeIndex, tmp_path: Path) -> list[str]:
    """Arguments for two folds of a tiny network; recordings of split test do not exist."""
    index = made_up_index()
    with index.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["split"] == "test" and row["label"] == "1":
            row["split"] = "val"
        elif row["split"] == "test":
            (tmp_path / row["path"]).unlink()
    with index.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    arguments = ["--config", str(config_file(tmp_path)), "--index", str(index), "--epochs", "1"]
    return [*arguments, "--threads", "1", "--device", "cpu"]


def test_a_study_of_folds_and_seeds_is_tabulated_and_kept(study: list[str], tmp_path: Path) -> None:
    result = tmp_path / "figures.json"
    arguments = [*study, "--folds", "2", "--seeds", "2", "--json", str(result)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(result.read_text())
    assert (found["folds"], found["seeds"], found["recordings"], found["left_out"]) == (2, 2, 14, 0)
    assert set(found["figures"]) == {"all", "I,II,V2", "II"}
    everything = found["figures"]["all"]["all"]
    assert (everything["n_normal"], everything["n_abnormal"]) == (11, 2)
    assert everything["rhythm_only"]["n_abnormal"] == 1
    assert "rhythm only" in done.stdout
    assert not list(tmp_path.glob("*.seed*"))

    # Nothing is left to do, and nothing of another configuration is taken.
    lines = Path(f"{result}.folds").read_text().splitlines()
    assert len(lines) == 5
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0
    assert json.loads(result.read_text())["figures"] == found["figures"]
    other = CliRunner().invoke(main, [*arguments, "--set", "augmentation.noise=0.5"])
    assert isinstance(other.exception, RefusalError)
    assert "another configuration" in str(other.exception)


def test_an_interrupted_study_goes_on_and_ends_the_same(study: list[str], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    arguments = [*study, "--folds", "2"]
    assert CliRunner().invoke(main, [*arguments, "--seeds", "2", "--json", str(whole)]).exit_code == 0
    # One seed first, then a line that a crash left unfinished.
    assert CliRunner().invoke(main, [*arguments, "--seeds", "1", "--json", str(parts)]).exit_code == 0
    kept = Path(f"{parts}.folds")
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join([*lines[:2], lines[2][:100]]))
    assert CliRunner().invoke(main, [*arguments, "--seeds", "2", "--json", str(parts)]).exit_code == 0
    assert json.loads(parts.read_text())["figures"] == json.loads(whole.read_text())["figures"]
    assert sorted(kept.read_text().splitlines()) == sorted(Path(f"{whole}.folds").read_text().splitlines())


def test_a_fixed_split_holds_the_normals_of_val(study: list[str], tmp_path: Path) -> None:
    result = tmp_path / "fixed.json"
    done = CliRunner().invoke(main, [*study, "--split", "fixed", "--seeds", "1", "--json", str(result)])
    assert done.exit_code == 0, done.output
    everything = json.loads(result.read_text())["figures"]["all"]["all"]
    assert (everything["n_normal"], everything["n_abnormal"]) == (3, 2)
    assert (everything["sd_folds"], everything["sd_seeds"]) == (None, None)


def test_results_come_back_as_they_were_kept(tmp_path: Path) -> None:
    path, settings = tmp_path / "folds", {"config": {"a": [1, 2]}}
    scores = {"all": np.array([0.5, np.nan, -1.25])}
    ResultFile(path, settings).add(1, 0, scores)
    found = ResultFile(path, settings).results
    assert list(found) == [(1, 0)]
    np.testing.assert_array_equal(found[1, 0]["all"], scores["all"])
