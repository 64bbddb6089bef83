"""A training as it goes: two bars and a line for each epoch, a CSV file, TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.fitting.checkpoint import Epoch

Report = Callable[[Sequence[Epoch]], None]

_COLUMNS = tuple(field.name for field in fields(Epoch))


def progress_bars(console: Console | None) -> Progress:
    """Return bars with counts and the time that remains; none without a console."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=console is None)


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """Return what a person wants to know of an epoch."""
    parts = [f"epoch {epoch.epoch}/{epochs}", f"loss {epoch.loss:.4f}"]
    if epoch.validation_loss is not None:
        parts.append(f"validation {epoch.validation_loss:.4f}")
    if epoch.active is not None:
        parts.append(
            f"divergence {epoch.divergence:.4f} × {epoch.beta:.2f}, {epoch.active} active dimensions"
        )
    return "  ".join([*parts, f"{epoch.seconds:.0f} s"])


class FitDisplay:
    """The bars of one training: its epochs, and the batches of the current one.

    Parameters
    ----------
    progress : rich.progress.Progress, optional
        Nothing is shown without.
    epochs : int
    done : int
        Epochs that are over already.
    """

    def __init__(self, progress: Progress | None, epochs: int, done: int) -> None:
        self._progress = progress
        self._epochs = epochs
        if progress is not None:
            self._whole = progress.add_task("training", total=epochs, completed=done)
            self._batches = progress.add_task("batches", total=None)

    def start_epoch(self, number: int, batches: int) -> None:
        """Show the empty bar of an epoch, from 1."""
        if self._progress is not None:
            self._progress.reset(self._batches, total=batches, description=f"epoch {number}")

    def batch(self, number: int, loss: float) -> None:
        """Show a batch of the current epoch and its loss."""
        if self._progress is not None:
            self._progress.update(self._batches, advance=1, description=f"epoch {number}, loss {loss:.4f}")

    def end_epoch(self, epoch: Epoch) -> None:
        """Show what an epoch came to, as a line that stays."""
        if self._progress is not None:
            self._progress.update(self._whole, advance=1)
            if not self._progress.disable:
                line = epoch_line(epoch, self._epochs)
                self._progress.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar of the batches away; that of the epochs is full, also after an early stop."""
        if self._progress is not None:
            self._progress.update(self._whole, completed=self._epochs)
            self._progress.remove_task(self._batches)


def csv_log(path: Path) -> Report:
    """Return a report that keeps a CSV file of all epochs, also of those before an interruption.

    Raises
    ------
    OSError
        When it is called, if the file cannot be written; it names the file.
    """

    def report(history: Sequence[Epoch]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {
                name: f"{value:.6g}" if isinstance(value, float) else value
                for name, value in asdict(epoch).items()
            }
            for epoch in history
        )
        try:
            path.write_text(text.getvalue(), encoding="utf-8")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error

    return report


def tensorboard_log(folder: Path) -> Report:
    """Return a report for TensorBoard.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    written = 0

    def report(history: Sequence[Epoch]) -> None:
        nonlocal written
        for epoch in history[written:]:
            for name, value in asdict(epoch).items():
                if name != "epoch" and value is not None:
                    writer.add_scalar(name, value, epoch.epoch)
        written = len(history)
        writer.flush()

    return report
