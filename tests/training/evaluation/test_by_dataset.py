from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.manifest import ScoreSpec, Thresholds
from stream.leads import LEADS
from training.dataset import WindowSet
from training.evaluate import auroc, auroc_interval, evaluate
from training.recordings import Entry


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 40).astype(float)
    abnormal = rng.random(40) < 0.4
    pairs = [1.0 if a > n else 0.5 if a == n else 0.0 for a in scores[abnormal] for n in scores[~abnormal]]
    assert auroc(scores, abnormal) == pytest.approx(np.mean(pairs))
    assert auroc(scores, np.zeros(40, bool)) is None
    assert auroc_interval(scores, np.zeros(40, bool), ["a"] * 40) is None


def test_the_interval_resamples_patients() -> None:
    rng = np.random.default_rng(1)
    abnormal = np.repeat(np.arange(60) % 2 == 1, 4)
    scores = np.repeat(rng.normal(np.arange(60) % 2, 1.0), 4)
    each, together = list(map(str, range(240))), [str(i // 4) for i in range(240)]
    alone = auroc_interval(scores, abnormal, each)
    grouped = auroc_interval(scores, abnormal, together)
    assert alone is not None
    assert grouped is not None
    assert alone[0] < auroc(scores, abnormal) < alone[1]  # type: ignore[operator]
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


def test_rhythm_only_recordings_stand_apart() -> None:
    def entry(dataset: str, label: int, rhythm_only: bool = False) -> Entry:
        return Entry(Path(f"/{dataset}"), dataset, label, rhythm_only, "test", "", "")

    entries = [entry("a", 0), entry("a", 1), entry("a", 1, rhythm_only=True), entry("b", 0)]
    size = np.array([1.0, 4.0, 0.5, 1.5], np.float32)
    x = np.ones((4, 12, 8), np.float32)
    windows = WindowSet(x, np.ones((4, 12), np.float32), np.ones(x.shape, bool), np.arange(4))
    spec = ScoreSpec(
        lead_mean=((0.0,) * 12,) * 12,
        lead_std=((1.0,) * 12,) * 12,
        count_mean=(0.0,) * 12,
        count_std=(1.0,) * 12,
    )

    calls = iter(range(99))

    def run(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        next(calls)
        return {"recon_mean": x + size[:, np.newaxis, np.newaxis]}

    found = evaluate(
        run, windows, entries, LEADS, spec, Thresholds(record=2.0, window=3.0, quantiles=(0.0, 1.0))
    )
    assert next(calls) == 3  # all leads, three, one
    everything = found["all"]["all"]
    assert (everything["n_normal"], everything["n_abnormal"], everything["auroc"]) == (2, 1, 1.0)
    assert (everything["sensitivity"], everything["specificity"]) == (1.0, 1.0)
    apart = everything["rhythm_only"]
    assert (apart["n_normal"], apart["n_abnormal"], apart["auroc"]) == (2, 1, 0.0)
    assert found["II"]["b"]["auroc"] is None
    assert "rhythm_only" not in found["all"]["b"]
