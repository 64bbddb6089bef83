"""The two attentions of VAE-BiLSTM-MHA. Each returns the weights that it used, not a picture of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.architectures import LEAD_ABSENT, LEAD_HEADS, TEMPORAL_HEADS
from models.networks.recurrent import init_linear


class LeadAttention(nn.Module):
    """Self-attention among the leads of each step, then the mean over the leads present.

    A lead's token is a linear map of its patch plus, if wanted, a learned code of the lead. Absent leads are
    neither keys nor queries. The mean over queries needs no more than the mean weight of each key, for each
    head: that is what the network uses, and what is returned as the attention.

    Parameters
    ----------
    leads, patch, width, out : int
        Width of the tokens, and of the vector that a step receives.
    code : bool
    """

    def __init__(self, leads: int, patch: int, width: int, out: int, *, code: bool) -> None:
        super().__init__()
        self.embedding = nn.Linear(patch, width)
        self.code = nn.Parameter(torch.empty(leads, width)) if code else None
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, out)
        for linear in (self.embedding, self.query, self.key, self.value, self.out):
            init_linear(linear)
        if self.code is not None:
            # Of the size of an embedded patch of unit variance.
            nn.init.normal_(self.code, std=math.sqrt(2 * patch / (patch + width)))

    def forward(self, patches: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Parameters
        ----------
        patches : torch.Tensor, shape (batch, steps, leads, patch)
            Zero where masked.
        mask : torch.Tensor, shape (batch, leads)

        Returns
        -------
        context : torch.Tensor, shape (batch, steps, out)
        attention : torch.Tensor, shape (batch, leads, steps)
            Weight of each lead, the mean over heads: sums to 1 over the leads present, 0 for absent ones.
        """
        tokens = self.embedding(patches)
        if self.code is not None:
            tokens = tokens + self.code
        batch, steps, leads, width = tokens.shape
        heads = (batch, steps, leads, LEAD_HEADS, width // LEAD_HEADS)
        query = self.query(tokens).view(heads).transpose(2, 3)
        key = self.key(tokens).view(heads).permute(0, 1, 3, 4, 2)
        scores = (
            query @ key / math.sqrt(width // LEAD_HEADS) + (1 - mask[:, None, None, None, :]) * LEAD_ABSENT
        )
        weights = torch.softmax(scores, dim=-1)
        # Zero for all keys where no lead is present, since then none asks.
        asking = mask / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
        received = (weights * asking[:, None, None, :, None]).sum(dim=3)

        # Values are linear in the tokens, so that one weighted token a head is projected, not each lead's.
        mixed = received @ tokens
        values = self.value.weight.view(LEAD_HEADS, width // LEAD_HEADS, width)
        per_head = torch.einsum("bshw,hdw->bshd", mixed, values).flatten(2) + self.value.bias
        return self.out(per_head), received.mean(dim=2).transpose(1, 2)


class TemporalAttention(nn.Module):
    """Attention among the steps: queries and keys from the input, values from the latent vectors.

    Since nothing but weights comes from the input, what the decoder learns of the signal passes through the
    latent vectors (Correia et al., MA-VAE, arXiv:2309.02253).

    Parameters
    ----------
    inputs, latent, width : int
    """

    def __init__(self, inputs: int, latent: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(inputs, width)
        self.key = nn.Linear(inputs, width)
        self.value = nn.Linear(latent, width)
        self.out = nn.Linear(width, width)
        for linear in (self.query, self.key, self.value, self.out):
            init_linear(linear)

    def forward(self, inputs: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Parameters
        ----------
        inputs : torch.Tensor, shape (batch, steps, inputs)
        z : torch.Tensor, shape (batch, steps, latent)

        Returns
        -------
        context : torch.Tensor, shape (batch, steps, width)
        attention : torch.Tensor, shape (batch, steps)
            Weight that each step receives, the mean over heads and querying steps: sums to 1.
        """
        batch, steps, _ = inputs.shape
        heads = (batch, steps, TEMPORAL_HEADS, -1)
        query = self.query(inputs).view(heads).transpose(1, 2)
        key = self.key(inputs).view(heads).permute(0, 2, 3, 1)
        value = self.value(z).view(heads).transpose(1, 2)
        weights = torch.softmax(query @ key / math.sqrt(query.shape[-1]), dim=-1)
        context = (weights @ value).transpose(1, 2).flatten(2)
        return self.out(context), weights.mean(dim=(1, 2))
