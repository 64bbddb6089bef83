from __future__ import annotations

import pytest

from ingest.live.listening import token_in


@pytest.mark.parametrize(
    "words", [b"", b"GET / HTTP/1.1", b"\xff\xfe", b"[" * 1024, '["token"]', "null", "{}"]
)
def test_what_says_no_token_is_nothing(words: str | bytes) -> None:
    assert token_in(words) is None


def test_a_token_is_what_is_said_and_no_more() -> None:
    assert token_in(b'{"token": "opensesame", "bed": "icu-1"}') == "opensesame"
