"""Micro-batches: nobody overtakes, nobody waits too long."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.batching import MicroBatch


def test_nothing_waits_in_an_empty_batch() -> None:
    batch: MicroBatch[str] = MicroBatch(3, 20)
    assert batch.due_ns() is None
    assert batch.take() == []
    assert len(batch) == 0


def test_the_oldest_decides_when_a_batch_is_due() -> None:
    batch: MicroBatch[str] = MicroBatch(3, 20)
    batch.add("a", 100)
    batch.add("b", 115)
    assert batch.due_ns() == 120
    batch.add("c", 118)
    assert batch.due_ns() == 0
    batch.add("d", 119)
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
    batch: MicroBatch[tuple[int, int]] = MicroBatch(size, budget)
    now, number, out = 0, 0, []
    for pause, add in steps:
        now += pause
        if add:
            batch.add((number, now), now)
            number += 1
        while (due := batch.due_ns()) is not None and due <= now:
            taken = batch.take()
            assert 1 <= len(taken) <= size
            # Due because it was full, or because the first had waited long enough; whole if it was full.
            assert len(taken) == size or now >= taken[0][1] + budget
            out += [item for item, _ in taken]
        assert len(batch) < size
    assert out + [item for item, _ in batch.take()] == list(range(number))
