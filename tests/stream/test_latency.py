from __future__ import annotations

import numpy as np
import pytest

from stream.latency import STAGES, RecentLatencies

S = 1_000_000_000


def windows(spent_ns: np.ndarray) -> list[list[int]]:
    """Return the times of windows that spend so long in each of the five stages."""
    begin = np.full((len(spent_ns), 1), 1_700_000_000 * S)
    return np.hstack((begin, begin + np.cumsum(spent_ns, axis=1))).tolist()  # type: ignore[no-any-return]


def test_percentiles_are_those_of_the_windows_within_five_per_cent() -> None:
    rng = np.random.default_rng(7)
    spent = np.round(rng.lognormal(np.log([2e6, 9e6, 4e6, 1.5e6, 3e5]), 0.8, (4_000, 5))).astype(np.int64)
    latencies = RecentLatencies()
    assert latencies.spent() == {}
    for part in np.array_split(spent, 150):
        latencies.add(windows(part))
    found = latencies.spent()
    assert list(found) == list(STAGES)
    for stage, column in zip(STAGES, np.column_stack((spent, spent.sum(axis=1))).T, strict=True):
        expected = np.percentile(column, [50, 99], method="inverted_cdf") / 1e6
        assert tuple(found[stage]) == pytest.approx(tuple(expected), rel=0.046)


def test_the_shortest_and_the_longest_have_a_place() -> None:
    latencies = RecentLatencies()
    latencies.add(windows(np.array([[0, -5, 10_000, 3_600 * S, 1]])))
    found = latencies.spent()
    assert found["queue"].p99_ms == found["prepare"].p50_ms == found["publish"].p50_ms == 0.01
    assert found["inference"].p99_ms > 80_000


def test_a_minute_later_a_window_is_forgotten() -> None:
    latencies = RecentLatencies()
    latencies.turn(0)
    latencies.add(windows(np.array([[S, S, S, S, S]])))
    for second in range(1, 70):
        latencies.turn(second * S)
        assert bool(latencies.spent()) == (second < 60)
    # Nobody had asked for an hour.
    latencies.add(windows(np.array([[S, S, S, S, S]])))
    latencies.turn(3_600 * S)
    assert latencies.spent() == {}
