"""What an interrupted training needs to go on, on disk after every epoch."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that this training cannot go on from; the text is one line."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to.

    Attributes
    ----------
    epoch : int
        From 1.
    loss, reconstruction, divergence : float
        Mean over the batches of `training.fitting.losses.Terms`, in training.
    validation_loss, validation_reconstruction, validation_divergence : float or None
        Of the validation windows; None where there are none.
    beta : float
        Weight of the divergence at the end of the epoch.
    active : int or None
        Active latent dimensions; None for a network without latents.
    learning_rate : float
        At the end of the epoch.
    seconds : float
    """

    epoch: int
    loss: float
    reconstruction: float
    divergence: float
    validation_loss: float | None
    validation_reconstruction: float | None
    validation_divergence: float | None
    beta: float
    active: int | None
    learning_rate: float
    seconds: float = field(compare=False)


class State:
    """The state of a training between two epochs.

    Random numbers are not part of it: each epoch derives its own from the seed.

    Parameters
    ----------
    network : torch.nn.Module
    optimiser : torch.optim.Optimizer
    settings : mapping of str to object
        What makes this training what it is, by key, JSON values: one with other settings is refused.
    """

    def __init__(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, settings: Mapping[str, Any]
    ) -> None:
        self._network, self._optimiser, self._settings = network, optimiser, dict(settings)
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.history: list[Epoch] = []

    @property
    def epoch(self) -> int:
        """Epochs that are over."""
        return len(self.history)

    def finish(self, epoch: Epoch) -> None:
        """Note an epoch, and the weights if none before had a lower validation loss.

        Without validation, the last weights are those that count.
        """
        losses = [earlier.validation_loss for earlier in self.history]
        lowest = min((loss for loss in losses if loss is not None), default=math.inf)
        self.history.append(epoch)
        if epoch.validation_loss is None or epoch.validation_loss < lowest:
            self.best_epoch = epoch.epoch
            self.best = {name: value.cpu().clone() for name, value in self._network.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write a checkpoint; a crash or a full disk while writing leaves the last one whole.

        Raises
        ------
        OSError
            If it cannot be written; it names the file.
        """
        content = {
            "settings": self._settings,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "history": [asdict(epoch) for epoch in self.history],
            "network": self._network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        unfinished = path.with_name(path.name + ".part")
        try:
            unfinished.write_bytes(buffer.getbuffer())
            unfinished.replace(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        CheckpointError
            If it cannot be read, or belongs to a training with other settings.
        """
        try:
            # Tensors, numbers and texts only: nothing in the file is executed.
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            settings: dict[str, Any] = content["settings"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path} is no checkpoint: remove it to start anew") from error
        for key in sorted(settings.keys() | self._settings.keys()):
            was, now = settings.get(key), self._settings.get(key)
            if was != now:
                raise CheckpointError(
                    f"{path} belongs to a training with other settings ({key} was {was}, is {now}):"
                    " remove it to start anew"
                )
        self.best_epoch, self.best = content["best_epoch"], content["best"]
        self.history = [Epoch(**epoch) for epoch in content["history"]]
        self._network.load_state_dict(content["network"])
        self._optimiser.load_state_dict(content["optimiser"])
