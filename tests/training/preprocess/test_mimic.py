from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.training.preprocess.conftest import mimic_path, write_mimic
from training.preprocess.catalogue import LeftOut, Normals, Reason, Record, Selection
from training.preprocess.mimic import judged, mimic_catalogue
from training.preprocess.tables import SourceError

NORMAL = ("Sinus rhythm", "Normal ECG")


@pytest.mark.parametrize(
    ("statements", "label", "rhythm_only"),
    [
        (NORMAL, 0, False),
        (("Sinus rhythm.", "  NORMAL  ecg"), 0, False),
        (("Normal sinus rhythm", "Summary: Normal ECG"), 0, False),
        (("Sinus rhythm", "Low voltage", "Normal ECG"), 1, False),
        (("Sinus bradycardia", "Normal ECG except for rate"), 1, True),
        (("Sinus tachycardia", "Borderline ECG"), 1, True),
        (("Marked sinus bradycardia with sinus arrhythmia", "Abnormal ECG"), 1, True),
        (("Sinus rhythm with 1st degree A-V block", "Normal ECG"), 1, False),
        (("Sinus tachycardia", "Inferior infarct, old", "Abnormal ECG"), 1, False),
        (("Atrial fibrillation", "Abnormal ECG"), 1, False),
        (("Sinus rhythm", "Borderline ECG"), 1, False),
        (("Sinus rhythm",), None, False),
        (("Normal ECG",), None, False),
        (("Sinus rhythm", "Normal ECG based on available leads"), None, False),
        (("--- Suspect arm lead reversal ---", "Sinus rhythm", "Normal ECG"), None, False),
        (("", " "), None, False),
        ((), None, False),
    ],
)
def test_what_a_machine_says_becomes_a_label(
    statements: tuple[str, ...], label: int | None, rhythm_only: bool
) -> None:
    assert judged(statements) == (label, rhythm_only)


def entries(folder: Path, normals: Normals = Normals.STRICT) -> dict[str, Record | LeftOut]:
    catalogue = mimic_catalogue(folder, normals)
    found = {entry.name: entry for entry in catalogue.entries()}
    assert catalogue.total == len(found)
    return found


def test_the_rule_of_the_thesis_looks_at_two_statements_only(tmp_path: Path) -> None:
    write_mimic(
        tmp_path,
        {
            (10000032, 40000001): ("Sinus rhythm", "Low voltage", "Normal ECG"),
            (10000033, 40000002): NORMAL,
            (10000034, 40000003): ("Sinus rhythm", "Inferior infarct, old", "Abnormal ECG"),
        },
        signals=False,
    )
    taken, not_taken, abnormal = entries(tmp_path, Normals.THESIS).values()
    assert isinstance(taken, Record)
    assert taken.label == 0
    assert isinstance(not_taken, LeftOut)
    assert not_taken.reason is Reason.NOT_TAKEN
    assert isinstance(abnormal, Record)
    assert abnormal.label == 1
    strict = entries(tmp_path)
    assert [getattr(strict[name], "label", None) for name in sorted(strict)] == [1, 0, 1]


def test_paths_are_those_of_the_list_and_else_the_usual(tmp_path: Path) -> None:
    write_mimic(tmp_path, {(10000032, 40000001): NORMAL, (10000033, 40000002): NORMAL}, signals=False)
    table = tmp_path / "record_list.csv"
    table.write_text(table.read_text().replace(mimic_path(10000033, 40000002), "elsewhere/40000002"))
    first, second = entries(tmp_path).values()
    assert first.path == "files/p1000/p10000032/s40000001/40000001"
    assert second.path == "elsewhere/40000002"
    assert isinstance(first, Record)
    assert (first.patient, first.codes, first.licence) == ("10000032", NORMAL, "ODbL-1.0")


def test_a_study_in_one_table_only_is_named(tmp_path: Path) -> None:
    write_mimic(tmp_path, {(10000032, 40000001): NORMAL, (10000033, 40000002): NORMAL}, signals=False)
    for table, row in (("machine_measurements.csv", 2), ("record_list.csv", 1)):
        lines = tmp_path.joinpath(table).read_text().splitlines(keepends=True)
        del lines[row]
        tmp_path.joinpath(table).write_text("".join(lines))
    found = entries(tmp_path)
    assert {name: entry.reason for name, entry in found.items() if isinstance(entry, LeftOut)} == {
        "40000001": Reason.MISSING,
        "40000002": Reason.NO_DIAGNOSIS,
    }


def test_a_number_that_is_none_is_a_bad_row(tmp_path: Path) -> None:
    write_mimic(tmp_path, {(10000032, 40000001): NORMAL}, signals=False)
    table = tmp_path / "machine_measurements.csv"
    table.write_text(table.read_text().replace("10000032,40000001", "patient,40000001"))
    found = entries(tmp_path)["40000001"]
    assert isinstance(found, LeftOut)
    assert (found.reason, "patient" in found.detail) == (Reason.BAD_ROW, True)


@pytest.mark.parametrize("table", ["machine_measurements.csv", "record_list.csv"])
def test_a_missing_column_is_named(tmp_path: Path, table: str) -> None:
    write_mimic(tmp_path, {(10000032, 40000001): NORMAL}, signals=False)
    file = tmp_path / table
    file.write_text(file.read_text().replace("study_id", "study", 1))
    with pytest.raises(SourceError, match=rf"{table}: no column study_id"):
        mimic_catalogue(tmp_path, Normals.STRICT)


def test_no_patient_is_in_two_splits_and_each_gives_one_record_of_a_kind(tmp_path: Path) -> None:
    abnormal = ("Atrial fibrillation", "Abnormal ECG")
    reports = {
        (10000000 + number % 40, 40000000 + number): NORMAL if number % 3 else abnormal
        for number in range(240)
    }
    write_mimic(tmp_path, reports, signals=False)
    every = list(mimic_catalogue(tmp_path, Normals.STRICT).entries())
    splits = defaultdict(set)
    for entry in every:
        assert isinstance(entry, Record)
        splits[entry.patient].add(entry.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}

    chosen = list(Selection(max_per_patient=1).of(iter(every)))
    kept = [(entry.patient, entry.label) for entry in chosen if isinstance(entry, Record)]
    assert len(kept) == len(set(kept)) == len({(entry.patient, entry.label) for entry in every})
    left = [entry.reason for entry in chosen if isinstance(entry, LeftOut)]
    assert set(left) == {Reason.PER_PATIENT}
    assert len(left) + len(kept) == 240
