from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import genpareto

from models.manifest import Tail
from training.calibration.tail import fit_tail, level_interval


def pareto(n: int, shape: float, seed: int) -> np.ndarray:
    return genpareto.rvs(shape, scale=2.0, size=n, random_state=np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.3])
def test_a_known_tail_is_found_again(shape: float) -> None:
    values = pareto(20_000, shape, seed=1)
    tail = fit_tail(values)
    assert tail is not None
    assert (tail.excesses, tail.share) == (2000, 0.1)
    assert tail.shape == pytest.approx(shape, abs=0.06)
    for probability in (0.05, 0.01, 0.001):
        assert tail.level(probability) == pytest.approx(genpareto.isf(probability, shape, scale=2.0), rel=0.1)


def test_a_level_is_where_the_distribution_says() -> None:
    # By hand: half of the values lie above 1, and a tail of shape 1 and scale 2 has 1 / (1 + y / 2) of them
    # beyond y.
    tail = Tail(start=1.0, shape=1.0, scale=2.0, excesses=10, share=0.5)
    assert tail.level(0.5) == pytest.approx(1.0)
    assert tail.level(0.125) == pytest.approx(1.0 + 2.0 * 3)
    exponential = Tail(start=1.0, shape=0.0, scale=2.0, excesses=10, share=0.5)
    assert exponential.level(0.5 / np.e) == pytest.approx(3.0)
    nearly = exponential.model_copy(update={"shape": 1e-6})
    assert nearly.level(0.001) == pytest.approx(exponential.level(0.001), rel=1e-4)


def test_rarer_levels_are_higher() -> None:
    tail = fit_tail(pareto(200, 0.1, seed=2))
    assert tail is not None
    levels = [tail.level(probability) for probability in (0.1, 0.05, 0.01, 0.001, 1e-5)]
    assert levels == sorted(levels)
    assert levels[0] == pytest.approx(tail.start)


def test_the_fit_moves_and_stretches_with_the_values() -> None:
    values = pareto(300, 0.0, seed=3)
    tail, other = fit_tail(values), fit_tail(5.0 + 3.0 * values)
    assert tail is not None
    assert other is not None
    assert other.level(0.01) == pytest.approx(5.0 + 3.0 * tail.level(0.01), rel=1e-3)
    assert other.shape == pytest.approx(tail.shape, abs=1e-3)


def test_the_order_of_the_values_does_not_matter() -> None:
    values = pareto(100, 0.0, seed=4)
    assert fit_tail(values) == fit_tail(values[::-1])
    assert level_interval(values, 0.01) == level_interval(np.sort(values), 0.01)


@pytest.mark.parametrize("values", [np.arange(49.0), np.ones(200), np.full(100, -np.inf)])
def test_where_there_is_no_tail_none_is_fitted(values: np.ndarray) -> None:
    assert fit_tail(values) is None
    assert level_interval(values, 0.01) is None


def test_a_level_below_the_tail_has_no_interval() -> None:
    assert level_interval(pareto(100, 0.0, seed=5), 0.2) is None


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.2])
def test_intervals_of_sixty_values_hold_the_truth(shape: float) -> None:
    # Nominally 95 %. By chance, more than four of 30 miss in one of a hundred tests.
    truth = float(genpareto.isf(0.01, shape, scale=2.0))
    hits = 0
    for seed in range(30):
        found = level_interval(pareto(60, shape, seed), 0.01)
        assert found is not None
        hits += found[0] <= truth <= found[1]
    assert hits >= 26


def test_more_values_narrow_the_interval_and_it_holds_the_level() -> None:
    widths = []
    for n in (60, 600, 6000):
        values = pareto(n, 0.0, seed=6)
        tail, found = fit_tail(values), level_interval(values, 0.01)
        assert tail is not None
        assert found is not None
        assert found[0] < tail.level(0.01) < found[1]
        widths.append(found[1] - found[0])
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_values_that_come_from_few_patients_say_less() -> None:
    rng = np.random.default_rng(7)
    # Ten stretches each of twenty patients, of whom some are high throughout.
    patients = [str(i // 10) for i in range(200)]
    values = np.repeat(rng.exponential(1.0, 20), 10) + 0.05 * rng.standard_normal(200)
    alone = level_interval(values, 0.01)
    together = level_interval(values, 0.01, patients)
    assert alone is not None
    assert together is not None
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])
    each = [str(i) for i in range(200)]
    assert level_interval(values, 0.01, each) == alone
