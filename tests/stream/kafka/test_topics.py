"""The command `bedside topics`, on both brokers."""

from __future__ import annotations

import json
from typing import Any

from stream.embedded import EmbeddedServer
from tests.command_line import assert_refused, run


def listed(text: str) -> dict[str, dict[str, Any]]:
    return {line["topic"]: line for line in map(json.loads, text.splitlines())}


def test_topics_are_made_on_kafka_and_stay_as_they_are(kafka: str) -> None:
    where = ("--broker", kafka)
    prefix = {"BEDSIDE_PREFIX": "ward-3:"}
    assert_refused(run("topics", "list", *where, **prefix), "there are no topics yet")
    made = run("topics", "create", *where, "--partitions", 6, **prefix)
    assert made.returncode == 0, made.stderr
    found = listed(run("topics", "list", *where, "--json", **prefix).stdout)
    assert sorted(made.stdout.split()) == sorted(found)
    assert all(name.startswith("ward-3.") for name in found)
    assert {name for name, topic in found.items() if topic["partitions"] == 6} == {
        "ward-3.samples",
        "ward-3.commands",
        "ward-3.findings",
        "ward-3.vitals",
        "ward-3.explanations",
        "ward-3.bedside-worker-beds-changelog",
        "ward-3.bedside-worker-memories-changelog",
    }
    assert found["ward-3.alarms"]["partitions"] == 1
    again = run("topics", "create", *where, "--partitions", 6, **prefix)
    assert (again.returncode, again.stdout) == (0, "")
    other = run("topics", "create", *where, "--partitions", 7, **prefix)
    assert_refused(other, "has 6 partitions, not 7", "topics resize")


def test_topics_on_redis(redis_server: EmbeddedServer) -> None:
    where = ("--redis", redis_server.url)
    assert run("topics", "create", *where, "--partitions", 32).returncode == 0
    found = listed(run("topics", "list", *where, "--json").stdout)
    assert found["bedside:samples"]["partitions"] == found["bedside:commands"]["partitions"] == 32
    assert (found["bedside:alarms"]["partitions"], found["bedside:alarms"]["maxlen"]) == (1, 100_000)
    assert_refused(run("topics", "create", *where), "has 32 partitions, not 16")


def test_a_worker_and_a_replay_say_what_is_missing(kafka: str, redis_server: EmbeddedServer) -> None:
    where = ("--broker", kafka, "--redis", redis_server.url)
    prefix = {"BEDSIDE_PREFIX": "nowhere:"}
    for command in (
        ("worker", *where),
        ("bridge", *where),
        ("ingest", "simulate", "--seconds", 1, "--metrics-port", 0, *where),
    ):
        result = run(*command, **prefix)
        assert_refused(result, "has no topic nowhere.", f"`bedside topics create --broker {kafka}`")
    assert_refused(
        run("topics", "list", "--broker", "kafka://127.0.0.1:9"), "cannot use the Kafka broker at kafka://127"
    )
