from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.training.preprocess.conftest import ptbxl_row, write_ptbxl
from training.preprocess.catalogue import LeftOut, Normals, Reason, Record
from training.preprocess.ptbxl import ptbxl_catalogue
from training.preprocess.tables import SourceError


def entry(folder: Path, normals: Normals = Normals.STRICT, **changes: object) -> Record | LeftOut:
    write_ptbxl(folder, [ptbxl_row(1, **changes)], signals=False)
    (found,) = ptbxl_catalogue(folder, normals).entries()
    return found


@pytest.mark.parametrize(
    ("codes", "strict", "thesis", "rhythm_only"),
    [
        ("{'NORM': 100.0, 'SR': 0.0}", 0, 0, False),
        ("{'NORM': 80.0}", 0, 0, False),
        ("{'NORM': 100.0, 'LVOLT': 0.0, 'SR': 0.0}", 0, 0, False),
        ("{'NORM': 100.0, 'SBRAD': 0.0}", 1, 0, True),
        ("{'NORM': 100.0, 'AFIB': 0.0}", 1, 0, False),
        ("{'NORM': 50.0, 'IMI': 15.0, 'SR': 0.0}", 1, 0, False),
        ("{'IMI': 100.0, 'SBRAD': 0.0}", 1, 1, False),
        ("{'SR': 0.0}", 1, 1, False),
    ],
)
def test_normal_is_what_the_rule_says(
    tmp_path: Path, codes: str, strict: int, thesis: int, rhythm_only: bool
) -> None:
    found = entry(tmp_path, scp_codes=codes)
    assert isinstance(found, Record)
    assert (found.label, found.rhythm_only) == (strict, rhythm_only)
    by_thesis = entry(tmp_path, Normals.THESIS, scp_codes=codes)
    assert isinstance(by_thesis, Record)
    assert by_thesis.label == thesis
    assert not (by_thesis.label == 0 and by_thesis.rhythm_only)


@pytest.mark.parametrize(("fold", "split"), [("1", "train"), ("8", "train"), ("9", "val"), ("10", "test")])
def test_the_authors_folds_are_the_splits(tmp_path: Path, fold: str, split: str) -> None:
    found = entry(tmp_path, strat_fold=fold)
    assert isinstance(found, Record)
    assert (found.split, found.patient, found.codes) == (split, "1001", ("NORM:100", "SR:0"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scp_codes": "{'NORM': "}, "scp_codes"),
        ({"scp_codes": "['NORM']"}, "scp_codes"),
        ({"strat_fold": "11"}, "strat_fold is '11'"),
        ({"filename_hr": ""}, "filename_hr"),
    ],
)
def test_a_row_that_makes_no_sense_is_left_out_and_named(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    found = entry(tmp_path, **changes)
    assert isinstance(found, LeftOut)
    assert found.reason is Reason.BAD_ROW
    assert said in found.detail


def test_a_table_cut_in_the_middle_of_a_row_loses_that_row_only(tmp_path: Path) -> None:
    write_ptbxl(tmp_path, [ptbxl_row(1), ptbxl_row(2)], signals=False)
    table = tmp_path / "ptbxl_database.csv"
    table.write_text(table.read_text().rpartition("{")[0].rstrip('"'))
    first, second = ptbxl_catalogue(tmp_path, Normals.STRICT).entries()
    assert isinstance(first, Record)
    assert isinstance(second, LeftOut)
    assert second.reason is Reason.BAD_ROW


@pytest.mark.parametrize(
    ("table", "text", "said"),
    [
        ("ptbxl_database.csv", "ecg_id,patient_id,scp_codes,filename_hr\n", "no column strat_fold"),
        ("ptbxl_database.csv", "", "no column ecg_id"),
        ("ptbxl_database.csv", "ecg_id,patient_id,scp_codes,strat_fold,filename_hr\n", "no records"),
        ("scp_statements.csv", ",diagnostic,rhythm\n", "no column diagnostic_class"),
        ("scp_statements.csv", ",diagnostic,rhythm,diagnostic_class\nIMI,1.0,,MI\n", "class NORM"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path: Path, table: str, text: str, said: str) -> None:
    write_ptbxl(tmp_path, [ptbxl_row(1)], signals=False)
    tmp_path.joinpath(table).write_text(text)
    with pytest.raises(SourceError, match=said) as refused:
        ptbxl_catalogue(tmp_path, Normals.STRICT)
    assert table in str(refused.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"scp_statements\.csv: not found"):
        ptbxl_catalogue(tmp_path, Normals.STRICT)


def test_real_records_get_the_labels_and_splits_of_the_shared_index(data_dir: Path) -> None:
    with (data_dir / "index.csv").open(newline="") as file:
        expected = {row["record"]: row for row in csv.DictReader(file) if row["dataset"] == "ptb-xl"}
    entries = ptbxl_catalogue(data_dir / "ptb-xl", Normals.STRICT).entries()
    records = [entry for entry in entries if isinstance(entry, Record)]
    assert Counter((record.label, record.rhythm_only) for record in records) == {
        (0, False): 261,
        (1, False): 209,
        (1, True): 25,
    }
    splits = defaultdict(set)
    for record in records:
        row = expected.pop(record.name)
        assert (str(record.label), str(int(record.rhythm_only))) == (row["label"], row["rhythm_only"])
        assert (record.split, record.patient) == (row["split"], row["patient_id"])
        assert "|".join(record.codes) == row["codes"]
        assert record.licence == row["licence"]
        splits[record.patient].add(record.split)
    assert not expected
    assert all(len(found) == 1 for found in splits.values())


def test_the_rule_of_the_thesis_takes_every_strict_normal_and_more(data_dir: Path) -> None:
    def normals(rule: Normals) -> set[str]:
        entries = ptbxl_catalogue(data_dir / "ptb-xl", rule).entries()
        return {entry.name for entry in entries if isinstance(entry, Record) and entry.label == 0}

    assert normals(Normals.STRICT) < normals(Normals.THESIS)
