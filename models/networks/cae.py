"""The convolutional autoencoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.architectures import CaeConfig
from models.networks.density import FeatureDensity

# Kernel 4, stride 2, padding 1 doubles the length exactly and covers every output the same number of
# times, which avoids the checkerboard of an odd kernel.
UP_KERNEL, UP_STRIDE, UP_PADDING = 4, 2, 1


class Cae(nn.Module):
    """Convolutional autoencoder that takes any subset of its leads.

    The encoder's strided convolutions halve the time axis, one wide convolution in the middle sees
    about three heartbeats, transposed convolutions mirror the encoder. The lead mask enters as one constant
    channel per lead, so that an absent lead can be told from a flat one; trained with random leads
    masked, the network reconstructs all leads from those that are there.

    The forward pass is deterministic.

    Parameters
    ----------
    config : CaeConfig
    """

    def __init__(self, config: CaeConfig) -> None:
        super().__init__()
        self.config = config
        widths = (2 * config.leads, *config.channels)
        self.encoder = nn.ModuleList(
            nn.Conv1d(before, after, config.kernel, stride=2, padding=config.kernel // 2)
            for before, after in pairwise(widths)
        )
        code = config.channels[-1]
        self.wide = nn.Conv1d(code, code, config.wide_kernel, padding=config.wide_kernel // 2)
        mirrored = (*reversed(config.channels), config.leads)
        self.decoder = nn.ModuleList(
            nn.ConvTranspose1d(before, after, UP_KERNEL, stride=UP_STRIDE, padding=UP_PADDING)
            for before, after in pairwise(mirrored)
        )
        self.density = FeatureDensity(config.channels[0]) if config.density else None

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
            ``recon_mean``, all leads, masked ones included, and with a density ``distance`` (see
            `models.scoring.Outputs`).
        """
        presence = mask.unsqueeze(-1).expand_as(x)
        h = torch.cat([x.masked_fill(presence == 0, 0.0), presence], dim=1)
        for layer in self.encoder:
            h = torch.relu(layer(h))
        h = torch.relu(self.wide(h))
        for layer in self.decoder[:-1]:
            h = torch.relu(layer(h))
        outputs = {"recon_mean": self.decoder[-1](h)}
        if self.density is not None:
            outputs["distance"] = self.density(h)
        return outputs
