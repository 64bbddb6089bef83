from __future__ import annotations

import numpy as np
import pytest

from models.manifest import ScoreSpec
from training.calibration.statistics import (
    MOST_WINDOWS,
    record_scores,
    score_statistics,
    score_windows,
    thresholds,
)
from training.dataset import WindowSet

LEADS, SAMPLES = 4, 60


def normals(n: int, seed: int = 0) -> WindowSet:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, LEADS, SAMPLES)).astype(np.float32)
    shape = (n, LEADS)
    return WindowSet(x, np.ones(shape, np.float32), np.ones(x.shape, bool), np.arange(n))


def run(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    # Worse with fewer leads, worse for later leads, and with a scatter of its own for each window that
    # all its leads share, as a network's is.
    missing = LEADS - mask.sum(axis=1)
    scatter = np.abs(x[:, :, :4]).max(axis=(1, 2))
    size = (0.1 + 0.2 * missing + 0.1 * scatter)[:, np.newaxis] * (1.0 + np.arange(LEADS))
    wave = np.sin(np.arange(SAMPLES))
    return {"recon_mean": (x + size[:, :, np.newaxis] * wave).astype(np.float32)}


def test_any_number_of_leads_reads_like_all_of_them() -> None:
    spec = score_statistics(run, normals(400), draws=3)
    fresh = normals(400, seed=1)
    rng = np.random.default_rng(2)
    for m in range(1, LEADS + 1):
        kept = np.argsort(np.argsort(rng.random((400, LEADS)), axis=1), axis=1) < m
        scores = score_windows(run, fresh.keep_leads(kept), spec).window
        assert abs(scores.mean()) < 0.25, m
        assert 0.75 < scores.std() < 1.25, m


def test_statistics_repeat_with_the_seed() -> None:
    assert score_statistics(run, normals(60), seed=5) == score_statistics(run, normals(60), seed=5, batch=7)


def test_too_few_windows_or_missing_leads_are_refused() -> None:
    with pytest.raises(ValueError, match="too few windows"):
        score_statistics(run, normals(1))
    windows = normals(10)
    with pytest.raises(ValueError, match="all leads"):
        score_statistics(run, windows.keep_leads(np.arange(LEADS) > 0))


def says_more(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    outputs = run(x, mask)
    outputs["recon_logvar"] = np.full_like(x, -1.0) + 0.1 * x
    outputs["kl"] = np.square(x[:, 0, :8]).sum(axis=1)
    outputs["temporal_attention"] = np.full((len(x), 6), 1 / 6, np.float32)
    outputs["recon_restored"] = outputs["recon_mean"] + 0.1
    return outputs


@pytest.mark.parametrize(
    "kind", ["mse", "log_mse", "log_mae", "log_normalised", "elbo", "attention_elbo", "restoration"]
)
def test_normals_score_zero_by_any_kind_of_error(kind: str) -> None:
    spec = score_statistics(says_more, normals(300), kind=kind, draws=2)
    assert spec.kind == kind
    fresh = normals(300, seed=1)
    for m in (1, LEADS):
        kept = np.arange(LEADS) < m
        scores = score_windows(says_more, fresh.keep_leads(kept), spec).window
        assert abs(scores.mean()) < 0.4, m
        assert 0.6 < scores.std() < 1.5, m


def test_the_weights_of_a_score_are_kept() -> None:
    spec = score_statistics(says_more, normals(40), kind="elbo", alpha=0.4, beta=0.6)
    assert (spec.alpha, spec.beta) == (0.4, 0.6)
    usual = score_statistics(says_more, normals(40), kind="elbo")
    assert (usual.alpha, usual.beta) == (0.5, 1.0)
    assert usual.lead_mean != spec.lead_mean


def test_a_score_that_the_network_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the output recon_restored"):
        score_statistics(run, normals(40), kind="restoration")
    with pytest.raises(ValueError, match="kind"):
        score_statistics(run, normals(40), kind="no such kind")


def test_of_many_windows_some_are_measured() -> None:
    seen = 0

    def counts(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal seen
        assert len(x) <= 50
        seen += len(x)
        return run(x, mask)

    score_statistics(counts, normals(2 * MOST_WINDOWS + 1), draws=1, batch=50)
    assert seen <= LEADS * MOST_WINDOWS
    assert seen > LEADS * MOST_WINDOWS / 2


def test_scores_do_not_depend_on_the_batch() -> None:
    spec = score_statistics(run, normals(60))
    one, many = (score_windows(run, normals(30), spec, batch=n).window for n in (1, 64))
    np.testing.assert_allclose(one, many, atol=1e-9)


def test_a_record_scores_the_mean_of_its_windows() -> None:
    found = record_scores(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(found, [2.0, np.nan, 5.0])


def test_thresholds_are_percentiles_of_validation_normals() -> None:
    window_scores = np.linspace(0.0, 1.0, 201)
    operating = thresholds(window_scores, np.arange(201), 201)
    assert operating.record == pytest.approx(0.95)
    assert operating.window == pytest.approx(0.99)
    assert operating.percentile(0.25) == pytest.approx(25.0)
    assert len(operating.quantiles) == 101


def test_standardisation_uses_the_row_of_the_count() -> None:
    flat = ScoreSpec(
        lead_mean=((0.0,) * LEADS,) * LEADS,
        lead_std=((1.0,) * LEADS,) * LEADS,
        count_mean=(0.0, 10.0, 20.0, 30.0),
        count_std=(1.0,) * LEADS,
    )
    windows = normals(5)
    three = score_windows(run, windows.keep_leads(np.arange(LEADS) < 3), flat)
    np.testing.assert_allclose(three.window, np.nanmean(three.lead, axis=1) - 20.0)
