from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.metrics import auroc
from training.folds import Fold, Labels, fixed_fold, hospital_folds, patient_folds, summarise


def labels(seed: int = 0, n: int = 300) -> Labels:
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, n // 2, n)
    return Labels(
        normal=rng.random(n) < 0.6,
        rhythm_only=rng.random(n) < 0.1,
        dataset=np.where(patient % 3 == 0, "small", "large"),
        person=np.array([f"p{number}" for number in patient]),
    )


def test_no_patient_is_both_trained_on_and_scored() -> None:
    known = labels()
    for fold in patient_folds(known, 5):
        trained = set(known.person[fold.train].tolist())
        assert trained.isdisjoint(known.person[fold.held | fold.abnormal].tolist())
        assert not (fold.train & ~known.normal).any()
        assert not (fold.abnormal & known.normal).any()
        assert (fold.held <= known.normal).all()


def test_every_normal_is_held_by_one_fold_and_the_folds_are_alike() -> None:
    known = labels()
    folds = patient_folds(known, 5)
    np.testing.assert_array_equal(sum(fold.held.astype(int) for fold in folds), known.normal)
    assert (sum(fold.own.astype(int) for fold in folds) <= 1).all()
    # Only an abnormal recording of a patient with normal ones may be missing: never, its fold owns it.
    assert sum(fold.own.sum() for fold in folds) == len(known.normal)
    sizes = [fold.held.sum() for fold in folds]
    assert max(sizes) - min(sizes) < 0.4 * np.mean(sizes)
    for dataset in ("small", "large"):
        patients = [len(set(known.person[fold.held & (known.dataset == dataset)])) for fold in folds]
        assert max(patients) - min(patients) <= 4


def test_folds_depend_on_the_patients_and_not_on_their_order() -> None:
    known = labels()
    order = np.random.default_rng(1).permutation(len(known.normal))
    shuffled = Labels(
        known.normal[order], known.rhythm_only[order], known.dataset[order], known.person[order]
    )
    for fold, other in zip(patient_folds(known, 4), patient_folds(shuffled, 4), strict=True):
        np.testing.assert_array_equal(fold.held[order], other.held)


def test_a_hospital_is_scored_by_a_model_that_saw_none_of_its_normals() -> None:
    known = labels()
    # Too few normals to be a hospital of their own: they train, and are not scored.
    known.dataset[np.flatnonzero(known.normal)[:4]] = "tiny"
    folds = hospital_folds(known)
    assert len(folds) == 2
    for fold, name in zip(folds, ("large", "small"), strict=True):
        np.testing.assert_array_equal(fold.train, known.normal & (known.dataset != name))
        np.testing.assert_array_equal(fold.held | fold.abnormal, known.dataset == name)
        np.testing.assert_array_equal(fold.own, known.dataset == name)
    scores = {(0, number): known.normal * -1.0 for number in range(2)}
    found = summarise(known, folds, scores)
    assert found["large"]["mean"] == found["small"]["mean"] == found["all"]["pooled"] == 1.0
    assert found["tiny"]["mean"] is None


def test_a_fixed_division_trains_on_train_and_holds_val() -> None:
    known = labels()
    split = np.where(np.arange(300) < 200, "train", "val")
    (fold,) = fixed_fold(known, split)
    assert fold.train.sum() == (known.normal & (split == "train")).sum()
    assert (split[fold.held] == "val").all()
    assert set(split[fold.abnormal].tolist()) == {"train", "val"}
    assert set(known.person[fold.train]).isdisjoint(known.person[fold.held | fold.abnormal])


def simple(n: int = 80) -> tuple[Labels, list[Fold]]:
    normal = np.arange(n) % 2 == 0
    known = Labels(
        normal,
        rhythm_only=np.arange(n) % 10 == 1,
        dataset=np.where(np.arange(n) < n // 2, "a", "b"),
        person=np.array([f"p{number}" for number in range(n)]),
    )
    return known, patient_folds(known, 2)


def test_figures_are_those_of_the_scores() -> None:
    known, folds = simple()
    rng = np.random.default_rng(0)
    scores = {}
    for seed in range(2):
        for number, fold in enumerate(folds):
            values = rng.normal(~known.normal, 1.0)
            values[~(fold.held | fold.abnormal)] = np.nan
            scores[seed, number] = values
    found = summarise(known, folds, scores)
    shape = ~(known.rhythm_only & ~known.normal)
    areas = np.array(
        [
            [
                auroc(scores[seed, number][at], ~known.normal[at])
                for number, fold in enumerate(folds)
                for at in [shape & (fold.held | fold.abnormal)]
            ]
            for seed in range(2)
        ]
    )
    everything = found["all"]
    assert everything["mean"] == pytest.approx(areas.mean(), abs=1e-4)
    assert everything["sd_folds"] == pytest.approx(areas.mean(axis=0).std(ddof=1), abs=1e-4)
    assert everything["sd_seeds"] == pytest.approx(areas.mean(axis=1).std(ddof=1), abs=1e-4)
    pooled = np.where(folds[0].own, scores[0, 0], scores[0, 1])
    other = np.where(folds[0].own, scores[1, 0], scores[1, 1])
    expected = np.mean([auroc(values[shape], ~known.normal[shape]) for values in (pooled, other)])
    assert everything["pooled"] == pytest.approx(expected, abs=1e-4)
    low, high = everything["pooled_ci"]
    assert low < everything["pooled"] < high
    assert (everything["n_normal"], everything["n_abnormal"]) == (40, 32)
    assert everything["rhythm_only"]["n_abnormal"] == 8
    assert found["a"]["n_normal"] + found["b"]["n_normal"] == 40


def test_a_data_set_without_normals_has_no_figure() -> None:
    known, folds = simple()
    alone = Labels(known.normal & (known.dataset == "a"), known.rhythm_only, known.dataset, known.person)
    scores = {(0, number): np.arange(80.0) for number in range(2)}
    found = summarise(alone, folds, scores)
    assert found["b"]["mean"] is None
    assert found["b"]["pooled_ci"] is None
    assert found["a"]["sd_seeds"] is None  # of a single seed
