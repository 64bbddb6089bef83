"""Micro-batches: nobody overtakes, nobody waits too long."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.batching import MicroBatch


def alike(bed: str) -> str:
    return "one model"


def by_letter(bed: str) -> str:
    """Beds of one letter have one model."""
    return bed[0]


def test_nothing_waits_in_an_empty_batch() -> None:
    batch: MicroBatch[str] = MicroBatch(3, 20, alike)
    assert batch.due_ns() is None
    assert batch.take() == []
    assert len(batch) == 0


def test_the_oldest_decides_when_a_batch_is_due() -> None:
    batch: MicroBatch[str] = MicroBatch(3, 20, alike)
    batch.add("bed-a", "a", 100)
    batch.add("bed-b", "b", 115)
    assert batch.due_ns() == 120
    batch.add("bed-c", "c", 118)
    assert batch.due_ns() == 0
    batch.add("bed-d", "d", 119)
    assert batch.take() == ["a", "b", "c"]
    assert batch.due_ns() == 139
    assert batch.take() == ["d"]
    assert batch.due_ns() is None


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(1, 5),
    budget=st.integers(0, 50),
    steps=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60),
)
def test_order_size_and_patience(size: int, budget: int, steps: list[tuple[int, bool]]) -> None:
    batch: MicroBatch[tuple[int, int]] = MicroBatch(size, budget, alike)
    now, number, out = 0, 0, []
    for pause, add in steps:
        now += pause
        if add:
            batch.add(f"bed-{number}", (number, now), now)
            number += 1
        while (due := batch.due_ns()) is not None and due <= now:
            taken = batch.take()
            assert 1 <= len(taken) <= size
            # Due because it was full, or because the first had waited long enough; whole if it was full.
            assert len(taken) == size or now >= taken[0][1] + budget
            out += [item for item, _ in taken]
        assert len(batch) < size
    assert out + [item for item, _ in batch.take()] == list(range(number))


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 6), backlog=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20)))
def test_a_bed_with_a_backlog_holds_up_no_other(size: int, backlog: dict[str, int]) -> None:
    batch: MicroBatch[tuple[str, int]] = MicroBatch(size, 20, alike)
    for bed, count in backlog.items():
        for number in range(count):
            batch.add(bed, (bed, number), 0)
    assert len(batch) == sum(backlog.values())
    out: list[tuple[str, int]] = []
    while batch.due_ns() is not None:
        out += batch.take()
    for bed, count in backlog.items():
        mine = [place for place, (other, _) in enumerate(out) if other == bed]
        assert [out[place][1] for place in mine] == list(range(count))
        # Between two turns of a bed every other has at most one.
        assert all(later - earlier <= len(backlog) for earlier, later in pairwise(mine))
        assert mine[0] < len(backlog)


def test_what_is_dropped_of_a_bed_is_gone_and_the_rest_is_not() -> None:
    batch: MicroBatch[str] = MicroBatch(3, 20, alike)
    for bed, item in [("a", "a0"), ("b", "b0"), ("a", "a1"), ("c", "c0")]:
        batch.add(bed, item, 5)
    batch.drop("a")
    batch.drop("nobody")
    assert len(batch) == 2
    assert batch.due_ns() == 25
    assert batch.take() == ["b0", "c0"]


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(1, 6),
    backlog=st.dictionaries(st.sampled_from(["a1", "a2", "a3", "b1", "b2", "c1"]), st.integers(1, 20)),
)
def test_a_batch_holds_windows_of_one_model_and_no_model_holds_up_another(
    size: int, backlog: dict[str, int]
) -> None:
    batch: MicroBatch[tuple[str, int]] = MicroBatch(size, 20, by_letter)
    for bed, count in backlog.items():
        for number in range(count):
            batch.add(bed, (bed, number), 0)
    batches = []
    while batch.due_ns() is not None:
        batches.append(batch.take())
        assert len({by_letter(bed) for bed, _ in batches[-1]}) == 1
        assert 1 <= len(batches[-1]) <= size
    for bed, count in backlog.items():
        assert [number for one in batches for of, number in one if of == bed] == list(range(count))
    for bed in backlog:
        # A bed waits for one turn of each other bed at the most, before each of its own.
        turns = [place for place, one in enumerate(batches) for of, _ in one if of == bed]
        assert all(later - earlier <= len(backlog) for earlier, later in pairwise([-1, *turns]))
    assert len(batch) == 0


def test_a_bed_that_is_held_back_holds_up_no_other_and_loses_nothing() -> None:
    batch: MicroBatch[str] = MicroBatch(3, 20, by_letter)
    batch.add("a", "a0", 100)
    batch.hold("a")
    assert batch.due_ns() is None
    assert batch.take() == []
    for number in range(1, 4):
        batch.add("a", f"a{number}", 100 + number)
    batch.add("b", "b0", 110)
    assert (len(batch), batch.held, batch.due_ns()) == (5, ["a"], 130)
    assert batch.take() == ["b0"]
    batch.release("a")
    assert (len(batch), batch.held, batch.due_ns()) == (4, [], 0)
    assert batch.take() + batch.take() == ["a0", "a1", "a2", "a3"]
    batch.hold("c")
    batch.add("c", "c0", 200)
    batch.drop("c")
    assert (len(batch), batch.held) == (0, [])
