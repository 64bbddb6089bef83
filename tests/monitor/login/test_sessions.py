from __future__ import annotations

from pathlib import Path

import pytest

from monitor.login.sessions import IDLE_S, LASTS_S, Session, Sessions
from monitor.login.users import Role, User, UsersFile, changing
from stream.clock import ManualClock
from tests.monitor.messages import T0, S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users.json"
    with changing(path) as file:
        file.users["anna"] = User(role=Role.OPERATOR, password="one")
        file.users["wall"] = User(role=Role.VIEWER, password="two")
    return path


class Browser:
    """A cookie, and the sessions that know it."""

    def __init__(self, path: Path, name: str) -> None:
        self.clock = ManualClock(T0)
        self.sessions = Sessions(UsersFile(path), self.clock)
        user = UsersFile(path).users.users[name]
        self.cookie = self.sessions.cookie(self.sessions.begin(name, user, secure=True))

    def wait(self, seconds: float) -> None:
        self.clock.set(self.clock.now_ns() + round(seconds * S))

    def session(self) -> Session | None:
        found = self.sessions.read(self.cookie)
        return None if found is None else found[0]

    def ask(self) -> bool:
        """Send a request, as an open page does."""
        session = self.session()
        if session is not None and (renewed := self.sessions.renewed(session)) is not None:
            self.cookie = self.sessions.cookie(renewed)
        return session is not None


def test_a_session_says_who_it_is_and_when_it_ends(path: Path) -> None:
    browser = Browser(path, "anna")
    found = browser.sessions.read(browser.cookie)
    assert found is not None
    session, user, until_ns = found
    assert (session.user, session.secure, user.role) == ("anna", True, Role.OPERATOR)
    assert until_ns == T0 + 12 * 3600 * S


def test_it_ends_when_nothing_has_come_for_an_hour(path: Path) -> None:
    browser = Browser(path, "anna")
    browser.wait(IDLE_S - 1)
    assert browser.session() is not None
    browser.wait(1)
    assert browser.session() is None
    # What it had opened is not idle.
    assert browser.sessions.read(browser.cookie, watched=True) is not None


@pytest.mark.parametrize(("name", "role"), [("anna", Role.OPERATOR), ("wall", Role.VIEWER)])
def test_a_page_that_stays_open_is_signed_in_until_its_role_s_time_is_over(
    path: Path, name: str, role: Role
) -> None:
    browser = Browser(path, name)
    cookies = {browser.cookie}
    for _ in range(LASTS_S[role] // 240):
        assert browser.ask()
        cookies.add(browser.cookie)
        browser.wait(240)
    assert not browser.ask()
    assert browser.sessions.read(browser.cookie, watched=True) is None
    assert len(cookies) == pytest.approx(LASTS_S[role] / 480, rel=0.01), "a new one every second time"


def test_what_was_forged_is_worth_nothing(path: Path) -> None:
    browser = Browser(path, "wall")
    payload, _, signature = browser.cookie.partition(".")
    other = Browser(path, "anna").cookie.partition(".")[0]
    for forged in (f"{other}.{signature}", f"{payload}.", payload, "", ".", f"{payload}.{'0' * 64}", "é.é"):
        assert browser.sessions.read(forged) is None
    # Signed with another secret.
    with changing(path) as file:
        file.secret = "00" * 32
    assert browser.session() is None


@pytest.mark.parametrize("change", [{"password": "new"}, {"role": Role.VIEWER}, None])
def test_it_ends_with_password_role_and_user(path: Path, change: dict[str, object] | None) -> None:
    browser = Browser(path, "anna")
    assert browser.session() is not None
    with changing(path) as file:
        user = file.users.pop("anna")
        if change is not None:
            file.users["anna"] = user.model_copy(update=change)
    assert browser.session() is None


def test_signing_out_ends_copies_too_and_a_restart_keeps_sessions(path: Path) -> None:
    browser, other = Browser(path, "anna"), Browser(path, "anna")
    session = browser.session()
    assert session is not None
    browser.sessions.end(session)
    assert browser.session() is None
    assert other.session() is not None
    again = Sessions(UsersFile(path), other.clock)
    assert again.read(other.cookie) is not None
