from __future__ import annotations

import numpy as np
import pytest

from bench.load import CHUNK_NS, phase_ns
from bench.reader import ROW
from bench.stages import STAGES, drift, over_time, stage_latencies

BEGIN = 1_700_000_000_000_000_000
MS = 1_000_000


def findings(*, begun: bool) -> np.ndarray:
    # Bed 1 of two, chunk 3: each station takes one millisecond more than the one before.
    due = BEGIN + phase_ns(1, 2) + 4 * CHUNK_NS
    row = (1, 0, 1, due, due + 3 * MS, due + 6 * MS, (due + 10 * MS) * begun)
    return np.array([(*row, due + 15 * MS, due + 21 * MS, due + 28 * MS)], ROW)


def accepted() -> np.ndarray:
    times = np.zeros((2, 5), np.int64)
    times[1, 3] = findings(begun=True)["ingest_ns"][0] + 1 * MS
    return times


def test_stages_add_up_to_the_whole() -> None:
    found = {
        name: int(ns[0]) / MS for name, ns in stage_latencies(findings(begun=True), accepted(), BEGIN).items()
    }
    assert found == {
        "ingest": 1,
        "queue": 2,
        "ready": 3,
        "batch_wait": 4,
        "inference": 5,
        "publish": 6,
        "deliver": 7,
        "publish_to_finding": 28,
    }
    assert set(found) <= set(STAGES)


@pytest.mark.parametrize("speed", [1.0, 3.0, 30.0])
def test_the_chunk_of_a_finding_is_known_at_any_speed(speed: float) -> None:
    one = findings(begun=True)
    due = BEGIN + round((phase_ns(1, 2) + 4 * CHUNK_NS) / speed)
    one["ingest_ns"] = due
    times = np.full((2, 5), 0, np.int64)
    times[1, 3] = due + 7 * MS
    assert stage_latencies(one, times, BEGIN, speed)["ingest"].tolist() == [7 * MS]


def test_a_worker_that_does_not_say_when_inference_began_has_one_stage_for_both() -> None:
    found = stage_latencies(findings(begun=False), accepted(), BEGIN)
    assert int(found["batch_and_inference"][0]) == 9 * MS
    assert not {"batch_wait", "inference"} & set(found)


def test_a_latency_that_grows_is_a_drift() -> None:
    at = np.arange(0, 300, 0.1)
    rng = np.random.default_rng(0)
    steady = 20 + rng.normal(0, 1, len(at))
    times_ns = (at * 1e9).astype(np.int64)
    for slope_ms_per_s, grows in ((0.0, False), (0.01, True)):
        rows = over_time(times_ns, ((steady + slope_ms_per_s * at) * MS).astype(np.int64))
        assert len(rows) == 30
        assert rows[0]["at_s"] == 5.0
        found = drift(rows)
        assert found is not None
        assert found["grows"] is grows
        low, high = found["interval"]
        assert low <= 3600 * slope_ms_per_s <= high


def test_a_minute_says_nothing_of_drift() -> None:
    assert drift([{"at_s": 10.0 * n, "p50_ms": 1.0, "p99_ms": 2.0} for n in range(6)]) is None


@pytest.mark.parametrize("begun", [True, False])
def test_no_findings_have_no_latencies(begun: bool) -> None:
    found = stage_latencies(findings(begun=begun)[:0], accepted(), BEGIN)
    assert all(len(latencies) == 0 for latencies in found.values())
