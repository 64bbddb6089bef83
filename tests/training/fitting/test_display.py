from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("torch", reason="needs the extra train")

from training.fitting.checkpoint import Epoch
from training.fitting.display import FitDisplay, csv_log, epoch_line, progress_bars, tensorboard_log


def epoch(number: int, **changes: object) -> Epoch:
    plain = {
        "loss": 0.5,
        "reconstruction": 0.5,
        "divergence": 0.0,
        "validation_loss": 0.25,
        "validation_reconstruction": 0.25,
        "validation_divergence": 0.0,
        "beta": 0.0,
        "active": None,
        "learning_rate": 1e-3,
        "seconds": 2.0,
    }
    return Epoch(epoch=number, **plain | changes)  # type: ignore[arg-type]


def test_an_epoch_is_a_line() -> None:
    assert epoch_line(epoch(3), 30) == "epoch 3/30  loss 0.5000  validation 0.2500  2 s"
    variational = epoch(1, divergence=0.125, beta=0.5, active=31, validation_loss=None)
    assert epoch_line(variational, 9) == (
        "epoch 1/9  loss 0.5000  divergence 0.1250 × 0.50, 31 active dimensions  2 s"
    )


def test_a_person_sees_epochs_batches_and_losses() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    with progress_bars(console) as progress:
        display = FitDisplay(progress, 2, 0)
        display.start_epoch(1, 10)
        display.batch(1, 0.625)
        progress.refresh()
        display.end_epoch(epoch(1))
        display.close()
    shown = text.getvalue()
    assert "epoch 1, loss 0.6250" in shown
    assert "1/10" in shown
    assert "epoch 1/2  loss 0.5000  validation 0.2500" in shown


def test_without_a_console_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars(None) as progress:
        for shown in (progress, None):
            display = FitDisplay(shown, 2, 0)
            display.start_epoch(1, 10)
            display.batch(1, 0.5)
            display.end_epoch(epoch(1))
            display.close()
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_the_csv_file_has_every_epoch_once(tmp_path: Path) -> None:
    path = tmp_path / "run.metrics.csv"
    report = csv_log(path)
    history = [epoch(1)]
    report(history)
    history.append(epoch(2, active=4, validation_loss=None))
    report(history)
    csv_log(path)(history)  # as after an interruption
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["active"], row["validation_loss"]) for row in rows] == [
        ("1", "", "0.25"),
        ("2", "4", ""),
    ]
    with pytest.raises(OSError, match="No such file") as caught:
        csv_log(tmp_path / "none" / "x.csv")(history)
    assert caught.value.filename == str(tmp_path / "none" / "x.csv")


def test_tensorboard_gets_every_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = tensorboard_log(tmp_path)
    report([epoch(1)])
    report([epoch(1), epoch(2, loss=0.25, validation_loss=None)])
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert len(events.Scalars("validation_loss")) == 1
