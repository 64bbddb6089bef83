"""From a configuration to its network."""

from __future__ import annotations

from torch import nn

from models.architectures import NetworkConfig
from models.networks.cae import Cae
from models.networks.vae_bilstm import VaeBilstm
from models.networks.vae_bilstm_mha import VaeBilstmMha


def build(config: NetworkConfig) -> nn.Module:
    """Return a new network with random weights from torch's generator.

    Parameters
    ----------
    config : CaeConfig, VaeBilstmConfig or VaeBilstmMhaConfig

    Returns
    -------
    torch.nn.Module
        Called with ``x`` (batch, leads, samples) and ``mask`` (batch, leads), it returns the outputs that
        `models.scoring.Outputs` describes. In training mode a variational network also returns
        ``latent_mean`` and ``latent_logvar`` (batch, latent steps, latent) and draws its latents from
        torch's generator; in evaluation mode it uses their mean and is deterministic.
    """
    match config.architecture:
        case "cae":
            return Cae(config)
        case "vae-bilstm":
            return VaeBilstm(config)
        case "vae-bilstm-mha":
            return VaeBilstmMha(config)
