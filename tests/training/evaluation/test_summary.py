from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.training.evaluation.conftest import entry, scored, stand_in
from training.evaluation.diagnoses import diagnoses, diagnosis_name
from training.evaluation.results import Diagnosis, Evaluation, Figures, Robustness
from training.evaluation.scored import Change, Scored, Skipped
from training.evaluation.summary import summarise, write_scores

DOCS = Path(__file__).parents[3] / "docs" / "evaluate.md"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "index.csv"
    path.write_text("path,label\n")
    return path


def evaluated(found: Scored, index: Path, **options: object) -> Evaluation:
    return summarise(found, stand_in(threshold=0.5), index, resamples=200, **options)  # type: ignore[arg-type]


def several() -> Scored:
    entries = [
        *(
            entry(f"n{i}", 0, patient=f"p{i}", dataset="a" if i < 6 else "b", codes=["SR:0"])
            for i in range(10)
        ),
        *(entry(f"x{i}", 1, patient=f"q{i}", codes=["SR:0", "LVH:100"]) for i in range(6)),
        *(entry(f"y{i}", 1, dataset="b", codes=["164889003"]) for i in range(4)),
        *(entry(f"z{i}", 1, rhythm_only=True, codes=["SBRAD:0"]) for i in range(5)),
    ]
    scores = [
        *np.linspace(-1, 0.6, 10),
        0.2,
        *np.linspace(1, 2, 5),
        -0.5,
        0.4,
        0.7,
        3.0,
        *np.linspace(-1, 0, 5),
    ]
    return scored(entries, scores)


def test_the_stable_fields_of_the_json_are_there(index: Path) -> None:
    found = json.loads(evaluated(several(), index).model_dump_json())
    figures = {
        "n",
        "n_abnormal",
        "auroc",
        "auroc_ci",
        "auprc",
        "threshold",
        "sensitivity",
        "specificity",
        "f1",
    }
    assert figures | {"model", "groups", "skipped"} <= found.keys()
    assert found["groups"].keys() == {"a", "b"}
    for group in found["groups"].values():
        assert figures <= group.keys()
    assert len(found["auroc_ci"]) == 2
    assert found["model"] == "stand-in"
    assert found["threshold"] == 0.5


def test_rhythm_only_recordings_stand_apart_from_the_main_figures(index: Path) -> None:
    found = evaluated(several(), index)
    assert (found.n, found.n_normal, found.n_abnormal) == (20, 10, 10)
    assert (found.sensitivity, found.specificity) == (0.7, 0.9)
    assert found.rhythm_only is not None
    assert (found.rhythm_only.n_normal, found.rhythm_only.n_abnormal) == (10, 5)
    assert found.rhythm_only.sensitivity == 0.0
    assert found.rhythm_only.auroc is not None
    assert found.auroc is not None
    assert found.rhythm_only.auroc < 0.5 < found.auroc
    assert found.groups["a"].rhythm_only is not None
    assert found.groups["b"].rhythm_only is None
    assert (found.groups["b"].n_normal, found.groups["b"].n_abnormal) == (4, 4)


def test_recordings_without_a_data_set_count_among_all(index: Path) -> None:
    entries = [entry("n", 0, dataset=""), entry("x", 1, dataset=""), entry("m", 0, dataset="a")]
    found = evaluated(scored(entries, [0.0, 1.0, 2.0]), index)
    assert (found.n, {name: group.n for name, group in found.groups.items()}) == (3, {"a": 1})


def test_a_normal_recording_marked_rhythm_only_is_a_normal_recording(index: Path) -> None:
    found = evaluated(scored([entry("n", 0, rhythm_only=True), entry("x", 1)], [0.0, 1.0]), index)
    assert (found.n_normal, found.n_abnormal, found.rhythm_only) == (1, 1, None)


@pytest.mark.parametrize(
    ("label", "missing", "there", "absent"),
    [
        (0, "no abnormal recordings", "specificity", "sensitivity"),
        (1, "no normal recordings", "sensitivity", "specificity"),
    ],
)
def test_figures_that_need_the_other_class_are_null(
    index: Path, label: int, missing: str, there: str, absent: str
) -> None:
    found = evaluated(scored([entry(f"r{i}", label) for i in range(4)], [0, 0, 1, 2]), index)
    assert found.missing == missing
    assert getattr(found, there) == 0.5
    for name in (absent, "auroc", "auprc", "f1", "precision_at_recall_90"):
        assert getattr(found, name) is None
        assert getattr(found, f"{name}_ci") is None
    json.loads(found.model_dump_json())


def test_calibration_counts_windows_of_normals_above_stored_percentiles(index: Path) -> None:
    # Stored at 0, 50 and 100 %: -12, 0.5 and 4.
    normals = [entry(f"n{i}", 0) for i in range(4)]
    found = evaluated(scored([*normals, entry("x", 1)], [0, 1, 2, 5, 9]), index).calibration
    assert found is not None
    by_percentile = {level.percentile: level for level in found.windows}
    assert (by_percentile[50].expected, by_percentile[50].observed) == (0.5, 0.75)
    assert by_percentile[99].observed == 0.25
    assert found.record.expected == 0.05
    assert found.record.observed == 0.75
    assert found.error == pytest.approx(
        np.mean([abs(level.observed - level.expected) for level in found.windows]), abs=1e-4
    )


def test_diagnoses_are_told_of_five_recordings_and_more_against_all_normals(index: Path) -> None:
    found = evaluated(several(), index).diagnoses
    # "SR" is on all normals, and atrial fibrillation on four recordings only.
    assert [(row.code, row.n, row.n_rhythm_only) for row in found] == [("LVH", 6, 0), ("SBRAD", 5, 5)]
    hypertrophy, bradycardia = found
    assert (hypertrophy.name, bradycardia.name) == ("left ventricular hypertrophy", "sinus bradycardia")
    assert hypertrophy.sensitivity == round(5 / 6, 4)
    normals = np.linspace(-1, 0.6, 10)
    above = [np.mean(normals < score) for score in (0.2, *np.linspace(1, 2, 5))]
    assert hypertrophy.auroc == round(float(np.mean(above)), 4)


def test_codes_lose_their_likelihood_and_known_concepts_get_a_name() -> None:
    assert diagnoses(["NORM:80", "SR:0", "164889003", "LAO/LAE:15.0"]) == {
        "NORM",
        "SR",
        "164889003",
        "LAO/LAE",
    }
    assert diagnosis_name("164889003") == diagnosis_name("AFIB") == "atrial fibrillation"
    assert diagnosis_name("12345") == "12345"


def test_a_change_is_compared_with_the_same_recordings_as_they_were(index: Path) -> None:
    entries = [entry(f"r{i}", i % 2) for i in range(12)]
    scores = [0.0, 1.0] * 6
    lacking = [np.nan, np.nan, *scores[2:]]
    lacking[2] = 2.0
    found = evaluated(
        scored(entries, scores, same=scores, worse=lacking),
        index,
        changes=[Change("same", "k", lambda s: s), Change("worse", "k", lambda s: s)],
    )
    assert found.robustness is not None
    same, worse = found.robustness
    assert (same.n, same.auroc, same.auroc_delta, same.auroc_delta_ci) == (12, 1.0, 0.0, (0.0, 0.0))
    assert (worse.n, worse.n_abnormal) == (10, 5)
    assert (worse.auroc, worse.auroc_delta, worse.specificity_delta) == (0.8, -0.2, -0.2)
    assert worse.auroc_delta_ci is not None
    assert worse.auroc_delta_ci[0] < -0.2 < worse.auroc_delta_ci[1]
    assert found.groups["a"].robustness == found.robustness
    assert evaluated(several(), index).robustness is None


def test_known_splits_are_noted(index: Path) -> None:
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    session = stand_in()
    session.manifest = session.manifest.model_copy(update={"data": {"index_sha256": f"0123 {digest}"}})

    def notes(split: str | None) -> str:
        return " ".join(summarise(several(), session, index, split=split, resamples=2).notes)

    assert notes("test") == ""
    assert "trained" in notes("train")
    assert "threshold" in notes("val")
    assert "trained" in notes(None)
    assert "threshold" in notes(None)
    assert evaluated(several(), index).notes == ()


def test_skipped_recordings_are_named_as_the_index_names_them(index: Path) -> None:
    gone = entry("gone")
    inside = type(gone)(index.parent / "sub" / "r.dat", "a", 0, False, "", "", "")
    found = evaluated(
        scored([entry("n", 0)], [0.0], skipped=[Skipped(gone, "not found"), Skipped(inside, "short")]), index
    )
    assert [(row.path, row.why) for row in found.skipped] == [
        ("/gone.dat", "not found"),
        ("sub/r.dat", "short"),
    ]


def test_scores_are_written_one_row_a_recording(index: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    write_scores(file, several(), stand_in(threshold=0.5), index)
    with file.open(newline="") as written:
        rows = list(csv.DictReader(written))
    assert len(rows) == 25
    assert list(rows[0]) == [
        "path",
        "record",
        "dataset",
        "label",
        "rhythm_only",
        "score",
        "percentile",
        "anomalous",
        "patient",
    ]
    assert (rows[9]["record"], rows[9]["anomalous"], rows[9]["patient"]) == ("n9", "1", "p9")
    assert (rows[20]["label"], rows[20]["rhythm_only"], rows[20]["score"]) == ("1", "1", "-1.000000")
    # -1 lies between -12 (0 %) and 0.5 (50 %).
    assert float(rows[0]["percentile"]) == pytest.approx(50 * 11 / 12.5, abs=0.01)


def test_every_field_of_the_json_is_documented() -> None:
    told = set(re.findall(r"`([a-z_0-9]+)`", DOCS.read_text(encoding="utf-8")))
    for model in (Evaluation, Figures, Diagnosis, Robustness):
        # An interval stands beside its figure, and so does a change.
        fields = {name.removesuffix("_ci").removesuffix("_delta") for name in model.model_fields}
        assert fields <= told, fields - told
