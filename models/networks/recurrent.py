"""What the variational recurrent networks share: steps, variances, latents, initial weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.architectures import LOGVAR_BOUND

# Standard deviation 0.22 of the prior's: little noise at first, so that the decoder learns to read the
# latents before the divergence pulls them towards the prior; otherwise it learns to do without them.
_FIRST_LATENT_LOGVAR = -3.0


def to_patches(x: Tensor, mask: Tensor, patch: int) -> Tensor:
    """Cut windows into the recurrent steps' patches, masked leads zero whatever they hold.

    Parameters
    ----------
    x : torch.Tensor, shape (batch, leads, samples)
    mask : torch.Tensor, shape (batch, leads)
    patch : int

    Returns
    -------
    torch.Tensor, shape (batch, steps, leads, patch)
    """
    batch, leads, samples = x.shape
    given = x.masked_fill(mask.unsqueeze(-1) == 0, 0.0)
    return given.reshape(batch, leads, samples // patch, patch).transpose(1, 2)


def step_inputs(patches: Tensor, mask: Tensor) -> Tensor:
    """Join each step's patches, lead after lead, with the mask.

    Parameters
    ----------
    patches : torch.Tensor, shape (batch, steps, leads, patch)
    mask : torch.Tensor, shape (batch, leads)

    Returns
    -------
    torch.Tensor, shape (batch, steps, leads * (patch + 1))
    """
    presence = mask.unsqueeze(1).expand(-1, patches.shape[1], -1)
    return torch.cat([patches.flatten(2), presence], dim=2)


def to_signal(steps: Tensor, leads: int) -> Tensor:
    """Lay the steps' outputs, lead after lead, along the time axis.

    Parameters
    ----------
    steps : torch.Tensor, shape (batch, steps, leads * patch)
    leads : int

    Returns
    -------
    torch.Tensor, shape (batch, leads, steps * patch)
    """
    batch, count, _ = steps.shape
    return steps.reshape(batch, count, leads, -1).transpose(1, 2).reshape(batch, leads, -1)


def bounded_logvar(raw: Tensor) -> Tensor:
    """Keep log-variances within `models.architectures.LOGVAR_BOUND`."""
    return LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    r"""Return the divergence of normal posteriors from the standard normal prior, in nats.

    .. math:: \tfrac12 \sum (\mu^2 + \sigma^2 - 1 - \ln \sigma^2)

    Parameters
    ----------
    mean, logvar : torch.Tensor, shape (batch, latent steps, latent)

    Returns
    -------
    torch.Tensor, shape (batch,)
        Summed over all but the batch.

    References
    ----------
    Kingma and Welling, Auto-Encoding Variational Bayes, arXiv:1312.6114, appendix B.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=(1, 2))


def draw(mean: Tensor, logvar: Tensor) -> Tensor:
    """Draw latents from their posterior with torch's generator, differentiably."""
    return mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)


def init_lstm(lstm: nn.LSTM) -> None:
    """Set first weights that carry a state over hundreds of steps.

    Recurrent matrices are orthogonal for each gate (they neither shrink nor grow a state) and the forget
    gates start open, with a bias of 1 (Jozefowicz et al., An Empirical Exploration of Recurrent Network
    Architectures, ICML 2015).
    """
    hidden = lstm.hidden_size
    for name, parameter in lstm.named_parameters():
        for gate in range(4):
            rows = parameter.data[gate * hidden : (gate + 1) * hidden]
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(rows)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(rows)
            else:
                # torch's order of gates is input, forget, cell, output; two biases add up.
                rows.fill_(1.0 if gate == 1 and name.startswith("bias_ih") else 0.0)


def init_linear(linear: nn.Linear, *, bias: float = 0.0, gain: float = 1.0) -> None:
    """Set first weights that keep the variance, times `gain`, and one value for all biases."""
    nn.init.xavier_uniform_(linear.weight, gain=gain)
    nn.init.constant_(linear.bias, bias)


def init_logvar_heads(latent: nn.Linear, recon: nn.Linear) -> None:
    """Set first weights of the log-variances: narrow latents, and a reconstruction of unit variance.

    The input has unit variance, so that a network that knows nothing says the truth.
    """
    init_linear(latent, bias=_FIRST_LATENT_LOGVAR, gain=0.1)
    init_linear(recon, gain=0.1)


def lstm(inputs: int, hidden: int, *, bidirectional: bool) -> nn.LSTM:
    """Return one LSTM layer over (batch, steps, inputs) with the weights of `init_lstm`."""
    layer = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=bidirectional)
    init_lstm(layer)
    return layer
