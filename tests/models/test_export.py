from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest

from models.architectures import CaeConfig
from models.export import export_cae
from tests.models.conftest import SMALL, random_weights, random_windows

FULL = CaeConfig()


def run(content: bytes, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    (recon,) = onnxruntime.InferenceSession(content).run(["recon_mean"], {"x": x, "mask": mask})
    return recon


@pytest.mark.parametrize("config", [SMALL, FULL], ids=["small", "full"])
def test_the_file_computes_what_torch_computes(config: CaeConfig) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    from models.networks.cae import Cae

    torch.manual_seed(0)
    network = Cae(config).eval()
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    content = export_cae(config, weights)
    buffer = io.BytesIO()
    example = tuple(map(torch.from_numpy, random_windows(2, config.leads, config.samples)))
    with pytest.warns(DeprecationWarning, match="legacy"):  # a second opinion, of torch itself
        torch.onnx.export(
            network,
            example,
            buffer,
            dynamo=False,
            input_names=["x", "mask"],
            output_names=["recon_mean"],
            dynamic_axes={"x": {0: "batch"}, "mask": {0: "batch"}},
        )
    for n in (1, 3, 8):
        x, mask = random_windows(n, config.leads, config.samples, seed=n)
        with torch.no_grad():
            wanted = network(torch.from_numpy(x), torch.from_numpy(mask))["recon_mean"].numpy()
        np.testing.assert_allclose(run(content, x, mask), wanted, atol=1e-5)
        np.testing.assert_allclose(run(content, x, mask), run(buffer.getvalue(), x, mask), atol=1e-5)


def test_equal_weights_give_equal_bytes() -> None:
    weights = random_weights(SMALL)
    again = {name: weights[name].copy() for name in reversed(weights)}
    assert export_cae(SMALL, weights) == export_cae(SMALL, again)
    weights["wide.bias"] = weights["wide.bias"] + 1
    assert export_cae(SMALL, weights) != export_cae(SMALL, again)


def test_only_the_batch_is_dynamic() -> None:
    graph = onnx.load_from_string(export_cae(SMALL, random_weights(SMALL))).graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    signal = ["batch", SMALL.leads, SMALL.samples]
    assert shapes == {"x": signal, "mask": ["batch", SMALL.leads], "recon_mean": signal}


def test_weights_that_do_not_fit_are_named() -> None:
    weights = random_weights(SMALL)
    weights["extra"] = weights.pop("wide.bias")
    weights["encoder.0.bias"] = weights["encoder.0.bias"][:-1]
    with pytest.raises(ValueError, match=r"encoder\.0\.bias, extra, wide\.bias"):
        export_cae(SMALL, weights)


@pytest.mark.parametrize(
    "fields", [{"kernel": 4}, {"wide_kernel": 2}, {"samples": 801}, {"channels": (0,)}, {"depth": 3}]
)
def test_a_configuration_that_cannot_be_built_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        CaeConfig.model_validate(fields)
