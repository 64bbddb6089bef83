"""The training loop: a network, windows of normals, and a checkpoint after each epoch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from torch import Tensor, nn

from training.dataset import CropSource, WindowSet

FloatArray = npt.NDArray[np.float32]
Draw = Callable[[np.random.Generator], WindowSet]

# Streams of random numbers that must not depend on one another: each epoch's, and the validation masks'.
_EPOCH_STREAM, _VALIDATION_STREAM = 1, 2


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How a network is trained.

    Attributes
    ----------
    epochs : int
        At most.
    patience : int
        Stop after so many epochs without a lower validation loss.
    batch : int
    crops_per_record : int
        Windows that an epoch takes of each recording.
    learning_rate : float
        At the peak: the first tenth of the steps rises to it, the rest falls to zero as a cosine.
    all_leads_share : float
        Share of windows that keep all their leads; of the others a random number of leads is masked.
    noise : float
        Standard deviation of the Gaussian noise on the input, in standard deviations of the lead.
    seed : int
    """

    epochs: int = 30
    patience: int = 10
    batch: int = 32
    crops_per_record: int = 5
    learning_rate: float = 1e-3
    all_leads_share: float = 0.2
    noise: float = 0.2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `fit` found.

    Attributes
    ----------
    weights : dict of str to numpy.ndarray
        Of the epoch with the lowest validation loss.
    epoch : int
        That epoch, from 1.
    history : list of (float, float)
        Training and validation loss of each epoch.
    """

    weights: dict[str, FloatArray]
    epoch: int
    history: list[tuple[float, float]]


def random_masks(
    n: int, leads: int, all_leads_share: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return lead masks: a share keeps all leads, the others 1 to all of them, every number as likely.

    Returns
    -------
    numpy.ndarray of bool, shape (n, leads)
    """
    count = np.where(rng.random(n) < all_leads_share, leads, rng.integers(1, leads + 1, n))
    order = np.argsort(rng.random((n, leads)), axis=1)
    rank = np.argsort(order, axis=1)
    return rank < count[:, np.newaxis]


def fit(
    network: nn.Module,
    train: CropSource,
    validation: WindowSet,
    config: FitConfig,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train a network to restore all leads of normal windows from some of them.

    The loss is the mean squared error over the counted points of all leads that the recording has, those
    masked in the input included. The epoch is chosen by this loss on validation normals, under masks
    that stay the same, without noise.

    Parameters
    ----------
    network : torch.nn.Module
        Called with x and mask, returns a dict with ``recon_mean``. Changed in place.
    train : CropSource
        Normals.
    validation : WindowSet
        Normals.
    config : FitConfig
    checkpoint : pathlib.Path, optional
        Written after each epoch. If it exists, training goes on from there, and ends with the same
        weights as if it had never stopped.
    progress : rich.progress.Progress, optional

    Returns
    -------
    Fitted

    Raises
    ------
    ValueError
        If there is nothing to train or validate on, or the checkpoint belongs to another training.
    """
    if not len(train) or not len(validation):
        raise ValueError(f"{len(train)} recordings to train on, {len(validation)} windows to validate with")
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.0)
    state = _State(network, optimiser, _fingerprint(network, config))
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint)
    rng = np.random.default_rng([config.seed, _VALIDATION_STREAM])
    leads = validation.x.shape[1]
    held = validation.keep_leads(random_masks(len(validation), leads, config.all_leads_share, rng))
    task = progress.add_task("training", total=config.epochs, completed=state.epoch) if progress else None
    while state.epoch < config.epochs and state.epoch - state.best_epoch < config.patience:
        rng = np.random.default_rng([config.seed, _EPOCH_STREAM, state.epoch])
        loss = _epoch(network, optimiser, train.draw(config.crops_per_record, rng), config, state.epoch, rng)
        validation_loss = _evaluate(network, held, validation, config.batch)
        state.finish(loss, validation_loss)
        if checkpoint is not None:
            state.save(checkpoint)
        if progress and task is not None:
            text = f"loss {loss:.4f}, validation {validation_loss:.4f}"
            progress.update(task, completed=state.epoch, description=text)
    if progress and task is not None:
        progress.update(task, completed=config.epochs)
    weights = {name: tensor.numpy().copy() for name, tensor in state.best.items()}
    return Fitted(weights, state.best_epoch, state.history)


class _State:
    # Everything that an interrupted training needs to go on. Random numbers are not part of it: each
    # epoch derives its own from the seed.

    def __init__(self, network: nn.Module, optimiser: torch.optim.Optimizer, fingerprint: str) -> None:
        self._network, self._optimiser, self._fingerprint = network, optimiser, fingerprint
        self.epoch = self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.history: list[tuple[float, float]] = []

    def finish(self, loss: float, validation_loss: float) -> None:
        lowest = min((earlier for _, earlier in self.history), default=math.inf)
        self.epoch += 1
        self.history.append((loss, validation_loss))
        if validation_loss < lowest:
            self.best_epoch = self.epoch
            self.best = {name: value.clone() for name, value in self._network.state_dict().items()}

    def save(self, path: Path) -> None:
        content = {
            "fingerprint": self._fingerprint,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "history": self.history,
            "network": self._network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }
        # A crash while writing must leave the last checkpoint whole.
        unfinished = path.with_name(path.name + ".part")
        torch.save(content, unfinished)
        unfinished.replace(path)

    def load(self, path: Path) -> None:
        content: dict[str, Any] = torch.load(path, weights_only=True)
        if content["fingerprint"] != self._fingerprint:
            raise ValueError(f"{path} belongs to a training with other settings: remove it to start anew")
        self.epoch, self.best_epoch = content["epoch"], content["best_epoch"]
        self.best, self.history = content["best"], [tuple(pair) for pair in content["history"]]
        self._network.load_state_dict(content["network"])
        self._optimiser.load_state_dict(content["optimiser"])


def _fingerprint(network: nn.Module, config: FitConfig) -> str:
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return hashlib.sha256(repr((asdict(config), shapes)).encode()).hexdigest()


def _learning_rate(config: FitConfig, done: float) -> float:
    # `done` is the share of all steps taken. A short rise keeps Adam's first, badly scaled steps small.
    rise = 0.1
    if done < rise:
        return config.learning_rate * done / rise
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))


def _epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    windows: WindowSet,
    config: FitConfig,
    epoch: int,
    rng: np.random.Generator,
) -> float:
    network.train()
    order = rng.permutation(len(windows))
    kept = random_masks(len(windows), windows.x.shape[1], config.all_leads_share, rng)
    steps = math.ceil(len(order) / config.batch)
    losses = []
    for step in range(steps):
        batch = order[step * config.batch : (step + 1) * config.batch]
        target = torch.from_numpy(windows.x[batch])
        mask = torch.from_numpy(windows.mask[batch] * kept[batch])
        noise = rng.standard_normal(target.shape, dtype=np.float32) * np.float32(config.noise)
        given = (target + torch.from_numpy(noise)) * mask.unsqueeze(-1)
        loss = _loss(network(given, mask)["recon_mean"], target, torch.from_numpy(windows.counted[batch]))
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(config, (epoch + (step + 1) / steps) / config.epochs)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def _evaluate(network: nn.Module, given: WindowSet, target: WindowSet, batch: int) -> float:
    network.eval()
    total = points = 0.0
    with torch.no_grad():
        for at in range(0, len(given), batch):
            piece = slice(at, at + batch)
            recon = network(torch.from_numpy(given.x[piece]), torch.from_numpy(given.mask[piece]))[
                "recon_mean"
            ]
            counted = torch.from_numpy(target.counted[piece])
            count = float(counted.sum())
            total += float(_loss(recon, torch.from_numpy(target.x[piece]), counted)) * count
            points += count
    return total / points


def _loss(recon: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    return (((recon - target) ** 2) * counted).sum() / counted.sum()
