from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.transport.layout import (
    Message,
    TopicConfig,
    check_topic,
    decode_headers,
    decode_message,
    encode_message,
    partition_of,
    trim_options,
)

NULLABLE = st.none() | st.binary(max_size=50)
HEADERS = st.lists(st.tuples(st.text(max_size=10), st.binary(max_size=20)), max_size=4)


@given(st.builds(Message, st.integers(0, 2**43), NULLABLE, NULLABLE, HEADERS))
def test_a_message_survives(message: Message) -> None:
    args = encode_message(message)
    as_bytes = [item if isinstance(item, bytes) else str(item).encode() for item in args]
    assert decode_message(dict(zip(as_bytes[::2], as_bytes[1::2], strict=True))) == message


def test_null_and_empty_differ() -> None:
    assert b"" in encode_message(Message(1, b"", b"", []))
    assert decode_message({b"t": b"1"}) == Message(1, None, None, [])
    assert decode_message({b"t": b"1", b"k": b"", b"v": b""}) == Message(1, b"", b"", [])


@pytest.mark.parametrize(
    "field", [b"", b"{", b"1", b"[1]", b'[["a", 1]]', b'[["a", "*"]]', b'{"a": "b"}', b"\xff"]
)
def test_headers_that_cannot_be_read_count_as_missing(field: bytes) -> None:
    with pytest.raises(ValueError, match="not a headers field"):
        decode_headers(field)
    assert decode_message({b"h": field}).headers == []


@pytest.mark.parametrize("field", [b"", b"soon", b"-1", b"1.5", "²".encode()])
def test_a_time_that_cannot_be_read_counts_as_missing(field: bytes) -> None:
    assert decode_message({b"t": field}).time_ms is None


def test_trimming() -> None:
    assert trim_options(TopicConfig(1, retention_ms=10, maxlen=5), 100) == ["MINID", "~", 90]
    assert trim_options(TopicConfig(1, maxlen=5), 100) == ["MAXLEN", "~", 5]
    assert trim_options(TopicConfig(1, retention_ms=10, compact=True), 100) == []
    assert trim_options(TopicConfig(1), 100) == []


def test_config() -> None:
    config = TopicConfig(3, 1000, None, compact=True)
    assert TopicConfig.from_json(config.to_json()) == config
    assert TopicConfig.from_json(b'{"partitions": 2, "of a later version": 1}') == TopicConfig(2)


@pytest.mark.parametrize("name", ["", "a:b", "a b", "ä", "x" * 250])
def test_illegal_topic_names(name: str) -> None:
    with pytest.raises(ValueError, match="illegal topic name"):
        check_topic(name)
    check_topic("app-table_1.changelog")


def test_the_layout_can_be_used_without_faust() -> None:
    program = "import stream.transport.layout, sys; sys.exit('faust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_partitions_are_those_that_the_documentation_promises() -> None:
    # crc32("bed-7") = 0xfe61481d: any program in any language can compute it.
    assert partition_of(b"bed-7", 16) == 0xFE61481D % 16 == 13
