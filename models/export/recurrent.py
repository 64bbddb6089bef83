"""Emitters that the variational recurrent networks share; their mathematics is `models.networks.recurrent`.

Everything is time-major, (steps, batch, ...): the only layout of LSTM that all runtimes have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.architectures import LOGVAR_BOUND, VaeBilstmConfig, VaeBilstmMhaConfig
from models.export.density import add_density
from models.export.graph import CONTRIB, FloatArray, Graph, Shapes, Weights

# torch stacks its gates as input, forget, cell, output; ONNX as input, output, forget, cell.
_GATES = [0, 3, 1, 2]


def linear_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    """Return the parameters of a `torch.nn.Linear`."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def lstm_shapes(name: str, inputs: int, hidden: int, *, bidirectional: bool) -> Shapes:
    """Return the parameters of a `torch.nn.LSTM` of one layer."""
    shapes: Shapes = {}
    for direction in ("", "_reverse") if bidirectional else ("",):
        shapes[f"{name}.weight_ih_l0{direction}"] = (4 * hidden, inputs)
        shapes[f"{name}.weight_hh_l0{direction}"] = (4 * hidden, hidden)
        shapes[f"{name}.bias_ih_l0{direction}"] = (4 * hidden,)
        shapes[f"{name}.bias_hh_l0{direction}"] = (4 * hidden,)
    return shapes


def add_patches(graph: Graph, config: VaeBilstmConfig | VaeBilstmMhaConfig) -> str:
    """Cut ``x`` into patches (steps, batch, leads, patch), zero in masked leads whatever they hold."""
    present = graph.add("Unsqueeze", graph.add("Cast", "mask", to=9), graph.constant([2]))
    given = graph.add("Where", present, "x", graph.exact(0.0))
    shape = graph.constant([0, config.leads, config.steps, config.patch])
    given = graph.narrow(given)
    return graph.add("Transpose", graph.add("Reshape", given, shape), perm=[2, 0, 1, 3])


def add_step_inputs(graph: Graph, patches: str, config: VaeBilstmConfig | VaeBilstmMhaConfig) -> str:
    """Join patches and mask: (steps, batch, leads * (patch + 1))."""
    values = graph.add("Reshape", patches, graph.constant([0, 0, config.leads * config.patch]))
    presence = graph.add("Expand", graph.narrow("mask"), graph.constant([config.steps, 1, 1]))
    return graph.add("Concat", values, presence, axis=2)


def add_lstm(graph: Graph, at: str, name: str, weights: Weights) -> str:
    """Run one LSTM layer; returns (steps, directions, batch, hidden).

    Constant inputs cannot be hoisted out of the steps: the operator multiplies its input at each of them and
    has no bias of a window's own.
    """
    directions = [""] if f"{name}.weight_ih_l0_reverse" not in weights else ["", "_reverse"]
    hidden = weights[f"{name}.weight_hh_l0"].shape[1]

    def gates(parameter: str, direction: str) -> FloatArray:
        values = weights[f"{name}.{parameter}_l0{direction}"]
        return values.reshape(4, hidden, *values.shape[1:])[_GATES].reshape(values.shape)

    w, r = (np.stack([gates(kind, d) for d in directions]) for kind in ("weight_ih", "weight_hh"))
    b = np.stack([np.concatenate([gates("bias_ih", d), gates("bias_hh", d)]) for d in directions])
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if len(directions) == 2 else "forward",
    }
    if graph.precision == "int8":
        return _add_quantised_lstm(graph, at, name, (w, r, b), attributes)
    parameters = [
        graph.constant(values, f"{name}.{part}") for part, values in zip("WRB", (w, r, b), strict=True)
    ]
    return graph.add("LSTM", at, *parameters, **attributes)


def _add_quantised_lstm(
    graph: Graph,
    at: str,
    name: str,
    parameters: tuple[FloatArray, FloatArray, FloatArray],
    attributes: dict[str, Any],
) -> str:
    # ONNX Runtime's own operator: weights in 8 bits with a scale for each gate of each unit, inputs and
    # states quantised as they come, the cell in float32. Nothing else of the network is quantised: linear
    # layers are a small part of its time and would more than double the error of VAE-BiLSTM-MHA.
    w, r, b = parameters
    matrices, scales = [], []
    for part, values in (("W", w), ("R", r)):
        integers, scale = _quantised(values)
        matrices.append(graph.integers(integers.transpose(0, 2, 1), f"{name}.{part}"))
        zero = graph.integers(np.zeros(scale.shape, np.int8), f"{name}.{part}.zero")
        scales += [graph.constant(scale, f"{name}.{part}.scale"), zero]
    # The four left out: lengths of sequences, first states, peepholes.
    inputs = (at, *matrices, graph.constant(b, f"{name}.B"), "", "", "", "", *scales)
    return graph.add("DynamicQuantizeLSTM", *inputs, domain=CONTRIB, **attributes)


def _quantised(values: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    # (..., rows, inputs) to integers and the scale of each row, symmetric about zero.
    scale = np.abs(values).max(axis=-1) / 127
    scale[scale == 0] = 1.0
    return np.round(values / scale[..., np.newaxis]).astype(np.int8), scale.astype(np.float32)


def add_bilstm(graph: Graph, at: str, name: str, weights: Weights) -> str:
    """Run one bidirectional LSTM layer; returns (steps, batch, 2 * hidden), forward states first."""
    hidden = weights[f"{name}.weight_hh_l0"].shape[1]
    states = graph.add("Transpose", add_lstm(graph, at, name, weights), perm=[0, 2, 1, 3])
    return graph.add("Reshape", states, graph.constant([0, 0, 2 * hidden]))


def add_linear(graph: Graph, at: str, name: str, weights: Weights) -> str:
    """Apply a `torch.nn.Linear` to the last axis."""
    return graph.linear(at, name, weights[f"{name}.weight"], weights[f"{name}.bias"])


def add_heads(graph: Graph, at: str, name: str, weights: Weights) -> tuple[str, str]:
    """Apply the layers ``name_mean`` and ``name_logvar``, as one.

    Returns the mean, in the precision's type, and the bounded log-variance, in float32.
    """
    heads = (f"{name}_mean", f"{name}_logvar")
    weight = np.concatenate([weights[f"{head}.weight"] for head in heads])
    bias = np.concatenate([weights[f"{head}.bias"] for head in heads])
    both = graph.linear(at, name, weight, bias)
    mean = graph.add("Split", both, graph.constant([len(bias) // 2] * 2), outputs=2, axis=-1)
    bound, raw = graph.exact(LOGVAR_BOUND), graph.widen(f"{mean}.1")
    logvar = graph.add("Mul", graph.add("Tanh", graph.add("Div", raw, bound)), bound)
    return mean, logvar


def add_kl(graph: Graph, mean: str, logvar: str) -> None:
    """Declare the output ``kl`` from the latents (steps, batch, latent), the log-variances in float32."""
    mean = graph.widen(mean)
    # One is subtracted from each term: from their sum it would leave the rounding of a large number.
    excess = graph.add("Sub", graph.add("Exp", logvar), graph.exact(1.0))
    terms = graph.add("Add", graph.add("Mul", mean, mean), graph.add("Sub", excess, logvar))
    total = graph.add("ReduceSum", terms, graph.constant([0, 2]), keepdims=0)
    graph.output("kl", graph.add("Mul", total, graph.exact(0.5)), [])


def add_recon(graph: Graph, at: str, weights: Weights, config: VaeBilstmConfig | VaeBilstmMhaConfig) -> None:
    """Declare what comes from the decoder's last layer (steps, batch, hidden).

    These are the outputs ``recon_mean``, ``recon_logvar`` and, with a density, ``distance``.
    """
    split = graph.constant([0, 0, config.leads, config.patch])
    join = graph.constant([0, config.leads, config.samples])
    mean, logvar = add_heads(graph, at, "recon", weights)
    for name, value in (("recon_mean", graph.widen(mean)), ("recon_logvar", logvar)):
        by_lead = graph.add("Transpose", graph.add("Reshape", value, split), perm=[1, 2, 0, 3])
        graph.output(name, graph.add("Reshape", by_lead, join), [config.leads, config.samples])
    if config.density:
        add_density(graph, graph.add("Transpose", at, perm=[1, 2, 0]), weights)
