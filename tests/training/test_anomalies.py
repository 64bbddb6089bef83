from __future__ import annotations

import numpy as np
import pytest

from tests.training.conftest import made_up_signal
from training.anomalies import KINDS, beats, insert

FS = 100.0


@pytest.fixture(scope="module")
def window() -> np.ndarray:
    x = made_up_signal(0, seconds=8.0).millivolts[::5].T
    return ((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)).astype(np.float32)


def test_beats_are_found_where_the_qrs_complexes_are(window: np.ndarray) -> None:
    found = beats(window, FS)
    assert 7 <= len(found) <= 11
    tops = [int(np.argmax(window[0, at - 10 : at + 11])) + at - 10 for at in found[1:-1]]
    assert max(abs(top - at) for top, at in zip(tops, found[1:-1], strict=True)) <= 2
    assert np.ptp(np.diff(found)) <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_an_anomaly_changes_what_is_inside_it_most(window: np.ndarray, kind: str) -> None:
    counted = np.ones(window.shape, bool)
    for seed in range(20):
        altered = insert(kind, window, counted, FS, np.random.default_rng(seed))
        assert altered is not None
        touched = altered.inside.any(axis=1)
        assert touched.sum() == (2 if kind == "exchanged leads" else 1)
        assert 10 <= altered.inside.any(axis=0).sum() <= 75
        np.testing.assert_array_equal(altered.x[~touched], window[~touched])
        # Standardised again, as serving would.
        np.testing.assert_allclose(altered.x[touched].mean(axis=1), 0.0, atol=1e-5)
        np.testing.assert_allclose(altered.x[touched].std(axis=1), 1.0, atol=1e-5)
        change = np.abs(altered.x - window)[touched]
        where = altered.inside[touched]
        assert change[where].mean() > 2 * change[~where].mean()


def test_anomalies_repeat_with_the_seed(window: np.ndarray) -> None:
    counted = np.ones(window.shape, bool)
    first, again, other = (
        insert("noise", window, counted, FS, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)


def test_missing_leads_are_left_alone(window: np.ndarray) -> None:
    counted = np.ones(window.shape, bool)
    counted[2:] = False
    for seed in range(10):
        altered = insert("missing beat", window, counted, FS, np.random.default_rng(seed))
        assert altered is not None
        assert not altered.inside[2:].any()


def test_without_a_beat_or_a_second_lead_there_is_nothing_to_insert(window: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    one = np.zeros(window.shape, bool)
    one[1] = True
    assert insert("noise", window, one, FS, rng) is None
    assert insert("noise", np.zeros_like(window), np.ones(window.shape, bool), FS, rng) is None
