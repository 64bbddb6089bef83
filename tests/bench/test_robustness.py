from __future__ import annotations

import json
from pathlib import Path

import wfdb
from click.testing import CliRunner

from bench.robustness import development_recordings, main
from bench.studies import robustness
from models.bundle import load_bundle
from tests.training.conftest import made_up_signal
from training.recordings import Entry


def entry(name: str, label: int | None, split: str, patient: str = "") -> Entry:
    return Entry(Path(f"{name}.dat"), "d", label, False, split, patient, "")


def test_neither_the_test_split_nor_what_trained_a_model_is_taken() -> None:
    there = [
        entry("trained", 0, "train", "p1"),
        entry("trained-too", 1, "train", "p1"),
        entry("abnormal", 1, "train", "p2"),
        entry("normal", 0, "val", "p3"),
        entry("later", 1, "val", "p4"),
        entry("unlabelled", None, "val"),
        entry("normal-of-test", 0, "test"),
        entry("abnormal-of-test", 1, "test"),
    ]
    chosen = [entry.record for entry in development_recordings(there)]
    assert sorted(chosen) == ["abnormal", "later", "normal"]


def test_an_index_of_the_test_split_alone_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text("path,label,split\nr1,0,test\nr2,1,test\n")
    done = CliRunner().invoke(main, ["--index", str(index)])
    assert done.exit_code == 1
    assert "no labelled recordings of the splits train and val" in done.output


def test_every_change_is_measured_and_tabulated(tmp_path: Path) -> None:
    rows = ["path,label,split,dataset"]
    for number in range(4):
        signal = made_up_signal(number, abnormal=number >= 2, seconds=9.0)
        wfdb.wrsamp(
            f"r{number}",
            fs=signal.fs,
            units=["mV"] * 12,
            sig_name=list(signal.leads),
            p_signal=signal.millivolts,
            fmt=["16"] * 12,
            write_dir=str(tmp_path),
        )
        rows.append(f"r{number}.dat,{int(number >= 2)},val,small")
    index = tmp_path / "index.csv"
    index.write_text("\n".join(rows))
    done = CliRunner().invoke(
        main, ["--index", str(index), "--model", "cae-100hz", "--out", str(tmp_path)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "robustness-cae-100hz.json").read_text())
    assert str(tmp_path) not in json.dumps(result)
    # Two recordings of each kind are too few to tell a data set for itself.
    assert set(result["groups"]) == {"all"}
    text = "\n".join(robustness({"cae-100hz": result}, [load_bundle("cae-100hz")]))
    for name in ("12 leads", "1 lead", "noise 0 dB", "360 Hz"):
        assert f"| {name} | " in text
