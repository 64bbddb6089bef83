from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from pydantic import TypeAdapter

from models.architectures import (
    LEAD_ABSENT,
    LEAD_HEADS,
    CaeConfig,
    NetworkConfig,
    VaeBilstmConfig,
    VaeBilstmMhaConfig,
)
from models.bundle import list_bundles, load_bundle
from models.export import PRECISIONS, cae, export, parameter_shapes, vae_bilstm_mha
from tests.models.conftest import (
    NETWORKS,
    PLAIN_CAE,
    PLAIN_MHA,
    PLAIN_VAE,
    RECURRENT,
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


@pytest.mark.parametrize("precision", PRECISIONS)
@every_small_one
def test_equal_weights_give_equal_bytes(config: NetworkConfig, precision: str) -> None:
    if precision == "int8" and config.architecture == "cae":
        pytest.skip("there is none")
    weights = random_weights(config)
    again = {name: weights[name].copy() for name in reversed(weights)}
    assert export(config, weights, precision) == export(config, again, precision)


@pytest.mark.parametrize(
    ("config", "precision", "off"),
    [
        *((config, "fp16", 0.01) for config in NETWORKS.values()),
        *((config, "int8", 0.1) for config in RECURRENT.values()),
    ],
    ids=[*(f"{name}-fp16" for name in NETWORKS), *(f"{name}-int8" for name in RECURRENT)],
)
def test_a_lower_precision_computes_nearly_the_same(
    config: NetworkConfig, precision: str, off: float
) -> None:
    weights = random_weights(config)
    x, mask = random_windows(4)
    wanted = run_file(export(config, weights), x, mask)
    found = run_file(export(config, weights, precision), x, mask)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        error = np.abs(found[name] - value).max() / max(1.0, np.abs(value).max())
        assert found[name].dtype == np.float32
        assert error < off, name
    assert (found["recon_mean"] != wanted["recon_mean"]).any()


@pytest.mark.parametrize(("precision", "element"), [("fp16", 10), ("bf16", 16)])
@every_small_one
def test_parameters_have_the_type_of_their_precision(
    config: NetworkConfig, precision: str, element: int
) -> None:
    graph = onnx.load_from_string(export(config, random_weights(config), precision)).graph
    large = [value for value in graph.initializer if np.prod(value.dims) > 8]
    wide = {value.name for value in large if value.data_type != element}
    # The distance is a sum over a whole window.
    assert wide <= {"density.mean", "density.whiten"}
    assert all(value.type.tensor_type.elem_type == 1 for value in (*graph.input, *graph.output))


def test_a_quantised_file_is_smaller_and_has_no_other_lstm() -> None:
    weights = random_weights(VaeBilstmConfig())
    whole, quantised = (export(VaeBilstmConfig(), weights, precision) for precision in ("fp32", "int8"))
    assert len(quantised) < 0.5 * len(whole)
    operators = [node.op_type for node in onnx.load_from_string(quantised).graph.node]
    assert operators.count("DynamicQuantizeLSTM") == 2
    assert "LSTM" not in operators


def test_a_convolutional_network_has_no_int8() -> None:
    with pytest.raises(ValueError, match="no int8 of a convolutional autoencoder"):
        export(SMALL, random_weights(SMALL), precision="int8")


def test_even_and_odd_samples_are_exactly_the_transposed_convolution() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    rng = np.random.default_rng(5)
    x, kernel, bias = rng.normal(size=(3, 6, 20)), rng.normal(size=(6, 4, 4)), rng.normal(size=4)
    plain = torch.nn.functional.conv_transpose1d(
        torch.from_numpy(x), torch.from_numpy(kernel), torch.from_numpy(bias), stride=2, padding=1
    )
    both = torch.nn.functional.conv1d(
        torch.from_numpy(x),
        torch.from_numpy(cae._phases(kernel)),
        torch.from_numpy(bias.repeat(2)),
        padding=1,
    )
    interleaved = both.numpy().reshape(3, 4, 2, 20).transpose(0, 1, 3, 2).reshape(3, 4, 40)
    np.testing.assert_allclose(interleaved, plain.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", [SMALL_MHA, PLAIN_MHA], ids=["with codes", "without"])
def test_folded_lead_attention_is_exactly_the_unfolded_one(config: VaeBilstmMhaConfig) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    from models.networks.attention import LeadAttention

    weights = random_weights(config)
    layer = LeadAttention(
        config.leads, config.patch, config.lead_width, config.latent, code=config.lead_code
    ).double()
    prefix = "lead_attention."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    layer.load_state_dict({name: torch.from_numpy(value.astype(np.float64)) for name, value in own.items()})
    rng = np.random.default_rng(2)
    patches = rng.normal(size=(2, 7, config.leads, config.patch))
    mask = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    with torch.no_grad():
        wanted, attention = layer(torch.from_numpy(patches), torch.from_numpy(mask))

    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    which = np.broadcast_to(np.eye(config.leads), (2, 7, config.leads, config.leads))
    p = np.concatenate([patches, which], axis=3)
    width = config.patch + config.leads
    bilinear = vae_bilstm_mha._bilinear(config, exact).reshape(width, LEAD_HEADS, width + 1)
    keys = np.concatenate(
        [p, np.broadcast_to(LEAD_ABSENT * (1 - mask)[:, None, :, None], (2, 7, config.leads, 1))], axis=3
    )
    scores = np.einsum("bsip,phq,bsjq->bshij", p, bilinear, keys)
    weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weight /= weight.sum(axis=-1, keepdims=True)
    share = mask / mask.sum(axis=1, keepdims=True)
    received = np.einsum("bi,bshij->bshj", share, weight)
    matrix, bias = vae_bilstm_mha._values(config, exact)
    found = (received @ p).reshape(2, 7, -1) @ matrix.T + bias
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        received.mean(axis=2).transpose(0, 2, 1), attention.numpy(), rtol=0, atol=1e-12
    )


@every_small_one
def test_every_parameter_has_a_part_in_the_file(config: NetworkConfig) -> None:
    weights = random_weights(config)
    content = export(config, weights)
    for name, value in weights.items():
        assert export(config, {**weights, name: value + 1}) != content, name


@pytest.mark.parametrize("name", list_bundles())
def test_the_shipped_models_are_still_made_byte_by_byte(name: str) -> None:
    bundle = load_bundle(name)
    config = TypeAdapter(NetworkConfig).validate_python(bundle.manifest.hyperparameters["network"])
    for precision in bundle.manifest.thresholds:
        assert export(config, bundle.weights(), precision) == bundle.onnx(precision), precision


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
    with pytest.raises(ValueError, match="no precision 'fp8': choose from fp32"):
        export(SMALL, random_weights(SMALL), precision="fp8")
