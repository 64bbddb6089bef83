"""The measurement of the adapters: nothing is lost, and what is measured is an adapter at work."""

from __future__ import annotations

import pytest

from bench.adapters import SUBJECTS, Device, measure


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcp-binary", "hl7", "lsl", "sdc"])
def test_a_small_ward_arrives_whole(name: str) -> None:
    row = measure(name, 2, 2.0)
    assert row["lost_samples"] == 0
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert 0 < row["cpu_percent"] < 100


@pytest.mark.parametrize("name", ["lsl", "sdc"])
def test_devices_of_others_on_the_network_are_left_to_them(name: str) -> None:
    options = {tuple(SUBJECTS[name].named(Device(bed, port))) for bed in ("a", "b") for port in (1, 2)}
    assert len(options) == 4
    assert {option for option, _ in options} <= {"--name", "--device"}
