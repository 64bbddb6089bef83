"""What is said of a deployment, state by state."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.system.survey import Look, Server, Stream, Worker
from monitor.system.words import problems, worker_state
from stream.heartbeat import WorkerStatus
from stream.topics import DEAD_LETTERS, SAMPLES

IDLE = Stream(0, None, 0.0)


def status(**changes: Any) -> WorkerStatus:
    usual: dict[str, Any] = {
        "v": 1,
        "at": 0,
        "started": 0,
        "version": "1",
        "model": "cae-100hz",
        "backend": "onnxruntime",
        "precision": "fp32",
        "beds": 4,
        "partitions": (0, 1),
        "chunks_per_s": 20.0,
        "windows_per_s": 8.0,
        "behind_s": 0.05,
        "shedding": 0,
        "stages": {},
        "cpu": 0.1,
        "errors": {},
        "recent_errors": 0,
    }
    return WorkerStatus(**usual | changes)


def worker(name: str = "w1", silent_s: float = 0.5, **changes: Any) -> Worker:
    return Worker(name, 0, silent_s, status(**changes))


def look(*workers: Worker, samples: tuple[Stream, ...] = (IDLE, IDLE), **server: Any) -> Look:
    usual = {"version": "9", "used": 10, "limit": 0, "policy": "noeviction", "clients": 3}
    told = Server(**usual | {"evicted": 0, "keeps": True} | server)
    return Look(0, told, workers, {SAMPLES: samples, DEAD_LETTERS: (IDLE,)})


def said(seen: Look, pump_lag_s: float | None = 0.0) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in problems(seen, pump_lag_s, 5.0)]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (worker(), ("working", "ok", "works")),
        (worker(beds=0), ("idle", "ok", "ready, no feed yet")),
        (worker(beds=0, partitions=()), ("joining", "ok", "holds no partition yet")),
        (worker(behind_s=1.4), ("behind", "warning", "1.4 s behind")),
        (
            worker(behind_s=1.4, shedding=1, recent_errors=3),
            ("shedding", "warning", "overloaded: leaves out explanations, 1.4 s behind"),
        ),
        (
            worker(behind_s=0.2, shedding=3),
            ("shedding", "warning", "overloaded: scores one window of four"),
        ),
        (worker(recent_errors=1), ("failing", "warning", "1 error in the last minute")),
        (worker(silent_s=65.0, shedding=2), ("silent", "alarm", "silent for 1 min 05 s")),
        (
            Worker("w1", 0, 0.0, None),
            ("unknown", "warning", "of another version: says nothing that can be read here"),
        ),
    ],
)
def test_a_worker_is_in_the_worst_state_that_applies(one: Worker, expected: tuple[str, str, str]) -> None:
    state, says = worker_state(one)
    assert (state, says.level, says.text) == expected


def test_a_quiet_deployment_has_no_problem() -> None:
    live = Stream(100, 0.1, 2.4)
    assert said(look(worker(), samples=(live, live))) == []
    # Nobody feeds it and nobody has to work.
    assert said(look()) == []
    # It has just started.
    assert said(look(worker()), None) == []


def test_the_worst_comes_first_and_each_is_said_in_words() -> None:
    seen = look(
        worker("w1", behind_s=2.0, partitions=(0,)),
        worker("w2", silent_s=4.0, partitions=(1,)),
        worker("w3", partitions=(2,)),
        samples=(Stream(9, 0.1, 1.0), Stream(9, 0.1, 8.0), Stream(9, 0.1, 7.0), Stream(9, 60.0, 60.0)),
        used=96,
        limit=100,
        policy="allkeys-lru",
    )
    seen.topics[DEAD_LETTERS] = (Stream(3, 12.0, None),)
    assert said(seen, 7.0) == [
        ("alarm", "w2: silent for 4 s"),
        ("alarm", "Redis uses 96 % of the memory that it may use"),
        ("warning", "w1: 2.0 s behind"),
        ("warning", "no worker holds partition 1, and feeds come in there"),
        ("warning", "partition 2 up to 7 s behind"),
        ("warning", "Redis may throw streams away (maxmemory-policy allkeys-lru): set noeviction"),
        ("warning", "messages that cannot be read came in the last minute (topic dead-letters)"),
        ("warning", "this dashboard is 7 s behind: what it shows is old"),
    ]
    assert [one.worker for one in problems(seen, 0.0, 5.0)][:3] == ["w2", None, "w1"]


def test_feeds_without_a_worker_are_told() -> None:
    live = Stream(9, 0.1, 1.0)
    assert said(look(samples=(live,))) == [("alarm", "no worker scores the feeds that come in")]
    assert said(look(worker(partitions=(1,)), samples=(live, live, live))) == [
        ("warning", "no worker holds partitions 0, 2, and feeds come in there")
    ]
    assert ("alarm", "Redis has thrown away 2 keys for lack of memory") in said(look(evicted=2))
