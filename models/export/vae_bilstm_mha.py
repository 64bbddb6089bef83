"""ONNX of VAE-BiLSTM-MHA (see `models.networks.vae_bilstm_mha`)."""

from __future__ import annotations

import math

import numpy as np

from models.architectures import LEAD_ABSENT, LEAD_HEADS, TEMPORAL_HEADS, VaeBilstmMhaConfig
from models.export import recurrent
from models.export.density import density_shapes
from models.export.graph import FloatArray, Graph, Shapes, Weights
from models.export.recurrent import linear_shapes, lstm_shapes


def parameter_shapes(config: VaeBilstmMhaConfig) -> Shapes:
    """Return the shapes of all parameters by name."""
    (first, second), (third, fourth) = config.encoder, config.decoder
    values, width = config.leads * config.patch, config.lead_width
    shapes = {
        **lstm_shapes("encoder.0", config.step_inputs, first, bidirectional=True),
        **lstm_shapes("encoder.1", 2 * first, second, bidirectional=True),
        **linear_shapes("latent_hidden", 2 * second, second),
        "latent_slope.weight": (1,),
        **linear_shapes("latent_mean", second, config.latent),
        **linear_shapes("latent_logvar", second, config.latent),
        **linear_shapes("lead_attention.embedding", config.patch, width),
        **linear_shapes("lead_attention.query", width, width),
        **linear_shapes("lead_attention.key", width, width),
        **linear_shapes("lead_attention.value", width, width),
        **linear_shapes("lead_attention.out", width, config.latent),
        **linear_shapes("temporal_attention.query", config.step_inputs, config.temporal_width),
        **linear_shapes("temporal_attention.key", config.step_inputs, config.temporal_width),
        **linear_shapes("temporal_attention.value", config.latent, config.temporal_width),
        **linear_shapes("temporal_attention.out", config.temporal_width, config.temporal_width),
        **lstm_shapes("decoder.0", config.temporal_width, third, bidirectional=True),
        **lstm_shapes("decoder.1", 2 * third, fourth, bidirectional=True),
        **linear_shapes("recon_hidden", 2 * fourth, fourth),
        "recon_slope.weight": (1,),
        **linear_shapes("recon_mean", fourth, values),
        **linear_shapes("recon_logvar", fourth, values),
    }
    if config.lead_code:
        shapes["lead_attention.code"] = (config.leads, width)
    return {**shapes, **density_shapes(fourth)} if config.density else shapes


def build_graph(config: VaeBilstmMhaConfig, weights: Weights, precision: str) -> Graph:
    """Return the graph of a network whose weights fit."""
    graph = Graph(config.architecture, config.leads, config.samples, precision)
    patches = recurrent.add_patches(graph, config)
    inputs = recurrent.add_step_inputs(graph, patches, config)
    h = inputs
    for layer in ("encoder.0", "encoder.1"):
        h = recurrent.add_bilstm(graph, h, layer, weights)
    h = _add_hidden(graph, h, "latent", weights)
    mean, logvar = recurrent.add_heads(graph, h, "latent", weights)
    z = graph.add("Add", mean, _add_lead_attention(graph, patches, config, weights))
    recurrent.add_kl(graph, z, logvar)

    h = _add_temporal_attention(graph, inputs, z, config, weights)
    for layer in ("decoder.0", "decoder.1"):
        h = recurrent.add_bilstm(graph, h, layer, weights)
    recurrent.add_recon(graph, _add_hidden(graph, h, "recon", weights), weights, config)
    return graph


def _add_hidden(graph: Graph, at: str, name: str, weights: Weights) -> str:
    # A PRelu with one slope is a LeakyRelu, which runtimes do faster.
    linear = recurrent.add_linear(graph, at, f"{name}_hidden", weights)
    return graph.add("LeakyRelu", linear, alpha=float(weights[f"{name}_slope.weight"][0]))


def _add_lead_attention(graph: Graph, patches: str, config: VaeBilstmMhaConfig, weights: Weights) -> str:
    # (steps, batch, leads, patch) to (steps, batch, latent); declares lead_attention.
    #
    # Tokens are linear in p = (patch, which lead it is), so that they are never formed: the score of head h
    # is the bilinear p_i' M_h p_j, and its value is linear in the weighted mean of p. Half the time of the
    # plain form on a CPU, same numbers.
    leads, width = config.leads, config.patch + config.leads
    mask = graph.narrow("mask")
    eye = graph.constant(np.eye(leads, dtype=np.float32), "which_lead")
    shape = graph.add("Concat", graph.add("Shape", patches, end=2), graph.constant([leads, leads]), axis=0)
    p = graph.add("Concat", patches, graph.add("Expand", eye, shape), axis=3)

    # One more row of keys, met by a one in every query, lowers the scores of absent leads.
    absence = graph.add("Mul", graph.add("Sub", graph.constant(1.0), mask), graph.constant(LEAD_ABSENT))
    row = graph.add("Unsqueeze", absence, graph.constant([1]))
    rows = graph.add("Expand", row, graph.constant([config.steps, 1, 1, 1]))
    keys = graph.add("Concat", graph.add("Transpose", p, perm=[0, 1, 3, 2]), rows, axis=2)
    bilinear = graph.constant(_bilinear(config, weights), "lead_attention.query_key")
    queries = graph.add("MatMul", p, bilinear)
    queries = graph.add("Reshape", queries, graph.constant([0, 0, leads * LEAD_HEADS, width + 1]))
    attention = graph.add("Softmax", graph.add("MatMul", queries, keys), axis=-1)

    # Each present lead asks with an equal share, absent ones do not ask.
    present = graph.add("ReduceSum", mask, graph.constant([1]), keepdims=1)
    share = graph.add("Div", mask, graph.add("Max", present, graph.constant(1.0)))
    share = graph.add("Unsqueeze", share, graph.constant([1]))
    by_query = graph.add("Reshape", attention, graph.constant([0, 0, leads, LEAD_HEADS * leads]))
    received = graph.add("MatMul", share, by_query)
    received = graph.add("Reshape", received, graph.constant([0, 0, LEAD_HEADS, leads]))
    mean = graph.mean(graph.widen(received), [2])
    graph.output("lead_attention", graph.add("Transpose", mean, perm=[1, 2, 0]), [leads, config.steps])

    mixed = graph.add("MatMul", received, p)
    flat = graph.add("Reshape", mixed, graph.constant([0, 0, LEAD_HEADS * width]))
    return graph.linear(flat, "lead_attention.mixed", *_values(config, weights))


def _projection(config: VaeBilstmMhaConfig, weights: Weights, name: str) -> FloatArray:
    # The map (lead_width, patch + leads) of p to queries, keys or values, by way of the tokens. In float64:
    # maps that are multiplied with each other round once, at the end.
    embedding = weights["lead_attention.embedding.weight"].astype(np.float64)
    bias = weights["lead_attention.embedding.bias"].astype(np.float64)
    code = weights["lead_attention.code"] if config.lead_code else np.zeros((config.leads, 1))
    tokens = np.hstack([embedding, (bias + code).T])
    projected: FloatArray = weights[f"lead_attention.{name}.weight"] @ tokens
    projected[:, config.patch :] += weights[f"lead_attention.{name}.bias"][:, np.newaxis]
    return projected


def _bilinear(config: VaeBilstmMhaConfig, weights: Weights) -> FloatArray:
    # (patch + leads, heads * (patch + leads + 1)): M of each head, and the one that meets the absences.
    query, key = (_projection(config, weights, name) for name in ("query", "key"))
    one = np.zeros((config.patch + config.leads, 1))
    one[config.patch :] = 1.0
    depth = config.lead_width // LEAD_HEADS
    heads = zip(np.split(query, LEAD_HEADS), np.split(key, LEAD_HEADS), strict=True)
    return np.hstack([np.hstack([q.T @ k / math.sqrt(depth), one]) for q, k in heads])


def _values(config: VaeBilstmMhaConfig, weights: Weights) -> tuple[FloatArray, FloatArray]:
    # From each head's weighted mean of p, (heads * (patch + leads)), to the latent's width.
    value = _projection(config, weights, "value")
    out = weights["lead_attention.out.weight"]
    by_head = zip(np.split(out, LEAD_HEADS, axis=1), np.split(value, LEAD_HEADS), strict=True)
    return np.hstack([o @ v for o, v in by_head]), weights["lead_attention.out.bias"]


def _add_temporal_attention(
    graph: Graph, inputs: str, z: str, config: VaeBilstmMhaConfig, weights: Weights
) -> str:
    # (steps, batch, width); declares temporal_attention.
    name, width = "temporal_attention", config.temporal_width
    scale = 1 / math.sqrt(width // TEMPORAL_HEADS)
    layers = [(f"{name}.query", scale), (f"{name}.key", 1.0)]
    both = graph.linear(
        inputs,
        f"{name}.query_key",
        np.concatenate([factor * weights[f"{layer}.weight"] for layer, factor in layers]),
        np.concatenate([factor * weights[f"{layer}.bias"] for layer, factor in layers]),
    )
    by_head = graph.constant([0, 0, TEMPORAL_HEADS, width // TEMPORAL_HEADS])
    queries = graph.add("Split", both, graph.constant([width] * 2), outputs=2, axis=-1)
    keys = graph.add("Transpose", graph.add("Reshape", f"{queries}.1", by_head), perm=[1, 2, 3, 0])
    queries = graph.add("Transpose", graph.add("Reshape", queries, by_head), perm=[1, 2, 0, 3])
    values = recurrent.add_linear(graph, z, f"{name}.value", weights)
    values = graph.add("Transpose", graph.add("Reshape", values, by_head), perm=[1, 2, 0, 3])

    attention = graph.add("Softmax", graph.add("MatMul", queries, keys), axis=-1)
    graph.output(name, graph.mean(graph.widen(attention), [1, 2]), [config.steps])
    context = graph.add("Transpose", graph.add("MatMul", attention, values), perm=[2, 0, 1, 3])
    joined = graph.add("Reshape", context, graph.constant([0, 0, width]))
    return recurrent.add_linear(graph, joined, f"{name}.out", weights)
