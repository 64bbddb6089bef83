"""Configurations of the networks, readable without torch: what a manifest stores and an exporter needs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]


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
