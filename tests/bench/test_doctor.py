"""The doctor: what it finds on a sound deployment, and on ones that lack something."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bench.doctor import Finding, configuration, parity, ports, recordings, server, users
from monitor.login.users import User, changing
from stream.embedded import EmbeddedServer
from stream.settings import Settings
from tests.command_line import run


def by_check(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_every_check_has_a_line_and_a_fault_is_exit_code_1(redis_server: EmbeddedServer) -> None:
    sound = run("doctor", "--redis", redis_server.url, "--json")
    assert sound.returncode == 0, sound.stdout
    told = json.loads(sound.stdout)
    assert told["failed"] == 0
    checks = {one["check"]: one for one in told["checks"]}
    assert {"python", "packages", "settings", "server", "clock", "persistence", "memory"} <= checks.keys()
    assert {"gpu", "model on onnxruntime", "ports", "disk", "users"} <= checks.keys()
    assert checks["persistence"]["state"] == "warning"
    assert checks["persistence"]["help"] == "appendonly yes"
    lines = run("doctor", "--redis", "redis://nurse:hidden-word@127.0.0.1:1", BEDSIDE_MODEL="nothing")
    assert lines.returncode == 1
    assert lines.stderr == "bedside: failed: server, model\n"
    assert "failed   server               redis://127.0.0.1:1 cannot be used" in lines.stdout
    assert "hidden-word" not in lines.stdout + lines.stderr


def test_a_server_that_throws_away_stands_out(short_tmp: Path) -> None:
    with EmbeddedServer(short_tmp, appendonly=True) as kept:
        client = redis.Redis.from_url(kept.url)
        found = by_check(server(kept.url))
        assert ": Valkey " in found["server"].text
        assert {one.state for one in found.values()} == {"ok"}
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert by_check(server(kept.url))["memory"].state == "warning"
        client.config_set("maxmemory", "1gb")
        assert by_check(server(kept.url))["memory"].state == "failed"
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", client.info()["used_memory"] + 1000)
        assert "refused" in by_check(server(kept.url))["memory"].text


def test_a_user_who_may_not_look_is_told_so(redis_server: EmbeddedServer) -> None:
    client = redis.Redis.from_url(redis_server.url)
    client.acl_setuser("feed", enabled=True, passwords=["+hidden-word"], categories=["+@all", "-@dangerous"])
    url = redis_server.url.replace("unix://", "unix://feed:hidden-word@")
    (clock, about) = server(url)
    assert (clock.check, clock.state) == ("clock", "ok")
    assert (about.state, about.help) == ("warning", "allow it +info")


def test_a_backend_that_is_set_has_to_be_there() -> None:
    assert by_check(parity(Settings(backend="abacus")))["model"].state == "failed"
    assert by_check(parity(Settings(model="vae-bilstm-100hz")))["model on onnxruntime"].state == "ok"


def test_files_that_others_may_read_stand_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ward.toml"
    file.write_text('redis_url = "redis://worker:hidden-word@host"\n')
    file.chmod(0o644)
    monkeypatch.setenv("BEDSIDE_CONFIG", str(file))
    assert by_check(configuration(Settings()))["settings"].help == f"chmod 600 {file}"
    file.chmod(0o600)
    assert by_check(configuration(Settings()))["settings"].state == "ok"
    folder = tmp_path / "recordings"
    folder.mkdir(mode=0o755)
    assert by_check(recordings(folder))["recordings"].help == f"chmod 700 {folder}"
    assert "disk" in by_check(recordings(folder / "of" / "tomorrow"))
    people = tmp_path / "users.json"
    assert by_check(users(people))["users"].state == "failed"
    with changing(people) as known:
        known.users["anna"] = User(role="viewer")
    assert by_check(users(people))["users"].text.endswith("1 may use the dashboard")
    people.chmod(0o640)
    assert f"chmod 600 {people}" in by_check(users(people))["users"].text


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr("bench.doctor._PORTS", {port: "another's"})
        assert f"{port} (another's)" in by_check(ports())["ports"].text
    assert by_check(ports())["ports"].state == "ok"
