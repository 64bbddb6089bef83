"""ONNX files from weights and a configuration: no torch, and the same bytes every time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.architectures import CaeConfig

# Opset 17 and IR 8 have every operator used here and are read by all runtimes of the last years
# (ONNX Runtime >= 1.12, OpenVINO >= 2022.2, TensorRT >= 8.5).
_OPSET, _IR = 17, 8

Weights = Mapping[str, npt.NDArray[np.float32]]


def export_cae(config: CaeConfig, weights: Weights) -> bytes:
    """Return the ONNX file of a convolutional autoencoder in fp32.

    Inputs ``x`` (batch, leads, samples) and ``mask`` (batch, leads), output ``recon_mean`` (batch, leads,
    samples), all float32; only the batch is dynamic. Equal arguments give equal bytes.

    Parameters
    ----------
    config : CaeConfig
    weights : mapping of str to numpy.ndarray of float32
        By the names that `models.networks.cae.Cae` gives them.

    Raises
    ------
    ValueError
        If `weights` does not hold exactly the parameters that `config` asks for.
    """
    expected = _shapes(config)
    found = {name: array.shape for name, array in weights.items()}
    if found != expected:
        wrong = sorted({name for name, _ in expected.items() ^ found.items()})
        raise ValueError(f"weights do not fit the configuration: {', '.join(wrong)}")

    axes = numpy_helper.from_array(np.array([2], np.int64), "mask_axes")
    length = numpy_helper.from_array(np.array([1, 1, config.samples], np.int64), "mask_shape")
    nodes = [
        helper.make_node("Unsqueeze", ["mask", "mask_axes"], ["mask_column"]),
        helper.make_node("Expand", ["mask_column", "mask_shape"], ["presence"]),
        helper.make_node("Mul", ["x", "presence"], ["given"]),
        helper.make_node("Concat", ["given", "presence"], ["input"], axis=1),
    ]
    at = "input"
    down: dict[str, Any] = {"strides": [2], "pads": [config.kernel // 2] * 2, "kernel_shape": [config.kernel]}
    up: dict[str, Any] = {"strides": [2], "pads": [1, 1], "kernel_shape": [4]}
    wide: dict[str, Any] = {"pads": [config.wide_kernel // 2] * 2, "kernel_shape": [config.wide_kernel]}
    depth = len(config.channels)
    layers = [
        *((f"encoder.{i}", "Conv", down) for i in range(depth)),
        ("wide", "Conv", wide),
        *((f"decoder.{i}", "ConvTranspose", up) for i in range(depth)),
    ]
    for number, (name, operator, attributes) in enumerate(layers):
        last = number == len(layers) - 1
        out = "recon_mean" if last else f"{name}.linear"
        parameters = [f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node(operator, [at, *parameters], [out], name=name, **attributes))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"{name}.out"]))
        at = f"{name}.out"

    signal_shape: list[str | int | None] = ["batch", config.leads, config.samples]
    graph = helper.make_graph(
        nodes,
        config.architecture,
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, signal_shape),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", config.leads]),
        ],
        [helper.make_tensor_value_info("recon_mean", TensorProto.FLOAT, signal_shape)],
        initializer=[
            axes,
            length,
            *(
                numpy_helper.from_array(np.asarray(weights[name], np.float32, order="C"), name)
                for name in expected
            ),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="bedside"
    )
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _shapes(config: CaeConfig) -> dict[str, tuple[int, ...]]:
    # Names and shapes of all parameters, in the order of the layers.
    shapes: dict[str, tuple[int, ...]] = {}
    widths = (2 * config.leads, *config.channels)
    for i, after in enumerate(config.channels):
        shapes[f"encoder.{i}.weight"] = (after, widths[i], config.kernel)
        shapes[f"encoder.{i}.bias"] = (after,)
    code = config.channels[-1]
    shapes["wide.weight"], shapes["wide.bias"] = (code, code, config.wide_kernel), (code,)
    mirrored = (*reversed(config.channels), config.leads)
    for i, after in enumerate(mirrored[1:]):
        shapes[f"decoder.{i}.weight"] = (mirrored[i], after, 4)
        shapes[f"decoder.{i}.bias"] = (after,)
    return shapes
