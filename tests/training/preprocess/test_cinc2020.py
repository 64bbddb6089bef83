from __future__ import annotations

import csv
from pathlib import Path

import pytest

from training.preprocess.catalogue import LeftOut, Reason, Record
from training.preprocess.cinc2020 import cinc2020_catalogue
from training.preprocess.tables import SourceError


def header(folder: Path, name: str, dx: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    comment = "" if dx is None else dx if dx.startswith("#") else f"#Dx: {dx}\n"
    folder.joinpath(f"{name}.hea").write_text(f"{name} 12 500 5000\n#Age: 60\n{comment}#Rx: Unknown\n")


@pytest.mark.parametrize(
    ("dx", "label", "rhythm_only", "codes"),
    [
        ("426783006", 0, False, ("426783006",)),
        ("Normal", 0, False, ("Normal",)),
        ("# Dx: 426783006,\n", 0, False, ("426783006",)),
        ("426177001", 1, True, ("426177001",)),
        ("426783006,427393009", 1, True, ("426783006", "427393009")),
        ("426177001,164934002", 1, False, ("426177001", "164934002")),
        ("426783006,164934002", 1, False, ("426783006", "164934002")),
        ("AF", 1, False, ("AF",)),
    ],
)
def test_the_diagnoses_of_the_header_decide(
    tmp_path: Path, dx: str, label: int, rhythm_only: bool, codes: tuple[str, ...]
) -> None:
    header(tmp_path / "g1", "E00001", dx)
    (found,) = cinc2020_catalogue(tmp_path).entries()
    assert isinstance(found, Record)
    assert (found.label, found.rhythm_only, found.codes) == (label, rhythm_only, codes)
    assert (found.path, found.dataset, found.licence) == ("g1/E00001", "georgia", "CC-BY-4.0")


@pytest.mark.parametrize(
    ("name", "dx", "reason"),
    [
        ("E00001", None, Reason.NO_DIAGNOSIS),
        ("E00001", "", Reason.NO_DIAGNOSIS),
        ("E00001", "Unknown", Reason.NO_DIAGNOSIS),
        ("HR00001", "426783006", Reason.NO_PATIENT),
    ],
)
def test_what_nobody_judged_and_what_has_patients_elsewhere_is_left_out(
    tmp_path: Path, name: str, dx: str | None, reason: Reason
) -> None:
    header(tmp_path, name, dx)
    (found,) = cinc2020_catalogue(tmp_path).entries()
    assert isinstance(found, LeftOut)
    assert found.reason is reason


def test_a_header_that_is_none_is_damage_and_not_a_missing_diagnosis(tmp_path: Path) -> None:
    tmp_path.joinpath("E00001.hea").write_bytes(bytes(range(256)) * 4)
    tmp_path.joinpath("E00002.hea").touch()
    for found in cinc2020_catalogue(tmp_path).entries():
        assert isinstance(found, LeftOut)
        assert found.reason is Reason.UNREADABLE


def test_records_of_unknown_names_are_called_after_the_folder(tmp_path: Path) -> None:
    header(tmp_path / "ward 7", "patient-1", "426783006")
    (found,) = cinc2020_catalogue(tmp_path / "ward 7").entries()
    assert isinstance(found, Record)
    assert (found.dataset, found.licence) == ("ward 7", "")


def test_a_record_is_in_the_same_split_wherever_it_lies(tmp_path: Path) -> None:
    names = [f"A{number:04d}" for number in range(200)]
    for name in names:
        header(tmp_path / "one", name, "Normal")
        header(tmp_path / "two" / name[-1], name, "Normal")

    def splits(folder: Path) -> dict[str, str]:
        entries = cinc2020_catalogue(folder).entries()
        return {entry.name: entry.split for entry in entries if isinstance(entry, Record)}

    one, two = splits(tmp_path / "one"), splits(tmp_path / "two")
    assert one == two
    shares = [list(one.values()).count(split) / len(names) for split in ("train", "val", "test")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.06)


def test_a_folder_without_headers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no \.hea files"):
        cinc2020_catalogue(tmp_path)


@pytest.mark.parametrize("folder", ["chapman-shaoxing", "georgia", "cpsc2018", "ptb"])
def test_real_records_get_the_labels_of_the_shared_index(data_dir: Path, folder: str) -> None:
    with (data_dir / "index.csv").open(newline="") as file:
        expected = {row["record"]: row for row in csv.DictReader(file) if row["dataset"] == folder}
    for entry in cinc2020_catalogue(data_dir / folder).entries():
        assert isinstance(entry, Record)
        row = expected.pop(entry.name)
        assert (str(entry.label), str(int(entry.rhythm_only))) == (row["label"], row["rhythm_only"])
        assert ("|".join(entry.codes), entry.dataset) == (row["codes"], row["dataset"])
        assert entry.licence == row["licence"]
    assert not expected
