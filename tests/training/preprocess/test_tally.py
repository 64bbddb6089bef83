from __future__ import annotations

from typing import Any

import pytest

from training.preprocess.catalogue import Catalogue, Reason
from training.preprocess.tally import UNREADABLE_LIMIT, described, report_of

CATALOGUE = Catalogue("made-up", 1000, "the phase of the moon", {}, lambda: iter(()))


def kept(number: int, **changes: Any) -> dict[str, Any]:
    line = {"record": f"r{number}", "label": 0, "rhythm_only": 0, "dataset": "a", "patient_id": f"{number}"}
    return line | {"split": "train", "offset": 0, "samples": 5000, "fs": 500, "clipped": 0} | changes


def left_out(reason: Reason) -> dict[str, Any]:
    return {"record": "x", "path": "p/x", "reason": reason.value, "detail": ""}


@pytest.mark.parametrize(("damaged", "loud"), [(9, False), (10, False), (11, True)])
def test_one_in_a_hundred_may_be_damaged(damaged: int, loud: bool) -> None:
    lines = [kept(number) for number in range(1000 - damaged)] + [left_out(Reason.UNREADABLE)] * damaged
    # Those that nobody wanted to read are no part of it.
    lines += [left_out(Reason.PER_PATIENT)] * 5000
    report = report_of(lines, CATALOGUE, "folder")
    assert (report["unreadable_share"] > UNREADABLE_LIMIT) == loud
    assert (report["records"], report["kept"], report["unreadable"]) == (6000, 1000 - damaged, damaged)


def test_every_reason_is_explained() -> None:
    report = report_of([kept(0), *map(left_out, Reason)], CATALOGUE, "folder")
    assert list(report["left_out"]) == [reason.value for reason in Reason]
    said = described(report)
    assert all(found["why"] in said for found in report["left_out"].values())


def test_a_patient_in_two_splits_is_a_warning() -> None:
    lines = [
        kept(0),
        kept(1, patient_id="0", split="test"),
        kept(2, patient_id="0", dataset="b", split="val"),
    ]
    report = report_of(lines, CATALOGUE, "folder")
    assert (report["patients"], report["patients_in_two_splits"]) == (2, 1)
    assert "WARNING: 1 patients are in two splits" in described(report)
    assert "WARNING" not in described(report_of(lines[:1], CATALOGUE, "folder"))


def test_kinds_of_recordings_are_counted_apart() -> None:
    lines = [kept(0), kept(1, label=1), kept(2, label=1, rhythm_only=1, clipped=3, samples=10000)]
    report = report_of(lines, CATALOGUE, "folder")
    assert report["splits"]["train"] == {"normal": 1, "abnormal": 1, "rhythm_only": 1}
    assert report["hours"] == pytest.approx(40 / 3600, abs=1e-3)
    assert "3 samples beyond" in described(report)
