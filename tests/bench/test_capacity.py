from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.capacity import Search, capacity_search


def find(search: Search, limit: int) -> tuple[int, list[int]]:
    steps, tried = capacity_search(search), []
    beds = next(steps)
    while True:
        tried.append(beds)
        try:
            beds = steps.send(beds <= limit)
        except StopIteration as end:
            return end.value, tried


@given(st.integers(0, 5000), st.integers(1, 300), st.integers(1, 4096))
def test_the_search_finds_where_a_load_becomes_too_much(limit: int, start: int, most: int) -> None:
    found, tried = find(Search(start, most), limit)
    assert found <= limit
    assert all(1 <= beds <= most for beds in tried)
    assert len(set(tried)) == len(tried), "nothing is tried twice"
    assert len(tried) <= 25
    if found == most:
        return
    too_many = min(beds for beds in tried if beds > limit)
    assert found == max([0, *(beds for beds in tried if beds <= limit)])
    assert too_many - found <= max(1, round(0.05 * found))


def test_a_load_that_is_not_reached_ends_the_search() -> None:
    assert find(Search(64, 256), 10_000) == (256, [64, 128, 256])


def test_not_even_one_bed_is_none() -> None:
    assert find(Search(1, 64), 0) == (0, [1])


def test_a_start_that_is_too_much_is_halved() -> None:
    found, tried = find(Search(64, 4096), 10)
    assert found == 10
    assert tried[:2] == [64, 32]
