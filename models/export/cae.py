"""ONNX of the convolutional autoencoder (see `models.networks.cae`)."""

from __future__ import annotations

from typing import Any

from models.architectures import CaeConfig
from models.export.density import add_density, density_shapes
from models.export.graph import Graph, Shapes, Weights


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


def build_graph(config: CaeConfig, weights: Weights) -> Graph:
    """Return the graph of a network whose weights fit."""
    graph = Graph(config.architecture, config.leads, config.samples)

    def layer(operator: str, at: str, name: str, **attributes: Any) -> str:
        parameters = [
            graph.constant(weights[f"{name}.{part}"], f"{name}.{part}") for part in ("weight", "bias")
        ]
        return graph.add(operator, at, *parameters, **attributes)

    column = graph.add("Unsqueeze", "mask", graph.constant([2]))
    presence = graph.add("Expand", column, graph.constant([1, 1, config.samples]))
    # What stands in a masked lead must not matter, and may be anything.
    given = graph.add("Where", graph.add("Cast", column, to=9), "x", graph.constant(0.0))
    h = graph.add("Concat", given, presence, axis=1)
    down: dict[str, Any] = {"strides": [2], "pads": [config.kernel // 2] * 2, "kernel_shape": [config.kernel]}
    up: dict[str, Any] = {"strides": [2], "pads": [1, 1], "kernel_shape": [4]}
    wide: dict[str, Any] = {"pads": [config.wide_kernel // 2] * 2, "kernel_shape": [config.wide_kernel]}
    depth = len(config.channels)
    for i in range(depth):
        h = graph.add("Relu", layer("Conv", h, f"encoder.{i}", **down))
    h = graph.add("Relu", layer("Conv", h, "wide", **wide))
    for i in range(depth - 1):
        h = graph.add("Relu", layer("ConvTranspose", h, f"decoder.{i}", **up))
    recon = layer("ConvTranspose", h, f"decoder.{depth - 1}", **up)
    graph.output("recon_mean", recon, [config.leads, config.samples])
    if config.density:
        add_density(graph, h, weights)
    return graph
