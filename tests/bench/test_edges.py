from __future__ import annotations

from typing import Any

from bench.edges import adapter_lines, durability_lines, fuzz_lines, page_lines, replay_lines

WHERE: dict[str, Any] = {
    "machine": {"cpu": "cpu", "cores": 2, "memory_gb": 25.0, "gpu": None, "load_average": 0.1},
    "versions": {"python": "3.11"},
}


def test_a_row_for_each_goal_of_the_page_and_the_machine_below() -> None:
    bed = {"publication_to_pixels_ms": {"p95": 230.4}, "found": 9, "markers": 10, "painted_per_s": 59.9}
    ward = {
        "beds": 64,
        "updates_per_s": {"least": 8.2, "median": 8.3, "tiles": 8},
        "used": {"page": {"cpu_percent": 16.4}},
    }
    sessions = {"sessions": 1000, "before_mb": 175.5, "after_mb": 178.0, "growth_percent": 1.42}
    lines = page_lines([bed | WHERE], [ward | WHERE], [sessions | WHERE])
    assert "| publication of a chunk to its pixels, p95 (9 of 10 markers) | ≤ 250 ms | 230 ms |" in lines
    assert "| memory after 1000 sessions | ≤ +5 % | +1.4 % (175.5 → 178 MB) |" in lines
    assert len(lines) == 2 + 5 + 2
    assert lines[-1].startswith("2 cores of cpu")


def test_what_adapters_replay_and_parsers_did() -> None:
    row = {
        "adapter": "tcp-json",
        "beds": 64,
        "p50_ms": 1.9,
        "p99_ms": 3.6,
        "cpu_percent": 25.9,
        "lost_samples": 0,
        "devices_late_p99_ms": 1.7,
    }
    assert "| tcp-json | 64 | 1.90 | 3.60 | 25.9 % | 0 | 1.70 |" in adapter_lines([{"rows": [row]} | WHERE])
    late = {"p50_ms": 0.5, "p99_ms": 1.5, "max_ms": 3.0}
    replayed = {
        "data": "100",
        "jitter": [{"beds": 64, "sent_late": late}],
        "analysis": {
            "hours": 24.0,
            "leads": 2,
            "fs": 360.0,
            "times_real_time": 600,
            "rss_mb": {"settled": 300.0},
            "rss_mb_per_hour": 3.1,
        },
    }
    lines = replay_lines([replayed | WHERE])
    assert "| `analyze` of 24 h of 100, 2 leads at 360 Hz | ≥ 500 × real time | 600 × |" in lines
    parsed = {"parser": "hl7", "inputs": 1_000_000, "seconds": 344, "peak_rss_mb": 82, "failed": None}
    assert "| hl7 | 1 000 000 | 344 s | 82 MB | none |" in fuzz_lines([{"rows": [parsed]} | WHERE])


def test_how_late_alarms_are_that_are_kept_twice() -> None:
    late = {"n": 1200, "p50_ms": 1.5, "p99_ms": 12.4, "max_ms": 20.4}
    rows = [
        {"name": "alone", "published": late},
        {"name": "asked", "published": late, "answered": late | {"n": 30}},
    ]
    lines = durability_lines([{"rows": rows, "rate_per_s": 20.0, "seconds": 60.0} | WHERE])
    assert lines[2:4] == [
        "| alone | 1.50 | 12.4 | 20.4 |  |",
        "| asked | 1.50 | 12.4 | 20.4 | 1.50 / 20.4 ms |",
    ]
    assert lines[-1].startswith("20 alarms a second for 60 s each. 2 cores of cpu")


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert page_lines([], [], []) == adapter_lines([]) == replay_lines([]) == fuzz_lines([]) == []
    assert durability_lines([]) == []
