"""The framing: the same messages however the bytes are cut, and never more memory than two messages."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.live.hl7 import mllp
from ingest.live.hl7.mllp import Deframer, frame

# Made of the bytes that matter.
streams = st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"a", b"bc"])).map(b"".join)


@settings(deadline=None)
@given(streams, st.lists(st.integers(1, 5), min_size=1))
def test_finds_the_same_messages_in_any_cuts(data: bytes, cuts: list[int]) -> None:
    whole = Deframer()
    expected = whole.feed(data)
    cut, found, at = Deframer(), [], 0
    while at < len(data):
        size = cuts[len(found) % len(cuts)]
        found += cut.feed(data[at : at + size])
        at += size
    assert found == expected
    assert cut.waiting == whole.waiting


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20).filter(lambda m: b"\x0b" not in m and b"\x1c\r" not in m + b"\r")))
def test_what_was_framed_comes_back(messages: list[bytes]) -> None:
    deframer = Deframer()
    assert deframer.feed(b"noise".join([b"", *map(frame, messages)])) == messages
    assert deframer.skipped == 5 * len(messages)
    assert not deframer.waiting


def test_a_sender_that_broke_off_begins_again() -> None:
    deframer = Deframer()
    assert deframer.feed(b"\x0bMSH|half a mess\x0bMSH|whole\x1c\r") == [b"MSH|whole"]


def test_a_message_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp, "MAX_BLOCK", 100_000)
    deframer = Deframer()
    tracemalloc.start()
    try:
        deframer.feed(b"\x0b")
        for _ in range(1000):
            assert deframer.feed(b"x" * 10_000) == []
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert deframer.feed(b"y\x1c\r" + frame(b"next")) == [None, b"next"]
