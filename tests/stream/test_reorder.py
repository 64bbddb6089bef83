"""Chunks of a session in order: what is late within a second is put right, what is later is left out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.contract import SampleChunk
from stream.reorder import WAIT_S, InOrder
from tests.stream.synthetic import every, feed

FS = 100.0
CHUNKS = feed(np.zeros((1200, 3)), FS, every(0.2, FS, 1200))


def through(sent: list[SampleChunk]) -> tuple[list[int], list[str]]:
    """Return the numbers that came out, and why others did not."""
    first, *rest = sent
    order, out, left_out = InOrder(1, first.end), [first.header.seq], []
    for chunk in rest:
        why = order.why_not(chunk.header.seq)
        if why is None:
            out += [one.header.seq for one in order.take(chunk)]
        else:
            left_out.append(why)
    out += [one.header.seq for one in order.flush()]
    assert not order.is_waiting
    assert out == sorted(set(out))
    return out, left_out


def sent_late(late_s: list[float]) -> list[SampleChunk]:
    # The first one opens the session.
    arrivals = [(number * 0.2 + (late_s[number] if number else 0.0), number) for number in range(60)]
    return [CHUNKS[number] for _, number in sorted(arrivals)]


@given(st.lists(st.floats(0, WAIT_S - 0.2), min_size=60, max_size=60))
def test_all_that_are_late_within_a_second_are_put_right(late_s: list[float]) -> None:
    assert through(sent_late(late_s)) == (list(range(60)), [])


@given(
    lost=st.sets(st.integers(1, 59)),
    late_s=st.lists(st.floats(0, 3), min_size=60, max_size=60),
    twice=st.lists(st.integers(0, 59)),
)
def test_whatever_comes_comes_out_in_order_and_once(
    lost: set[int], late_s: list[float], twice: list[int]
) -> None:
    sent = [chunk for chunk in sent_late(late_s) if chunk.header.seq not in lost]
    for number in twice:
        sent.insert(1 + number % len(sent), sent[number % len(sent)])
    out, left_out = through(sent)
    assert len(out) + len(left_out) == len(sent)
    assert lost.isdisjoint(out)


def test_behind_a_hole_nothing_waits_for_more_than_a_second_of_signal() -> None:
    order = InOrder(1, CHUNKS[0].end)
    took = [len(order.take(chunk)) for chunk in CHUNKS[2:9]]
    # The hole itself is the first fifth of it.
    assert took == [0, 0, 0, 0, 5, 1, 1]
    assert order.why_not(1) == "late"
    assert order.why_not(2) == "repeat"


def test_a_hole_that_the_device_leaves_itself_is_waited_for_by_nobody() -> None:
    order = InOrder(1, CHUNKS[0].end)
    later = CHUNKS[3].header.model_copy(update={"seq": 1})
    assert len(order.take(SampleChunk(later, CHUNKS[3].samples))) == 1


def test_the_end_of_a_session_waits_for_nobody() -> None:
    order = InOrder(1, CHUNKS[0].end)
    last = CHUNKS[3].header.model_copy(update={"last": True})
    assert len(order.take(CHUNKS[2])) == 0
    assert len(order.take(SampleChunk(last, CHUNKS[3].samples))) == 2


def test_where_the_number_is_not_known_the_samples_say_what_is_missing() -> None:
    order = InOrder(0, CHUNKS[5].end)
    assert [len(order.take(CHUNKS[number])) for number in (7, 8, 6)] == [0, 0, 3]
    assert len(order.take(CHUNKS[9])) == 1
