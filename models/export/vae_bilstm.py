"""ONNX of VAE-BiLSTM (see `models.networks.vae_bilstm`)."""

from __future__ import annotations

from models.architectures import VaeBilstmConfig
from models.export import recurrent
from models.export.density import density_shapes
from models.export.graph import Graph, Shapes, Weights
from models.export.recurrent import linear_shapes, lstm_shapes


def parameter_shapes(config: VaeBilstmConfig) -> Shapes:
    """Return the shapes of all parameters by name."""
    values = config.leads * config.patch
    shapes = {
        **lstm_shapes("encoder", config.step_inputs, config.hidden, bidirectional=True),
        **linear_shapes("latent_mean", 2 * config.hidden, config.latent),
        **linear_shapes("latent_logvar", 2 * config.hidden, config.latent),
        **lstm_shapes("decoder", config.latent, config.decoder_hidden, bidirectional=False),
        **linear_shapes("recon_mean", config.decoder_hidden, values),
        **linear_shapes("recon_logvar", config.decoder_hidden, values),
    }
    return {**shapes, **density_shapes(config.decoder_hidden)} if config.density else shapes


def build_graph(config: VaeBilstmConfig, weights: Weights, precision: str) -> Graph:
    """Return the graph of a network whose weights fit."""
    graph = Graph(config.architecture, config.leads, config.samples, precision)
    inputs = recurrent.add_step_inputs(graph, recurrent.add_patches(graph, config), config)
    states = recurrent.add_lstm(graph, inputs, "encoder", weights)

    # Forward states at the ends of the segments, backward states at their starts.
    steps, length = config.steps, config.steps // config.latent_steps
    axes, stride = graph.constant([0, 1]), graph.constant([length, 1])
    ends = graph.add(
        "Slice", states, graph.constant([length - 1, 0]), graph.constant([steps, 1]), axes, stride
    )
    starts = graph.add("Slice", states, graph.constant([0, 1]), graph.constant([steps, 2]), axes, stride)
    segments = graph.add("Squeeze", graph.add("Concat", ends, starts, axis=3), graph.constant([1]))

    mean, logvar = recurrent.add_heads(graph, segments, "latent", weights)
    recurrent.add_kl(graph, mean, logvar)
    column = graph.add("Unsqueeze", mean, graph.constant([1]))
    repeated = graph.add("Expand", column, graph.constant([1, length, 1, 1]))
    z = graph.add("Reshape", repeated, graph.constant([steps, -1, config.latent]))
    decoded = graph.add("Squeeze", recurrent.add_lstm(graph, z, "decoder", weights), graph.constant([1]))
    recurrent.add_recon(graph, decoded, weights, config)
    return graph
