from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the extra train")

from training.measure import share_of_sources
from training.recordings import Entry


def entries(normals: int, annotated: int) -> list[Entry]:
    labels = [0] * normals + [None] * annotated
    return [Entry(Path(f"r{i}"), "d", label, False, "val", "", "") for i, label in enumerate(labels)]


def counts(chosen: list[Entry]) -> tuple[int, int]:
    """Normals and annotated ones."""
    annotated = sum(entry.label is None for entry in chosen)
    return len(chosen) - annotated, annotated


@pytest.mark.parametrize(
    ("there", "most", "expected"),
    [
        ((56, 4), 800, (56, 4)),
        # Evenly spaced over all of them, one annotated recording would be left.
        ((56, 4), 20, (16, 4)),
        ((56, 4), 5, (2, 3)),
        ((56, 4), 1, (0, 1)),
        ((3, 40), 10, (3, 7)),
        ((56, 0), 20, (20, 0)),
        ((0, 9), 4, (0, 4)),
        ((56, 4), 0, (0, 0)),
    ],
)
def test_a_smaller_number_of_stretches_keeps_both_kinds(
    there: tuple[int, int], most: int, expected: tuple[int, int]
) -> None:
    assert counts(share_of_sources(entries(*there), most)) == expected


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 70))
def test_no_more_are_chosen_than_asked_for_and_no_fewer_than_there_are(
    normals: int, annotated: int, most: int
) -> None:
    there = entries(normals, annotated)
    chosen = share_of_sources(there, most)
    assert len(chosen) == min(most, len(there))
    assert chosen == sorted(chosen, key=there.index)


def test_normals_are_spread_over_the_whole_index() -> None:
    chosen = share_of_sources(entries(101, 0), 5)
    assert [entry.path.name for entry in chosen] == ["r0", "r25", "r50", "r75", "r100"]
