"""Passwords in text."""

from __future__ import annotations

import pytest

from stream.masking import without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:p@ss@host:1/0", "redis://host:1/0"),
        ("unix://worker:x@/run/s.sock?db=1", "unix:///run/s.sock?db=1"),
        ("redis://host?username=a&password=b&db=2", "redis://host?username=a&password=***&db=2"),
        ("a rediss://u:v@h/0 and redis://w:x@k, sent", "a rediss://h/0 and redis://k, sent"),
        ("nurse@ward.example wrote to redis://host/0", "nurse@ward.example wrote to redis://host/0"),
    ],
)
def test_urls_lose_their_passwords_and_nothing_else(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
