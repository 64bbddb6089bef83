"""The variational autoencoder of one BiLSTM and one LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.architectures import VaeBilstmConfig
from models.networks.density import FeatureDensity
from models.networks.recurrent import (
    bounded_logvar,
    draw,
    init_linear,
    init_logvar_heads,
    kl_divergence,
    lstm,
    step_inputs,
    to_patches,
    to_signal,
)


class VaeBilstm(nn.Module):
    """Variational autoencoder: BiLSTM encoder, a few latent vectors, LSTM decoder, mean and log-variance.

    The window is divided into ``latent_steps`` equal segments. A segment's latent vector comes from the
    forward state at its end and the backward state at its start, and is the decoder's input at each of its
    steps. With one segment those are the last states of both directions and the latent vector is the same at
    all steps, as in the thesis; more segments keep the beats of a longer window apart.

    Parameters
    ----------
    config : VaeBilstmConfig
    """

    def __init__(self, config: VaeBilstmConfig) -> None:
        super().__init__()
        self.config = config
        values = config.leads * config.patch
        self.encoder = lstm(config.step_inputs, config.hidden, bidirectional=True)
        self.latent_mean = nn.Linear(2 * config.hidden, config.latent)
        self.latent_logvar = nn.Linear(2 * config.hidden, config.latent)
        self.decoder = lstm(config.latent, config.decoder_hidden, bidirectional=False)
        self.recon_mean = nn.Linear(config.decoder_hidden, values)
        self.recon_logvar = nn.Linear(config.decoder_hidden, values)
        self.density = FeatureDensity(config.decoder_hidden) if config.density else None
        init_linear(self.latent_mean)
        init_linear(self.recon_mean)
        init_logvar_heads(self.latent_logvar, self.recon_logvar)

    def forward(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Reconstruct a batch of windows.

        Parameters
        ----------
        x : torch.Tensor, shape (batch, leads, samples)
            Normalised windows. What stands in a masked lead does not matter.
        mask : torch.Tensor, shape (batch, leads)
            1 where the lead is present, 0 where it is not.

        Returns
        -------
        dict of str to torch.Tensor
            ``recon_mean``, ``recon_logvar``, ``kl`` and with a density ``distance`` (see
            `models.scoring.Outputs`). In training mode also
            ``latent_mean`` and ``latent_logvar``, shape (batch, latent_steps, latent).
        """
        config = self.config
        patches = to_patches(x, mask, config.patch)
        states, _ = self.encoder(step_inputs(patches, mask))
        length = config.steps // config.latent_steps
        ends = states[:, length - 1 :: length, : config.hidden]
        starts = states[:, ::length, config.hidden :]
        segments = torch.cat([ends, starts], dim=2)

        mean = self.latent_mean(segments)
        logvar = bounded_logvar(self.latent_logvar(segments))
        z = draw(mean, logvar) if self.training else mean
        h, _ = self.decoder(z.repeat_interleave(length, dim=1))
        outputs = {
            "recon_mean": to_signal(self.recon_mean(h), config.leads),
            "recon_logvar": to_signal(bounded_logvar(self.recon_logvar(h)), config.leads),
            "kl": kl_divergence(mean, logvar),
        }
        if self.density is not None:
            outputs["distance"] = self.density(h.transpose(1, 2))
        if self.training:
            outputs |= {"latent_mean": mean, "latent_logvar": logvar}
        return outputs
