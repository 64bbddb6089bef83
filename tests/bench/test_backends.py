from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.backend_probe import Case, gemm, probe, write_windows
from bench.backends import measure_backends, row_text, skipped_text
from bench.report import write_report

MODEL = "cae-100hz"


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("windows") / "windows.npz"
    assert write_windows(MODEL, path, 12.0, 0) == 27
    return path


@pytest.mark.parametrize("batch", [1, 8])
def test_the_reference_is_as_good_as_itself_in_any_batch(windows: Path, batch: int) -> None:
    row = probe(Case(MODEL, "onnxruntime", "fp32", batch, 0.05, str(windows)))
    assert (row["model"], row["backend"], row["precision"], row["batch"]) == (
        MODEL,
        "onnxruntime",
        "fp32",
        batch,
    )
    assert row["score_error"] < 1e-4
    assert row["windows_per_s"] == pytest.approx(1000 * batch / row["ms_per_batch"], rel=0.01)
    assert row["runs"] >= 3
    assert row["rss_mb"] > 10


def test_what_a_backend_refuses_is_skipped_with_its_words(windows: Path) -> None:
    row = probe(Case(MODEL, "onnxruntime", "fp8", 1, 0.05, str(windows)))
    assert "fp8" in row["skipped"]


def test_matrices_are_multiplied_at_some_speed() -> None:
    assert all(speed > 1 for speed in gemm(0.05).values())


@pytest.mark.slow
def test_every_backend_has_a_row_or_a_reason(tmp_path: Path) -> None:
    result = measure_backends(models=[MODEL], batches=(1,), seconds=0.05, thesis=False)
    told = {row["backend"] for row in result["rows"]} | {row["backend"] for row in result["skipped"]}
    assert told == {"onnxruntime", "openvino", "torch", "tensorrt"}
    assert {
        "model",
        "backend",
        "precision",
        "batch",
        "windows_per_s",
        "ms_per_batch",
        "score_error",
        "rss_mb",
    } <= set(result["rows"][0])
    assert all(row["why"] for row in result["skipped"])
    row = next(row for row in result["rows"] if row["backend"] == "onnxruntime")
    assert 0.01 < row["share_of_gemm"] < 1.2
    assert MODEL in row_text(row)
    assert skipped_text(result)
    json.dumps(result)
    write_report(tmp_path / "report.html", result)
    assert f"{MODEL}: windows per second" in (tmp_path / "report.html").read_text()
