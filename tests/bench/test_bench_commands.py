"""The benchmarks as a user runs them: small, but with every process that a large one has."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.capacity import Search, attempt, curve_row_text, search_capacity
from bench.trial import Load
from models.bundle import load_bundle
from tests.command_line import run, started

WHOLE = {"publish_to_finding", "publish_to_alert"}
PERCENTILES = {"n", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"}


@pytest.mark.slow
def test_latency_says_where_the_time_went_and_that_nothing_was_lost(tmp_path: Path) -> None:
    # Nine patients: one of them falls ill, and the alarm is raised, while it is measured.
    page = tmp_path / "latency.html"
    done = started("bench", "latency", "--beds", "9", "--seconds", "6", "--json", "-", "--html", str(page))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["beds"], result["seconds"], result["lost"], result["unscored"]) == (9, 6, 0, 0)
    assert (result["signal"], result["ill_every_s"]) == ("simulated", 36)
    stages = result["stages"]
    assert {
        "ingest",
        "queue",
        "ready",
        "publish",
        "deliver",
        "publish_to_finding",
        "publish_to_alert",
    } <= set(stages)
    assert all(set(row) >= PERCENTILES for row in stages.values())
    # Two windows a second and bed.
    assert stages["publish_to_finding"]["n"] == pytest.approx(9 * 6 * 2, abs=9)
    assert stages["publish_to_alert"]["n"] >= 1
    assert stages["publish_to_finding"]["p50_ms"] >= stages["deliver"]["p50_ms"]
    assert result["generator_late"]["n"] == result["chunks"]
    assert set(result["cpu_percent"]) == {"worker", "server", "generator", "subscriber"}
    assert 50 < result["worker_rss_mb"] < 600
    assert result["machine"]["cores"] >= 1
    assert "numpy" in result["versions"]
    text = page.read_text()
    assert "How late findings and alarms arrive" in text
    assert "Each bed falls ill every 36 s" in text
    assert "http" not in text.partition("<script")[0], "it needs nothing from outside"


@pytest.mark.slow
def test_with_a_longer_hop_half_of_the_windows_are_due_and_none_is_lost() -> None:
    done = started("bench", "latency", "--beds", "4", "--seconds", "5", "--hop", "1", "--json", "-")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["hop_s"], result["lost"], result["unscored"]) == (1, 0, 0)
    assert result["stages"]["publish_to_finding"]["n"] == pytest.approx(4 * 5, abs=4)


@pytest.mark.slow
def test_at_speed_a_minute_holds_more_of_signal_and_nothing_is_lost() -> None:
    options = ("--beds", "3", "--seconds", "5", "--speed", "4", "--json", "-")
    done = started("bench", "latency", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["speed"], result["lost"], result["unscored"]) == (4, 0, 0)
    assert result["stages"]["publish_to_finding"]["n"] == pytest.approx(3 * 5 * 2 * 4, abs=12)
    assert result["stages"]["ingest"]["p50_ms"] < 1_000
    assert set(result["handles"]) == {"worker", "server", "generator", "subscriber"}


@pytest.mark.slow
def test_a_plain_loop_stands_in_the_place_of_the_worker() -> None:
    pytest.importorskip("torch", reason="needs the extra torch")
    scorer = ("-m", "bench.plain_loop", "same", "--model", "cae-100hz")
    spec = load_bundle("cae-100hz").manifest.window
    rows: list[str] = []
    beds, curve = asyncio.run(
        search_capacity(
            lambda beds: attempt(Load(beds, 2.0), spec, scorer=scorer),
            Search(2, 2),
            # Of a busy machine nothing else is asked here than that it ends.
            60_000.0,
            on_attempt=lambda row: rows.append(curve_row_text(row)),
        )
    )
    assert beds == 2
    assert [(row["beds"], row["lost"], row["carried"]) for row in curve] == [(2, 0, True)]
    assert "carried" in rows[0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("latency", "--model", "nobody"), 1, "nobody"),
        (("capacity", "--json", "/nowhere/result.json"), 1, "/nowhere"),
        (("backends", "--model", "nobody"), 1, "nobody"),
        (("latency", "--beds", "0"), 2, "--beds"),
        (("latency", "--hop", "0.3"), 1, "multiple of the model's 0.5 s"),
        (("capacity", "--ill-every", "20"), 2, "36 at least"),
        (("latency", "--data", "a", "--ill-every", "60"), 2, "--ill-every"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run("bench", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_absent_extra_is_named(tmp_path: Path) -> None:
    # Where its module cannot be found.
    program = (
        "import sys; sys.modules['hdrh'] = None\n"
        "from bedside import main; sys.argv = ['bedside', 'bench', 'latency']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ.copy()
    )
    assert done.returncode == 1
    assert "bedside[bench]" in done.stderr
