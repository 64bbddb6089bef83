"""A real Prometheus that asks dashboards, a worker and a feed: every panel has data, and alerts fire."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import yaml

from bench.ports import free_port
from stream.bus import Bus
from stream.clock import SystemClock
from stream.topics import SAMPLES
from tests.conftest import NO_PROMETHEUS
from tests.monitor.login.people import PROGRAM, users_file
from tests.monitor.serving import dashboard
from tests.monitor.system.deployed import DOCS, Running, deployment, get, wait_for

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
ALERTS = DOCS / "prometheus" / "alerts.yaml"

pytestmark = [
    pytest.mark.slow,
    # Six processes start before each, and Prometheus has to see them twice.
    pytest.mark.timeout(400),
    pytest.mark.skipif(PROMETHEUS is None or PROMTOOL is None, reason=NO_PROMETHEUS),
]


@dataclass
class Prometheus:
    """A running Prometheus, and what it asks."""

    url: str
    there: Running

    def ask(self, path: str, **query: object) -> Any:
        answer = get(f"{self.url}api/v1/{path}?{urllib.parse.urlencode(query)}")
        told = answer.json
        assert told["status"] == "success", (query, told)
        return told["data"]

    def points(self, expression: str) -> list[float]:
        """Return what a panel of the last minute would draw."""
        now = SystemClock().now_ns() / 1e9
        found = self.ask("query_range", query=expression, start=now - 60, end=now, step=5)["result"]
        values = [float(value) for series in found for _, value in series["values"]]
        return [value for value in values if math.isfinite(value)]

    def down(self) -> dict[str, str]:
        """Return why a target does not answer, by job."""
        self.there.ward.check()
        targets = self.ask("targets")["activeTargets"]
        return {one["labels"]["job"]: one["lastError"] for one in targets if one["health"] != "up"}

    def firing(self) -> set[str]:
        alerts = self.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Run one for each test: of what it asks, one of them leaves nothing alive."""
    assert PROMETHEUS is not None
    token = tmp_path / "bedside.token"
    token.write_text(users_file(tmp_path / "users.json")[PROGRAM])
    with (
        deployment() as there,
        # A second dashboard, which has a login.
        dashboard(there.ward.url, users=tmp_path / "users.json") as guarded,
    ):
        redis.Redis.from_url(there.ward.url).config_set("maxmemory", "1gb")
        jobs = [
            {"job_name": name, "static_configs": [{"targets": [urlsplit(page).netloc]}]}
            for name, page in zip(("dashboard", "worker", "ingest"), there.pages, strict=True)
        ]
        jobs.append(
            {
                "job_name": "guarded",
                "authorization": {"credentials_file": str(token)},
                "static_configs": [{"targets": [urlsplit(guarded.url).netloc]}],
            }
        )
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": jobs,
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_port()}"
        with (tmp_path / "log").open("wb") as log:
            running = subprocess.Popen(
                [
                    PROMETHEUS,
                    f"--config.file={tmp_path / 'prometheus.yml'}",
                    f"--storage.tsdb.path={tmp_path / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            url = f"http://{address}/"
            wait_for(lambda: _answers(url))
            yield Prometheus(url, there)
        finally:
            running.terminate()
            running.wait(30)


def _answers(url: str) -> bool:
    try:
        return get(f"{url}-/ready").status == 200
    except OSError:
        return False


def test_every_panel_and_every_alert_can_be_computed(prometheus: Prometheus) -> None:
    wait_for(
        lambda: len(prometheus.ask("query", query="up == 1")["result"]) == 4,
        missing=prometheus.down,
    )
    board = json.loads((DOCS / "grafana" / "bedside.json").read_text())
    targets = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    # Grafana takes four times the interval between two looks.
    expressions = [one.replace("$__rate_interval", "4s") for one in targets]
    assert len(expressions) > 25

    def empty() -> list[str]:
        return [one for one in expressions if not prometheus.points(one)]

    # A rate needs two looks.
    wait_for(lambda: not empty(), missing=empty)
    for expression in expressions:
        assert all(value >= 0 for value in prometheus.points(expression)), expression
    worker, alarms = (
        prometheus.points(one)
        for one in ("count(max by (worker) (bedside_worker_up) == 1)", "sum(bedside_alarms_last_hour)")
    )
    assert (worker[-1], alarms[-1] > 0) == (1, True)
    for group in prometheus.ask("rules")["groups"]:
        assert {rule["health"] for rule in group["rules"]} == {"ok"}


def test_alerts_are_those_of_the_documentation() -> None:
    assert PROMTOOL is not None
    subprocess.run([PROMTOOL, "check", "rules", ALERTS], check=True, capture_output=True)
    text = (DOCS / "operations.md").read_text().partition("## What to alert on")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| `([^`]+)` \| (\d+) (s|min) \|", text, re.M)
    told = {name: (one, 60 * int(n) if unit == "min" else int(n)) for name, one, n, unit in rows}
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    seconds = {"0": 0, "5s": 5, "10s": 10, "15s": 15, "30s": 30, "1m": 60, "2m": 120}
    assert told == {rule["alert"]: (rule["expr"], seconds[rule.get("for", "0")]) for rule in group["rules"]}
    compose = yaml.safe_load((DOCS.parent / "compose" / "prometheus.yml").read_text())
    assert compose["rule_files"] == [Path(ALERTS).name]


def test_alerts_fire_when_they_should(prometheus: Prometheus) -> None:
    ward = prometheus.there.ward
    # On a machine that is busy, a worker may be late while it starts.
    quiet = {"worker behind", "late findings", "partition stuck"}
    assert prometheus.firing() <= quiet
    # An increase is one against what was seen before.
    wait_for(lambda: prometheus.points("bedside_worker_errors_total"))

    async def disturb() -> None:
        async with await Bus.connect(ward.url) as bus:
            await bus.client.xadd(f"{bus.prefix}{SAMPLES}:0", {"k": "icu-4713", "v": "no chunk"})

    asyncio.run(disturb())
    wait_for(lambda: "errors" in prometheus.firing())
    ward.children["worker"].kill()
    wait_for(lambda: {"worker silent", "no worker", "no answer"} <= prometheus.firing())
    ward.server.stop()
    wait_for(lambda: "Redis away" in prometheus.firing())
