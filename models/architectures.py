"""Configurations of the networks, readable without torch: what a manifest stores and an exporter needs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]

LOGVAR_BOUND = 6.0
"""Log-variances run through ``b * tanh(raw / b)`` and stay between minus and plus this.

Inputs and prior have unit variance: e^-6 is a standard deviation of 0.05 of it, about the noise of a clean
ECG after standardisation, and e^6 says "anything". A lower floor lets single well-fitted points carry the
whole likelihood (an error counts 400 times at the floor); a tanh instead of a cut keeps a gradient there.
"""
LEAD_HEADS, TEMPORAL_HEADS = 4, 8
"""Heads of the two attentions of VAE-BiLSTM-MHA, as in the thesis."""
LEAD_ABSENT = -1e4
"""Added to an absent lead's score: softmax makes it zero in every float format, and float16 can hold it."""


class CaeConfig(BaseModel):
    """Convolutional autoencoder with a lead mask (see `models.networks.cae`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["cae"] = "cae"
    leads: Positive = 12
    samples: Positive = 800
    channels: tuple[Positive, ...] = (32, 48, 64, 96, 32)
    """Output channels of the encoder's layers; each halves the time axis, the decoder mirrors them.

    The last is the width of the code: 32 channels of 25 steps for 12 leads of 800 samples, one number for
    twelve. A code as large as its input copies what is unusual along with the rest: on the validation split,
    (32, 64, 128) reached an AUROC of .76, (32, 48, 64, 96) .80, (32, 48, 64, 96, 96) .84 and this .85.
    """
    kernel: Positive = 3
    """Kernel of the encoder's strided layers; odd, so that padding by half of it keeps the grid."""
    wide_kernel: Positive = 9
    """Kernel of the one wide layer in the middle; odd."""
    density: bool = True
    """Whether the network measures how unusual its features are (see `models.networks.density`); not in the
    thesis."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> CaeConfig:
        for name in ("kernel", "wide_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name}: must be odd, is {getattr(self, name)}")
        if self.samples % self.stride:
            raise ValueError(f"samples: {self.samples} is not a multiple of {self.stride}")
        return self

    @property
    def stride(self) -> int:
        """Samples of input per step of the code."""
        return 1 << len(self.channels)


class _RecurrentConfig(BaseModel):
    # What the two variational recurrent networks share.
    model_config = ConfigDict(frozen=True, extra="forbid")

    leads: Positive = 12
    samples: Positive = 800
    patch: Positive = 8
    """Samples of each lead that one recurrent step takes in and gives out; 1 in the thesis.

    The time of a recurrent network is its number of steps: 8 samples a step make it about eight times faster.
    """
    density: bool = True
    """Whether the network measures how unusual its features are (see `models.networks.density`); not in the
    thesis."""

    @property
    def steps(self) -> int:
        """Recurrent steps of a window."""
        return self.samples // self.patch

    @property
    def step_inputs(self) -> int:
        """Numbers that a step takes in: a patch of each lead, and which leads are present."""
        return (self.patch + 1) * self.leads

    @model_validator(mode="after")
    def _patches_fill_the_window(self) -> Self:
        if self.samples % self.patch:
            raise ValueError(f"samples: {self.samples} is not a multiple of the patch, {self.patch}")
        return self


class VaeBilstmConfig(_RecurrentConfig):
    """Variational autoencoder of one BiLSTM and one LSTM (see `models.networks.vae_bilstm`)."""

    architecture: Literal["vae-bilstm"] = "vae-bilstm"
    hidden: Positive = 96
    """Width of the encoder, per direction."""
    latent: Positive = 32
    latent_steps: Positive = 25
    """Latent vectors along the window, each for an equal part of it; 1 in the thesis."""
    decoder_hidden: Positive = 96

    @model_validator(mode="after")
    def _segments_fill_the_window(self) -> Self:
        if self.steps % self.latent_steps:
            raise ValueError(f"latent_steps: {self.steps} steps do not divide by {self.latent_steps}")
        return self

    @classmethod
    def thesis(cls) -> Self:
        """Return the configuration of the thesis: 1 s at 500 Hz, one latent vector, a step a sample.

        Its text describes the layers but its code has no such network; the widths are those with which the
        speed of this network was estimated before.
        """
        return cls(
            samples=500,
            patch=1,
            hidden=128,
            latent=64,
            latent_steps=1,
            decoder_hidden=128,
            density=False,
        )


class VaeBilstmMhaConfig(_RecurrentConfig):
    """Variational autoencoder of BiLSTMs with attention (see `models.networks.vae_bilstm_mha`)."""

    architecture: Literal["vae-bilstm-mha"] = "vae-bilstm-mha"
    encoder: tuple[Positive, Positive] = (64, 48)
    """Widths of the encoder's layers, per direction."""
    latent: Positive = 32
    """Width of the latent vector of each step."""
    lead_width: Positive = 64
    """Width of a lead's token, a multiple of the 4 heads."""
    lead_code: bool = True
    """Whether each lead has a learned code, by which attention can tell leads apart; not in the thesis."""
    temporal_width: Positive = 64
    """Width of queries, keys and values of the temporal attention, a multiple of the 8 heads."""
    decoder: tuple[Positive, Positive] = (48, 64)

    @model_validator(mode="after")
    def _heads_share_the_widths(self) -> Self:
        for name, heads in (("lead_width", LEAD_HEADS), ("temporal_width", TEMPORAL_HEADS)):
            if getattr(self, name) % heads:
                raise ValueError(f"{name}: {getattr(self, name)} is not a multiple of {heads} heads")
        return self

    @classmethod
    def thesis(cls) -> Self:
        """Return the configuration of the thesis: 1 s at 500 Hz, 512 and 256 units, a step a sample."""
        return cls(
            samples=500,
            patch=1,
            encoder=(512, 256),
            latent=64,
            lead_width=64,
            lead_code=False,
            temporal_width=64,
            decoder=(256, 512),
            density=False,
        )


NetworkConfig = Annotated[
    CaeConfig | VaeBilstmConfig | VaeBilstmMhaConfig, Field(discriminator="architecture")
]
"""Any configuration, told apart by its ``architecture``."""
