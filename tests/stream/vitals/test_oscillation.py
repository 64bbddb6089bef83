from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.vitals.grid import FS
from stream.vitals.oscillation import oscillation

TIME_S = np.arange(4 * FS) / FS


def wave(hz: float, millivolts: float = 0.5) -> np.ndarray:
    return millivolts * np.sin(2 * np.pi * hz * TIME_S)


def beats() -> np.ndarray:
    phase = TIME_S % 0.8 - 0.4
    return np.exp(-((phase / 0.02) ** 2) / 2)


@settings(deadline=None)
@given(hz=st.floats(2.0, 7.0), millivolts=st.floats(0.1, 3.0))
def test_a_wave_of_flutter_is_one(hz: float, millivolts: float) -> None:
    assert oscillation(wave(hz, millivolts)[np.newaxis]) > 0.9


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(4 * FS),
        wave(4, 0.02),
        wave(0.5),
        wave(20),
        beats(),
        np.random.default_rng(1).normal(0, 0.3, 4 * FS),
    ],
    ids=["nothing", "too small", "too slow", "too fast", "beats", "noise"],
)
def test_what_is_none(x: np.ndarray) -> None:
    assert oscillation(x[np.newaxis]) == 0.0


def test_beats_in_one_of_two_leads_are_beats() -> None:
    assert oscillation(np.stack([wave(4), beats()])) == 0.0


def test_a_flat_lead_says_nothing() -> None:
    assert oscillation(np.stack([wave(4), np.zeros(4 * FS)])) > 0.9


def test_of_four_leads_one_may_doubt() -> None:
    assert oscillation(np.stack([wave(4), wave(4), wave(4), beats()])) > 0.9
    assert oscillation(np.stack([wave(4), wave(4), beats(), beats()])) == 0.0


def test_no_lead_no_oscillation() -> None:
    assert oscillation(np.empty((0, 4 * FS))) == 0.0
