from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.performance import PAGE, performance_page


def test_the_page_is_what_the_script_makes_of_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == performance_page()


def test_without_results_it_says_so(tmp_path: Path) -> None:
    text = performance_page(tmp_path)
    assert text.count("Not measured yet.") == 10
    assert "| ≥ 500 | not measured yet | – |" in text


def write(folder: Path, name: str, result: dict[str, Any]) -> None:
    machine = {"cpu": "a processor", "cores": 2, "memory_gb": 8.0, "gpu": None, "load_average": 0.1}
    common = {"machine": machine, "versions": {"python": "3.11"}, "worker_options": [], "workers": 1}
    common |= {"seconds": 30.0, "ill_every_s": 300.0}
    engine = {"model": "cae-100hz", "backend": "onnxruntime", "precision": "fp32"}
    (folder / f"{name}.json").write_text(json.dumps(common | engine | result))


def attempt(beds: int, p99_ms: float, carried: bool) -> dict[str, Any]:
    return {
        "beds": beds,
        "p50_ms": 20.0,
        "p99_ms": p99_ms,
        "lost": 0,
        "carried": carried,
        "cpu_percent": {"worker": 80.0},
    }


def test_a_goal_is_reached_or_not_by_what_was_measured(tmp_path: Path) -> None:
    curve = [attempt(512, 100.0, True), attempt(544, 400.0, False)]
    write(
        tmp_path,
        "capacity-2-cores",
        {"benchmark": "capacity", "beds": 512, "curve": curve, "limit_reached": True},
    )
    row = {"name": "same", "beds": 512, "baseline_beds": 384, "ratio": 1.33}
    figures = {"auroc": None, "baseline_auroc": {"mean": 0.77, "interval": [0.7, 0.8], "split": "fixed"}}
    write(tmp_path, "baseline-2-cores", {"benchmark": "baseline", "rows": [row | figures]})
    text = performance_page(tmp_path)
    assert "| capacity at p99 ≤ 300 ms, beds | ≥ 500 | 512 | yes |" in text
    assert "| against a plain loop with the same model | ≥ 2 × | 1.33 | no |" in text
    assert "| 544 | 20.0 | 400 | 0 | no | 80 |" in text
    assert "| same | 512 | 384 | 1.33 | not measured yet | 0.770 [0.70, 0.80], fixed split |" in text
    assert "`capacity-2-cores.json`: 2 cores of a processor" in text
    assert "Each bed falls ill every 300 s (12 times an hour), one after the other." in text
