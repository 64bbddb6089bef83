"""A users file, and people who sign in, for the tests of the login."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from monitor.login.passwords import hashed
from monitor.login.users import Role, User, changing

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
