from __future__ import annotations

import io

import numpy as np
import onnx
import pytest

from models.architectures import CaeConfig, NetworkConfig, VaeBilstmConfig, VaeBilstmMhaConfig
from models.bundle import load_bundle
from models.export import export, parameter_shapes
from tests.models.conftest import (
    NETWORKS,
    PLAIN_CAE,
    PLAIN_MHA,
    PLAIN_VAE,
    SMALL,
    SMALL_MHA,
    SMALL_VAE,
    random_weights,
    random_windows,
    run_file,
)

FULL = CaeConfig()
every_small_one = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS.keys())


def assert_same_as_torch(config: NetworkConfig, batches: tuple[int, ...]) -> None:
    import torch

    from models.networks.build import build

    torch.manual_seed(0)
    network = build(config).eval()
    with torch.no_grad():
        # First biases are all alike, and a density says nothing before it is fitted: not much of a test.
        for name, value in network.state_dict().items():
            if "bias" in name or "density" in name:
                value.add_(0.2 * torch.randn_like(value))
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    assert parameter_shapes(config) == {name: value.shape for name, value in weights.items()}
    content = export(config, weights)
    for n in batches:
        x, mask = random_windows(n, config.leads, config.samples, seed=n)
        with torch.no_grad():
            wanted = network(torch.from_numpy(x), torch.from_numpy(mask))
        found = run_file(content, x, mask)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.usefixtures("one_torch_thread")
@every_small_one
def test_the_file_computes_what_torch_computes(config: NetworkConfig) -> None:
    assert_same_as_torch(config, (1, 3, 8))


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("config", [FULL, VaeBilstmConfig(), VaeBilstmMhaConfig()], ids=["cae", "vae", "mha"])
def test_the_file_of_a_serving_configuration_computes_what_torch_computes(config: NetworkConfig) -> None:
    assert_same_as_torch(config, (2,))


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [VaeBilstmConfig.thesis(), VaeBilstmMhaConfig.thesis()], ids=["vae", "mha"]
)
def test_the_file_of_a_thesis_configuration_computes_what_torch_computes(config: NetworkConfig) -> None:
    assert_same_as_torch(config, (1,))


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("config", [SMALL, FULL], ids=["small", "full"])
def test_a_cae_is_the_same_as_by_the_exporter_of_torch(config: CaeConfig) -> None:
    import torch

    from models.networks.cae import Cae

    network = Cae(config).eval()
    weights = random_weights(config)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    buffer = io.BytesIO()
    example = tuple(map(torch.from_numpy, random_windows(2, config.leads, config.samples)))
    with pytest.warns(DeprecationWarning, match="legacy"):
        torch.onnx.export(
            network,
            example,
            buffer,
            dynamo=False,
            input_names=["x", "mask"],
            output_names=["recon_mean", "distance"],
            dynamic_axes={"x": {0: "batch"}, "mask": {0: "batch"}},
        )
    for n in (1, 3, 8):
        x, mask = random_windows(n, config.leads, config.samples, seed=n)
        wanted, found = (
            run_file(content, x, mask) for content in (buffer.getvalue(), export(config, weights))
        )
        assert wanted.keys() == found.keys() == {"recon_mean", "distance"}
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@every_small_one
def test_what_stands_in_a_masked_lead_does_not_matter(config: NetworkConfig) -> None:
    content = export(config, random_weights(config))
    x, mask = random_windows(4)
    assert (mask == 0).any()
    clean = run_file(content, x, mask)
    for rubbish in (np.nan, np.inf, 1e30):
        dirty = run_file(content, np.where(mask[:, :, np.newaxis] == 0, np.float32(rubbish), x), mask)
        for name, value in clean.items():
            np.testing.assert_array_equal(dirty[name], value, err_msg=name)


@every_small_one
def test_no_lead_at_all_is_finite(config: NetworkConfig) -> None:
    x, mask = random_windows(2)
    outputs = run_file(export(config, random_weights(config)), x, 0 * mask)
    assert all(np.isfinite(value).all() for value in outputs.values())
    assert not outputs.get("lead_attention", np.zeros(1)).any()


@every_small_one
def test_equal_weights_give_equal_bytes(config: NetworkConfig) -> None:
    weights = random_weights(config)
    again = {name: weights[name].copy() for name in reversed(weights)}
    assert export(config, weights) == export(config, again)


@every_small_one
def test_every_parameter_has_a_part_in_the_file(config: NetworkConfig) -> None:
    weights = random_weights(config)
    content = export(config, weights)
    for name, value in weights.items():
        assert export(config, {**weights, name: value + 1}) != content, name


def test_the_shipped_model_is_still_made_byte_by_byte() -> None:
    bundle = load_bundle("cae-100hz")
    config = CaeConfig.model_validate(bundle.manifest.hyperparameters["network"])
    assert export(config, bundle.weights()) == bundle.onnx("fp32")


@pytest.mark.parametrize(
    ("config", "more"),
    [
        (SMALL, {"distance": []}),
        (PLAIN_CAE, {}),
        (SMALL_VAE, {"recon_logvar": [3, 40], "kl": [], "distance": []}),
        (PLAIN_VAE, {"recon_logvar": [3, 40], "kl": []}),
        (
            SMALL_MHA,
            {
                "recon_logvar": [3, 40],
                "kl": [],
                "temporal_attention": [10],
                "lead_attention": [3, 10],
                "distance": [],
            },
        ),
        (
            PLAIN_MHA,
            {"recon_logvar": [3, 40], "kl": [], "temporal_attention": [40], "lead_attention": [3, 40]},
        ),
    ],
)
def test_only_the_batch_is_dynamic(config: NetworkConfig, more: dict[str, list[int]]) -> None:
    graph = onnx.load_from_string(export(config, random_weights(config))).graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    windows = {"x": [3, 40], "mask": [3], "recon_mean": [3, 40], **more}
    assert shapes == {name: ["batch", *shape] for name, shape in windows.items()}


@pytest.mark.parametrize(
    ("config", "wrong", "gone"),
    [
        (SMALL, "encoder.0.bias", "wide.bias"),
        (SMALL_VAE, "encoder.bias_ih_l0", "decoder.weight_hh_l0"),
        (SMALL_MHA, "lead_attention.code", "latent_slope.weight"),
        (SMALL, "density.whiten", "density.mean"),
    ],
)
def test_weights_that_do_not_fit_are_named(config: NetworkConfig, wrong: str, gone: str) -> None:
    weights = random_weights(config)
    weights["extra"] = weights.pop(gone)
    weights[wrong] = weights[wrong][:-1]
    named = ", ".join(sorted(["extra", gone, wrong]))
    with pytest.raises(ValueError, match=f"do not fit the configuration: {named}"):
        export(config, weights)


def test_an_unknown_precision_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="no precision 'int8': choose from fp32"):
        export(SMALL, random_weights(SMALL), precision="int8")
