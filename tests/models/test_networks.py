from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from torch.nn import functional  # noqa: E402

from models.architectures import (  # noqa: E402
    LEAD_HEADS,
    LOGVAR_BOUND,
    TEMPORAL_HEADS,
    NetworkConfig,
    VaeBilstmConfig,
    VaeBilstmMhaConfig,
)
from models.networks.attention import LeadAttention, TemporalAttention  # noqa: E402
from models.networks.build import build  # noqa: E402
from models.networks.density import FeatureDensity  # noqa: E402
from models.networks.recurrent import step_inputs, to_patches, to_signal  # noqa: E402
from tests.models.conftest import (  # noqa: E402
    DENSE,
    NETWORKS,
    PLAIN_MHA,
    PLAIN_VAE,
    RECURRENT,
    SMALL_MHA,
    SMALL_VAE,
    random_windows,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")
every_network = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS.keys())
with_density = pytest.mark.parametrize("config", DENSE.values(), ids=DENSE.keys())
recurrent = pytest.mark.parametrize("config", RECURRENT.values(), ids=RECURRENT.keys())
with_attention = pytest.mark.parametrize("config", [SMALL_MHA, PLAIN_MHA], ids=["mha", "plain-mha"])


def network(config: NetworkConfig, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = build(config).eval()
    if model.density is not None:
        # As after training; before, every distance is the same.
        model.density.mean.normal_(std=0.1)
        model.density.whiten.normal_()
    return model


def windows(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x, mask = random_windows(n, seed=seed)
    return torch.from_numpy(x), torch.from_numpy(mask)


def run(model: torch.nn.Module, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return model(x, mask)


@recurrent
def test_evaluation_is_deterministic_and_training_draws(config: NetworkConfig) -> None:
    model, (x, mask) = network(config), windows(3)
    first, second = run(model, x, mask), run(model, x, mask)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not {"latent_mean", "latent_logvar"} & first.keys()
    model.train()
    assert not torch.equal(run(model, x, mask)["recon_mean"], run(model, x, mask)["recon_mean"])
    torch.manual_seed(5)
    drawn = run(model, x, mask)["recon_mean"]
    torch.manual_seed(5)
    assert torch.equal(run(model, x, mask)["recon_mean"], drawn)


@recurrent
def test_shapes_are_those_of_the_documentation(config: VaeBilstmConfig | VaeBilstmMhaConfig) -> None:
    shapes = {name: tuple(value.shape) for name, value in network(config).train()(*windows(4)).items()}
    steps = config.latent_steps if isinstance(config, VaeBilstmConfig) else config.steps
    wanted = {
        "recon_mean": (4, 3, 40),
        "recon_logvar": (4, 3, 40),
        "kl": (4,),
        "latent_mean": (4, steps, config.latent),
        "latent_logvar": (4, steps, config.latent),
    }
    if isinstance(config, VaeBilstmMhaConfig):
        wanted |= {"temporal_attention": (4, config.steps), "lead_attention": (4, 3, config.steps)}
    if config.density:
        wanted["distance"] = (4,)
    assert shapes == wanted


def test_a_cae_reconstructs_and_measures_a_distance() -> None:
    for name, more in (("cae", {"distance": (4,)}), ("plain-cae", {})):
        outputs = run(network(NETWORKS[name]), *windows(4))
        assert {output: tuple(value.shape) for output, value in outputs.items()} == {
            "recon_mean": (4, 3, 40),
            **more,
        }


@every_network
@pytest.mark.parametrize("rubbish", [math.nan, math.inf, 1e30, 5.0])
def test_what_stands_in_a_masked_lead_does_not_matter(config: NetworkConfig, rubbish: float) -> None:
    model, (x, mask) = network(config), windows(4)
    assert (mask == 0).any()
    clean, dirty = run(model, x, mask), run(model, x.masked_fill(mask[:, :, None] == 0, rubbish), mask)
    assert all(torch.equal(dirty[name], clean[name]) for name in clean)


@every_network
def test_an_absent_lead_is_not_a_flat_one(config: NetworkConfig) -> None:
    model, x = network(config), torch.zeros(1, 3, 40)
    absent, flat = (run(model, x, torch.tensor([[1.0, 1.0, given]])) for given in (0.0, 1.0))
    assert not torch.allclose(absent["recon_mean"], flat["recon_mean"], atol=1e-4)


@every_network
def test_no_lead_at_all_is_finite(config: NetworkConfig) -> None:
    outputs = network(config).train()(torch.zeros(2, 3, 40), torch.zeros(2, 3))
    sum(value.square().mean() for value in outputs.values()).backward()
    assert all(torch.isfinite(value).all() for value in outputs.values())


@recurrent
def test_log_variances_stay_within_their_bound(config: NetworkConfig) -> None:
    model = network(config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    outputs = run(model, *windows(3))
    for name in ("recon_logvar", "latent_logvar"):
        assert LOGVAR_BOUND / 2 < outputs[name].abs().max() <= LOGVAR_BOUND


@recurrent
def test_divergence_is_that_of_torch(config: NetworkConfig) -> None:
    model = network(config).train()
    outputs = run(model, *windows(5))
    scale = torch.exp(0.5 * outputs["latent_logvar"])
    posterior = torch.distributions.Normal(outputs["latent_mean"], scale)
    terms = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(outputs["kl"], terms.sum(dim=(1, 2)), rtol=1e-5, atol=1e-5)
    assert (outputs["kl"] > 0).all()
    torch.testing.assert_close(run(model.eval(), *windows(5))["kl"], outputs["kl"])


@every_network
def test_a_few_steps_of_training_lower_the_error(config: NetworkConfig) -> None:
    model = network(config).train()
    time = torch.arange(40) / 10.0
    x = torch.sin(time + torch.tensor([0.0, 1.0, 2.0])[:, None]).expand(4, -1, -1)
    mask = torch.ones(4, 3)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    errors = []
    for _ in range(60):
        outputs = model(x, mask)
        squared, logvar = (x - outputs["recon_mean"]).square(), outputs.get("recon_logvar", torch.zeros(1))
        optimiser.zero_grad()
        (squared / logvar.exp() + logvar).mean().backward()
        optimiser.step()
        errors.append(squared.mean().item())
    assert errors[-1] < 0.5 * errors[0]


def test_distance_is_that_of_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    h = rng.normal(0, 2, (6, 5, 80)) + rng.normal(0, 1, (5, 1))
    mean, root = rng.normal(0, 1, 10), rng.normal(0, 1, (10, 10))
    covariance = root @ root.T + np.eye(10)
    density = FeatureDensity(5)
    density.mean.copy_(torch.from_numpy(mean))
    density.whiten.copy_(torch.from_numpy(np.linalg.inv(np.linalg.cholesky(covariance))))
    off = np.concatenate([h.mean(axis=2), h.std(axis=2)], axis=1) - mean
    squared = np.einsum("wf,fg,wg->w", off, np.linalg.inv(covariance), off)
    np.testing.assert_allclose(
        density(torch.from_numpy(h).float()).numpy(), np.log(squared / 10), rtol=1e-4, atol=1e-4
    )


@with_density
def test_distance_is_of_what_the_reconstruction_is_made_of(config: NetworkConfig) -> None:
    model, seen = network(config), []
    model.density.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    outputs = run(model, *windows(4))
    (h,) = seen
    with torch.no_grad():
        if config.architecture == "cae":
            recon = model.decoder[-1](h)
        else:
            recon = to_signal(model.recon_mean(h.transpose(1, 2)), 3)
        torch.testing.assert_close(recon, outputs["recon_mean"])
        torch.testing.assert_close(model.density(h), outputs["distance"])


@with_density
def test_distance_does_not_depend_on_the_other_windows(config: NetworkConfig) -> None:
    model, (x, mask) = network(config), windows(5)
    whole = run(model, x, mask)["distance"]
    assert whole.std() > 1e-3
    alone = torch.cat([run(model, x[i : i + 1], mask[i : i + 1])["distance"] for i in range(5)])
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-5)


def test_constant_channels_have_a_finite_distance_and_gradient() -> None:
    h = torch.zeros(2, 4, 10)
    h[1] = 3.0
    h.requires_grad_()
    for fitted in (False, True):
        density = FeatureDensity(4)
        if fitted:
            density.whiten.copy_(torch.eye(8))
        distance = density(h)
        (gradient,) = torch.autograd.grad(distance.sum(), h)
        assert torch.isfinite(distance).all()
        assert torch.isfinite(gradient).all()


def test_a_density_that_is_not_fitted_says_the_same_of_every_window() -> None:
    distance = FeatureDensity(4)(torch.randn(5, 4, 10))
    assert (distance == distance[0]).all()


def test_patches_are_laid_back_along_the_time_axis() -> None:
    x, mask = windows(3)
    patches = to_patches(x, mask, 4)
    assert torch.equal(patches[1, 2, 0], x[1, 0, 8:12])
    assert torch.equal(to_signal(patches.flatten(2), 3), x)
    joined = step_inputs(patches, mask)
    assert torch.equal(joined[2, 5, :12], patches[2, 5].flatten())
    assert torch.equal(joined[2, 5, 12:], mask[2])


def test_one_latent_vector_comes_from_the_last_states_of_both_directions() -> None:
    model, (x, mask) = network(PLAIN_VAE).train(), windows(3)
    _, (last, _) = model.encoder(step_inputs(to_patches(x, mask, 1), mask))
    wanted = model.latent_mean(torch.cat([last[0], last[1]], dim=1))
    torch.testing.assert_close(model(x, mask)["latent_mean"][:, 0], wanted)


def test_a_latent_vector_of_a_segment_sees_all_of_it() -> None:
    model, (x, mask) = network(SMALL_VAE).train(), windows(1)
    x.requires_grad_()
    for segment in range(5):
        (gradient,) = torch.autograd.grad(model(x, mask)["latent_mean"][0, segment].sum(), x)
        at_steps = gradient[0, 0].reshape(10, 4).abs().sum(dim=1)
        # One direction has seen all before the segment's end, the other all after its start.
        assert (at_steps > 0).all()
        assert at_steps[2 * segment : 2 * segment + 2].mean() > at_steps.mean()


@with_attention
def test_attention_is_shared_out_completely_and_not_evenly(config: NetworkConfig) -> None:
    x, mask = windows(6)
    mask[-1] = 0.0
    outputs = run(network(config), x, mask)
    leads, steps = outputs["lead_attention"], outputs["temporal_attention"]
    some = (mask.sum(dim=1, keepdim=True) > 0).float()
    torch.testing.assert_close(leads.sum(dim=1), some.expand(-1, leads.shape[2]))
    assert (leads[mask == 0] == 0).all()
    assert (leads[mask != 0] > 0).all()
    torch.testing.assert_close(steps.sum(dim=1), torch.ones(6))
    several = mask.sum(dim=1) > 1
    assert (leads[several].std(dim=2)[mask[several] != 0] > 1e-3).all()
    assert (steps[:-1].std(dim=1) > 1e-4).all()


@pytest.mark.parametrize("code", [True, False])
def test_lead_attention_is_multi_head_attention_averaged_over_queries(code: bool) -> None:
    torch.manual_seed(0)
    layer = LeadAttention(3, 4, 8, 5, code=code)
    for bias in (layer.query.bias, layer.key.bias, layer.value.bias, layer.out.bias):
        torch.nn.init.normal_(bias)
    x, mask = windows(6)
    patches = to_patches(x, mask, 4)
    with torch.no_grad():
        context, attention = layer(patches, mask)
        tokens = layer.embedding(patches) + (layer.code if code else 0.0)
        for window in range(6):
            present = mask[window] != 0
            # Leads, steps, width: torch's order of sequence and batch.
            given = tokens[window, :, present].transpose(0, 1)
            out, weights = functional.multi_head_attention_forward(
                given, given, given, 8, LEAD_HEADS,
                torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]),
                torch.cat([layer.query.bias, layer.key.bias, layer.value.bias]),
                None, None, False, 0.0, layer.out.weight, layer.out.bias, training=False,
            )  # fmt: skip
            torch.testing.assert_close(context[window], out.mean(dim=0))
            torch.testing.assert_close(attention[window, present], weights.mean(dim=1).T)


def test_temporal_attention_is_multi_head_attention_with_latents_for_values() -> None:
    torch.manual_seed(0)
    layer = TemporalAttention(15, 3, 16)
    inputs, z = torch.randn(4, 10, 15), torch.randn(4, 10, 3)
    with torch.no_grad():
        context, attention = layer(inputs, z)
        query, key, value = (
            linear(given).transpose(0, 1)
            for linear, given in ((layer.query, inputs), (layer.key, inputs), (layer.value, z))
        )
        out, weights = functional.multi_head_attention_forward(
            query, key, value, 16, TEMPORAL_HEADS, torch.eye(16).repeat(3, 1), torch.zeros(48),
            None, None, False, 0.0, layer.out.weight, layer.out.bias, training=False,
        )  # fmt: skip
    torch.testing.assert_close(context, out.transpose(0, 1))
    torch.testing.assert_close(attention, weights.mean(dim=1))


def test_first_latents_are_narrow_and_the_first_variance_is_that_of_the_input() -> None:
    outputs = run(network(VaeBilstmConfig()).train(), torch.randn(2, 12, 800), torch.ones(2, 12))
    np.testing.assert_allclose(outputs["latent_logvar"].mean(), -3.0, atol=0.3)
    np.testing.assert_allclose(outputs["recon_logvar"].mean(), 0.0, atol=0.1)


@pytest.mark.parametrize(
    ("config", "least", "most"),
    [(VaeBilstmConfig.thesis(), 0.28e6, 0.30e6), (VaeBilstmMhaConfig.thesis(), 10.1e6, 10.5e6)],
    ids=["vae", "mha"],
)
def test_the_thesis_configuration_has_its_size(config: NetworkConfig, least: float, most: float) -> None:
    with torch.device("meta"):
        model = build(config)
    assert least < sum(parameter.numel() for parameter in model.parameters()) < most
