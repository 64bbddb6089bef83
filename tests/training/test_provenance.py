from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from training.provenance import code_provenance, data_provenance, split_hash  # noqa: E402
from training.recordings import Entry  # noqa: E402


def entry(number: int, **changes: object) -> Entry:
    plain = Entry(Path(f"/data/r{number}"), f"set-{number % 2}", 0, False, "train", f"p{number // 2}", "CC0")
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_hash_of_a_split_knows_recordings_and_labels_but_not_folders_or_order() -> None:
    some = [entry(0), entry(1), entry(2)]
    same = {"train": [replace(one, path=Path("/elsewhere") / one.path.name) for one in reversed(some)]}
    assert split_hash({"train": some}) == split_hash(same)
    for other in (
        {"val": some},
        {"train": some[:2]},
        {"train": [*some[:2], entry(2, label=1)]},
        {"train": [*some[:2], entry(2, record="another")]},
    ):
        assert split_hash({"train": some}) != split_hash(other)


def test_data_are_counted_by_split_and_source_without_paths(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text("path,label\n")
    splits = {"train": [entry(0), entry(1), entry(2)], "test": [entry(3, licence="")]}
    found = data_provenance([index], splits, ["one"])
    assert found["recordings"] == {"train": {"set-0": 2, "set-1": 1}, "test": {"set-1": 1}}
    assert found["patients"] == {"train": 3, "test": 1}  # p0 of two data sets are two people
    assert found["licences"] == {"set-0": ["CC0"], "set-1": ["CC0", "unknown"]}
    assert found["left_out"] == 1
    assert len(found["index_sha256"]) == 64
    assert "/data" not in str(found)
    assert str(tmp_path) not in str(found)


def test_the_code_says_its_version() -> None:
    found = code_provenance(torch.device("cpu"))
    assert found["device"] == "cpu"
    assert found["torch"] == torch.__version__
    assert found["bedside"]
