"""``bedside evaluate`` as a person meets it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models.bundle import BundleError, list_bundles
from stream.console import RefusalError
from training.evaluation.commands import evaluate
from training.recordings import read_index

pytestmark = pytest.mark.skipif("cae-100hz" not in list_bundles(), reason="the model is not shipped")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, [str(argument) for argument in ("--model", "cae-100hz", *arguments)])


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, (RefusalError, BundleError)), result.exception
    assert result.stdout == ""
    return str(result.exception)


@pytest.mark.slow
def test_an_index_is_evaluated_and_written(made_up_index: Callable[[], Path], tmp_path: Path) -> None:
    index = made_up_index()
    with index.open("a") as file:
        file.write("r0.dat,,test,source-0,0,\n")
    files = {name: tmp_path / f"result.{name}" for name in ("json", "csv", "html")}
    result = run(
        "--index",
        index,
        "--split",
        "test",
        "--json",
        files["json"],
        "--scores",
        files["csv"],
        "--html",
        files["html"],
    )
    assert result.exit_code == 0, result.output
    assert "cae-100hz (onnxruntime, fp32) on index.csv, split test: 3 normal and 2 abnormal" in result.stdout
    assert "1 rows have no label" in result.stdout
    found = json.loads(files["json"].read_text())
    assert (found["n"], found["n_abnormal"], found["unlabelled"], found["skipped"]) == (5, 2, 1, [])
    assert found["rhythm_only"]["n_abnormal"] == 1
    assert set(found["groups"]) == {"source-0", "source-1"}
    assert found["robustness"] is None
    with files["csv"].open(newline="") as rows:
        assert len(list(csv.DictReader(rows))) == 6
    assert all(str(file) in result.stdout for file in files.values())


def test_the_json_alone_goes_to_standard_output(made_up_index: Callable[[], Path]) -> None:
    result = run("--index", made_up_index(), "--dataset", "source-1", "--split", "val", "--json", "-")
    found = json.loads(result.stdout)
    assert found["dataset"] == "source-1"
    assert found["missing"] == "no abnormal recordings"
    assert found["auroc"] is None


def test_robustness_is_measured_when_asked_for(made_up_index: Callable[[], Path]) -> None:
    result = run("--index", made_up_index(), "--split", "test", "--robustness", "--json", "-")
    rows = json.loads(result.stdout)["robustness"]
    assert [row["kind"] for row in rows] == ["leads"] * 4 + ["noise"] * 4 + ["rate"] * 2
    # What is drowned in noise is not scored.
    assert {row["n"] for row in rows if row["name"] != "noise 0 dB"} == {5}
    assert rows[0]["auroc_delta"] == 0.0


def test_a_record_that_is_gone_is_named(made_up_index: Callable[[], Path]) -> None:
    index = made_up_index()
    gone = next(entry.path for entry in read_index(index) if entry.split == "test")
    gone.unlink()
    result = run("--index", index, "--split", "test", "--json", "-")
    (skipped,) = json.loads(result.stdout)["skipped"]
    assert skipped["path"] == gone.name
    assert skipped["why"]


def test_a_split_or_data_set_that_is_not_there_is_refused_with_those_that_are(
    made_up_index: Callable[[], Path],
) -> None:
    index = made_up_index()
    assert "no split 'tset': test (6), train (8), val (3)" in refused("--index", index, "--split", "tset")
    told = refused("--index", index, "--split", "val", "--dataset", "mimic")
    assert "no dataset 'mimic' in split val: source-0 (2), source-1 (1)" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path\na\n", "no column label"),
        ("path,label\n", "no rows"),
        ("path,label\na,\nb,\n", "none of the 2 rows chosen has a label"),
        ("path,label\na,1\nb,0\n", "none of 2 recordings could be scored; the first"),
        ("path,label,split\na,1,\n", "its rows name none"),
    ],
)
def test_an_index_that_cannot_be_evaluated_is_refused(tmp_path: Path, text: str, said: str) -> None:
    index = tmp_path / "index.csv"
    index.write_text(text)
    split = ["--split", "test"] if "split" in text else []
    assert said in refused("--index", index, *split)


def test_what_cannot_be_had_is_refused_before_the_work(
    made_up_index: Callable[[], Path], tmp_path: Path
) -> None:
    index = made_up_index()
    assert "cannot be read" in refused("--index", tmp_path / "none.csv")
    for option in ("--json", "--html", "--scores"):
        assert "there is no folder" in refused("--index", index, option, tmp_path / "none" / "file")
    assert "no model 'none'" in refused("--index", index, "--model", "none")
    assert "no backend 'magic'" in refused("--index", index, "--backend", "magic")
    assert "no precision 'fp4'" in refused("--index", index, "--precision", "fp4")


def test_real_recordings_are_evaluated(data_dir: Path, tmp_path: Path) -> None:
    # Few of the validation split, so that it takes a second: the figures mean nothing.
    with (data_dir / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "ptb-xl" and row["split"] == "val"]
    chosen = [row for label in "01" for row in [row for row in rows if row["label"] == label][:8]]
    index = tmp_path / "index.csv"
    with index.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "path": data_dir / row["path"]} for row in chosen)
    found = json.loads(run("--index", index, "--json", "-").stdout)
    assert (found["n_normal"], found["n_abnormal"]) == (8, 8)
    assert found["skipped"] == []
    assert 0.5 < found["auroc"] <= 1.0
    low, high = found["auroc_ci"]
    assert low <= found["auroc"] <= high


def test_evaluation_needs_no_torch() -> None:
    program = (
        "import sys, training.evaluation.commands, training.evaluation.page, training.evaluation.robustness\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
