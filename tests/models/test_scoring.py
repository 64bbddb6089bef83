from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.manifest import ScoreSpec
from models.scoring import (
    Outputs,
    Scores,
    lead_errors,
    point_error,
    raw_scores,
    score,
    sensitivity,
)
from tests.models.conftest import small_spec

LEADS, SAMPLES, STEPS = 3, 20, 5
KINDS = ("mse", "log_mse", "log_mae", "log_normalised", "elbo", "attention_elbo", "restoration")

every_kind = pytest.mark.parametrize("kind", KINDS)
every_distance = pytest.mark.parametrize("distance_weight", [0.0, 0.7])
some_seed = st.integers(0, 10_000)
few = settings(max_examples=15, deadline=None)


def batch(seed: int, n: int = 5) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (rng.random((n, LEADS)) < 0.7).astype(np.float32)
    mask[:, 0] = 1.0
    counted = (rng.random((n, LEADS, SAMPLES)) < 0.8) & (mask[:, :, np.newaxis] != 0)
    counted[:, 0, 0] = True
    x = rng.standard_normal((n, LEADS, SAMPLES))
    outputs = {
        "recon_mean": x + rng.normal(0, 0.5, x.shape),
        "recon_logvar": rng.normal(-1, 1, x.shape),
        "kl": rng.uniform(0, 50, n),
        "temporal_attention": rng.dirichlet(np.ones(STEPS), n),
        "distance": rng.normal(0, 1, n),
        "recon_restored": x + rng.normal(0, 0.7, x.shape),
    }
    return x.astype(np.float32), as_float32(outputs), counted, mask


def as_float32(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float32) for name, value in outputs.items()}


def select(
    arrays: tuple[np.ndarray, Outputs, np.ndarray, np.ndarray], which: object
) -> tuple[np.ndarray, Outputs, np.ndarray, np.ndarray]:
    x, outputs, counted, mask = arrays
    return x[which], {name: value[which] for name, value in outputs.items()}, counted[which], mask[which]


def same(a: Scores, b: Scores) -> None:
    np.testing.assert_array_equal(a.window, b.window)
    np.testing.assert_array_equal(a.lead, b.lead)


def errors_by_hand(x, outputs: Outputs, counted, mask, spec: ScoreSpec, window: int) -> dict[int, float]:
    def value(name: str, *at: int) -> float:
        return float(outputs[name][(window, *at)])

    def mean(terms: dict[int, float], weights: dict[int, float]) -> float:
        return sum(terms[t] * weights[t] for t in terms) / sum(weights[t] for t in terms)

    used = {
        lead: np.flatnonzero(counted[window, lead]).tolist()
        for lead in range(LEADS)
        if mask[window, lead] and counted[window, lead].any()
    }
    total = sum(map(len, used.values()))
    errors = {}
    for lead, points in used.items():
        recon = "recon_restored" if spec.kind == "restoration" else "recon_mean"
        squares = {t: (float(x[window, lead, t]) - value(recon, lead, t)) ** 2 for t in points}
        variance = {t: math.exp(value("recon_logvar", lead, t)) for t in points}
        even = dict.fromkeys(points, 1.0)
        if spec.kind in ("mse", "log_mse", "restoration"):
            error = mean(squares, even)
            errors[lead] = error if spec.kind == "mse" else math.log(error)
        elif spec.kind == "log_mae":
            errors[lead] = math.log(mean({t: math.sqrt(square) for t, square in squares.items()}, even))
        elif spec.kind == "log_normalised":
            errors[lead] = math.log(mean({t: squares[t] / variance[t] for t in points}, even))
        else:
            terms = {
                t: spec.alpha * squares[t] / (variance[t] + 1e-6) + (1 - spec.alpha) * math.log(variance[t])
                for t in points
            }
            attended = {t: value("temporal_attention", t // (SAMPLES // STEPS)) + 1e-9 for t in points}
            weights = attended if spec.kind == "attention_elbo" else even
            errors[lead] = mean(terms, weights) + spec.beta * value("kl") / total
    return errors


def score_by_hand(errors: dict[int, float], distance: float, spec: ScoreSpec) -> float:
    m = len(errors) - 1
    leads = [(e - spec.lead_mean[m][lead]) / spec.lead_std[m][lead] for lead, e in errors.items()]
    raw = sum(leads) / len(leads)
    if spec.distance_weight:
        raw += spec.distance_weight * (distance - spec.distance_mean[m]) / spec.distance_std[m]
    return (raw - spec.count_mean[m]) / spec.count_std[m]


@every_kind
@given(
    seed=some_seed,
    alpha=st.floats(0.1, 0.9),
    beta=st.floats(0.0, 2.0),
    distance_weight=st.sampled_from([0.0, 0.3, 2.0]),
)
@few
def test_is_the_formula_of_its_documentation(
    kind: str, seed: int, alpha: float, beta: float, distance_weight: float
) -> None:
    arrays = batch(seed)
    spec = small_spec(kind, distance_weight=distance_weight, alpha=alpha, beta=beta)
    distance = arrays[1]["distance"].tolist()
    errors, found = lead_errors(*arrays, spec), score(*arrays, spec)
    for window in range(5):
        wanted = errors_by_hand(*arrays, spec, window)
        assert {lead: errors[window, lead] for lead in wanted} == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert np.isnan(errors[window]).sum() == LEADS - len(wanted)
        assert found.window[window] == pytest.approx(
            score_by_hand(wanted, distance[window], spec), rel=1e-9, abs=1e-12
        )


def test_the_absolute_error_minds_a_single_point_less() -> None:
    x = np.zeros((2, LEADS, SAMPLES), np.float32)
    recon = np.zeros_like(x)
    # The same energy: all in one point of the first window, in every point of the second.
    recon[0, :, 3], recon[1] = math.sqrt(SAMPLES), 1.0
    counted, mask = np.ones(x.shape, np.bool_), np.ones((2, LEADS), np.float32)
    squared, absolute = (
        lead_errors(x, {"recon_mean": recon}, counted, mask, small_spec(kind))
        for kind in ("log_mse", "log_mae")
    )
    np.testing.assert_allclose(squared, 0.0, atol=1e-6)
    np.testing.assert_allclose(absolute, [[-math.log(SAMPLES) / 2] * LEADS, [0.0] * LEADS], atol=1e-6)


def test_distance_is_added_by_its_weight_and_by_the_number_of_leads() -> None:
    leads = np.array([[1.0, np.nan, 3.0], [0.5, np.nan, np.nan], [1.0, 2.0, 6.0], [np.nan] * 3])
    outputs = {"distance": np.array([2.0, -1.0, 0.5, 9.0], np.float32)}
    spec = small_spec(
        distance_weight=0.5,
        distance_mean=(1.0, 0.5, 0.0),
        distance_std=(2.0, 3.0, 0.25),
    )
    wanted = [2.0 + 0.5 * (2.0 - 0.5) / 3.0, 0.5 + 0.5 * (-1.0 - 1.0) / 2.0, 3.0 + 0.5 * 0.5 / 0.25, np.nan]
    np.testing.assert_allclose(raw_scores(leads, outputs, spec), wanted)
    np.testing.assert_allclose(raw_scores(leads, {}, small_spec()), [2.0, 0.5, 3.0, np.nan])


def test_a_further_window_scores_higher_and_its_leads_do_not() -> None:
    x, outputs, counted, mask = batch(1)
    near = score(x, outputs, counted, mask, small_spec(distance_weight=0.5))
    far = score(
        x, {**outputs, "distance": outputs["distance"] + 1}, counted, mask, small_spec(distance_weight=0.5)
    )
    assert (far.window > near.window).all()
    np.testing.assert_array_equal(far.lead, near.lead)
    unweighted = [score(x, {**outputs, "distance": d}, counted, mask, small_spec()) for d in (0, np.nan)]
    same(*unweighted)


@given(seed=some_seed, alpha=st.floats(0.1, 0.9))
@few
def test_equal_attention_gives_the_plain_bound(seed: int, alpha: float) -> None:
    x, outputs, counted, mask = batch(seed)
    outputs["temporal_attention"] = np.full((5, STEPS), 1 / STEPS, np.float32)
    attended, plain = (
        lead_errors(x, outputs, counted, mask, small_spec(kind, alpha=alpha))
        for kind in ("attention_elbo", "elbo")
    )
    np.testing.assert_allclose(attended, plain, rtol=1e-12)


def test_attention_picks_the_steps_that_it_attends_to() -> None:
    x, outputs, counted, mask = batch(0)
    counted[:], mask[:] = True, 1.0
    outputs["temporal_attention"] = np.eye(STEPS, dtype=np.float32)
    attended = lead_errors(x, outputs, counted, mask, small_spec("attention_elbo", beta=0.0))
    for step in range(STEPS):
        only = np.zeros_like(counted)
        only[:, :, 4 * step : 4 * step + 4] = True
        wanted = lead_errors(x, outputs, only, mask, small_spec("elbo", beta=0.0))
        np.testing.assert_allclose(attended[step], wanted[step], rtol=1e-6, atol=1e-6)


def test_the_default_bound_is_the_gaussian_likelihood_and_the_divergence() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    x, outputs, counted, mask = batch(0)
    counted[:], mask[:] = True, 1.0
    normal = torch.distributions.Normal(
        torch.from_numpy(outputs["recon_mean"]), torch.from_numpy(np.exp(outputs["recon_logvar"] / 2))
    )
    likelihood = normal.log_prob(torch.from_numpy(x)).mean(dim=(1, 2)).numpy()
    wanted = -likelihood + outputs["kl"] / (LEADS * SAMPLES) - math.log(2 * math.pi) / 2
    found = lead_errors(x, outputs, counted, mask, small_spec("elbo")).mean(axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@every_kind
@given(seed=some_seed, rubbish=st.sampled_from([np.nan, np.inf, 1e30, 0.0]))
@few
def test_masked_leads_do_not_matter(kind: str, seed: int, rubbish: float) -> None:
    x, outputs, counted, mask = batch(seed)
    clean = score(x, outputs, counted, mask, small_spec(kind))
    # Not even where they are said to count.
    counted = counted | (mask == 0)[:, :, np.newaxis]
    dirty = {
        name: np.where((mask == 0)[:, :, np.newaxis], np.float32(7.0), value) if value.ndim == 3 else value
        for name, value in outputs.items()
    }
    same(
        score(np.where((mask == 0)[:, :, np.newaxis], rubbish, x), dirty, counted, mask, small_spec(kind)),
        clean,
    )
    assert np.array_equal(np.isnan(clean.lead), (mask == 0) | ~counted.any(axis=2))


@every_kind
@given(seed=some_seed, rubbish=st.sampled_from([np.nan, np.inf, 1e30, 0.0]))
@few
def test_uncounted_points_do_not_matter(kind: str, seed: int, rubbish: float) -> None:
    x, outputs, counted, mask = batch(seed)
    dirty = {
        name: np.where(counted, value, np.float32(rubbish)) if value.ndim == 3 else value
        for name, value in outputs.items()
    }
    same(
        score(x, dirty, counted, mask, small_spec(kind)),
        score(x, outputs, counted, mask, small_spec(kind)),
    )


@every_kind
@every_distance
@given(seed=some_seed, order=st.permutations(range(5)))
@few
def test_a_window_scores_the_same_in_any_batch(
    kind: str, distance_weight: float, seed: int, order: list[int]
) -> None:
    arrays, spec = batch(seed), small_spec(kind, distance_weight=distance_weight)
    whole = score(*arrays, spec)
    np.testing.assert_array_equal(score(*select(arrays, order), spec).window, whole.window[order])
    alone = [score(*select(arrays, slice(i, i + 1)), spec).window[0] for i in range(5)]
    np.testing.assert_array_equal(alone, whole.window)


@every_kind
def test_a_larger_error_scores_higher(kind: str) -> None:
    x, outputs, counted, mask = batch(1)
    further = {
        name: x + 2 * (value - x) if name in ("recon_mean", "recon_restored") else value
        for name, value in outputs.items()
    }
    near = score(x, outputs, counted, mask, small_spec(kind))
    far = score(x, further, counted, mask, small_spec(kind))
    assert (far.window > near.window).all()
    assert (far.lead > near.lead)[~np.isnan(near.lead)].all()


@pytest.mark.parametrize("kind", ["log_normalised", "elbo", "attention_elbo"])
def test_an_expected_error_counts_less(kind: str) -> None:
    x, outputs, counted, mask = batch(1)
    # Means over few points, each twenty times as large as the network expects, or just as large.
    outputs["recon_mean"] = x + np.float32(1.0)
    surprised, sure = ({**outputs, "recon_logvar": np.full_like(x, logvar)} for logvar in (-3.0, 0.0))
    higher = score(x, surprised, counted, mask, small_spec(kind)).window
    assert (higher > score(x, sure, counted, mask, small_spec(kind)).window).all()


@every_kind
@every_distance
def test_nothing_to_score_is_nan_and_perfect_is_finite(kind: str, distance_weight: float) -> None:
    x, outputs, counted, mask = batch(2)
    spec = small_spec(kind, distance_weight=distance_weight)
    assert np.isnan(score(x, outputs, np.zeros_like(counted), mask, spec).window).all()
    assert np.isnan(score(x, outputs, counted, np.zeros_like(mask), spec).window).all()
    perfect = {**outputs, "recon_mean": x, "recon_restored": x}
    assert np.isfinite(score(x, perfect, counted, mask, spec).window).all()


@every_kind
@every_distance
def test_an_empty_batch_gives_empty_scores(kind: str, distance_weight: float) -> None:
    found = score(*select(batch(0), slice(0, 0)), small_spec(kind, distance_weight=distance_weight))
    assert found.window.shape == (0,)
    assert found.lead.shape == (0, LEADS)


def test_points_without_any_attention_still_have_a_mean() -> None:
    x, outputs, counted, mask = batch(3)
    outputs["temporal_attention"] = np.tile(np.eye(STEPS, dtype=np.float32)[0], (5, 1))
    counted[:, 0, :4] = False
    counted[:, 0, 4:] = True
    attended, plain = (
        lead_errors(x, outputs, counted, mask, small_spec(kind))[:, 0] for kind in ("attention_elbo", "elbo")
    )
    np.testing.assert_allclose(attended, plain)


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [
        ("log_normalised", "recon_logvar"),
        ("elbo", "recon_logvar, kl"),
        ("attention_elbo", "recon_logvar, kl, temporal_attention"),
        ("restoration", "recon_restored"),
    ],
)
def test_a_kind_that_the_network_cannot_give_is_named(kind: str, lacking: str) -> None:
    x, outputs, counted, mask = batch(0)
    with pytest.raises(ValueError, match=f"'{kind}' needs the output {lacking}"):
        score(x, {"recon_mean": outputs["recon_mean"]}, counted, mask, small_spec(kind))


def test_a_distance_that_the_network_does_not_measure_is_named() -> None:
    x, outputs, counted, mask = batch(0)
    del outputs["distance"]
    assert np.isfinite(score(x, outputs, counted, mask, small_spec()).window).all()
    with pytest.raises(ValueError, match="needs the output distance"):
        score(x, outputs, counted, mask, small_spec(distance_weight=0.5))
    with pytest.raises(ValueError, match="needs the output distance"):
        sensitivity(x, outputs, counted, mask, small_spec(distance_weight=0.5), atol=1e-5, rtol=1e-5)


def test_point_error_is_squared_and_blank_where_not_counted() -> None:
    x, outputs, counted, _ = batch(4)
    recon, logvar = outputs["recon_mean"], outputs["recon_logvar"]
    plain, normalised = point_error(x, recon, counted), point_error(x, recon, counted, logvar)
    for error in (plain, normalised):
        assert error.dtype == np.float32
        assert np.array_equal(np.isnan(error), ~counted)
    squared = ((x - recon) ** 2)[counted]
    np.testing.assert_allclose(plain[counted], squared, rtol=1e-6)
    np.testing.assert_allclose(normalised[counted], squared / np.exp(logvar[counted]), rtol=1e-5)


@every_kind
@every_distance
@given(seed=some_seed, atol=st.sampled_from([1e-6, 1e-3, 0.05]), rtol=st.sampled_from([1e-5, 0.02]))
@few
def test_no_score_moves_by_more_than_its_sensitivity(
    kind: str, distance_weight: float, seed: int, atol: float, rtol: float
) -> None:
    x, outputs, counted, mask = batch(seed)
    spec = small_spec(kind, distance_weight=distance_weight)
    rng = np.random.default_rng(seed)
    most = sensitivity(x, outputs, counted, mask, spec, atol=atol, rtol=rtol)
    assert (most > 0).all()
    found = score(x, outputs, counted, mask, spec).window
    for _ in range(10):
        moved = {
            name: value + rng.choice([-1, 1], value.shape) * (atol + rtol * np.abs(value.astype(np.float64)))
            for name, value in outputs.items()
        }
        moved["temporal_attention"] = np.maximum(moved["temporal_attention"], 0.0)
        difference = np.abs(score(x, moved, counted, mask, spec).window - found)
        assert (difference <= most * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("kind", ["mse", "log_mse", "log_mae", "log_normalised", "restoration"])
@every_distance
def test_sensitivity_is_reached_when_all_outputs_move_the_worst_way(
    kind: str, distance_weight: float
) -> None:
    x, outputs, counted, mask = batch(6)
    spec, atol = small_spec(kind, distance_weight=distance_weight), 0.01
    away = {
        "recon_mean": outputs["recon_mean"] + atol * np.sign(outputs["recon_mean"] - x),
        "recon_restored": outputs["recon_restored"] + atol * np.sign(outputs["recon_restored"] - x),
        "recon_logvar": outputs["recon_logvar"] - atol,
        "distance": outputs["distance"] + atol,
    }
    nearer = {name: 2 * outputs[name] - value for name, value in away.items()}
    found = score(x, outputs, counted, mask, spec).window
    reached = np.maximum(
        score(x, away, counted, mask, spec).window - found,
        found - score(x, nearer, counted, mask, spec).window,
    )
    most = sensitivity(x, outputs, counted, mask, spec, atol=atol, rtol=0.0)
    np.testing.assert_allclose(reached, most, rtol=0.02)
