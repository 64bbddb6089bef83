from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.manifest import ScoreSpec
from models.scoring import Scores, point_error, sensitivity
from models.scoring import score as score_outputs
from tests.models.conftest import small_spec

LEADS, SAMPLES = 3, 20


def batch(seed: int, n: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (rng.random((n, LEADS)) < 0.7).astype(np.float32)
    mask[:, 0] = 1.0
    counted = (rng.random((n, LEADS, SAMPLES)) < 0.8) & (mask[:, :, np.newaxis] != 0)
    counted[:, 0, 0] = True
    x = rng.standard_normal((n, LEADS, SAMPLES)).astype(np.float32)
    return x, (x + rng.normal(0, 0.5, x.shape)).astype(np.float32), counted, mask


def same(a: Scores, b: Scores) -> None:
    np.testing.assert_array_equal(a.window, b.window)
    np.testing.assert_array_equal(a.lead, b.lead)


def score(x, recon, counted, mask, spec: ScoreSpec) -> Scores:
    return score_outputs(x, {"recon_mean": recon}, counted, mask, spec)


def by_hand(x, recon, counted, mask, spec: ScoreSpec) -> float:
    errors = {}
    for lead in range(LEADS):
        points = np.flatnonzero(counted[lead])
        if mask[lead] and len(points):
            squares = [(float(x[lead, t]) - float(recon[lead, t])) ** 2 for t in points]
            errors[lead] = math.log(sum(squares) / len(squares))
    m = len(errors) - 1
    leads = [(e - spec.lead_mean[m][lead]) / spec.lead_std[m][lead] for lead, e in errors.items()]
    return (sum(leads) / len(leads) - spec.count_mean[m]) / spec.count_std[m]


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_is_the_formula_of_its_documentation(seed: int) -> None:
    x, recon, counted, mask = batch(seed)
    found = score(x, recon, counted, mask, small_spec())
    for i in range(len(x)):
        wanted = by_hand(x[i], recon[i], counted[i], mask[i], small_spec())
        # The difference of x and recon is taken in float32.
        assert found.window[i] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([np.nan, np.inf, 1e30, 0.0]))
@settings(max_examples=30, deadline=None)
def test_masked_leads_do_not_matter(seed: int, rubbish: float) -> None:
    x, recon, counted, mask = batch(seed)
    clean = score(x, recon, counted, mask, small_spec())
    dirty_x, dirty_recon = x.copy(), recon.copy()
    dirty_x[mask == 0] = rubbish
    dirty_recon[mask == 0] = 7.0
    same(score(dirty_x, dirty_recon, counted, mask, small_spec()), clean)
    assert np.array_equal(np.isnan(clean.lead), (mask == 0) | ~counted.any(axis=2))


@given(st.integers(0, 10_000), st.sampled_from([np.nan, np.inf, 1e30, 0.0]))
@settings(max_examples=30, deadline=None)
def test_uncounted_points_do_not_matter(seed: int, rubbish: float) -> None:
    x, recon, counted, mask = batch(seed)
    dirty = recon.copy()
    dirty[~counted] = rubbish
    same(score(x, dirty, counted, mask, small_spec()), score(x, recon, counted, mask, small_spec()))


@given(st.integers(0, 10_000), st.permutations(range(5)))
@settings(max_examples=30, deadline=None)
def test_a_window_scores_the_same_in_any_batch(seed: int, order: list[int]) -> None:
    arrays = batch(seed)
    whole = score(*arrays, small_spec())
    shuffled = score(*(array[order] for array in arrays), small_spec())
    np.testing.assert_array_equal(shuffled.window, whole.window[order])
    alone = [score(*(array[i : i + 1] for array in arrays), small_spec()).window[0] for i in range(5)]
    np.testing.assert_array_equal(alone, whole.window)


def test_a_larger_error_scores_higher() -> None:
    x, recon, counted, mask = batch(1)
    near = score(x, recon, counted, mask, small_spec())
    far = score(x, x + 2 * (recon - x), counted, mask, small_spec())
    assert (far.window > near.window).all()
    assert (far.lead > near.lead)[~np.isnan(near.lead)].all()


def test_nothing_to_score_is_nan_and_perfect_is_finite() -> None:
    x, recon, counted, mask = batch(2)
    assert np.isnan(score(x, recon, np.zeros_like(counted), mask, small_spec()).window).all()
    assert np.isnan(score(x, recon, counted, np.zeros_like(mask), small_spec()).window).all()
    assert np.isfinite(score(x, x, counted, mask, small_spec()).window).all()


def test_an_empty_batch_gives_empty_scores() -> None:
    arrays = (array[:0] for array in batch(0))
    found = score(*arrays, small_spec())
    assert found.window.shape == (0,)
    assert found.lead.shape == (0, LEADS)


def test_point_error_is_squared_and_blank_where_not_counted() -> None:
    x, recon, counted, _ = batch(4)
    error = point_error(x, recon, counted)
    assert error.dtype == np.float32
    assert np.array_equal(np.isnan(error), ~counted)
    np.testing.assert_allclose(error[counted], (x - recon)[counted] ** 2, rtol=1e-6)


@given(st.integers(0, 10_000), st.floats(-1.0, 1.0))
@settings(max_examples=50, deadline=None)
def test_no_score_moves_by_more_than_its_sensitivity(seed: int, shift: float) -> None:
    x, recon, counted, mask = batch(seed)
    spec = small_spec()
    # Scaling the error by exp(shift / 2) moves every log error by `shift`.
    further = x + (recon - x) * np.exp(shift / 2)
    moved = score(x, further, counted, mask, spec).window - score(x, recon, counted, mask, spec).window
    assert (np.abs(moved) <= abs(shift) * sensitivity(mask, spec) + 1e-6).all()


def test_sensitivity_is_reached_where_all_leads_spread_alike() -> None:
    spec = small_spec().model_copy(
        update={"lead_std": ((0.5,) * LEADS,) * LEADS, "count_std": (0.25,) * LEADS}
    )
    np.testing.assert_allclose(sensitivity(np.ones((1, LEADS)), spec), 8.0)
