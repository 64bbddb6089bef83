from __future__ import annotations

import numpy as np
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.histogram import LatencyHistogram

US = 1_000


@settings(deadline=None)  # the first histogram imports its C code
@given(st.lists(st.integers(US, 3_600_000_000_000), min_size=1, max_size=300))
def test_percentiles_are_those_of_the_values_to_a_thousandth(values: list[int]) -> None:
    latencies = np.array(values, np.int64)
    histogram = LatencyHistogram(latencies)
    assert histogram.n == len(values)
    for percentile in (50.0, 90.0, 99.0, 100.0):
        expected_ms = np.percentile(latencies, percentile, method="inverted_cdf") / 1e6
        found_ms = histogram.percentile_ms(percentile)
        assert found_ms is not None
        assert abs(found_ms - expected_ms) <= 0.001 + 0.001 * expected_ms


def test_adding_in_pieces_is_adding_at_once() -> None:
    values = np.random.default_rng(0).integers(US, 10**9, 1000)
    pieces = LatencyHistogram()
    for piece in np.split(values, 10):
        pieces.add(piece)
    assert pieces.summary() == LatencyHistogram(values).summary()
    assert pieces.curve() == LatencyHistogram(values).curve()


def test_nothing_has_no_percentiles() -> None:
    empty = LatencyHistogram()
    assert empty.summary() == {"n": 0} | dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"))
    assert empty.curve() == []


def test_the_curve_rises_from_the_lowest_to_the_highest() -> None:
    curve = LatencyHistogram(np.arange(1, 10_001) * US).curve()
    percentiles, latencies = zip(*curve, strict=True)
    assert list(percentiles) == sorted(percentiles)
    assert list(latencies) == sorted(latencies)
    assert percentiles[-1] == 100.0
    assert abs(latencies[-1] - 10.0) < 0.02


def test_other_programs_can_read_it() -> None:
    histogram = LatencyHistogram(np.array([5_000_000, 7_000_000]))
    decoded = HdrHistogram.decode(histogram.encode())
    assert decoded.get_total_count() == 2
    assert decoded.get_max_value() == 7_003  # microseconds, the upper end of what counts as equal


def test_a_clock_that_went_back_counts_as_the_shortest_latency() -> None:
    assert LatencyHistogram(np.array([-5_000])).percentile_ms(50) == 0.001
