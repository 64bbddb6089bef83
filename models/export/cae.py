"""ONNX of the convolutional autoencoder (see `models.networks.cae`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.architectures import CaeConfig
from models.export.density import add_density, density_shapes
from models.export.graph import FloatArray, Graph, Shapes, Weights


def parameter_shapes(config: CaeConfig) -> Shapes:
    """Return the shapes of all parameters by name."""
    shapes: Shapes = {}
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
    return {**shapes, **density_shapes(config.channels[0])} if config.density else shapes


def build_graph(config: CaeConfig, weights: Weights, precision: str) -> Graph:
    """Return the graph of a network whose weights fit."""
    graph = Graph(config.architecture, config.leads, config.samples, precision)

    def layer(operator: str, at: str, name: str, **attributes: Any) -> str:
        parameters = [
            graph.constant(weights[f"{name}.{part}"], f"{name}.{part}") for part in ("weight", "bias")
        ]
        return graph.add(operator, at, *parameters, **attributes)

    column = graph.add("Unsqueeze", "mask", graph.constant([2]))
    presence = graph.add("Expand", column, graph.constant([1, 1, config.samples]))
    # What stands in a masked lead must not matter, and may be anything.
    given = graph.add("Where", graph.add("Cast", column, to=9), "x", graph.exact(0.0))
    h = graph.narrow(graph.add("Concat", given, presence, axis=1))
    down: dict[str, Any] = {"strides": [2], "pads": [config.kernel // 2] * 2, "kernel_shape": [config.kernel]}
    up: dict[str, Any] = {"strides": [2], "pads": [1, 1], "kernel_shape": [4]}
    wide: dict[str, Any] = {"pads": [config.wide_kernel // 2] * 2, "kernel_shape": [config.wide_kernel]}
    depth = len(config.channels)
    for i in range(depth):
        h = graph.add("Relu", layer("Conv", h, f"encoder.{i}", **down))
    h = graph.add("Relu", layer("Conv", h, "wide", **wide))

    def upsample(at: str, name: str) -> str:
        if graph.precision == "fp32":
            return layer("ConvTranspose", at, name, **up)
        return _add_as_convolution(graph, at, name, weights)

    for i in range(depth - 1):
        h = graph.add("Relu", upsample(h, f"decoder.{i}"))
    recon = graph.widen(upsample(h, f"decoder.{depth - 1}"))
    graph.output("recon_mean", recon, [config.leads, config.samples])
    if config.density:
        add_density(graph, h, weights)
    return graph


def _add_as_convolution(graph: Graph, at: str, name: str, weights: Weights) -> str:
    # The transposed convolution of kernel 4, stride 2 and padding 1 as a convolution of kernel 3 that gives
    # even and odd samples as channels of their own:
    # y[2i] = k1 x[i] + k3 x[i-1], y[2i+1] = k2 x[i] + k0 x[i+1].
    # TensorRT-RTX 1.7 has no transposed convolution of bfloat16 and OpenVINO 2026.4 a very slow one of
    # float16 (5 windows/s). In float32 the plain operator is a few percent faster.
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    outputs = kernel.shape[1]
    both = graph.add(
        "Conv",
        at,
        graph.constant(_phases(kernel), f"{name}.phases"),
        graph.constant(np.repeat(bias, 2), f"{name}.bias"),
        kernel_shape=[3],
        pads=[1, 1],
    )
    apart = graph.add("Reshape", both, graph.constant([0, outputs, 2, -1]))
    interleaved = graph.add("Transpose", apart, perm=[0, 1, 3, 2])
    return graph.add("Reshape", interleaved, graph.constant([0, outputs, -1]))


def _phases(kernel: FloatArray) -> FloatArray:
    # (inputs, outputs, 4) to (2 * outputs, inputs, 3): each output's even samples, then its odd ones.
    inputs, outputs, _ = kernel.shape
    phases = np.zeros((outputs, 2, inputs, 3), kernel.dtype)
    taps = kernel.transpose(2, 1, 0)
    phases[:, 0, :, 1], phases[:, 0, :, 0] = taps[1], taps[3]
    phases[:, 1, :, 1], phases[:, 1, :, 2] = taps[2], taps[0]
    return phases.reshape(2 * outputs, inputs, 3)
