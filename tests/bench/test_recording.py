"""The measurement of the recorder: it counts what it should, on a small ward."""

from __future__ import annotations

import pytest

from bench.recording import measure_ward


@pytest.mark.slow
def test_a_small_ward_is_recorded_whole() -> None:
    ward = measure_ward(2, 5.0, (), 1)
    assert ward["lost_samples"] == 0
    assert 0 < ward["cpu_percent"] < 100
    assert ward["seconds"] >= 5.0
