from __future__ import annotations

import os
import time

import numpy as np
import pytest

from bench.usage import Slope, Usage, slope


@pytest.mark.parametrize("per_hour", [0.0, 30.0])
def test_the_slope_of_a_noisy_line_is_within_its_interval(per_hour: float) -> None:
    at_s = np.arange(0.0, 7200.0)
    values = 200 + per_hour * at_s / 3600 + np.random.default_rng(1).normal(0, 2, len(at_s))
    found = slope(at_s.tolist(), values.tolist())
    assert found is not None
    low, high = found.interval
    assert low <= per_hour <= high
    assert high - low < 5.0
    assert (low > 0) is (per_hour > 0)


def test_a_few_values_have_no_slope() -> None:
    assert slope([0.0, 1.0], [1.0, 2.0]) is None


def test_what_never_changes_has_a_slope_of_nothing() -> None:
    flat = slope([float(at) for at in range(100)], [260.5] * 100)
    assert flat == Slope(0.0, (0.0, 0.0))


def test_what_else_takes_memory_is_sampled_too() -> None:
    usage = Usage({"own": os.getpid()}, {"data": lambda: 12.5})
    usage.sample()
    usage.sample()
    assert usage.rss_mb["data"] == [12.5, 12.5]
    assert set(usage.between(0.0, time.monotonic())) == {"own"}


def test_our_own_use_is_seen() -> None:
    usage = Usage({"us": os.getpid()})
    usage.sample()
    while os.times().user - usage.cpu_s["us"][0] < 0.05:
        np.linalg.norm(np.ones(10_000))
    usage.sample()
    used = usage.between(usage.at_s[0], usage.at_s[1])["us"]
    assert used["cpu_percent"] > 1
    assert used["rss_mb"] > 20


def test_handles_are_counted() -> None:
    usage = Usage({"us": os.getpid()})
    usage.sample()
    with open(os.devnull), open(os.devnull):
        usage.sample()
    first, last = usage.handles["us"]
    assert last == first + 2


def test_a_process_that_has_ended_keeps_its_last_values() -> None:
    usage = Usage({"gone": 2**22 + 1})
    usage.sample()
    usage.sample()
    assert usage.between(usage.at_s[0], usage.at_s[1])["gone"] == {"cpu_percent": 0.0, "rss_mb": 0.0}
