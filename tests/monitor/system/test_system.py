"""A real worker and dashboard: what programs and Prometheus are told, and whether that is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from stream.embedded import EmbeddedServer
from stream.recording import metrics as recorder
from stream.settings import Settings
from tests.monitor.serving import dashboard
from tests.monitor.system.deployed import BEDS, DOCS, Running, deployment, get, wait_for

# Samples of each kind of metric carry these behind its name.
ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with deployment() as there:
        yield there
        there.ward.check()


def exposed(*pages: str) -> dict[str, set[str]]:
    """Return the labels of every sample that pages may have, by its name."""
    found: dict[str, set[str]] = {}
    for page in pages:
        for family in text_string_to_metric_families(get(page).text):
            for ending in ENDINGS.get(family.type, ("",)):
                labels = found.setdefault(family.name + ending, set())
                labels |= {label for sample in family.samples for label in sample.labels}
    return found


def used(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:bedside|process)_[a-z0-9_]+", expression))


def documented(text: str) -> set[str]:
    return {name for code in re.findall(r"`([^`\n]+)`", text) for name in used(code)}


def test_a_program_is_told_how_the_deployment_does(running: Running) -> None:
    report = running.report
    (worker,) = report["workers"]
    status = worker["status"]
    assert status["partitions"] == list(range(16))
    assert (status["model"], status["backend"]) == ("cae-100hz", "onnxruntime")
    for p50, p99 in status["stages"].values():
        assert 0 < p50 <= p99
    # The message that is no chunk.
    assert (worker["state"], worker["level"]) == ("failing", "warning")
    assert report["problems"][0]["worker"] == worker["name"] == running.worker
    assert "dead letter" in report["problems"][0]["text"]
    topics = {topic["topic"]: topic for topic in report["topics"]}
    assert topics["dead-letters"]["entries"] == 1
    assert topics["samples"]["entries"] == sum(partition["entries"] for partition in report["partitions"])
    assert {partition["worker"] for partition in report["partitions"]} == {running.worker}
    assert report["redis"]["used_mb"] > 0
    assert report["alarms"]["last_hour"]["high"] >= 1
    assert report["dashboard"]["beds"] >= 2
    # Every field is in the documentation, and nothing else.
    section = (DOCS / "operations.md").read_text().partition("## `GET /api/system`")[2]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == set(report)
    for name, value in report.items():
        (text,) = (row[1] for row in rows if f"`{name}`" in row[0])
        one = value[0] if isinstance(value, list) else value
        if name not in ("alarms", "at_ms", "version"):
            assert set(one) <= set(re.findall(r"`(\w+)`", text)), name
    wire = (DOCS / "wire.md").read_text().partition("What a worker says of itself")[2].partition("\n## ")[0]
    fields = {
        name for row in re.findall(r"^\| ([^|]+) \|", wire, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert set(status) == fields


def test_metrics_are_those_of_the_documentation_and_name_no_patient(running: Running) -> None:
    ours = {name: labels for name, labels in exposed(*running.pages).items() if name.startswith("bedside_")}
    known = documented((DOCS / "operations.md").read_text())
    bare = {re.sub("_(bucket|sum|count)$", "", name) for name in ours}
    # Served by a command that needs an address to forward alarms to.
    webhook = {"bedside_webhook_deliveries_total", "bedside_webhook_behind_seconds"}
    # Files of secrets are called so, too.
    settings = {f"bedside_{name}" for name in Settings.model_fields}
    told = {name for name in known if name.startswith("bedside_")} - settings
    # Served by `bedside record`, which does not run here.
    counted = (recorder.BEDS, recorder.CHUNKS, recorder.BEHIND, recorder.WAITING, recorder.BYTES)
    samples = [sample.name for one in counted for family in one.collect() for sample in family.samples]
    recorders = {name for name in samples if not name.endswith("_created")}
    assert recorders <= told
    assert told - webhook - recorders == bare
    labels = set[str]().union(*ours.values())
    assert labels <= {
        *("worker", "model", "backend", "precision", "version", "stage", "quantile", "le", "kind"),
        *("priority", "presence", "outcome", "why", "topic", "partition"),
    }
    for page in running.pages:
        assert not any(bed in get(page).text for bed in (*BEDS, "session-of"))


def test_metrics_say_what_the_worker_says(running: Running) -> None:
    families = {family.name: family for family in text_string_to_metric_families(get(running.pages[0]).text)}

    def value(name: str, **labels: str) -> float:
        (sample,) = (one for one in families[name].samples if labels.items() <= one.labels.items())
        return sample.value

    assert value("bedside_worker_up", worker=running.worker) == 1
    assert value("bedside_worker_beds", worker=running.worker) == 3
    assert value("bedside_worker_errors", worker=running.worker, kind="dead letters") == 1
    p50, p99 = (
        value("bedside_worker_stage_seconds", worker=running.worker, stage="total", quantile=quantile)
        for quantile in ("0.5", "0.99")
    )
    assert 0 < p50 <= p99 < 60
    assert value("bedside_alarms_last_hour", priority="high", kind="physiological") >= 1
    assert value("bedside_topic_entries", topic="dead-letters") == 1
    openmetrics = get(running.pages[0], Accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.kind.startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


def test_grafana_and_the_alerts_ask_for_what_there_is(running: Running) -> None:
    there = exposed(*running.pages)
    board = json.loads((DOCS / "grafana" / "bedside.json").read_text())
    assert (board["title"], board["uid"], board["schemaVersion"] >= 36) == ("Bedside", "bedside", True)
    (source,) = board["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    expressions = []
    for panel in panels:
        assert panel["type"] in ("row", "stat", "timeseries")
        for target in panel.get("targets", ()):
            assert (
                target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            )
            expressions.append(target["expr"])
    alerts = (DOCS / "operations.md").read_text().partition("## What to alert on")[2].partition("\n## ")[0]
    expressions += [row[1] for row in re.findall(r"^\| ([^|]+) \| `([^`]+)` \|", alerts, re.M)]
    assert len(expressions) > 35
    for expression in expressions:
        assert used(expression) - {"bedside_webhook_behind_seconds"} <= there.keys(), expression
        assert expression.count("(") == expression.count(")")
        for name, labels in re.findall(r"(bedside_\w+)\{([^}]+)\}", expression):
            assert set(re.findall(r"(\w+)=", labels)) <= there[name], expression
        for names in re.findall(r"by \(([^)]+)\)", expression):
            wanted = {name.strip() for name in names.split(",")} - {"instance"}
            assert wanted <= set[str]().union(*(there[name] for name in used(expression))), expression


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    plugins.register_default_plugins()
    board = json.loads((DOCS / "grafana" / "bedside.json").read_text())
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert unknown(board, read) == []
    # What it does not know is lost.
    board["panels"][1]["options"]["colourMode"] = "value"
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert unknown(board, read) == ["/panels/1/options/colourMode"]


def unknown(given: Any, read: Any, where: str = "") -> list[str]:
    """Return where a value is not what has been read of it."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [
            place
            for name, value in given.items()
            for place in unknown(value, read.get(name), f"{where}/{name}")
        ]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        pairs = enumerate(zip(given, read, strict=True))
        return [place for n, (one, other) in pairs for place in unknown(one, other, f"{where}/{n}")]
    return [] if given == read else [where]


def test_only_machinery_may_come_by_another_name(running: Running) -> None:
    for path in ("metrics", "api/system"):
        assert get(running.page + path, Host="elsewhere.example").status == 403
    for path in ("healthz", "readyz"):
        assert get(running.page + path, Host="10.1.2.3:5006").status == 200


def test_a_dashboard_without_redis_says_so_and_comes_back(redis_server: EmbeddedServer) -> None:
    with dashboard(redis_server.url) as served:
        wait_for(lambda: get(f"{served.url}readyz").status == 200)
        assert get(f"{served.url}readyz").json == {"ready": True, "reasons": []}
        assert "bedside_dashboard_redis_up 1.0" in get(f"{served.url}metrics").text
        redis_server.stop()
        answer = get(f"{served.url}readyz")
        assert (answer.status, answer.json["ready"]) == (503, False)
        assert answer.json["reasons"] == ["the Redis server does not answer"]
        answer = get(f"{served.url}api/system")
        assert (answer.status, "does not answer" in answer.json["error"]) == (503, True)
        page = get(f"{served.url}metrics")
        assert (page.status, "bedside_dashboard_redis_up 0.0" in page.text) == (200, True)
        assert "bedside_worker" not in page.text
        redis_server.start()
        wait_for(lambda: get(f"{served.url}readyz").status == 200)
        assert get(f"{served.url}api/system").json["workers"] == []
