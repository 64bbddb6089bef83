from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.bed.trace import MONITOR_BAND, WIDE_BAND, Grid, Trace, thin
from tests.monitor.messages import beats

RATES = (50.0, 100.0, 128.0, 250.0, 257.0, 360.0, 500.0, 1000.0)


@pytest.mark.parametrize("fs", RATES)
def test_points_lie_evenly_within_their_buckets(fs: float) -> None:
    grid = Grid(fs, 10.0)
    samples = grid.samples(10, 20)
    assert len(samples) == 10 * grid.points
    assert np.diff(samples) == pytest.approx(grid.size / grid.points)
    assert 10 * grid.size - 0.5 < samples[0] < samples[-1] < 20 * grid.size - 0.5
    # A second of the fastest paper is 200 pixels wide; no rate costs more than twice what that takes.
    assert 50 <= fs / grid.size * grid.points <= 400


@given(st.lists(st.lists(st.one_of(st.floats(-5, 5), st.just(np.nan)), min_size=4, max_size=4), min_size=1))
def test_thinning_keeps_every_extreme_in_its_order(rows: list[list[float]]) -> None:
    values = np.array(rows)
    for row, (first, second) in zip(values, thin(values), strict=True):
        known = row[~np.isnan(row)]
        if not len(known):
            assert np.isnan([first, second]).all()
            continue
        assert {first, second} == {known.min(), known.max()}
        at = [int(np.flatnonzero(row == value)[0]) for value in (first, second)]
        assert at == sorted(at)


def trace_of(millivolts: np.ndarray, fs: float, cuts: list[int], start: int = 0) -> Trace:
    trace = Trace(Grid(fs, 10.0), millivolts.shape[1], MONITOR_BAND, start)
    for begin, end in zip([0, *cuts], [*cuts, len(millivolts)], strict=True):
        trace.push(millivolts[begin:end].astype(np.float32))
    return trace


@given(
    fs=st.sampled_from(RATES),
    cuts=st.lists(st.integers(0, 700), max_size=8).map(sorted),
    start=st.integers(0, 5000),
)
def test_chunking_does_not_change_what_is_drawn(fs: float, cuts: list[int], start: int) -> None:
    millivolts = beats(start, 700, fs, 2)
    millivolts[300:305, 0] = np.nan
    whole, cut = trace_of(millivolts, fs, [], start), trace_of(millivolts, fs, cuts, start)
    assert whole.stop == cut.stop
    begin = whole.stop - 100
    np.testing.assert_allclose(cut.read(begin, cut.stop), whole.read(begin, whole.stop), atol=1e-6)


@pytest.mark.parametrize("fs", [250.0, 360.0, 500.0, 1000.0])
def test_a_peak_stands_where_it_happened_and_is_not_cut(fs: float) -> None:
    millivolts = beats(0, round(4 * fs), fs, 1)
    trace = trace_of(millivolts, fs, [])
    grid = Grid(fs, 10.0)
    start = round(2.4 * fs / grid.size)
    drawn, at = trace.read(start, trace.stop)[:, 0], grid.samples(start, trace.stop) / fs
    # Peaks every 0.8 s, at 0.3: 2.7 is the first one after 2.4 s.
    near = (at > 2.5) & (at < 2.9)
    assert at[near][np.nanargmax(drawn[near])] == pytest.approx(2.7, abs=0.006)
    assert np.nanmax(drawn[near]) == pytest.approx(0.9, abs=0.1)


def test_a_gap_is_drawn_as_a_gap_of_its_length() -> None:
    millivolts = beats(0, 2000, 500.0, 1)
    millivolts[1000:1250] = np.nan
    trace = trace_of(millivolts, 500.0, [])
    drawn = trace.read(0, trace.stop)[:, 0]
    missing = np.flatnonzero(np.isnan(drawn))
    assert missing[0] == pytest.approx(1000 / 2, abs=6)
    assert len(missing) == pytest.approx(250 / 2, abs=3)


def test_the_wide_band_lets_hum_through() -> None:
    t = np.arange(3000) / 500.0
    hum = np.sin(2 * np.pi * 50 * t)[:, np.newaxis]
    swings = {}
    for band in (MONITOR_BAND, WIDE_BAND):
        trace = Trace(Grid(500.0, 10.0), 1, band, 0)
        trace.push(hum.astype(np.float32))
        swings[band] = np.ptp(trace.read(trace.stop - 100, trace.stop))
    assert swings[MONITOR_BAND] < 0.1
    assert swings[WIDE_BAND] > 1.8
