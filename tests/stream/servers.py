"""Servers with replicas and Sentinels, which take TCP ports on the loopback address."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from stream.children import spawn
from stream.embedded import find_binary
from tests.stream.transport.conftest import eventually

NAME = "ward"
"""Of the primary, among Sentinels."""


@dataclass
class Server:
    """A server, or a Sentinel, that runs."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def running(folder: Path, port: int, *options: str) -> Iterator[Server]:
    """Run a server, and return when it answers."""
    folder.mkdir()
    (folder / "server.conf").write_text("")
    config = str(folder / "server.conf")
    command = [str(find_binary()), config, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = spawn([*command, *options], stdout=log, stderr=log)
    server = Server(port, process)
    try:
        with server.client() as client:
            eventually(lambda: _answers(client), "a server")
        yield server
    finally:
        process.kill()
        process.wait()


@contextmanager
def running_pair(folder: Path, *options: str) -> Iterator[tuple[Server, Server]]:
    """Run a server and its replica, both with the same options."""
    first, second = free_ports(2)
    with running(folder / "1", first, "--save", "", "--repl-diskless-sync-delay", "0", *options) as primary:
        following = ("--save", "", "--replicaof", f"127.0.0.1 {first}", *options)
        with running(folder / "2", second, *following) as replica:
            with replica.client() as client:
                eventually(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
            yield primary, replica


@contextmanager
def running_sentinel(folder: Path, primary: Server) -> Iterator[Server]:
    """Run a Sentinel that watches a server, and knows its replica."""
    (port,) = free_ports(1)
    with running(folder / "sentinel", port, "--sentinel") as sentinel:
        with sentinel.client() as client:
            client.execute_command("SENTINEL", "MONITOR", NAME, "127.0.0.1", primary.port, 1)
            # Not less: on a busy machine a server is often silent for half a second, and is no less alive.
            client.execute_command("SENTINEL", "SET", NAME, "down-after-milliseconds", 2000)
            eventually(lambda: client.sentinel_slaves(NAME), "a replica that the sentinel knows")
        yield sentinel


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def until_it_follows(url: str, ahead_s: float) -> None:
    """Wait until a server gives new streams the time to which its clock was set: it looks now and then."""
    with redis.Redis.from_url(url, protocol=2) as client:

        def follows() -> bool:
            seconds, _ = client.time()
            entry = client.xadd("until-it-follows", {"": ""})
            client.delete("until-it-follows")
            times_s = (int(seconds), int(entry.partition(b"-")[0]) / 1000)
            return all(abs(one - time.time() - ahead_s) < 60 for one in times_s)

        eventually(follows, "the server's clock")
