"""The variational autoencoder of BiLSTMs with lead-wise and temporal attention."""

from __future__ import annotations

from torch import Tensor, nn

from models.architectures import VaeBilstmMhaConfig
from models.networks.attention import LeadAttention, TemporalAttention
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


class VaeBilstmMha(nn.Module):
    """Variational autoencoder with a latent vector for each step and attention over leads and time.

    Two BiLSTM layers encode the window into a latent vector for each step. Lead-wise attention adds what the
    leads say of each other at that step, temporal attention mixes the vectors of steps whose input looks
    alike, two BiLSTM layers decode, and heads give the mean and the log-variance of each point.

    The layers are those of the thesis, with its widths in `VaeBilstmMhaConfig.thesis`. Different from it:

    - What the lead-wise attention adds is part of the posterior's mean, so that the divergence counts it. In
      the thesis it joins after the divergence, and training takes that free way past the latents (measured
      after 900 steps of training: 2 nats a window are left in them, against 100 after 450 this way).
    - Leads may be masked, a step may be a patch of several samples, and leads can have a code.
    - Queries and keys of the temporal attention are one linear map of the input instead of two in a row.
    - There is no dropout; noise on the input is the trainer's business.

    Parameters
    ----------
    config : VaeBilstmMhaConfig
    """

    def __init__(self, config: VaeBilstmMhaConfig) -> None:
        super().__init__()
        self.config = config
        (first, second), (third, fourth) = config.encoder, config.decoder
        values = config.leads * config.patch
        self.encoder = nn.ModuleList(
            [
                lstm(config.step_inputs, first, bidirectional=True),
                lstm(2 * first, second, bidirectional=True),
            ]
        )
        self.latent_hidden = nn.Linear(2 * second, second)
        self.latent_slope = nn.PReLU()
        self.latent_mean = nn.Linear(second, config.latent)
        self.latent_logvar = nn.Linear(second, config.latent)
        self.lead_attention = LeadAttention(
            config.leads, config.patch, config.lead_width, config.latent, code=config.lead_code
        )
        self.temporal_attention = TemporalAttention(config.step_inputs, config.latent, config.temporal_width)
        self.decoder = nn.ModuleList(
            [
                lstm(config.temporal_width, third, bidirectional=True),
                lstm(2 * third, fourth, bidirectional=True),
            ]
        )
        self.recon_hidden = nn.Linear(2 * fourth, fourth)
        self.recon_slope = nn.PReLU()
        self.recon_mean = nn.Linear(fourth, values)
        self.recon_logvar = nn.Linear(fourth, values)
        self.density = FeatureDensity(fourth) if config.density else None
        for linear in (self.latent_hidden, self.latent_mean, self.recon_hidden, self.recon_mean):
            init_linear(linear)
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
            ``recon_mean``, ``recon_logvar``, ``kl``, ``temporal_attention``, ``lead_attention`` and with a
            density ``distance`` (see `models.scoring.Outputs`). In training mode also ``latent_mean`` and
            ``latent_logvar``, shape (batch, steps, latent).
        """
        patches = to_patches(x, mask, self.config.patch)
        inputs = step_inputs(patches, mask)
        h = inputs
        for layer in self.encoder:
            h, _ = layer(h)
        h = self.latent_slope(self.latent_hidden(h))
        among_leads, lead_attention = self.lead_attention(patches, mask)
        mean = self.latent_mean(h) + among_leads
        logvar = bounded_logvar(self.latent_logvar(h))
        z = draw(mean, logvar) if self.training else mean

        h, temporal_attention = self.temporal_attention(inputs, z)
        for layer in self.decoder:
            h, _ = layer(h)
        h = self.recon_slope(self.recon_hidden(h))
        outputs = {
            "recon_mean": to_signal(self.recon_mean(h), self.config.leads),
            "recon_logvar": to_signal(bounded_logvar(self.recon_logvar(h)), self.config.leads),
            "kl": kl_divergence(mean, logvar),
            "temporal_attention": temporal_attention,
            "lead_attention": lead_attention,
        }
        if self.density is not None:
            outputs["distance"] = self.density(h.transpose(1, 2))
        if self.training:
            outputs |= {"latent_mean": mean, "latent_logvar": logvar}
        return outputs
