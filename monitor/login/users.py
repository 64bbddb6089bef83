"""The users file: who there is, what each may do, and what is kept of passwords and tokens."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream.contract import first_error, is_name

log = logging.getLogger(__name__)

_PRIVATE = 0o600
_TOKEN_BYTES = 32
# Scanners for leaked secrets find it by this.
_TOKEN_START = "bedside_"


class UsersError(RuntimeError):
    """The users file cannot be used; the text says which, why and what to do, in one line."""


class Role(StrEnum):
    """What a user may do."""

    VIEWER = "viewer"
    """See everything."""
    OPERATOR = "operator"
    """Also acknowledge, pause and change."""


class User(BaseModel):
    """One user."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    password: str | None = None
    """As `monitor.login.passwords.hashed` returns it; None for a program, which has tokens only."""
    tokens: tuple[str, ...] = ()
    """Digests of the tokens."""

    @property
    def mark(self) -> str:
        """What changes with role and password: a session of before ends with it."""
        return hashlib.sha256(f"{self.role}\n{self.password}".encode()).hexdigest()[:16]


class Users(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(extra="forbid")

    v: Literal[1] = 1
    secret: str = Field(default_factory=lambda: secrets.token_hex(32))
    """Signs the sessions. Kept, so that pages stay signed in when the dashboard is started anew."""
    users: dict[str, User] = {}

    def with_token(self, token: str) -> tuple[str, User] | None:
        """Return who has a token, with the name."""
        digest = _digest(token)
        for name, user in self.users.items():
            if any(hmac.compare_digest(digest, one) for one in user.tokens):
                return name, user
        return None

    def add_token(self, name: str) -> str:
        """Give a user a new token and return it; only its digest is kept."""
        token = _TOKEN_START + secrets.token_urlsafe(_TOKEN_BYTES)
        user = self.users[name]
        self.users[name] = user.model_copy(update={"tokens": (*user.tokens, _digest(token))})
        return token


def _digest(token: str) -> str:
    # Unlike a password it cannot be guessed: 256 random bits need no slow hash.
    return hashlib.sha256(token.encode()).hexdigest()


def load(path: Path) -> Users:
    """Read a users file.

    Raises
    ------
    UsersError
        If it is not there, may be read by others, or is no users file.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except FileNotFoundError as error:
        raise UsersError(
            f"there is no users file {path}: make it with `bedside users add NAME --users {path}`"
        ) from error
    except OSError as error:
        raise UsersError(f"cannot read the users file {path}: {error.strerror}") from error
    if mode & 0o077:
        raise UsersError(f"users file {path} has mode {mode:04o}: others may use it; `chmod 600 {path}`")
    try:
        users = Users.model_validate_json(text)
    except ValidationError as error:
        raise UsersError(f"{path} is no users file: {first_error(error)}") from error
    if strange := [name for name in users.users if not is_name(name)]:
        raise UsersError(f"users file {path}: {strange[0]!r} is no name (1 to 64 printable characters)")
    return users


@contextmanager
def changing(path: Path) -> Iterator[Users]:
    """Change a users file, or make it: what the block leaves is written, unless it raises.

    Raises
    ------
    UsersError
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise UsersError(f"cannot write {path}: {error.strerror}") from error
    try:
        # Two at once would each undo what the other did.
        fcntl.flock(folder, fcntl.LOCK_EX)
        users = load(path) if path.exists() else Users()
        yield users
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w") as file:
                file.write(users.model_dump_json(indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise UsersError(f"cannot write {path}: {error.strerror}") from error
    finally:
        os.close(folder)


class UsersFile:
    """A users file that is read again when it has changed.

    Parameters
    ----------
    path : pathlib.Path

    Raises
    ------
    UsersError
        If it cannot be used, or names nobody.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._state()
        self._users = load(path)
        if not self._users.users:
            raise UsersError(f"users file {path} names nobody: `bedside users add NAME --users {path}`")

    @property
    def users(self) -> Users:
        """What the file holds; what it held last, while it cannot be used."""
        if (state := self._state()) != self._seen:
            self._seen = state
            try:
                self._users = load(self._path)
            except UsersError as error:
                log.error("%s; going on with the users of before", error)
        return self._users

    def _state(self) -> tuple[int, ...]:
        try:
            about = self._path.stat()
        except OSError:
            return ()
        return (about.st_ino, about.st_mtime_ns, about.st_size, about.st_mode)
