from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.live.ring import SampleRing

writes = st.lists(st.tuples(st.integers(-20, 60), st.integers(0, 30)), max_size=20)


@given(capacity=st.integers(1, 25), first=st.integers(0, 50), writes=writes, start=st.integers(-10, 400))
def test_holds_the_newest_rows_and_no_others(
    capacity: int, first: int, writes: list[tuple[int, int]], start: int
) -> None:
    ring = SampleRing(capacity, 2, first)
    known: dict[int, float] = {}
    stop = first
    for step, n in writes:
        at = max(0, stop + step)
        rows = np.stack([np.arange(at, at + n), -np.arange(at, at + n)], axis=1).astype(float)
        hole = ring.write(at, rows)
        assert hole == max(0, at - stop)
        known |= {index: float(index) for index in range(max(at, stop), at + n)}
        stop = max(stop, at + n, at)
    assert ring.stop == stop
    got = ring.read(start, start + 60)
    want = [known.get(i, np.nan) if i >= stop - capacity else np.nan for i in range(start, start + 60)]
    np.testing.assert_array_equal(got[:, 0], want)
    np.testing.assert_array_equal(got[:, 1], -np.array(want))


def test_memory_does_not_grow() -> None:
    ring = SampleRing(100, 3)
    size = ring.nbytes
    for i in range(200):
        ring.write(i * 37, np.zeros((30, 3)))
    assert ring.nbytes == size == 100 * 3 * 4


def test_replaces_only_what_is_held() -> None:
    ring = SampleRing(10, 1)
    ring.write(0, np.zeros((15, 1)))
    ring.replace(0, np.full((30, 1), 7.0))
    np.testing.assert_array_equal(ring.read(5, 15)[:, 0], np.full(10, 7.0))
    assert np.isnan(ring.read(0, 5)).all()
    assert np.isnan(ring.read(15, 20)).all()


def test_extended_rows_are_empty_until_replaced() -> None:
    ring = SampleRing(10, 1)
    ring.extend(4)
    assert np.isnan(ring.read(0, 4)).all()
    ring.replace(2, np.ones((1, 1)))
    np.testing.assert_array_equal(ring.read(0, 4)[:, 0], [np.nan, np.nan, 1.0, np.nan])
