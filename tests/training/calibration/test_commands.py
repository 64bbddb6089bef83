from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import wfdb
from click.testing import CliRunner, Result

from models.backends import BackendUnavailableError, open_session
from models.bundle import Bundle, BundleError, load_bundle, onnx_file, write_bundle
from models.session import Session
from stream.console import RefusalError
from tests.command_line import started
from tests.training.conftest import made_up_signal
from training.calibration import recalibrate, stretches
from training.calibration.commands import calibrate
from training.calibration.recalibrate import FEWEST, choose
from training.calibration.thresholds import FALSE_ALARMS_PER_BED_HOUR
from training.recordings import Entry, read_index, select

LEADS = ("I", "II", "V2")
FS = 125


def write_index(folder: Path, plan: Sequence[tuple[str, int]], *, leads: tuple[str, ...] = LEADS) -> Path:
    """Write made-up recordings of 10 s, one for each (split, label), and an index of them."""
    rows = []
    for i, (split, label) in enumerate(plan):
        signal = made_up_signal(i, abnormal=bool(label))
        columns = [signal.leads.index(lead) for lead in leads]
        wfdb.wrsamp(
            f"r{i}",
            fs=FS,
            units=["mV"] * len(leads),
            sig_name=list(leads),
            p_signal=signal.millivolts[::4, columns],
            fmt=["16"] * len(leads),
            write_dir=str(folder),
        )
        rows.append({"path": f"r{i}.dat", "label": label, "split": split, "dataset": "ward"})
    index = folder / "index.csv"
    with index.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["path", "label", "split", "dataset"])
        writer.writeheader()
        writer.writerows(rows)
    return index


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(calibrate, [str(argument) for argument in arguments])


def with_precisions(folder: Path, *precisions: str) -> Path:
    """Write the default model with these precisions only: each takes a calibration of its own."""
    bundle = load_bundle("cae-100hz")
    manifest = bundle.manifest
    kept = {
        field: {precision: getattr(manifest, field)[precision] for precision in precisions}
        for field in ("thresholds", "golden")
    }
    others = {onnx_file(precision) for precision in manifest.thresholds if precision not in precisions}
    files = {file: bundle.read(file) for file in manifest.sha256 if file not in others}
    return write_bundle(folder, manifest.model_copy(update=kept), files).path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("ward")
    plan = [("", 0)] * FEWEST + [("", 1)] * 3
    index = write_index(folder, plan)
    with index.open("a") as file:
        file.write("missing.dat,0,,ward\n")
    model = with_precisions(folder / "model", "fp32")
    return folder, invoke(
        "--model", model, "--index", index, "--out", folder / "bundle", "--json", folder / "result.json"
    )


@pytest.mark.slow
def test_the_new_bundle_serves_with_the_old_weights_and_new_thresholds(done: tuple[Path, Result]) -> None:
    folder, result = done
    assert result.exit_code == 0, result.output
    old, new = load_bundle(folder / "model"), load_bundle(folder / "bundle")
    assert new.name == "cae-100hz-calibrated"
    assert new.manifest.sha256 == old.manifest.sha256
    open_session(new)
    before, after = old.manifest.thresholds["fp32"], new.manifest.thresholds["fp32"]
    assert after.records == FEWEST
    assert (after.record, after.window) != (before.record, before.window)
    assert after.window >= after.record
    assert set(after.record_methods) == {"p95", "f1", "youden"}
    rate = after.false_alarms_per_bed_hour["all"]
    assert (rate.stretches, rate.patients, rate.alarms) == (FEWEST, FEWEST, 0)
    assert new.manifest.score == old.manifest.score


@pytest.mark.slow
def test_the_manifest_says_whose_thresholds_they_are(done: tuple[Path, Result]) -> None:
    folder, _ = done
    old, new = load_bundle("cae-100hz").manifest, load_bundle(folder / "bundle").manifest
    told = new.data["calibration"]
    assert told["index_sha256"] == hashlib.sha256((folder / "index.csv").read_bytes()).hexdigest()
    assert (told["model"], told["normals"], told["abnormal"]) == ("cae-100hz", {"ward": FEWEST + 1}, 3)
    assert (told["left_out"], told["statistics"], told["split"]) == (1, "keep", "")
    # Where the weights come from is still there; figures at other thresholds are not.
    assert new.data["index_sha256"] == old.data["index_sha256"]
    assert "test" not in new.metrics
    assert str(folder) not in new.model_dump_json()


@pytest.mark.slow
def test_old_and_new_stand_side_by_side(done: tuple[Path, Result]) -> None:
    folder, result = done
    lines = result.stdout.splitlines()
    old, new = (load_bundle(name).manifest.thresholds["fp32"] for name in ("cae-100hz", folder / "bundle"))
    screening = next(line for line in lines if "recording abnormal above" in line)
    assert f"{old.record:.2f}" in screening
    assert f"{new.record:.2f}" in screening
    assert "[" in screening
    assert f"fp32: {FEWEST} normals" in result.stdout
    assert "missing.dat" in result.stderr
    assert f"warning: {FEWEST} normals: the record threshold rests on the highest 1 of them" in result.stderr
    assert "too few stretches to fit a tail" in result.stderr
    told = json.loads((folder / "result.json").read_text())
    assert told["thresholds"]["fp32"]["now"] == new.model_dump(mode="json")
    assert told["thresholds"]["fp32"]["was"]["record"] == old.record
    assert len(told["left_out"]) == 1


@pytest.mark.slow
def test_statistics_are_refitted_with_golden_scores_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing here depends on how long a recording is looped; other tests do it as long as users.
    monkeypatch.setattr(stretches, "STRETCH_S", stretches.SHORTEST_S)
    leads = load_bundle("cae-100hz").manifest.leads
    index = write_index(tmp_path, [("val", 0)] * FEWEST + [("train", 0)] * 5, leads=leads)
    model = with_precisions(tmp_path / "model", "fp32", "fp16")
    to = ("--out", tmp_path / "b", "--name", "mine", "--json", "-")
    done = invoke("--model", model, "--index", index, "--statistics", "refit", *to)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["data"]["split"] == "val"
    assert told["thresholds"]["fp32"]["normals_above"] is None
    old, new = load_bundle("cae-100hz"), load_bundle(tmp_path / "b")
    assert new.name == "mine"
    assert new.manifest.score != old.manifest.score
    assert not np.allclose(new.golden("fp32").scores, old.golden("fp32").scores)
    for precision in ("fp32", "fp16"):
        open_session(new, precision=precision)
    atol = [bundle.manifest.golden["fp16"].score_atol for bundle in (old, new)]
    assert atol[0] != atol[1]
    # On the model's own scale these recordings are far off; on theirs they are not.
    assert abs(told["thresholds"]["fp32"]["now"]["record"]) < 5


def test_statistics_of_a_few_leads_cannot_be_refitted(tmp_path: Path) -> None:
    index = write_index(tmp_path, [("", 0)] * FEWEST)
    done = refusal("--index", index, "--out", tmp_path / "b", "--statistics", "refit")
    assert "all leads of the model: I II III" in done
    assert not (tmp_path / "b").exists()


def refusal(*arguments: object) -> str:
    """Return the one line that the program ends with."""
    error = invoke(*arguments).exception
    assert isinstance(error, RefusalError | BundleError)
    assert "\n" not in str(error)
    return str(error)


def test_the_program_ends_with_one_line(tmp_path: Path) -> None:
    arguments = ["--index", str(tmp_path / "none.csv"), "--out", str(tmp_path / "b")]
    done = started("calibrate", *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("bedside: ")
    assert "cannot be read" in line


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    index = write_index(tmp_path, [("val", 0)] * 3 + [("test", 0)])
    out = tmp_path / "b"
    assert "3 normal recordings (label 0) in split val; at least 20" in refusal(
        "--index", index, "--out", out
    )
    assert "no model 'none'" in refusal("--model", "none", "--index", index, "--out", out)
    assert "is not empty" in refusal("--index", index, "--out", tmp_path)
    inside_a_file = refusal("--index", index, "--out", index / "b")
    assert "index.csv is no folder that can be written to" in inside_a_file
    gone = tmp_path / "gone.csv"
    gone.write_text("path,label\n" + "".join(f"gone{i}.dat,0\n" for i in range(30)))
    said = refusal("--index", gone, "--out", out)
    assert "0 normal recordings can be scored" in said
    assert "gone0.dat" in said
    assert "no backend 'abacus'" in refusal("--index", gone, "--out", out, "--backend", "abacus")
    assert not out.exists()


def test_the_command_explains_itself() -> None:
    assert invoke("--out", "x").exit_code == 2
    assert invoke("--index", "x", "--out", "y", "--statistics", "maybe").exit_code == 2
    assert "bedside calibrate --index ward.csv --out runs/ward" in invoke("--help").output


def test_recordings_are_chosen_by_split_and_never_from_test() -> None:
    def entry(name: str, label: int | None, split: str, *, rhythm_only: bool = False) -> Entry:
        return Entry(Path(name), "d", label, rhythm_only, split, "", "")

    rows = [
        entry("a", 0, "train"),
        entry("b", 0, "val"),
        entry("c", 0, "test"),
        entry("d", 1, "val"),
        entry("e", 1, "val", rhythm_only=True),
        entry("f", 0, ""),
    ]
    chosen = choose(rows)
    assert [e.path.name for e in chosen.normals] == ["b"]
    assert [e.path.name for e in chosen.abnormal] == ["d"]
    assert [e.path.name for e in chosen.to_refit] == ["a"]
    assert [e.path.name for e in chosen.lasting] == ["b"]
    without = choose([entry("a", 0, ""), entry("b", 1, "")])
    assert (without.split, len(without.normals), len(without.to_refit)) == ("", 1, 1)


@pytest.mark.data
@pytest.mark.slow
def test_real_recordings_give_thresholds_with_the_normal_parts_of_a_long_one(
    data_dir: Path, tmp_path: Path
) -> None:
    normals = select(read_index(data_dir / "index.csv"), split="val", label=0)[:FEWEST]
    index = tmp_path / "index.csv"
    rows = [f"{entry.path},0,val" for entry in normals]
    index.write_text("\n".join(["path,label,split", *rows, f"{data_dir}/mitdb/100.dat,,train\n"]))
    model = with_precisions(tmp_path / "model", "fp32")
    done = invoke("--model", model, "--index", index, "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    found = load_bundle(tmp_path / "b").manifest.thresholds["fp32"]
    assert found.records == FEWEST
    rates = found.false_alarms_per_bed_hour
    assert (rates["looped"].patients, rates["continuous"].patients) == (FEWEST, 1)
    assert 0.2 < rates["continuous"].hours < 0.5
    assert rates["all"].rate <= FALSE_ALARMS_PER_BED_HOUR
    assert -1 < found.record < found.window < 4


def test_a_precision_that_nothing_here_runs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []

    def only_onnxruntime(bundle: Bundle, backend: str, precision: str) -> Session:
        opened.append((backend, precision))
        if backend != "onnxruntime":
            raise BackendUnavailableError("not installed")
        return open_session(bundle, backend, precision)

    monkeypatch.setattr(recalibrate, "open_session", only_onnxruntime)
    bundle = load_bundle(with_precisions(tmp_path / "model", "fp32", "bf16"))
    assert recalibrate._sessions(bundle, "onnxruntime").keys() == {"fp32"}
    assert opened == [
        ("onnxruntime", "fp32"),
        ("openvino", "bf16"),
        ("torch", "bf16"),
        ("tensorrt", "bf16"),
    ]
    # What was asked for is not replaced.
    with pytest.raises(BackendUnavailableError):
        recalibrate._sessions(bundle, "openvino")
    nothing = load_bundle(with_precisions(tmp_path / "other", "bf16"))
    with pytest.raises(BackendUnavailableError, match="in any of its precisions"):
        recalibrate._sessions(nothing, "onnxruntime")
