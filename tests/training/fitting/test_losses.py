from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from training.config import ElboLoss, MseLoss  # noqa: E402
from training.fitting import losses  # noqa: E402

PLAIN = ElboLoss(schedule="constant")


def batch(seed: int = 0, windows: int = 3, leads: int = 2, samples: int = 20):
    generator = torch.Generator().manual_seed(seed)
    shape, latent = (windows, leads, samples), (windows, 5, 4)
    target = torch.randn(shape, generator=generator)
    mean, logvar = torch.randn(latent, generator=generator), torch.randn(latent, generator=generator)
    outputs = {
        "recon_mean": torch.randn(shape, generator=generator),
        "recon_logvar": torch.randn(shape, generator=generator),
        "latent_mean": mean,
        "latent_logvar": logvar,
    }
    return outputs, target, torch.rand(shape, generator=generator) < 0.8


def prior_divergence(outputs) -> torch.Tensor:
    # torch's own, summed over all latents.
    posterior = torch.distributions.Normal(outputs["latent_mean"], (0.5 * outputs["latent_logvar"]).exp())
    return torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()


def test_the_error_is_the_mean_over_the_points_that_count() -> None:
    outputs, target, counted = batch()
    expected = (outputs["recon_mean"] - target)[counted].square().mean()
    assert losses.mse(outputs["recon_mean"], target, counted).item() == pytest.approx(expected.item())
    assert losses.mse(outputs["recon_mean"], target, torch.zeros_like(counted)).item() == 0.0


def test_the_likelihood_is_that_of_a_normal_distribution() -> None:
    outputs, target, counted = batch()
    mean, logvar = outputs["recon_mean"], outputs["recon_logvar"]
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    expected = -normal.log_prob(target)[counted].mean()
    assert losses.gaussian_nll(mean, logvar, target, counted).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_at_weight_one_the_loss_is_the_evidence_lower_bound_per_point() -> None:
    outputs, target, counted = batch()
    terms = losses.negative_elbo(outputs, target, counted, PLAIN, 1.0)
    normal = torch.distributions.Normal(outputs["recon_mean"], (0.5 * outputs["recon_logvar"]).exp())
    bound = normal.log_prob(target)[counted].sum() - prior_divergence(outputs)
    assert terms.loss.item() == pytest.approx(-bound.item() / counted.sum().item(), rel=1e-5)
    assert (terms.reconstruction + terms.divergence).item() == pytest.approx(terms.loss.item(), rel=1e-5)


def test_in_evaluation_the_final_weight_counts_whatever_the_training_is_at() -> None:
    outputs, target, counted = batch()
    config = ElboLoss(beta_max=0.5, schedule="linear", annealing=1.0, free_bits=3.0)
    evaluated = outputs | {"kl": prior_divergence(outputs).expand(3) / 3}
    terms = losses.validation_terms(evaluated, target, counted, config)
    reconstruction = losses.gaussian_nll(outputs["recon_mean"], outputs["recon_logvar"], target, counted)
    expected = reconstruction + 0.5 * prior_divergence(outputs) / counted.sum()
    assert terms.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_free_bits_charge_a_dimension_at_least_their_number_and_leave_its_gradient_alone() -> None:
    outputs, target, counted = batch()
    mean = torch.zeros(3, 5, 4)
    # The first dimension says a lot, the others next to nothing.
    mean[..., 0] = 3.0
    mean[..., 1:] = 0.1
    mean.requires_grad_()
    outputs |= {"latent_mean": mean, "latent_logvar": torch.zeros(3, 5, 4)}
    per_point = 15 / counted.sum().item()  # windows times latent steps, over points
    terms = losses.negative_elbo(outputs, target, counted, ElboLoss(schedule="constant", free_bits=0.25), 1.0)
    charged = (terms.loss - terms.reconstruction).item()
    assert charged == pytest.approx((4.5 + 3 * 0.25) * per_point, rel=1e-4)
    assert terms.divergence.item() == pytest.approx((4.5 + 3 * 0.005) * per_point, rel=1e-4)
    terms.loss.backward()
    assert mean.grad[..., 0].abs().min() > 0
    assert not mean.grad[..., 1:].any()


def test_while_the_mean_warms_up_the_variance_is_one_and_is_not_taught() -> None:
    outputs, target, counted = batch()
    logvar = outputs["recon_logvar"].requires_grad_()
    config = ElboLoss(schedule="constant", variance_warmup=0.5)
    warming = losses.negative_elbo(outputs, target, counted, config, 0.4)
    half_mse = 0.5 * losses.mse(outputs["recon_mean"], target, counted)
    constant = 0.5 * np.log(2 * np.pi)
    assert warming.reconstruction.item() == pytest.approx(half_mse.item() + constant, rel=1e-5)
    warming.loss.backward()
    assert not logvar.grad.any()
    losses.negative_elbo(outputs, target, counted, config, 0.5).loss.backward()
    assert logvar.grad.any()


def test_a_plain_network_has_no_divergence() -> None:
    outputs, target, counted = batch()
    plain = {"recon_mean": outputs["recon_mean"]}
    terms = losses.training_terms(plain, target, counted, MseLoss(), 0.3)
    assert terms == losses.validation_terms(plain, target, counted, MseLoss())
    assert terms.loss == terms.reconstruction
    assert terms.divergence == 0


@settings(max_examples=100)
@given(
    st.sampled_from(["constant", "linear", "cyclical"]),
    st.floats(0, 4),
    st.floats(0, 1),
    st.integers(1, 6),
    st.floats(0, 1),
)
def test_the_weight_stays_within_bounds_and_ends_at_its_highest(
    schedule: str, beta_max: float, annealing: float, cycles: int, done: float
) -> None:
    config = ElboLoss(schedule=schedule, beta_max=beta_max, annealing=annealing, cycles=cycles)
    assert 0.0 <= losses.beta(config, done) <= beta_max
    assert losses.beta(config, 1.0) == beta_max


def test_the_schedules_have_their_shapes() -> None:
    share = np.linspace(0, 1, 101)
    linear = ElboLoss(schedule="linear", beta_max=2.0, annealing=0.5)
    weights = [losses.beta(linear, done) for done in share]
    assert weights == pytest.approx(np.minimum(2.0, 4.0 * share))
    cyclical = ElboLoss(schedule="cyclical", beta_max=1.0, annealing=0.8, cycles=4)
    weights = [losses.beta(cyclical, done) for done in share]
    falls = [round(float(at), 2) for at, (a, b) in zip(share[1:], pairwise(weights), strict=True) if b < a]
    assert falls == pytest.approx([0.2, 0.4, 0.6], abs=0.011)  # back to zero three times
    assert losses.beta(cyclical, 0.05) == pytest.approx(0.5)
    assert losses.beta(cyclical, 0.15) == 1.0
    assert losses.beta(ElboLoss(schedule="constant", beta_max=0.7), 0.0) == 0.7


def test_a_dimension_is_active_if_its_mean_follows_the_input() -> None:
    active = losses.ActiveDimensions()
    assert active.count() is None
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        mean = torch.randn(32, 10, 3, generator=generator) * torch.tensor([1.0, 0.2, 0.01])
        active.add(torch.cat([mean, torch.full((32, 10, 1), 7.0)], dim=2))
    # Variances 1 and 0.04 are above 0.01; 0.0001 and a constant are not.
    assert active.count() == 2
