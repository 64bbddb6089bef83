from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream.leads import LEADS
from tests.training.conftest import made_up_signal
from training.pack import Slice
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
        ("path,label,offset,samples,fs\na,1,0,5000,\n", "line 2: no place in a pack"),
        ("path,label,offset,samples,fs\na,1,,5000,500\n", "line 2: no place in a pack"),
        ("path,label,offset,samples,fs\na,1,-1,5000,500\n", "line 2: no place in a pack"),
        ("path,label,offset,samples,fs\na,1,0,0,500\n", "line 2: no place in a pack"),
        ("path,label,offset,samples,fs\na,1,0,5000,inf\n", "line 2: no place in a pack"),
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


def test_a_row_without_a_label_is_an_entry_without_one(tmp_path: Path) -> None:
    assert [entry.label for entry in read_index(write(tmp_path, "path,label\na,\nb,0\n"))] == [None, 0]


def test_an_entry_is_called_what_the_index_calls_it_and_else_after_its_file(tmp_path: Path) -> None:
    named, unnamed = read_index(
        write(tmp_path, "path,label,record,fs\na/b_hr.dat,1,00001,500\na/b_hr.dat,1,,\n")
    )
    assert (named.record, unnamed.record) == ("00001", "b_hr")
    assert named.piece is unnamed.piece is None


def test_recordings_of_a_pack_share_its_path_and_are_read_from_their_places(tmp_path: Path) -> None:
    np.save(tmp_path / "signals.npy", np.repeat(np.arange(30, dtype=np.int16)[:, np.newaxis], 12, axis=1))
    first, second = read_index(
        write(
            tmp_path,
            "path,label,dataset,patient_id,record,offset,samples,fs\n"
            "signals.npy,0,x,,r0,0,10,500\nsignals.npy,1,x,7,r1,10,20,257.5\n",
        )
    )
    assert first.path == second.path == tmp_path / "signals.npy"
    assert (first.piece, second.piece) == (Slice(0, 10, 500.0), Slice(10, 20, 257.5))
    signal = second.read()
    assert (signal.fs, signal.leads, signal.millivolts.shape) == (257.5, LEADS, (20, 12))
    assert signal.millivolts[0, 0] == 0.01


def test_a_person_is_a_patient_of_one_data_set_and_else_the_recording(tmp_path: Path) -> None:
    rows = (
        "path,label,dataset,patient_id,record,offset,samples,fs\n"
        "p.npy,0,x,7,r0,0,1,500\np.npy,0,x,7,r1,1,1,500\np.npy,0,y,7,r0,2,1,500\n"
        "p.npy,0,x,,r3,3,1,500\np.npy,0,x,,r4,4,1,500\na.dat,0,x,,,,,\n"
    )
    persons = [entry.person for entry in read_index(write(tmp_path, rows))]
    assert persons[0] == persons[1]
    assert len(set(persons)) == 5
