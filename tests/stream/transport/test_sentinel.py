"""A server that is found by Sentinels, before and after they have put its replica in its place."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from stream.bus import Bus
from stream.children import spawn
from stream.embedded import find_binary
from stream.topics import ALARMS
from stream.transport.client import Endpoint, connect
from tests.stream.transport.conftest import eventually


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def running(folder: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir()
    (folder / "server.conf").write_text("")
    config = str(folder / "server.conf")
    command = [str(find_binary()), config, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = spawn([*command, *options], stdout=log, stderr=log)
    try:
        with redis.Redis(port=port) as client:
            eventually(lambda: answers(client), "a server")
        yield process
    finally:
        process.kill()
        process.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.slow
def test_whoever_is_connected_follows_a_failover(short_tmp: Path) -> None:
    first, second, sentinel, absent = free_ports(4)
    # The one in the URL is not there: the others are asked.
    url = f"redis://127.0.0.1:{absent}/0?sentinel=ward&sentinels=127.0.0.1:{sentinel}"

    async def main(primary: subprocess.Popen[bytes]) -> None:
        async with await Bus.connect(url) as bus, connect(Endpoint(url, "bedside:")) as worker:
            await bus.publish(ALARMS, b"bed-1", b"before")
            assert (await worker.info("server"))["tcp_port"] == first
            assert await bus.client.wait(1, 5000) == 1
            primary.kill()
            async with asyncio.timeout(20):
                await bus.publish(ALARMS, b"bed-1", b"after")
            assert [entry.value async for entry in bus.kept(ALARMS)] == [b"before", b"after"]
            assert (await worker.info("server"))["tcp_port"] == second

    with ExitStack() as stack:
        primary = stack.enter_context(running(short_tmp / "1", first, "--save", ""))
        options = ("--save", "", "--replicaof", f"127.0.0.1 {first}", "--repl-diskless-sync-delay", "0")
        stack.enter_context(running(short_tmp / "2", second, *options))
        stack.enter_context(running(short_tmp / "3", sentinel, "--sentinel"))
        with redis.Redis(port=second) as client, redis.Redis(port=sentinel) as watcher:
            eventually(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
            watcher.execute_command("SENTINEL", "MONITOR", "ward", "127.0.0.1", first, 1)
            watcher.execute_command("SENTINEL", "SET", "ward", "down-after-milliseconds", 500)
            eventually(lambda: watcher.sentinel_slaves("ward"), "a replica that the sentinel knows")
        asyncio.run(main(primary))
