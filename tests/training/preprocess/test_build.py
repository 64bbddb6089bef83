from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.leads import LEADS
from tests.training.conftest import FS
from tests.training.preprocess.conftest import (
    made_up,
    mimic_path,
    ptbxl_row,
    write_mimic,
    write_ptbxl,
    write_record,
)
from training.preprocess.build import InterruptedRunError, NothingKeptError, build
from training.preprocess.catalogue import Catalogue, Normals, Selection
from training.preprocess.cinc2020 import cinc2020_catalogue
from training.preprocess.mimic import mimic_catalogue
from training.preprocess.ptbxl import ptbxl_catalogue
from training.preprocess.tally import described
from training.recordings import read_index


def run(source: Path, out: Path, selection: Selection | None = None, **options: Any) -> dict[str, Any]:
    catalogue = ptbxl_catalogue(source, Normals.STRICT)
    return packed(catalogue, source, out, selection, **options)


def packed(
    catalogue: Catalogue, source: Path, out: Path, selection: Selection | None = None, **options: Any
) -> dict[str, Any]:
    arguments: dict[str, Any] = {"settings": {}, "jobs": 1} | options
    return build(catalogue, source, out, selection or Selection(), **arguments)


def left_out(out: Path) -> dict[str, tuple[str, str]]:
    with (out / "left-out.csv").open(newline="") as file:
        return {row["record"]: (row["reason"], row["detail"]) for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_pack_gives_the_recordings_back(ptbxl_tree: Path, tmp_path: Path) -> None:
    report = run(ptbxl_tree, tmp_path / "pack")
    entries = read_index(tmp_path / "pack" / "index.csv")
    assert (report["kept"], len(entries)) == (12, 12)
    for seed, entry in enumerate(entries):
        signal = entry.read()
        assert (entry.record, signal.fs, signal.leads) == (f"{seed + 1:05d}_hr", FS, LEADS)
        np.testing.assert_allclose(signal.millivolts, made_up(seed), atol=5.1e-4)
    assert {entry.split for entry in entries} == {"train", "val", "test"}
    assert {(entry.label, entry.patient != "", entry.licence) for entry in entries} == {
        (0, True, "CC-BY-4.0")
    }
    assert json.loads((tmp_path / "pack" / "report.json").read_text())["kept"] == 12


def test_the_number_of_readers_does_not_change_a_byte(ptbxl_tree: Path, tmp_path: Path) -> None:
    (ptbxl_tree / "records500/00000/00005_hr.dat").write_bytes(b"")
    assert run(ptbxl_tree, tmp_path / "one", jobs=1) == run(ptbxl_tree, tmp_path / "three", jobs=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_whatever_is_wrong_with_a_record_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    tree = write_ptbxl(tmp_path / "tree", [ptbxl_row(number) for number in range(1, 10)])
    records = tree / "records500/00000"
    records.joinpath("00002_hr.hea").unlink()
    file = records / "00003_hr.dat"
    file.write_bytes(file.read_bytes()[:-1])
    nan, flat, rail = made_up(4), made_up(5), made_up(6)
    nan[:, LEADS.index("aVF")] = np.nan
    flat[:, LEADS.index("V1")] = 0.25
    rail[3000:4000, LEADS.index("V6")] = 10.0
    for number, signal in ((4, nan), (5, flat), (6, rail), (7, made_up(0)), (8, made_up(8, seconds=4.0))):
        write_record(records / f"{number:05d}_hr", signal)

    report = run(tree, tmp_path / "pack")
    assert {name: reason for name, (reason, _) in left_out(tmp_path / "pack").items()} == {
        "00002_hr": "missing",
        "00003_hr": "unreadable",
        "00004_hr": "nan",
        "00005_hr": "flat",
        "00006_hr": "saturated",
        "00007_hr": "copy",
        "00008_hr": "too-short",
    }
    assert left_out(tmp_path / "pack")["00007_hr"][1] == "the samples of 00001_hr"
    assert [entry.record for entry in read_index(tmp_path / "pack" / "index.csv")] == ["00001_hr", "00009_hr"]
    assert (report["records"], report["kept"], report["unreadable"]) == (9, 2, 2)
    assert report["unreadable_share"] == pytest.approx(2 / 9, abs=1e-4)
    assert {reason: found["count"] for reason, found in report["left_out"].items()} == {
        reason: 1 for reason, _ in left_out(tmp_path / "pack").values()
    }
    said = described(report)
    assert "2 of 9 records kept" in said
    assert "records500/00000/00006_hr: V6" in said


def test_a_report_shows_some_examples_and_the_table_all(tmp_path: Path) -> None:
    rows = [ptbxl_row(number) for number in range(1, 21)]
    tree = write_ptbxl(tmp_path / "tree", rows, signals=False)
    write_record(tree / "records500/00000/00001_hr", made_up(0))
    report = run(tree, tmp_path / "pack")
    assert report["left_out"]["missing"]["count"] == len(left_out(tmp_path / "pack")) == 19
    assert len(report["left_out"]["missing"]["examples"]) == 5
    assert "… and 16 more" in described(report)


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More records than reach the disk together; the last is a copy of one before."""
    tree = tmp_path_factory.mktemp("forty") / "tree"
    write_ptbxl(tree, [ptbxl_row(number) for number in range(1, 41)])
    write_record(tree / "records500/00000/00040_hr", made_up(2))
    return tree


@pytest.fixture(scope="module")
def forty_packed(forty: Path) -> Path:
    assert run(forty, forty.parent / "pack")["left_out"]["copy"]["count"] == 1
    return forty.parent / "pack"


@pytest.mark.parametrize("cut", [1, 20, 39])
def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_pack(
    forty: Path, forty_packed: Path, tmp_path: Path, cut: int
) -> None:
    def stop(done: int) -> None:
        if done == cut:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError) as stopped:
        run(forty, tmp_path / "cut", on_record=stop)
    assert not (tmp_path / "cut" / "index.csv").exists()
    assert not (tmp_path / "cut" / "signals.npy").exists()
    settled: list[int] = []
    run(forty, tmp_path / "cut", on_record=settled.append)
    assert contents(tmp_path / "cut") == contents(forty_packed)
    assert (min(settled) > 30) == (cut == 39)
    assert f"stopped after {min(settled) - 1} of 40 records" in str(stopped.value)


def test_a_finished_pack_is_not_written_again(ptbxl_tree: Path, tmp_path: Path) -> None:
    first = run(ptbxl_tree, tmp_path / "pack")
    before = (tmp_path / "pack" / "signals.npy").stat().st_mtime_ns
    assert run(ptbxl_tree, tmp_path / "pack") == first
    assert (tmp_path / "pack" / "signals.npy").stat().st_mtime_ns == before


def test_a_data_set_of_which_nothing_remains_is_refused_with_the_reason(tmp_path: Path) -> None:
    tree = write_ptbxl(tmp_path / "tree", [ptbxl_row(1), ptbxl_row(2)], signals=False)
    with pytest.raises(
        NothingKeptError, match=r"not one of 2 records .*\(2: there is no such file, such as rec"
    ):
        run(tree, tmp_path / "pack")
    assert list(contents(tmp_path / "pack")) == ["left-out.csv"]
    # With the files there, the same folder will do.
    write_record(tree / "records500/00000/00001_hr", made_up(0))
    assert run(tree, tmp_path / "pack")["kept"] == 1


def test_only_normals_and_limit_are_selections_and_not_damage(tmp_path: Path) -> None:
    rows = [ptbxl_row(n, scp_codes="{'NORM': 100.0}" if n % 2 else "{'IMI': 100.0}") for n in range(1, 9)]
    tree = write_ptbxl(tmp_path / "tree", rows)
    report = run(tree, tmp_path / "normals", Selection(only_normals=True))
    assert report["datasets"]["ptb-xl"] == {"normal": 4, "abnormal": 0, "rhythm_only": 0}
    assert (report["left_out"]["abnormal"]["count"], report["unreadable_share"]) == (4, 0.0)
    report = run(tree, tmp_path / "few", Selection(only_normals=True, limit=2))
    assert (report["kept"], report["records"], report["listed"]) == (2, 3, 8)
    assert "stopped at --limit, after 3 of 8 records" in described(report)


def test_records_keep_their_own_rate_and_length(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number, (fs, seconds) in enumerate([(500, 10.0), (257, 30.0), (1000, 12.0)]):
        signal = made_up(number, seconds=seconds * fs / FS)
        write_record(tree / f"E{number:05d}", signal, fs=fs, comments=["Dx: 426783006"])
    report = packed(cinc2020_catalogue(tree), tree, tmp_path / "pack")
    entries = read_index(tmp_path / "pack" / "index.csv")
    signals = [entry.read() for entry in entries]
    assert [(signal.fs, len(signal.millivolts)) for signal in signals] == [
        (500.0, 5000),
        (257.0, 7710),
        (1000.0, 12000),
    ]
    assert "patients are unknown" in report["split_by"]
    assert {entry.patient for entry in entries} == {""}
    assert len({entry.person for entry in entries}) == 3


def test_a_tree_of_mimic_becomes_a_pack_of_its_normals(tmp_path: Path) -> None:
    normal = ("Sinus rhythm", "Normal ECG")
    tree = write_mimic(
        tmp_path / "mimic",
        {
            (10000032, 40000001): normal,
            (10000032, 40000002): normal,
            (10000032, 40000003): ("Atrial fibrillation", "Abnormal ECG"),
            (10000033, 40000004): ("Sinus bradycardia", "Normal ECG except for rate"),
            (10000034, 40000005): normal,
            (10000035, 40000006): (),
            (10000036, 40000007): normal,
        },
    )
    tree.joinpath(mimic_path(10000036, 40000007) + ".dat").unlink()
    catalogue = mimic_catalogue(tree, Normals.STRICT)
    report = packed(catalogue, tree, tmp_path / "pack", Selection(max_per_patient=1))
    entries = read_index(tmp_path / "pack" / "index.csv")
    assert [(entry.record, entry.label, entry.rhythm_only) for entry in entries] == [
        ("40000001", 0, False),
        ("40000003", 1, False),
        ("40000004", 1, True),
        ("40000005", 0, False),
    ]
    assert {reason: found["count"] for reason, found in report["left_out"].items()} == {
        "unreadable": 1,
        "no-diagnosis": 1,
        "per-patient": 1,
    }
    assert (report["patients"], report["patients_in_two_splits"]) == (3, 0)
    # aVF stands before aVL in these files, at 200 LSB/mV.
    expected = np.rint(made_up(0) * 200) / 200
    np.testing.assert_allclose(entries[0].read().millivolts, expected, atol=1e-9)
