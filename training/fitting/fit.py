"""The training loop: a network, windows of normals, and a checkpoint after each epoch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from torch import Tensor, nn

from training.config import FitConfig, TrainConfig
from training.dataset import CropSource, WindowSet
from training.fitting import losses
from training.fitting.augment import disturb, random_masks
from training.fitting.checkpoint import Epoch, State
from training.fitting.display import FitDisplay, Report

FloatArray = npt.NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda"]

# Streams of random numbers that must not depend on one another: each epoch's, and the validation masks'.
_EPOCH_STREAM, _VALIDATION_STREAM = 1, 2


class TrainingError(ValueError):
    """A training that cannot go on; the text is one line: why, and what to change."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `fit` found.

    Attributes
    ----------
    weights : dict of str to numpy.ndarray
        Of the epoch with the lowest validation loss; without validation, of the last one.
    epoch : int
        That epoch, from 1.
    history : list of Epoch
    """

    weights: dict[str, FloatArray]
    epoch: int
    history: list[Epoch]


def choose_device(wanted: Device) -> torch.device:
    """Return the device to train on; ``"auto"`` is CUDA where there is one.

    Raises
    ------
    TrainingError
        If CUDA is wanted and not there.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise TrainingError("no CUDA device is available to torch: train with --device cpu")
    return torch.device("cuda" if wanted != "cpu" and available else "cpu")


def fit(
    network: nn.Module,
    train: CropSource,
    validation: WindowSet | None,
    config: TrainConfig,
    *,
    records: npt.NDArray[np.intp] | None = None,
    data: str = "",
    device: Device = "cpu",
    checkpoint: Path | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train a network to restore all leads of normal windows from a disturbed part of them.

    The loss runs over the counted points of all leads that a recording has, those masked in the input
    included. The epoch is chosen by the loss of validation normals, under lead masks that stay the same,
    without disturbances and with latents at their mean. On a GPU, training runs in bfloat16 where torch
    holds that to be safe, validation in float32.

    Parameters
    ----------
    network : torch.nn.Module
        Called with x and mask, returns a dict of tensors (see `models.networks.build`). Changed in place.
    train : CropSource
        Normals.
    validation : WindowSet or None
        Normals. Without them, all epochs are run and the last weights taken.
    config : TrainConfig
    records : numpy.ndarray of int, optional
        Numbers of the recordings of `train` to use; default all.
    data : str
        What tells these recordings from others, for the checkpoint.
    device : {"auto", "cpu", "cuda"}
        The same seed gives the same weights on the same machine's CPU; a GPU adds in an order of its own.
    checkpoint : pathlib.Path, optional
        Written after each epoch. If it exists, training goes on from there, and ends with the same
        weights as if it had never stopped.
    report : callable, optional
        Given the epochs so far after each of them, and once after a checkpoint was read.
    progress : rich.progress.Progress, optional

    Returns
    -------
    Fitted

    Raises
    ------
    TrainingError
        If there is nothing to train or validate on, or the loss is no longer a number.
    CheckpointError
        If the checkpoint belongs to another training.
    OSError
        If the checkpoint cannot be written.
    """
    usable = train.usable if records is None else np.intersect1d(records, train.usable)
    if not len(usable):
        raise TrainingError("no recordings to train on: normals (label 0) of split train, a window long")
    if validation is not None and not len(validation):
        raise TrainingError("no windows to validate with: normals (label 0) of split val, a window long")
    where = choose_device(device)
    network.to(where)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.fit.learning_rate, weight_decay=config.fit.weight_decay
    )
    state = State(network, optimiser, _settings(config, data))
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint)
        if report is not None:
            report(state.history)
    display = FitDisplay(progress, config.fit.epochs, state.epoch)
    loop = _Loop(network, optimiser, config, where, display)
    while state.epoch < config.fit.epochs and not _has_converged(state, config):
        started = time.monotonic()
        figures = loop.train(train, usable, state.epoch)
        if validation is not None:
            figures |= loop.validate(validation)
        epoch = Epoch(epoch=state.epoch + 1, **figures, seconds=time.monotonic() - started)
        state.finish(epoch)
        if checkpoint is not None:
            state.save(checkpoint)
        display.end_epoch(epoch)
        if report is not None:
            report(state.history)
    display.close()
    weights = {name: tensor.numpy().copy() for name, tensor in state.best.items()}
    return Fitted(weights, state.best_epoch, state.history)


def _settings(config: TrainConfig, data: str) -> dict[str, Any]:
    # Everything that decides about the weights, one level of keys for a readable refusal.
    content = config.model_dump(
        mode="json", include={"network", "window", "filter", "loss", "fit", "augmentation"}
    )
    flat = {f"{section}.{key}": value for section, values in content.items() for key, value in values.items()}
    return flat | {"data": data}


def _has_converged(state: State, config: TrainConfig) -> bool:
    # While the weight of the divergence still grows, the loss that it will end with may get worse.
    settled = 0
    if config.loss.kind == "elbo":
        changing = config.loss.variance_warmup
        if config.loss.schedule != "constant":
            changing = max(changing, config.loss.annealing)
        settled = math.ceil(changing * config.fit.epochs)
    if not state.history or state.history[-1].validation_loss is None:
        return False
    return state.epoch - max(state.best_epoch, settled) >= config.fit.patience


def _learning_rate(config: FitConfig, done: float) -> float:
    # `done` is the share of all steps taken. A short rise keeps Adam's first, badly scaled steps small.
    rise = 0.1
    if done < rise:
        return config.learning_rate * done / rise
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))


@dataclass(frozen=True, slots=True)
class _Batch:
    given: Tensor
    mask: Tensor
    target: Tensor
    counted: Tensor

    def to(self, device: torch.device) -> _Batch:
        return _Batch(*(part.to(device) for part in (self.given, self.mask, self.target, self.counted)))


class _Loop:
    # One pass over the training windows, one over those of validation.

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        config: TrainConfig,
        device: torch.device,
        display: FitDisplay,
    ) -> None:
        self._network, self._optimiser, self._config = network, optimiser, config
        self._device, self._display = device, display

    def train(self, source: CropSource, usable: npt.NDArray[np.intp], epoch: int) -> dict[str, Any]:
        config, fit = self._config, self._config.fit
        rng = np.random.default_rng([fit.seed, _EPOCH_STREAM, epoch])
        # The latents' noise: from torch's own generator, so that an interrupted training draws the same.
        torch.manual_seed(int(rng.integers(1 << 32)))
        crops = source.plan(
            fit.crops_per_record, rng, records=usable, rate_warp=config.augmentation.rate_warp
        )
        crops = crops.take(rng.permutation(len(crops.record)))
        steps = math.ceil(len(crops.record) / fit.batch)
        self._display.start_epoch(epoch + 1, steps)
        self._network.train()
        active, totals, batches = losses.ActiveDimensions(), np.zeros(3), 0
        for step in range(steps):
            chosen = np.arange(step * fit.batch, min((step + 1) * fit.batch, len(crops.record)))
            batch = self._disturbed(source.cut(crops.take(chosen)), rng)
            before, after = ((epoch + (step + share) / steps) / fit.epochs for share in (0, 1))
            if batch is None:
                continue
            outputs = self._forward(batch)
            terms = losses.training_terms(outputs, batch.target, batch.counted, config.loss, before)
            self._step(terms.loss, after)
            values = [float(value.detach()) for value in terms]
            if not math.isfinite(values[0]):
                raise TrainingError(
                    f"the loss is {values[0]} in epoch {epoch + 1}: lower fit.learning_rate"
                    " or set fit.gradient_clip"
                )
            if "latent_mean" in outputs:
                active.add(outputs["latent_mean"])
            totals += values
            batches += 1
            self._display.batch(epoch + 1, values[0])
        if not batches:
            raise TrainingError("no recording to train on has a usable lead")
        names = ("loss", "reconstruction", "divergence")
        return dict(zip(names, (totals / batches).tolist(), strict=True)) | {
            "validation_loss": None,
            "validation_reconstruction": None,
            "validation_divergence": None,
            "beta": losses.beta(config.loss, after) if config.loss.kind == "elbo" else 0.0,
            "active": active.count(),
            "learning_rate": _learning_rate(fit, after),
        }

    def _disturbed(self, windows: WindowSet, rng: np.random.Generator) -> _Batch | None:
        # The target is all that the recording has; the input some of its leads, disturbed.
        usable = np.flatnonzero(windows.mask.any(axis=1))
        if len(usable) < len(windows):
            windows = windows.select(usable)
        if not len(windows):
            return None
        config = self._config
        mask = windows.mask * random_masks(windows.mask, config.augmentation.all_leads_share, rng)
        given = disturb(windows.x, config.augmentation, config.window.fs, rng) * mask[:, :, np.newaxis]
        arrays = (given, mask, windows.x, windows.counted)
        return _Batch(*(torch.from_numpy(array) for array in arrays)).to(self._device)

    def _forward(self, batch: _Batch) -> dict[str, Tensor]:
        # bfloat16 has the range of float32, so that gradients need no scaling.
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            outputs: dict[str, Tensor] = self._network(batch.given, batch.mask)
        return {name: value.float() for name, value in outputs.items()}

    def _step(self, loss: Tensor, done: float) -> None:
        fit = self._config.fit
        for group in self._optimiser.param_groups:
            group["lr"] = _learning_rate(fit, done)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if fit.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), fit.gradient_clip)
        self._optimiser.step()

    def validate(self, windows: WindowSet) -> dict[str, Any]:
        config = self._config
        rng = np.random.default_rng([config.fit.seed, _VALIDATION_STREAM])
        masks = windows.mask * random_masks(windows.mask, config.augmentation.all_leads_share, rng)
        self._network.eval()
        totals, points = np.zeros(3), 0.0
        with torch.no_grad():
            for at in range(0, len(windows), config.fit.batch):
                piece = slice(at, at + config.fit.batch)
                x, mask = windows.x[piece], masks[piece]
                arrays = (x * mask[:, :, np.newaxis], mask, x, windows.counted[piece])
                batch = _Batch(*(torch.from_numpy(array) for array in arrays)).to(self._device)
                outputs = self._network(batch.given, batch.mask)
                terms = losses.validation_terms(outputs, batch.target, batch.counted, config.loss)
                count = float(batch.counted.sum())
                totals += count * np.array([float(value) for value in terms])
                points += count
        names = ("validation_loss", "validation_reconstruction", "validation_divergence")
        return dict(zip(names, (totals / points).tolist(), strict=True))
