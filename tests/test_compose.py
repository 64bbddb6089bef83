"""compose.yaml: its form, and what it starts, without containers: passwords by role, TLS, the whole line."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import redis
import yaml
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError

import bedside
from tests.command_line import assert_refused, started

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("bedside:")]
PATIENCE_S = 90.0


# ---- the file


def test_it_keeps_to_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [*command, str(ROOT / "compose.yaml")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="no docker compose here",
)
def test_the_client_takes_it(tmp_path: Path) -> None:
    shown = subprocess.run(
        ["docker", "compose", "-f", ROOT / "compose.yaml", "--profile", "*", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_up_looked_after_and_kept_small(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].startswith("${BEDSIDE_UID")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory", "pids"}
    assert "privileged" not in service
    assert "network_mode" not in service
    assert service["image"].rpartition(":")[2] not in ("", "latest")
    # What is reached from outside is reached from this machine alone, until somebody decides otherwise.
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    wanted = {one if isinstance(one, str) else one["source"] for one in service.get("secrets", ())}
    assert wanted <= COMPOSE["secrets"].keys()
    # Secrets are files, never in what `docker inspect` shows.
    assert not [value for value in service.get("environment", {}).values() if "://" in str(value)]


@pytest.mark.parametrize(
    "name", [name for name, one in SERVICES.items() if one["image"].startswith("bedside")]
)
def test_the_command_line_takes_every_command(name: str) -> None:
    words = shlex.split(SERVICES[name]["command"])
    command: click.Command = bedside.cli
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    command.make_context(name, words, parent=context)


def test_the_dockerfile_makes_the_targets_and_gives_up_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    targets = [line.split(" AS ")[1] for line in lines if line.startswith("FROM ")]
    wanted = {one["build"]["target"] for one in SERVICES.values() if "build" in one}
    assert wanted <= set(targets)
    assert targets[-1] == "cpu"
    base = lines[next(n for n, line in enumerate(lines) if line.endswith(" AS base")) :]
    assert "USER 1000" in base
    assert "USER root" not in base


# ---- what it starts


@dataclass
class Ward:
    """What `compose/run_local.py` runs."""

    folder: Path
    process: subprocess.Popen[str]

    def url(self, role: str) -> str:
        return (self.folder / "secrets" / f"{role}.url").read_text().strip()

    def client(self, role: str) -> redis.Redis:
        if role != "health":
            return redis.Redis.from_url(self.url(role), protocol=2)
        # What a container asks itself: without a password of its own.
        _, _, rest = self.url("viewer").partition("@")
        return redis.Redis.from_url(f"rediss://health:none@{rest}", protocol=2)

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()

    def wait_for(self, what: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := what()):
            assert self.process.poll() is None, self.log("worker")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def ward() -> Iterator[Ward]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        command = [sys.executable, str(ROOT / "compose" / "run_local.py"), "--folder", name]
        command += ["--port", str(port), "--page-port", "0", "--profile", "simulate"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "BEDSIDE_BACKEND": "onnxruntime"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        try:
            said = [process.stdout.readline(), process.stdout.readline()]
            assert "running: valkey, worker, worker-2, monitor, recorder, ingest" in said[1], said
            yield Ward(Path(name), process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.mark.slow
def test_beds_are_scored_recorded_and_shown_over_tls(ward: Ward) -> None:
    viewer = ward.client("viewer")
    finding = ward.wait_for(lambda: viewer.xrevrange("bedside:findings:0", count=1))
    assert finding[0][1][b"k"].startswith(b"sim-")
    ward.wait_for(lambda: list((ward.folder / "data" / "recordings").glob("sim-*/*.hea")))
    url = ward.wait_for(
        lambda: next((word for word in ward.log("monitor").split('"') if "https://" in word), None)
    )
    url = url.rpartition(" ")[2] + "metrics"
    context = ssl.create_default_context(cafile=ward.folder / "secrets" / "ca.pem")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, context=context)
    assert refused.value.code == 401
    token = (ward.folder / "secrets" / "prometheus.token").read_text().strip()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})

    def told() -> str:
        with urllib.request.urlopen(request, context=context) as answer:
            return str(answer.read().decode())

    # Either worker may take the beds, and the other comes a little later.
    ward.wait_for(lambda: told().count("bedside_worker_up{") == 2)
    assert "bedside_dashboard_redis_up 1.0" in told()
    assert (ward.folder / "data" / "valkey" / "appendonlydir").is_dir()
    # Nobody was refused what it needs.
    for name in ("worker", "worker-2", "monitor", "recorder", "ingest"):
        assert "permission" not in ward.log(name).lower(), name


@pytest.mark.slow
def test_each_role_can_do_its_own_work_and_no_other(ward: Ward) -> None:
    sample, alarm = "bedside:samples:0", "bedside:alarms:0"
    publish = ("XADD", sample, "*", "k", "sim-1", "v", "x")
    denied: dict[str, tuple[tuple[Any, ...], ...]] = {
        "viewer": (
            publish,
            ("XADD", alarm, "*", "v", "x"),
            ("XADD", "bedside:commands:0", "*", "v", "x"),
            ("EVAL", "return redis.call('DEL', KEYS[1])", 1, alarm),
            ("XREVRANGE", sample, "+", "-"),
            ("DEL", alarm),
        ),
        "ingest": (
            ("XREVRANGE", alarm, "+", "-"),
            ("XREAD", "STREAMS", alarm, "0"),
            ("XREVRANGE", sample, "+", "-"),
            ("XADD", alarm, "*", "v", "x"),
            ("DEL", sample),
        ),
        "recorder": (publish, ("XADD", alarm, "*", "v", "x"), ("XTRIM", sample, "MAXLEN", 0)),
        "monitor": (publish, ("EVAL", f"return redis.call('DEL', '{sample}')", 0), ("DEL", sample)),
        "health": (publish, ("GET", "bedside:topics"), ("INFO",)),
        "worker": (("CONFIG", "GET", "*"), ("ACL", "LIST"), ("FLUSHALL",), ("DEL", "other:key")),
    }
    for role, commands in denied.items():
        with ward.client(role) as client:
            assert client.ping()
            for command in commands:
                with pytest.raises((NoPermissionError, redis.ResponseError), match="permission"):
                    client.execute_command(*command)


@pytest.mark.slow
def test_programs_of_a_role_say_what_they_may_not(ward: Ward) -> None:
    ward.wait_for(lambda: "worker ready" in ward.log("worker"))
    listed = started("alerts", "--redis", ward.url("viewer"))
    assert listed.returncode == 0, listed.stderr
    simulate = ("ingest", "simulate", "--seconds", "2", "--metrics-port", "0")
    assert_refused(started(*simulate, "--redis", ward.url("viewer")), "viewer has no permissions", "xadd")
    assert_refused(started("alerts", "--redis", ward.url("ingest")), "ingest has no permissions")


@pytest.mark.slow
def test_nobody_comes_in_without_tls_the_right_certificate_and_a_password(ward: Ward) -> None:
    url = ward.url("viewer")
    with pytest.raises(RedisConnectionError):
        redis.Redis.from_url(url.replace("rediss:", "redis:").partition("?")[0]).ping()
    with pytest.raises(RedisConnectionError, match="certificate verify failed"):
        redis.Redis.from_url(url.partition("?")[0]).ping()
    _, _, rest = url.partition("@")
    with pytest.raises(AuthenticationError):
        redis.Redis.from_url(f"rediss://{rest}").ping()
    with pytest.raises(AuthenticationError):
        redis.Redis.from_url(f"rediss://viewer:guessed@{rest}").ping()
    secrets = ward.folder / "secrets"
    assert {path.stat().st_mode & 0o077 for path in secrets.iterdir()} == {0}
    password = url.partition("viewer:")[2].partition("@")[0]
    assert password not in (secrets / "users.acl").read_text()


@pytest.mark.slow
def test_preparing_again_replaces_nothing(ward: Ward) -> None:
    secrets = ward.folder / "secrets"
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run([ROOT / "compose" / "prepare", secrets, "elsewhere:1"], check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
