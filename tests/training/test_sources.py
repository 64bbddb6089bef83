from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.manifest import ScoreSpec
from stream.leads import LEADS
from training.config import load_config
from training.dataset import grid_windows
from training.recordings import read_index, select
from training.sources import read_source, score_source, some_windows

CONFIG = load_config("cae-100hz")
PLAIN = ScoreSpec(
    kind="mse",
    lead_mean=((0.0,) * 12,) * 12,
    lead_std=((1.0,) * 12,) * 12,
    count_mean=(0.0,) * 12,
    count_std=(1.0,) * 12,
)


def run(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    # An error that differs from window to window and from lead to lead.
    return {"recon_mean": x - np.abs(x[:, :, :1])}


def test_recordings_that_cannot_be_used_are_named(made_up_index: Callable[[], Path]) -> None:
    index = made_up_index()
    entries = select(read_index(index), split="train")
    entries[2].path.unlink()
    header = entries[4].path.with_suffix(".hea")
    header.write_text(header.read_text().replace(" 5000\n", " 3000\n", 1))
    source = read_source(entries, CONFIG, what="reading")
    assert len(source.entries) == 7
    assert len(source.left_out) == 2
    assert entries[2].path.stem in source.left_out[0]
    assert source.left_out[1].endswith("record r4: shorter than a window (8 s)")
    assert len(source.signals) == 6


def test_windows_are_scored_piece_by_piece_as_all_at_once(
    made_up_index: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = select(read_index(made_up_index()), split="train")
    source = read_source(entries, CONFIG, what="reading")
    monkeypatch.setattr("training.sources._AT_ONCE", 3)
    scores, record = score_source(run, source, PLAIN)
    windows = grid_windows((entry.read() for entry in entries), LEADS, CONFIG.filter, CONFIG.window)
    np.testing.assert_array_equal(record, windows.record)
    expected = np.square(windows.x[:, :, 0]).mean(axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    kept = np.array([lead == "II" for lead in LEADS])
    one, _ = score_source(run, source, PLAIN, kept)
    np.testing.assert_allclose(one, np.square(windows.x[:, 1, 0]), atol=1e-6)
    _, some = score_source(run, source, PLAIN, records=np.array([5, 1]))
    assert some.tolist() == [1] * 5 + [5] * 5


def test_some_windows_are_of_recordings_spread_over_all(made_up_index: Callable[[], Path]) -> None:
    source = read_source(select(read_index(made_up_index()), split="train"), CONFIG, what="reading")
    assert np.unique(some_windows(source, 3).record).tolist() == [0, 3, 7]
    assert len(some_windows(source, 100)) == 40
    assert np.unique(some_windows(source, 100, np.array([2, 6])).record).tolist() == [2, 6]
