from __future__ import annotations

import numpy as np
import pytest

from monitor.bed.overlay import Overlay
from monitor.bed.trace import MONITOR_BAND, Grid, Trace
from stream.preprocess import Conditioner, group_delay_ms
from tests.monitor.messages import beats, explanation


def drawn_of(overlay: Overlay, start: int, stop: int, leads: int = 2) -> np.ndarray:
    return overlay.expected.read(start, stop).reshape(-1, leads)


@pytest.mark.parametrize("fs", [250.0, 257.0, 500.0])
def test_what_was_expected_lies_over_what_was_measured(fs: float) -> None:
    # A model that reconstructs perfectly: the band-passed signal at 100 Hz, as a worker publishes it.
    millivolts = beats(0, round(12 * fs), fs, 2)
    conditioned = Conditioner(MONITOR_BAND, fs, 100.0, 2).push(millivolts.T.copy())
    delay_s = group_delay_ms(MONITOR_BAND, fs) / 1000
    grid = Grid(fs, 10.0)
    trace = Trace(grid, 2, MONITOR_BAND, 0)
    trace.push(millivolts.astype(np.float32))
    overlay = Overlay(grid, ("I", "II"), 0)
    for first in range(0, 400, 50):
        window = explanation(conditioned.values[:, first : first + 800])
        overlay.add(window, (first / 100 - delay_s) * fs)
    start, stop = round(6 * fs / grid.size), round(10.5 * fs / grid.size)
    measured, expected = trace.read(start, stop), drawn_of(overlay, start, stop)
    assert not np.isnan(expected).any()
    # Two points stand for four samples, so the traces may differ by a sample's time, not by their heights.
    assert np.abs(measured - expected).mean() < 0.008
    assert np.abs(measured.max(axis=0) - expected.max(axis=0)).max() < 0.02
    lags = range(-8, 9)
    alike = [np.abs(measured[20:-20] - np.roll(expected, lag, axis=0)[20:-20]).mean() for lag in lags]
    assert abs(lags[int(np.argmin(alike))]) * grid.size / grid.points / fs <= 0.004


def test_a_point_is_drawn_as_the_window_with_the_most_around_it_expected_it() -> None:
    grid = Grid(100.0, 10.0)
    overlay = Overlay(grid, ("I",), 0)
    for number in range(3):
        window = explanation(np.full((1, 400), float(number)), leads=("I",), window=number)
        overlay.add(window, 100.0 * number)
    drawn = drawn_of(overlay, 0, 600, 1)[:, 0]
    assert set(drawn[5:240]) == {0.0}
    assert set(drawn[255:340]) == {1.0}
    assert set(drawn[355:595]) == {2.0}


def test_leads_that_took_no_part_have_no_expectation() -> None:
    overlay = Overlay(Grid(100.0, 10.0), ("I", "II", "V1"), 0)
    overlay.add(explanation(np.ones((1, 400)), leads=("II",)), 0.0)
    drawn = drawn_of(overlay, 0, 300, 3)
    assert np.isnan(drawn[:, [0, 2]]).all()
    assert (drawn[:, 1] == 1.0).all()


@pytest.mark.parametrize("shape", [(0, 0), (2, 1), (5,)])
def test_arrays_that_are_no_window_are_left_out(shape: tuple[int, ...]) -> None:
    overlay = Overlay(Grid(100.0, 10.0), ("I", "II"), 0)
    assert overlay.add(explanation(np.zeros(shape)), 0.0) == (0, 0)
    assert np.isnan(drawn_of(overlay, 0, 100)).all()


def test_what_is_not_known_or_does_not_fit_changes_nothing_else() -> None:
    plain, more = (Overlay(Grid(100.0, 10.0), ("I", "II"), 0) for _ in range(2))
    wave = np.random.default_rng(0).normal(size=(2, 400))
    odd = {
        "error": np.zeros((3, 7)),
        "lead_attention": np.zeros((2, 0)),
        "temporal_attention": np.zeros((2, 3)),
        "not_yet_invented": np.zeros((2, 3, 4)),
    }
    assert plain.add(explanation(wave), 0.0) == more.add(explanation(wave, arrays=odd), 0.0) == (0, 399)
    np.testing.assert_array_equal(drawn_of(plain, 0, 399), drawn_of(more, 0, 399))
    assert np.isnan(more.error.read(0, 399)).all()
    assert np.isnan(more.temporal.read(0, 399)).all()


def test_only_what_a_window_says_better_has_changed() -> None:
    overlay = Overlay(Grid(100.0, 10.0), ("I",), 0)
    assert overlay.add(explanation(np.ones((1, 400)), leads=("I",)), 0.0) == (0, 399)
    assert overlay.add(explanation(np.ones((1, 400)), leads=("I",), window=1), 50.0) == (225, 449)
    # It comes again, as after a worker was killed.
    assert overlay.add(explanation(np.ones((1, 400)), leads=("I",), window=1), 50.0) == (0, 0)


def test_another_kind_of_model_begins_anew() -> None:
    # Errors in millivolts and in standard deviations have different scales.
    overlay = Overlay(Grid(100.0, 10.0), ("I",), 0)
    flat = np.ones((1, 400))
    overlay.add(explanation(flat, leads=("I",), arrays={"error": flat}), 0.0)
    assert overlay.error.read(10, 11) == 1.0
    overlay.add(explanation(flat, leads=("I",), arrays={"error": flat, "spread": flat}), 200.0)
    assert np.isnan(overlay.error.read(10, 190)).all()
    assert overlay.error.read(300, 301) == 0.25
