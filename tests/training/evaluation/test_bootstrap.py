from __future__ import annotations

import numpy as np
import pytest

from training.evaluation import bootstrap
from training.evaluation.bootstrap import interval, resampled_weights
from training.evaluation.figures import figures


def drawn(patients: list[str], **options: int) -> np.ndarray:
    return np.concatenate(list(resampled_weights(patients, **options)))


def test_recordings_of_a_patient_are_drawn_together_and_as_many_patients_as_there_are() -> None:
    patients = ["b", "a", "b", "c", "b", "a"]
    weights = drawn(patients, resamples=200)
    assert weights.shape == (200, 6)
    for name in "abc":
        columns = weights[:, [at for at, patient in enumerate(patients) if patient == name]]
        assert (columns == columns[:, :1]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    # Each is drawn once on average, and left out in (2/3)^3 of the resamples.
    assert weights.mean() == pytest.approx(1.0, abs=0.12)
    assert (weights[:, 3] == 0).mean() == pytest.approx(8 / 27, abs=0.1)


def test_a_seed_draws_the_same_again() -> None:
    patients = [str(i) for i in range(30)]
    np.testing.assert_array_equal(drawn(patients, seed=3), drawn(patients, seed=3))
    assert (drawn(patients, seed=3) != drawn(patients, seed=4)).any()


def test_all_pieces_together_have_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_PIECE", 50)
    pieces = list(resampled_weights([str(i) for i in range(20)], resamples=7))
    assert [len(piece) for piece in pieces] == [2, 2, 2, 1]


def test_resamples_without_a_class_are_left_out_of_an_interval() -> None:
    values = np.concatenate([np.arange(101.0), [np.nan] * 50])
    assert interval(values) == pytest.approx((2.5, 97.5))
    assert interval(np.full(3, np.nan)) is None


def test_patients_with_several_recordings_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    abnormal = np.repeat(np.arange(60) % 2 == 1, 4)
    scores = np.repeat(rng.normal(np.arange(60) % 2, 1.0), 4)
    each, together = list(map(str, range(240))), [str(i // 4) for i in range(240)]
    alone, grouped = (
        figures(scores, abnormal, patients, 0.5, resamples=500, seed=0) for patients in (each, together)
    )
    assert (alone.n_patients, grouped.n_patients) == (240, 60)
    for name in ("auroc", "auprc", "sensitivity", "specificity", "f1", "precision_at_recall_90"):
        value = getattr(alone, name)
        assert value == getattr(grouped, name)
        (low, high), (lowest, highest) = getattr(alone, f"{name}_ci"), getattr(grouped, f"{name}_ci")
        assert low <= value <= high
        # Four alike count as one: twice as wide, but for figures that come in steps.
        assert highest - lowest > 1.4 * (high - low)
