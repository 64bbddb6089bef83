"""A users file, and people who sign in, for the tests of the login."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.login.passwords import hashed
from monitor.login.users import Role, User, changing

if TYPE_CHECKING:
    from playwright.sync_api import Page

PASSWORD = "correct horse battery"
WRONG = "wrong horse battery"
OPERATOR, VIEWER, PROGRAM = "anna", "wall 3", "grafana"

_hashed = cache(hashed)


def users_file(path: Path) -> dict[str, str]:
    """Write a users file; return a token for each of the users in it."""
    with changing(path) as file:
        file.users[OPERATOR] = User(role=Role.OPERATOR, password=_hashed(PASSWORD))
        file.users[VIEWER] = User(role=Role.VIEWER, password=_hashed(PASSWORD))
        file.users[PROGRAM] = User(role=Role.OPERATOR)
        return {name: file.add_token(name) for name in (OPERATOR, VIEWER, PROGRAM)}


def sign_in(page: Page, user: str, password: str = PASSWORD) -> None:
    """Fill in and send the form."""
    page.fill("#user", user)
    page.fill("#password", password)
    page.click("button[type=submit]")
