from __future__ import annotations

from pathlib import Path

import numpy as np

from training.evaluation.by_dataset import figures_by_dataset
from training.recordings import Entry


def entry(dataset: str, label: int, rhythm_only: bool = False) -> Entry:
    return Entry(Path(f"/{dataset}"), dataset, label, rhythm_only, "test", "", "")


def test_rhythm_only_recordings_stand_apart() -> None:
    entries = [entry("a", 0), entry("a", 1), entry("a", 1, rhythm_only=True), entry("b", 0)]
    found = figures_by_dataset(np.array([1.0, 4.0, 0.5, 1.5]), entries, 2.0)
    everything = found["all"]
    assert (everything["n_normal"], everything["n_abnormal"], everything["auroc"]) == (2, 1, 1.0)
    assert (everything["sensitivity"], everything["specificity"]) == (1.0, 1.0)
    apart = everything["rhythm_only"]
    assert (apart["n_normal"], apart["n_abnormal"], apart["auroc"]) == (2, 1, 0.0)
    assert found["b"]["auroc"] is None
    assert "rhythm_only" not in found["b"]


def test_recordings_without_a_score_are_left_out() -> None:
    entries = [entry("a", 0), entry("a", 1), entry("a", 0)]
    found = figures_by_dataset(np.array([0.0, 1.0, np.nan]), entries, 0.5)
    assert (found["all"]["n_normal"], found["all"]["n_abnormal"]) == (1, 1)
    assert found["a"] == found["all"]
