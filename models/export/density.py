"""ONNX of the feature density (see `models.networks.density`)."""

from __future__ import annotations

from models.export.graph import Graph, Shapes, Weights

# As in the network.
_FLOOR = 1e-6


def density_shapes(channels: int) -> Shapes:
    """Return the parameters of a feature density."""
    return {"density.mean": (2 * channels,), "density.whiten": (2 * channels, 2 * channels)}


def add_density(graph: Graph, at: str, weights: Weights) -> None:
    """Declare the output ``distance`` from a hidden layer (batch, channels, time); float32 throughout."""
    at = graph.widen(at)
    mean = graph.mean(at, [2], keepdims=True)
    off = graph.add("Sub", at, mean)
    variance = graph.mean(graph.add("Mul", off, off), [2])
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.exact(_FLOOR)))
    features = graph.add("Concat", graph.add("Squeeze", mean, graph.constant([2])), deviation, axis=1)
    centred = graph.add("Sub", features, graph.exact(weights["density.mean"], "density.mean"))
    z = graph.add("MatMul", centred, graph.exact(weights["density.whiten"].T, "density.whiten"))
    square = graph.mean(graph.add("Mul", z, z), [1])
    graph.output("distance", graph.add("Log", graph.add("Add", square, graph.exact(_FLOOR))), [])
