"""What training makes smaller, and how it is watched: torch tensors in, one number per counted point out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from training.config import ElboLoss, MseLoss

ACTIVE_VARIANCE = 0.01
"""A latent dimension whose posterior mean varies less than this from input to input says nothing about the
input: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, arXiv:1509.00519, section 5.1."""

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Terms(NamedTuple):
    """A loss and what it consists of.

    Attributes
    ----------
    loss : torch.Tensor
        Scalar; what is made smaller.
    reconstruction : torch.Tensor
        Mean squared error, or negative log-likelihood in nats; per counted point.
    divergence : torch.Tensor
        Kullback-Leibler divergence, unweighted, in nats per counted point; 0 for a network without one.
    """

    loss: Tensor
    reconstruction: Tensor
    divergence: Tensor


def mse(recon: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    r"""Return the mean squared error over the counted points.

    .. math:: \frac{\sum c_{blt} (x_{blt} - \hat x_{blt})^2}{\sum c_{blt}}

    Parameters
    ----------
    recon, target : torch.Tensor, shape (batch, leads, samples)
    counted : torch.Tensor of bool, shape (batch, leads, samples)
        Points of all leads that the recordings have, those masked in the input included.

    Returns
    -------
    torch.Tensor
        Scalar; 0 where no point counts.
    """
    return _per_point((recon - target).square(), counted)


def gaussian_nll(mean: Tensor, logvar: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    r"""Return the negative log-likelihood of the counted points under a normal distribution of each.

    .. math:: \tfrac12 \left( \ln 2\pi + \ln \sigma^2 + (x - \mu)^2 / \sigma^2 \right)

    Parameters
    ----------
    mean, logvar, target : torch.Tensor, shape (batch, leads, samples)
        `logvar` is the natural logarithm of the variance.
    counted : torch.Tensor of bool, shape (batch, leads, samples)

    Returns
    -------
    torch.Tensor
        Scalar, nats per point.
    """
    per_point = 0.5 * (logvar + (target - mean).square() * torch.exp(-logvar)) + _HALF_LOG_TAU
    return _per_point(per_point, counted)


def divergences(mean: Tensor, logvar: Tensor) -> Tensor:
    r"""Return each latent dimension's divergence from the standard normal prior, in nats.

    .. math:: \tfrac12 (\mu^2 + \sigma^2 - 1 - \ln \sigma^2)

    (Kingma and Welling, Auto-Encoding Variational Bayes, arXiv:1312.6114, appendix B), averaged over
    windows and latent steps.

    Parameters
    ----------
    mean, logvar : torch.Tensor, shape (batch, steps, latent)

    Returns
    -------
    torch.Tensor, shape (latent,)
    """
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean(dim=(0, 1))


def beta(config: ElboLoss, done: float) -> float:
    """Return the weight of the divergence when a share `done` of the training is over.

    Linear: Bowman et al., Generating Sentences from a Continuous Space, arXiv:1511.06349. Cyclical, half of
    each cycle rising: Fu et al., Cyclical Annealing Schedule, arXiv:1903.10145.
    """
    if config.schedule == "constant" or done >= config.annealing:
        return config.beta_max
    if config.schedule == "linear":
        return config.beta_max * done / config.annealing
    within = (done / config.annealing * config.cycles) % 1.0
    return config.beta_max * min(1.0, 2 * within)


def negative_elbo(
    outputs: Mapping[str, Tensor], target: Tensor, counted: Tensor, config: ElboLoss, done: float
) -> Terms:
    r"""Return the negative evidence lower bound, its divergence weighted and with free bits.

    .. math:: \frac{1}{N} \left( -\sum_{\text{counted}} \ln p(x \mid z)
              + \beta B S \sum_j \max(\lambda, \overline{\mathrm{KL}_j}) \right)

    over a batch of *B* windows with *N* counted points, *S* latent steps and latent dimensions *j*, where
    the bar is the mean over windows and steps. Likelihood and divergence are divided by the same *N*, so
    that at :math:`\beta = 1` and :math:`\lambda = 0` this is the bound itself, in nats per point.

    Parameters
    ----------
    outputs : mapping of str to torch.Tensor
        Of the network in training mode.
    target : torch.Tensor, shape (batch, leads, samples)
    counted : torch.Tensor of bool, shape (batch, leads, samples)
    config : ElboLoss
    done : float
        Share of the training that is over.

    Returns
    -------
    Terms

    References
    ----------
    Free bits: Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow,
    arXiv:1606.04934, section 2.2.
    """
    logvar = outputs["recon_logvar"]
    if done < config.variance_warmup:
        # Times zero rather than left out: the head then has a gradient, of zero, from the first step.
        logvar = logvar * 0.0
    reconstruction = gaussian_nll(outputs["recon_mean"], logvar, target, counted)
    mean = outputs["latent_mean"]
    per_dimension = divergences(mean, outputs["latent_logvar"])
    scale = mean.shape[0] * mean.shape[1] / counted.sum().clamp(min=1)
    charged = scale * per_dimension.clamp(min=config.free_bits).sum()
    loss = reconstruction + beta(config, done) * charged
    return Terms(loss, reconstruction.detach(), (scale * per_dimension.sum()).detach())


def training_terms(
    outputs: Mapping[str, Tensor],
    target: Tensor,
    counted: Tensor,
    config: MseLoss | ElboLoss,
    done: float,
) -> Terms:
    """Return the loss of a batch in training mode (see `mse` and `negative_elbo`)."""
    if config.kind == "elbo":
        return negative_elbo(outputs, target, counted, config, done)
    error = mse(outputs["recon_mean"], target, counted)
    return Terms(error, error.detach(), torch.zeros_like(error.detach()))


def validation_terms(
    outputs: Mapping[str, Tensor], target: Tensor, counted: Tensor, config: MseLoss | ElboLoss
) -> Terms:
    """Return the loss of a batch in evaluation mode: at the final weight, without free bits or sampling.

    So that the losses of all epochs can be compared, whatever their weight was in training.
    """
    if config.kind == "mse":
        return training_terms(outputs, target, counted, config, 1.0)
    reconstruction = gaussian_nll(outputs["recon_mean"], outputs["recon_logvar"], target, counted)
    divergence = outputs["kl"].sum() / counted.sum().clamp(min=1)
    return Terms(reconstruction + config.beta_max * divergence, reconstruction, divergence)


class ActiveDimensions:
    """Count the latent dimensions that say something of the input, over many batches.

    A dimension is active where the variance of its posterior mean, over windows and latent steps, exceeds
    `ACTIVE_VARIANCE`. All of them inactive is posterior collapse: the decoder has learnt to do without.
    """

    def __init__(self) -> None:
        self._n = 0
        self._sum = self._squares = torch.zeros(0, dtype=torch.float64)

    def add(self, mean: Tensor) -> None:
        """Take the posterior means of a batch, shape (batch, steps, latent)."""
        flat = mean.detach().flatten(0, 1).double()
        if not self._n:
            self._sum = self._squares = torch.zeros_like(flat[0])
        self._n += len(flat)
        self._sum = self._sum + flat.sum(dim=0)
        self._squares = self._squares + flat.square().sum(dim=0)

    def count(self) -> int | None:
        """Return how many dimensions are active, None where there was no batch."""
        if not self._n:
            return None
        variance = self._squares / self._n - (self._sum / self._n).square()
        return int((variance > ACTIVE_VARIANCE).sum())


def _per_point(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum() / counted.sum().clamp(min=1)
