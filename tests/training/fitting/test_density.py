from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the extra train")

from models.architectures import CaeConfig, NetworkConfig, VaeBilstmConfig, VaeBilstmMhaConfig  # noqa: E402
from models.export import export  # noqa: E402
from models.networks.build import build  # noqa: E402
from tests.training.conftest import made_up_signal  # noqa: E402
from training.dataset import WindowSet  # noqa: E402
from training.fitting.augment import random_masks  # noqa: E402
from training.fitting.density import fit_density, whitening  # noqa: E402

LEADS, SAMPLES = 12, 80
CAE = CaeConfig(samples=SAMPLES, channels=(6, 8), wide_kernel=5)
VAE = VaeBilstmConfig(samples=SAMPLES, patch=8, hidden=8, latent=4, latent_steps=2, decoder_hidden=6)
MHA = VaeBilstmMhaConfig(
    samples=SAMPLES, patch=8, encoder=(8, 8), latent=4, lead_width=8, temporal_width=8, decoder=(8, 6)
)
every_network = pytest.mark.parametrize("config", [CAE, VAE, MHA], ids=["cae", "vae", "mha"])
some_seed = st.integers(0, 10_000)
few = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def windows(n: int, *, abnormal: bool = False, seed: int = 0) -> WindowSet:
    # 1.6 s at 50 Hz of a made-up ECG, standardised.
    signals = [made_up_signal(seed + i, abnormal=abnormal, seconds=1.6).millivolts[::10].T for i in range(n)]
    x = np.stack(signals)
    x = (x - x.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)
    return WindowSet(
        x.astype(np.float32), np.ones((n, LEADS), np.float32), np.ones(x.shape, np.bool_), np.arange(n)
    )


def network(config: NetworkConfig, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = build(config).eval()
    with torch.no_grad():
        # Networks that learned something make more of their input than new ones.
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def distances(model: torch.nn.Module, of: WindowSet) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(of.x), torch.from_numpy(of.mask))["distance"].numpy()


def correlated(n: int, features: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, features)) @ (
        rng.standard_normal((features, features)) + np.eye(features)
    )
    return mixed * rng.uniform(0.1, 10, features) + rng.normal(0, 5, features)


@given(seed=some_seed, features=st.integers(1, 8))
@few
def test_without_shrinkage_what_was_correlated_is_white(seed: int, features: int) -> None:
    values = correlated(200, features, seed)
    mean, whiten = whitening(values, shrinkage=0.0)
    white = (values - mean) @ whiten.T
    np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=1e-8)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(features), atol=1e-6)


@given(seed=some_seed, shrinkage=st.sampled_from([0.0, 0.3, 1.0]), scale=st.floats(0.1, 100.0))
@few
def test_distances_do_not_depend_on_the_units_of_features(seed: int, shrinkage: float, scale: float) -> None:
    values = correlated(100, 4, seed)
    scales = np.array([scale, 1.0, 1.0, 1 / scale])
    first, second = (
        (scaled - mean) @ whiten.T
        for scaled in (values, values * scales)
        for mean, whiten in [whitening(scaled, shrinkage)]
    )
    np.testing.assert_allclose((first**2).sum(axis=1), (second**2).sum(axis=1), rtol=1e-6)


@given(seed=some_seed, shrinkage=st.sampled_from([0.0, 0.3, 1.0]), place=st.integers(0, 4))
@few
def test_a_dead_feature_is_not_looked_at(seed: int, shrinkage: float, place: int) -> None:
    alive = correlated(100, 4, seed)
    noise = 1e-6 * np.random.default_rng(seed).standard_normal(100)
    for dead in (np.full(100, 3.0), 3.0 + noise):
        values = np.insert(alive, place, dead, axis=1)
        mean, whiten = whitening(values, shrinkage)
        assert not whiten[:, place].any()
        assert not whiten[place].any()
        # Whatever it becomes, the others say what they say without it.
        _, wanted = whitening(alive, shrinkage)
        np.testing.assert_allclose(
            np.delete(np.delete(whiten, place, axis=0), place, axis=1), wanted, rtol=1e-9, atol=1e-12
        )
        assert mean[place] == pytest.approx(3.0)


def test_shrinkage_makes_less_of_rare_directions_and_leaves_single_features_alone() -> None:
    rng = np.random.default_rng(0)
    common = rng.standard_normal(2000)
    values = np.stack([common + 0.05 * rng.standard_normal(2000) for _ in range(2)], axis=1)
    rare, usual = np.array([1.0, -1.0]), np.array([1.0, 1.0])
    found = {}
    for shrinkage in (0.0, 0.1, 0.3, 1.0):
        _, whiten = whitening(values, shrinkage)
        found[shrinkage] = [float(np.linalg.norm(whiten @ way)) for way in (rare, usual)]
    lengths = [rare_length for rare_length, _ in found.values()]
    assert lengths == sorted(lengths, reverse=True)
    # 1 / (0.05 of the difference) before, and the plain sum of squares at last.
    assert found[0.0][0] == pytest.approx(np.sqrt(2) / 0.05, rel=0.1)
    assert found[1.0] == pytest.approx([np.sqrt(2), np.sqrt(2)], rel=0.05)
    assert found[0.3][0] < 0.15 * found[0.0][0]


@given(seed=some_seed, shrinkage=st.floats(0.0, 1.0), features=st.integers(1, 8))
@few
def test_shrinkage_leaves_at_most_a_mean_square_of_one(seed: int, shrinkage: float, features: int) -> None:
    values = correlated(100, features, seed)
    mean, whiten = whitening(values, shrinkage)
    # Of the correlations' eigenvalues v, the mean of v / ((1 - s) v + s), which is concave; their mean is 1.
    squared = (((values - mean) @ whiten.T) ** 2).mean()
    assert squared <= 1 + 1e-6
    if shrinkage == 0.0 or features == 1:
        assert squared == pytest.approx(1.0, abs=1e-6)


def test_with_fewer_windows_than_features_shrinkage_still_whitens() -> None:
    mean, whiten = whitening(correlated(5, 20, 0))
    assert np.isfinite(whiten).all()
    assert np.linalg.matrix_rank(whiten) == 20
    assert mean.shape == (20,)


@every_network
def test_fitting_sets_mean_and_whitening_of_the_features_of_normals(config: NetworkConfig) -> None:
    model, normals = network(config), windows(60)
    seen: list[np.ndarray] = []
    fit_density(model, normals, seed=3, batch=7)
    watch = model.density.register_forward_pre_hook(
        lambda _, layer: seen.append(model.density.features(layer[0]).numpy())
    )
    # With all their leads, and once more with random ones.
    kept = random_masks(normals.mask, 0.0, np.random.default_rng(3))
    for drawn in (normals, normals.keep_leads(kept)):
        distances(model, drawn)
    watch.remove()
    mean, whiten = whitening(np.concatenate(seen).astype(np.float64))
    np.testing.assert_allclose(model.density.mean.numpy(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model.density.whiten.numpy(), whiten, rtol=1e-2, atol=1e-2 * np.abs(whiten).max()
    )
    assert model.density.whiten.any()


@every_network
def test_fitting_repeats_with_the_seed_and_leaves_all_else_alone(config: NetworkConfig) -> None:
    normals = windows(40)
    states = []
    for seed in (0, 0, 1):
        model = network(config)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fit_density(model, normals, seed=seed)
        states.append(model.state_dict())
        changed = {name for name, value in before.items() if not torch.equal(value, states[-1][name])}
        assert changed == {"density.mean", "density.whiten"}
    assert torch.equal(states[0]["density.whiten"], states[1]["density.whiten"])
    assert not torch.equal(states[0]["density.whiten"], states[2]["density.whiten"])
    assert normals.mask.all()


@every_network
def test_new_normals_lie_where_those_did_that_it_was_fitted_to(config: NetworkConfig) -> None:
    model = network(config)
    fit_density(model, windows(300))
    new = windows(100, seed=1000)
    fewer = new.keep_leads(random_masks(new.mask, 0.0, np.random.default_rng(9)))
    squared = np.exp(np.concatenate([distances(model, new), distances(model, fewer)])).mean()
    # 1 but for shrinkage, which takes more from features the more they have in common.
    assert 0.3 < squared < 1.2


def test_windows_of_another_kind_lie_further_away() -> None:
    model, normals = network(CAE), windows(100, seed=1000)
    fit_density(model, windows(300))
    inverted = WindowSet(-normals.x, normals.mask, normals.counted, normals.record)
    further = distances(model, inverted)[:, np.newaxis] > distances(model, normals)
    assert further.mean() > 0.95


@every_network
def test_the_file_measures_the_same_distance(config: NetworkConfig) -> None:
    model = network(config)
    fit_density(model, windows(60))
    content = export(config, {name: value.numpy() for name, value in model.state_dict().items()})
    some = windows(10, seed=500)
    some = some.keep_leads(random_masks(some.mask, 0.3, np.random.default_rng(0)))
    session = onnxruntime.InferenceSession(content)
    (found,) = session.run(["distance"], {"x": some.x, "mask": some.mask})
    np.testing.assert_allclose(found, distances(model, some), rtol=1e-3, atol=1e-3)


def test_a_network_without_a_density_is_left_alone() -> None:
    model = network(CAE.model_copy(update={"density": False})).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_density(model, windows(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_too_few_windows_are_refused() -> None:
    model = network(CAE)
    with pytest.raises(ValueError, match=r"too few windows \(1\)"):
        fit_density(model, windows(1))
    assert not model.density.whiten.any()
