from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream.leads import LEADS
from tests.training.conftest import made_up_signal
from training.recordings import IndexFileError, read_index, read_signal, select


def write(tmp_path: Path, text: str) -> Path:
    index = tmp_path / "index.csv"
    index.write_text(text)
    return index


def test_paths_are_relative_to_the_index_and_other_columns_are_ignored(tmp_path: Path) -> None:
    index = write(tmp_path, "path,label,group,codes\na/b.dat,1,x,1|2\n/c.dat,,y,\n")
    first, second = read_index(index)
    assert (first.path, first.label, first.dataset) == (tmp_path / "a/b.dat", 1, "x")
    assert (second.path, second.label, second.split) == (Path("/c.dat"), None, "")
    assert not first.rhythm_only


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path\na\n", "no column label"),
        ("", "no column label, path"),
        ("path,label\na,2\n", "line 2: label is '2'"),
        ("path,label,rhythm_only\na,1,yes\n", "line 2: rhythm_only is 'yes'"),
        ("path,label\na,1\n,0\n", "line 3: path is empty"),
    ],
)
def test_an_index_that_cannot_be_used_says_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(IndexFileError, match=said):
        read_index(write(tmp_path, text))


def test_a_missing_index_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match="cannot be read"):
        read_index(tmp_path / "none.csv")


def test_select_leaves_out_what_has_no_label(tmp_path: Path) -> None:
    rows = "a,0,,train\nb,1,1,train\nc,1,0,train\nd,,,train\ne,0,,val\n"
    entries = read_index(write(tmp_path, "path,label,rhythm_only,split\n" + rows))
    assert [entry.path.name for entry in select(entries, split="train")] == ["a", "b", "c"]
    assert [entry.path.name for entry in select(entries, split="train", label=1)] == ["b", "c"]
    assert [entry.path.name for entry in select(entries, split="train", rhythm_only=False)] == ["a", "c"]


def test_signals_come_in_millivolts(made_up_index: Callable[[], Path]) -> None:
    entry = read_index(made_up_index())[0]
    signal = read_signal(entry.path)
    assert (signal.fs, signal.leads) == (500, LEADS)
    np.testing.assert_allclose(signal.millivolts, made_up_signal(0).millivolts, atol=1e-3)
