from __future__ import annotations

import asyncio

import pytest

from monitor.login.passwords import (
    LONGEST,
    SHORTEST,
    BusyError,
    PasswordError,
    Passwords,
    hashed,
    matches,
)
from tests.monitor.login.people import PASSWORD, WRONG


def test_only_the_password_itself_matches() -> None:
    stored = hashed(PASSWORD)
    assert matches(PASSWORD, stored)
    assert not matches(WRONG, stored)
    assert not matches("", stored)
    assert not matches(PASSWORD + "x" * LONGEST, stored)
    assert PASSWORD not in stored
    assert hashed(PASSWORD) != stored, "each has a salt of its own"


def test_an_accent_matches_whatever_keyboard_it_came_from() -> None:
    assert matches("ein schönes Wort", hashed("ein scho\u0308nes Wort"))


def test_who_has_no_password_matches_none() -> None:
    assert not matches(PASSWORD, None)
    assert not matches("", None)
    assert not matches(PASSWORD, "plain")


@pytest.mark.parametrize("length", [0, SHORTEST - 1, LONGEST + 1])
def test_a_password_has_a_length(length: int) -> None:
    with pytest.raises(PasswordError, match=f"12 to 128 characters, not {length}"):
        hashed("x" * length)


def test_whoever_sends_many_is_turned_away_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Passwords, "_WAITING_MOST", 2)

    async def main() -> None:
        passwords = Passwords()
        # All of them wait before the first is done.
        answers = await asyncio.gather(
            *(passwords.matches("x" * 200, None) for _ in range(5)), return_exceptions=True
        )
        assert [isinstance(answer, BusyError) for answer in answers].count(True) == 3
        assert await passwords.matches(WRONG, None) is False

    asyncio.run(main())
