from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from monitor.login.passwords import matches
from monitor.login.users import Role, load
from tests.command_line import assert_refused, run
from tests.monitor.login.people import PASSWORD


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEDSIDE_USERS_FILE", str(tmp_path / "users.json"))
    return tmp_path / "users.json"


def add(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, password: str = PASSWORD
) -> subprocess.CompletedProcess[str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    return run("users", "add", *arguments)


def test_people_are_added_changed_and_removed(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert add(monkeypatch, "anna").stdout == "anna: added, operator\n"
    assert add(monkeypatch, "wall 3", "--role", "viewer").stdout == "wall 3: added, viewer\n"
    first = load(users).users["anna"]
    assert matches(PASSWORD, first.password)
    # A new password; role and tokens stay.
    assert run("users", "token", "wall 3").returncode == 0
    assert add(monkeypatch, "wall 3", password="another long password").stdout == "wall 3: changed, viewer\n"
    changed = load(users).users["wall 3"]
    assert (changed.role, len(changed.tokens)) == (Role.VIEWER, 1)
    assert matches("another long password", changed.password)
    assert run("users", "list").stdout.splitlines() == [
        "anna    operator  password",
        "wall 3  viewer    password, 1 token",
    ]
    assert run("users", "remove", "anna").stdout == "anna: removed\n"
    assert_refused(run("users", "remove", "anna"), "there is no user anna")
    assert set(load(users).users) == {"wall 3"}


def test_a_program_has_a_token_which_is_printed_once(users: Path) -> None:
    assert run("users", "add", "grafana", "--role", "viewer", "--no-password").returncode == 0
    assert "cannot sign in: no token yet" in run("users", "list").stdout
    token = run("users", "token", "grafana").stdout.strip()
    found = load(users).with_token(token)
    assert found is not None
    assert found[0] == "grafana"
    assert found[1].password is None
    assert token not in users.read_text()
    assert run("users", "token", "grafana", "--revoke").stdout == "grafana: 1 revoked\n"
    assert load(users).with_token(token) is None
    assert_refused(run("users", "token", "nobody"), "there is no user nobody", "--no-password")


def test_what_makes_no_sense_is_refused(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(add(monkeypatch, "anna", password="short"), "12 to 128 characters, not 5")
    assert_refused(add(monkeypatch, "anna", password=""), "not 0")
    assert not users.exists()
    assert add(monkeypatch, " anna").returncode == 2
    assert add(monkeypatch, "x" * 65).returncode == 2
    assert_refused(run("users", "list"), f"there is no users file {users}")
    assert add(monkeypatch, "anna").returncode == 0
    users.chmod(0o644)
    assert_refused(run("users", "list"), "has mode 0644", "chmod 600")
    assert_refused(add(monkeypatch, "bert"), "has mode 0644")
    assert_refused(
        run("users", "list", "--users", f"{users.parent}/none/users.json"), "there is no users file"
    )
    assert_refused(add(monkeypatch, "anna", "--users", f"{users.parent}/none/users.json"), "cannot write")


def test_without_a_file_it_says_how_to_name_one() -> None:
    assert_refused(run("users", "list"), "--users or BEDSIDE_USERS_FILE")
