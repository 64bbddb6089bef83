from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.preprocess.store import INDEX, LEFT_OUT, REPORT, Store, StoreError

SETTINGS = {"dataset": "made-up", "tables": {"a.csv": "0"}}


def settle(store: Store, upto: int) -> None:
    # Every third record is left out; the others have 1 to 4 samples.
    for number in range(store.done, upto):
        if number % 3 == 2:
            store.append(
                {"record": f"r{number}", "path": f"p/{number}", "reason": "flat", "detail": "V1, V2"}
            )
        else:
            samples = np.full((number % 4 + 1, 12), number, np.int16)
            line = {"path": "signals.npy", "record": f"r{number}", "label": 0, "codes": 'a "b", c', "fs": 500}
            store.append(line, samples.tobytes())
        if number % 5 == 4:
            store.commit()
    store.commit()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def whole(folder: Path, upto: int = 20) -> dict[str, bytes]:
    with Store(folder, SETTINGS) as store:
        settle(store, upto)
        store.publish({"kept": 1})
    return contents(folder)


def test_a_finished_pack_is_four_files(tmp_path: Path) -> None:
    assert set(whole(tmp_path / "pack")) == {"signals.npy", INDEX, LEFT_OUT, REPORT}
    signals = np.load(tmp_path / "pack" / "signals.npy", mmap_mode="r")
    assert (signals.dtype, signals.shape[1]) == (np.int16, 12)
    lines = (tmp_path / "pack" / INDEX).read_text().splitlines()
    assert lines[1] == 'signals.npy,0,,,,,"a ""b"", c",,r0,0,1,500'
    assert lines[3] == 'signals.npy,0,,,,,"a ""b"", c",,r3,3,4,500'
    assert (signals[3:7] == 3).all()
    assert (tmp_path / "pack" / LEFT_OUT).read_text().splitlines()[1] == 'r2,p/2,flat,"V1, V2"'


# Every run waits for the disk, which may take its time.
@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_run_cut_at_any_byte_ends_in_the_same_pack(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = whole(folder / "whole")
        for _ in range(data.draw(st.integers(1, 3), "cuts")):
            with Store(folder / "cut", SETTINGS) as store:
                settle(store, data.draw(st.integers(store.done, 20), "records"))
            # Whatever had not reached the disk, or only in part.
            journal, signals = folder / "cut" / "journal.jsonl", folder / "cut" / "signals.npy.partial"
            held = journal.read_bytes()
            journal.write_bytes(held[: data.draw(st.integers(0, len(held)), "journal")])
            if data.draw(st.booleans(), "torn"):
                samples = signals.read_bytes()
                signals.write_bytes(samples[: data.draw(st.integers(0, len(samples)), "signals")])
            else:
                signals.write_bytes(signals.read_bytes() + b"\x01" * data.draw(st.integers(0, 50), "more"))
        assert whole(folder / "cut") == expected


@pytest.mark.parametrize("step", [LEFT_OUT, REPORT, "signals.npy", INDEX])
def test_a_cut_while_publishing_is_taken_up(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(tmp_path / "whole")
    rename = Path.replace

    def cut(self: Path, target: Path) -> Path:
        if target.name == step:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            whole(tmp_path / "cut")
    assert not (tmp_path / "cut" / INDEX).exists()
    assert whole(tmp_path / "cut") == expected


def test_a_cut_after_publishing_leaves_a_complete_pack(tmp_path: Path) -> None:
    expected = whole(tmp_path / "pack")
    (tmp_path / "pack" / "journal.jsonl").write_text("left over\n")
    with Store(tmp_path / "pack", SETTINGS) as store:
        assert store.report == {"kept": 1}
    assert contents(tmp_path / "pack") == expected


def test_a_folder_with_other_settings_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = SETTINGS | {"normals": "thesis", "tables": {"a.csv": "1"}}
    with Store(tmp_path, SETTINGS) as store:
        settle(store, 5)
    before = contents(tmp_path)
    with pytest.raises(StoreError, match=r"other settings \(tables, normals\)"), Store(tmp_path, other):
        pass
    assert contents(tmp_path) == before
    before = whole(tmp_path)
    with pytest.raises(StoreError, match=r"a pack made with other settings"), Store(tmp_path, other):
        pass
    assert contents(tmp_path) == before


def test_somebody_elses_index_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("path,label\n")
    with pytest.raises(StoreError, match="not written by this command"), Store(tmp_path, SETTINGS):
        pass
    assert contents(tmp_path) == {INDEX: b"path,label\n"}


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with Store(tmp_path, SETTINGS) as store:
        settle(store, 5)
        with pytest.raises(StoreError, match="another run"), Store(tmp_path, SETTINGS):
            pass
        settle(store, 20)
        store.publish({"kept": 1})
    assert contents(tmp_path) == whole(tmp_path.parent / "other")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write .*file/pack: Not a directory"):
        Store(tmp_path / "file" / "pack", SETTINGS).__enter__()
