"""A short run of the fuzzer on each parser; the long one is `python -m bench.fuzz`."""

from __future__ import annotations

import pytest

from bench.fuzz import PARSERS, fuzz

pytest.importorskip("atheris")


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_a_short_run_finds_nothing(name: str) -> None:
    row = fuzz(name, 2000, 1)
    assert row["failed"] is None, f"{row['failed']}\ninput: {row['input']}"
    assert row["inputs"] >= 2000
