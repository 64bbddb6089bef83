"""ONNX files from weights and a configuration: no torch, and the same bytes every time."""

from __future__ import annotations

from models.architectures import NetworkConfig
from models.export import cae, vae_bilstm, vae_bilstm_mha
from models.export.graph import Shapes, Weights, check_weights

__all__ = ["PRECISIONS", "Weights", "export", "parameter_shapes"]

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""Precisions that a file can be written in.

``fp16`` and ``bf16`` are types of everything but sums over a whole window, exponentials and logarithms, which
are float32. ``int8`` is for recurrent networks: the weights of their LSTM layers, for ONNX Runtime.
"""


def export(config: NetworkConfig, weights: Weights, precision: str = "fp32") -> bytes:
    """Return the ONNX file of a network in evaluation mode.

    Inputs ``x`` (batch, leads, samples) and ``mask`` (batch, leads); outputs as `models.scoring.Outputs`
    describes them for the architecture. All are float32, only the batch is dynamic. Equal arguments give
    equal bytes.

    Parameters
    ----------
    config : CaeConfig, VaeBilstmConfig or VaeBilstmMhaConfig
    weights : mapping of str to numpy.ndarray of float32
        By the names in the state of the network that `models.networks.build.build` returns.
    precision : str
        One of `PRECISIONS`.

    Raises
    ------
    ValueError
        If `weights` does not hold exactly the parameters that `config` asks for, the precision is unknown, or
        the network has none such.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    if precision == "int8" and config.architecture == "cae":
        raise ValueError(
            "no int8 of a convolutional autoencoder: quantised convolutions are slower on a CPU than float32"
        )
    check_weights(weights, parameter_shapes(config))
    match config.architecture:
        case "cae":
            return cae.build_graph(config, weights, precision).to_bytes()
        case "vae-bilstm":
            return vae_bilstm.build_graph(config, weights, precision).to_bytes()
        case "vae-bilstm-mha":
            return vae_bilstm_mha.build_graph(config, weights, precision).to_bytes()


def parameter_shapes(config: NetworkConfig) -> Shapes:
    """Return names and shapes of a network's parameters, in the order of its layers.

    Parameters
    ----------
    config : CaeConfig, VaeBilstmConfig or VaeBilstmMhaConfig
    """
    match config.architecture:
        case "cae":
            return cae.parameter_shapes(config)
        case "vae-bilstm":
            return vae_bilstm.parameter_shapes(config)
        case "vae-bilstm-mha":
            return vae_bilstm_mha.parameter_shapes(config)
