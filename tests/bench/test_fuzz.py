"""A short run of the fuzzer on each parser; the long one is `python -m bench.fuzz`."""

from __future__ import annotations

import random

import psutil
import pytest

from bench.fuzz import PARSERS, fuzz

pytest.importorskip("atheris")


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_a_short_run_finds_nothing(name: str) -> None:
    row = fuzz(name, 2000, 1)
    assert row["failed"] is None, f"{row['failed']}\ninput: {row['input']}"
    assert row["inputs"] >= 2000


def test_nothing_is_left_of_feeds_that_are_over() -> None:
    # In a plain interpreter: the fuzzer takes memory of its own for each of these.
    take, dice, process = PARSERS["feed"].make(), random.Random(1), psutil.Process()

    def some(count: int) -> int:
        for _ in range(count):
            take(dice.randbytes(dice.randrange(120)))
        return process.memory_info().rss

    before = some(1000)
    # A kilobyte each would be four megabytes.
    assert some(4000) < before + 1_000_000
