"""How unusual the features of a window are: a distance from those of normal windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Below the rounding of a mean of squares of order 1; keeps the logarithm finite.
_FLOOR = 1e-6


class FeatureDensity(nn.Module):
    r"""Distance of a window's features from those of normal windows.

    The features are the mean and the standard deviation over time of each channel of the decoder's last
    hidden layer: what the reconstruction is made of, and how much of it. They are compared with a normal
    distribution fitted to training normals after the network was trained (see `training.fitting.density`):

    .. math:: d = \ln \frac{1}{F} \lVert W (f - \mu) \rVert^2

    with *F* features :math:`f`, their mean :math:`\mu` and a whitening matrix *W*; but for the logarithm and
    the factor the Mahalanobis distance. A network reconstructs some unusual rhythms well; their features show
    them all the same (after Denouden et al., Improving Reconstruction Autoencoder Out-of-distribution
    Detection with Mahalanobis Distance, arXiv:1812.02765, who measure the latent code).

    Parameters
    ----------
    channels : int
        Of the hidden layer.
    """

    mean: Tensor
    whiten: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Not learned by gradient: set after training, and zero, which says nothing, before.
        self.register_buffer("mean", torch.zeros(2 * channels))
        self.register_buffer("whiten", torch.zeros(2 * channels, 2 * channels))

    @staticmethod
    def features(h: Tensor) -> Tensor:
        """Return mean and standard deviation over time, (batch, 2 * channels), of (batch, channels, time)."""
        mean = h.mean(dim=2, keepdim=True)
        # With a floor under the root: a channel that is constant, as some are, has no gradient there.
        deviation = torch.sqrt((h - mean).square().mean(dim=2) + _FLOOR)
        return torch.cat([mean.squeeze(2), deviation], dim=1)

    def forward(self, h: Tensor) -> Tensor:
        """Return the distance, (batch,), of a hidden layer (batch, channels, time)."""
        z = (self.features(h) - self.mean) @ self.whiten.T
        return torch.log(z.square().mean(dim=1) + _FLOOR)
