"""Names of beds as folders: any name, back again, and never anywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.contract import is_name
from stream.recording.names import bed_folders, bed_of, folder_of, segment_name

beds = st.text(st.characters(blacklist_categories=("Cs",), min_codepoint=32), min_size=1, max_size=64).filter(
    is_name
)


@given(beds)
@example("../../etc/passwd")
@example(".")
@example("~root")
@example("a+")
@example("\U0001f3e5" * 64)
def test_a_name_comes_back_and_its_folder_is_a_plain_one(bed: str) -> None:
    folder = folder_of(bed)
    assert bed_of(folder) == bed
    assert not folder.is_absolute()
    for part in folder.parts:
        assert part not in (".", "..")
        assert not part.startswith((".", "~"))
        assert len(part.encode()) <= 255
        assert set(part) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-%+")


@given(beds, beds)
def test_two_beds_never_share_a_folder(one: str, other: str) -> None:
    assert (folder_of(one) == folder_of(other)) == (one == other)
    assert one == other or folder_of(one) not in folder_of(other).parents


@pytest.mark.parametrize("folder", ["", "icu.1", "a%2", "%41", "%FF", "a/b", "a+/b", "%2e", ".lock"])
def test_what_is_no_beds_folder_is_none(folder: str) -> None:
    assert bed_of(Path(folder)) is None


def test_folders_are_found_whatever_else_lies_there(tmp_path: Path) -> None:
    wanted = sorted(["icu-1", "Bett 7/ä", "\U0001f3e5" * 64, "\U0001f3e5" * 40 + "x", ".position.json"])
    for bed in wanted:
        (tmp_path / folder_of(bed)).mkdir(parents=True)
    (tmp_path / ".deleted-1").mkdir()
    (tmp_path / "not a bed").mkdir()
    (tmp_path / "icu-2").touch()
    assert list(bed_folders(tmp_path)) == [(bed, tmp_path / folder_of(bed)) for bed in wanted]


def test_a_segment_is_named_after_its_first_sample() -> None:
    assert segment_name(1_764_412_200_123_456_789) == "20251129T103000_123"
