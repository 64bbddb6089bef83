from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from models.backends import BackendUnavailableError, open_session
from models.bundle import load_bundle
from stream.console import RefusalError
from tests.training.calibration.test_commands import write_index
from training import precisions
from training.calibration.recalibrate import FEWEST
from training.commands import export
from training.precisions import PrecisionReport, add_precisions

PLAN = [("val", 0)] * FEWEST + [("val", 1)] * 2 + [("train", 1)] * 2 + [("test", 1)] * 2


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(export, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("ward"), PLAN)


@pytest.fixture(scope="module")
def done(index: Path) -> tuple[Path, Result]:
    # Where the model itself is: the manifest is written over, last.
    out = shutil.copytree(load_bundle("cae-100hz").path, index.parent / "bundle")
    return out, invoke("--model", out, "--precision", "fp16", "--index", index, "--out", out)


@pytest.mark.slow
def test_a_precision_comes_with_file_tolerance_and_thresholds_of_its_own(done: tuple[Path, Result]) -> None:
    out, result = done
    assert result.exit_code == 0, result.output
    old, new = load_bundle("cae-100hz").manifest, load_bundle(out).manifest
    assert new.thresholds["fp32"] == old.thresholds["fp32"]
    assert new.golden["fp32"] == old.golden["fp32"]
    ours = new.thresholds["fp16"]
    assert ours.records == FEWEST
    assert ours.record != old.thresholds["fp32"].record
    tolerance = new.golden["fp16"]
    assert tolerance.file == old.golden["fp32"].file
    assert 1e-5 < tolerance.output_atol["recon_mean"] < 0.1
    assert tolerance.score_atol is not None
    assert tolerance.score_atol < 0.1
    kept = {name: sha for name, sha in old.sha256.items() if "fp32" in name or "weights" in name}
    assert kept.items() <= new.sha256.items()


@pytest.mark.slow
def test_the_new_precision_serves_and_is_not_float32(done: tuple[Path, Result]) -> None:
    bundle = load_bundle(done[0])
    session = open_session(bundle, precision="fp16")
    assert session.precision == "fp16"
    golden = bundle.golden("fp16")
    off = np.abs(session.run(golden.x, golden.mask)["recon_mean"] - golden.outputs["recon_mean"]).max()
    assert 1e-4 < off < bundle.manifest.golden["fp16"].output_atol["recon_mean"]


@pytest.mark.slow
def test_what_it_costs_is_told_and_kept_and_test_recordings_are_not_read(done: tuple[Path, Result]) -> None:
    out, result = done
    told = load_bundle(out).manifest.metrics["precisions"]["fp16"]
    assert told["calibrated_with"] == "onnxruntime"
    assert (told["normals"], told["abnormal"]) == (FEWEST, 4)
    assert 0 < told["score_error"] <= told["worst_score_error"] < 0.1
    assert f"({FEWEST} normals of val, 4 abnormal of val and train)" in result.output


@pytest.mark.slow
def test_another_folder_that_holds_something_is_left_alone(done: tuple[Path, Result], index: Path) -> None:
    out, _ = done
    before = (out / "manifest.json").read_bytes()
    refused = invoke("--model", "cae-100hz", "--precision", "fp16", "--index", index, "--out", out)
    assert isinstance(refused.exception, RefusalError)
    assert "is not empty" in str(refused.exception)
    assert (out / "manifest.json").read_bytes() == before


def test_a_precision_that_the_network_has_not_is_refused_in_one_line(index: Path, tmp_path: Path) -> None:
    result = invoke(
        "--model", "cae-100hz", "--precision", "int8", "--index", index, "--out", tmp_path / "out"
    )
    assert isinstance(result.exception, RefusalError)
    assert "cae-100hz: no int8 of a convolutional autoencoder" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_too_few_normals_are_refused(tmp_path: Path) -> None:
    few = write_index(tmp_path, [("val", 0)] * 3)
    with pytest.raises(ValueError, match=f"3 normal recordings .*; at least {FEWEST}"):
        add_precisions(load_bundle("cae-100hz"), ["fp16"], few)


def test_a_precision_that_nothing_here_runs_is_not_calibrated_with_another(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> None:
        raise BackendUnavailableError("not installed")

    monkeypatch.setattr(precisions, "load_session", absent)
    with pytest.raises(BackendUnavailableError, match="no backend here runs bf16, and thresholds are set by"):
        add_precisions(load_bundle("cae-100hz"), ["bf16"], index)


def test_wrong_usage_is_said() -> None:
    for arguments in ((), ("--precision", "fp16"), ("--engine", "--out", "x")):
        result = invoke("--model", "cae-100hz", *arguments)
        assert result.exit_code == 2
        assert "--engine" in result.output


def test_engines_are_built_ahead_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = invoke("--model", "cae-100hz", "--engine")
    assert result.exit_code == 0, result.output
    assert "cae-100hz fp32: built" in result.output
    assert list((tmp_path / "bedside" / "engines").glob("*.engine"))


def test_a_loss_is_what_the_area_is_lower_by() -> None:
    report = PrecisionReport("bf16", "openvino", ("openvino",), 0.01, 0.02, 0.89, 0.90, 56, 429)
    assert report.loss == pytest.approx(0.01)
    assert PrecisionReport("bf16", "openvino", ("openvino",), 0.01, 0.02, None, None, 56, 0).loss is None
