"""The measurement of the adapters: nothing is lost, and what is measured is an adapter at work."""

from __future__ import annotations

import pytest

from bench.adapters import measure


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcp-binary", "hl7", "lsl"])
def test_a_small_ward_arrives_whole(name: str) -> None:
    row = measure(name, 2, 2.0)
    assert row["lost_samples"] == 0
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert 0 < row["cpu_percent"] < 100
