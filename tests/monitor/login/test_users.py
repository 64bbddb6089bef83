from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest

from monitor.login.users import Role, User, Users, UsersError, UsersFile, changing, load
from tests.monitor.login.people import OPERATOR, users_file


def add(path: Path, name: str, role: Role = Role.VIEWER) -> None:
    with changing(path) as file:
        file.users[name] = User(role=role)


def test_a_file_is_private_and_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    tokens = users_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    users = load(path)
    found = users.with_token(tokens[OPERATOR])
    assert found is not None
    assert (found[0], found[1].role) == (OPERATOR, Role.OPERATOR)
    assert users.with_token("bedside_x") is None
    assert users.with_token("") is None
    # No secret that somebody could send stands in it.
    text = path.read_text()
    assert not [token for token in tokens.values() if token in text]
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    add(path, "anna")
    before = path.read_bytes()

    def fail() -> None:
        with changing(path) as file:
            file.users.clear()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == before


def test_two_at_once_do_not_undo_each_other(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    adding = [threading.Thread(target=add, args=(path, f"user-{number}")) for number in range(8)]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert len(load(path).users) == 8


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "users.json"
    add(path, "anna")
    path.chmod(mode)
    with pytest.raises(UsersError, match=rf"has mode {mode:04o}: .*chmod 600"):
        load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no users file"),
        ("[]", "no users file"),
        ('{"v": 2}', "no users file: v"),
        ('{"users": {"a": {"role": "king"}}}', r"users.a.role"),
        ('{"users": {"a\\u0007": {"role": "viewer"}}}', "is no name"),
    ],
)
def test_a_file_that_is_none_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "users.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsersError, match=words) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_names_nobody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    with changing(path):
        pass
    with pytest.raises(UsersError, match="names nobody"):
        UsersFile(path)


def test_changes_count_at_once_and_a_broken_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "users.json"
    add(path, "anna")
    file = UsersFile(path)
    assert set(file.users.users) == {"anna"}
    add(path, "bert")
    assert set(file.users.users) == {"anna", "bert"}
    with caplog.at_level(logging.ERROR):
        path.chmod(0o644)
        assert set(file.users.users) == {"anna", "bert"}
        path.unlink()
        assert set(file.users.users) == {"anna", "bert"}
    assert len(caplog.messages) == 2
    add(path, "carl")
    assert set(file.users.users) == {"carl"}


def test_a_mark_changes_with_role_and_password() -> None:
    user = User(role=Role.VIEWER, password="scrypt$…")
    assert user.mark != user.model_copy(update={"role": Role.OPERATOR}).mark
    assert user.mark != user.model_copy(update={"password": "scrypt$other"}).mark
    assert user.mark == user.model_copy(update={"tokens": ("a",)}).mark
    assert len(json.loads(Users().model_dump_json())["secret"]) == 64
