from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.transport.ids import (
    SequenceOverflowError,
    id_before,
    id_of,
    offset_after,
    offset_of,
    time_of,
)

IDS = st.tuples(st.integers(0, 2**43 - 1), st.integers(0, 2**20 - 1))


@given(IDS)
def test_an_id_survives_the_way_through_an_offset(parts: tuple[int, int]) -> None:
    stream_id = f"{parts[0]}-{parts[1]}"
    assert id_of(offset_of(stream_id)) == stream_id
    assert offset_of(stream_id.encode()) == offset_of(stream_id)
    assert time_of(offset_of(stream_id)) == parts[0]


@given(IDS, IDS)
def test_offsets_are_ordered_as_ids_are(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (offset_of(f"{one[0]}-{one[1]}") < offset_of(f"{other[0]}-{other[1]}")) == (one < other)


@given(IDS)
def test_reading_goes_on_exactly_after_what_was_seen(parts: tuple[int, int]) -> None:
    # XREAD returns what comes after the id it is given.
    seen = f"{parts[0]}-{parts[1]}"
    assert id_before(offset_after(seen)) == seen
    if parts != (0, 0):
        assert offset_of(id_before(offset_of(seen))) == offset_of(seen) - 1


def test_beginning() -> None:
    assert id_before(0) == "0-0"
    assert offset_after("0-0") == 0


@given(st.integers(0, 2**43 - 1), st.integers(2**20, 2**64 - 1))
def test_a_sequence_that_does_not_fit_is_refused(ms: int, sequence: int) -> None:
    with pytest.raises(SequenceOverflowError, match="clock was set back"):
        offset_of(f"{ms}-{sequence}")
