from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.performance import PAGE, performance_page


def test_the_page_is_what_the_script_makes_of_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == performance_page()


def test_without_results_it_says_so(tmp_path: Path) -> None:
    text = performance_page(tmp_path)
    assert text.count("Not measured yet.") == 11
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


def test_a_day_in_three_quarters_of_an_hour_is_a_soak(tmp_path: Path) -> None:
    processes = {"worker": 70.0, "server": 10.0}
    write(
        tmp_path,
        "soak-day-2-cores",
        {
            "benchmark": "latency",
            "beds": 16,
            "seconds": 2880.0,
            "speed": 30.0,
            "ill_every_s": None,
            "lost": 0,
            "alarms": 12,
            "cpu_percent": processes,
            "rss_mb": {"worker": 300.0, "server": 900.0},
            "rss_growth_mb_per_hour": {
                "worker": {"slope": 0.52, "interval": [-0.1, 1.14]},
                "server": None,
                "the server's data": {"slope": 0.2, "interval": [0.1, 0.3]},
            },
            # Eighty MB at the beginning, 1 MB/h at the end.
            "memory_over_time": {
                "at_s": list(range(0, 3600, 10)),
                "worker": [220.0 + min(at, 80) + at / 3600 for at in range(0, 3600, 10)],
                "server": [900.0] * 360,
                "the server's data": [610.0] * 360,
            },
            "handles": {"worker": [31, 31], "server": [14, 15]},
            "drift": {"ms_per_hour": 0.3, "interval": [-0.2, 0.8], "grows": False},
        },
    )
    text = performance_page(tmp_path)
    assert "24 h of 16 beds in 2880 s, 30 times as fast as they were" in text
    assert "| worker | 70 % | 300 MB | 0.5 [-0.1, 1.1] | 1.0 [1.0, 1.0] | 31 → 31 |" in text
    assert "| server | 10 % | 900 MB | – | 0.0 [0.0, 0.0] | 14 → 15 |" in text
    assert "| the server's data | – | 610 MB | 0.2 [0.1, 0.3] | 0.0 [0.0, 0.0] | – |" in text
    assert "The median latency of findings changed by 0.3 ms/h" in text


def test_a_goal_is_reached_or_not_by_what_was_measured(tmp_path: Path) -> None:
    curve = [attempt(512, 100.0, True), attempt(544, 400.0, False)]
    write(
        tmp_path,
        "capacity-2-cores",
        {"benchmark": "capacity", "beds": 512, "curve": curve, "limit_reached": True},
    )
    for workers, beds in ((1, 160), (2, 280)):
        write(
            tmp_path,
            f"capacity-pinned-{workers}",
            {
                "benchmark": "capacity",
                "model": "vae-bilstm-mha-100hz",
                "beds": beds,
                "curve": curve,
                "limit_reached": True,
                "workers": workers,
                "pinned": True,
            },
        )
    row = {"name": "same", "beds": 512, "baseline_beds": 384, "ratio": 1.33}
    figures = {"auroc": None, "baseline_auroc": {"mean": 0.77, "interval": [0.7, 0.8], "split": "fixed"}}
    write(tmp_path, "baseline-2-cores", {"benchmark": "baseline", "rows": [row | figures]})
    text = performance_page(tmp_path)
    assert "| capacity at p99 ≤ 300 ms, beds | ≥ 500 | 512 | yes |" in text
    assert "| two workers against one, VAE-BiLSTM-MHA, one core each | ≥ 1.5 × | 1.75 | yes |" in text
    assert "### 160 beds, `vae-bilstm-mha-100hz` on onnxruntime fp32, one worker, one core each" in text
    assert "| against a plain loop with the same model | ≥ 2 × | 1.33 | no |" in text
    assert "| 544 | 20.0 | 400 | 0 | no | 80 |" in text
    assert "| same | 512 | 384 | 1.33 | not measured yet | 0.770 [0.70, 0.80], fixed split |" in text
    assert "`capacity-2-cores.json`: 2 cores of a processor" in text
    assert "Each bed falls ill every 300 s (12 times an hour), one after the other." in text
