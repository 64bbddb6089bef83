"""A server that is found by Sentinels, before and after they have put its replica in its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis.asyncio as redis

from bench.doctor import server
from stream.bus import Bus
from stream.topics import ALARMS
from stream.transport.client import Endpoint, connect
from tests.stream.servers import NAME, Server, free_ports, running_pair, running_sentinel


async def port_of(worker: redis.Redis) -> int:
    """Return where the server listens, as soon as one is named: one that is slow is out for a while."""
    async with asyncio.timeout(20):
        while True:
            try:
                return int((await worker.info("server"))["tcp_port"])
            except redis.ConnectionError:
                await asyncio.sleep(0.1)


@pytest.mark.slow
def test_whoever_is_connected_follows_a_failover(short_tmp: Path) -> None:
    (absent,) = free_ports(1)

    async def main(primary: Server, replica: Server, sentinel: Server) -> None:
        # The one in the URL is not there: the others are asked.
        url = f"redis://127.0.0.1:{absent}/0?sentinel={NAME}&sentinels=127.0.0.1:{sentinel.port}"
        async with await Bus.connect(url) as bus, connect(Endpoint(url, "bedside:")) as worker:
            await bus.publish(ALARMS, b"bed-1", b"before")
            assert await port_of(worker) == primary.port
            assert await bus.client.wait(1, 5000) == 1
            primary.process.kill()
            async with asyncio.timeout(20):
                await bus.publish(ALARMS, b"bed-1", b"after")
            assert [entry.value async for entry in bus.kept(ALARMS)] == [b"before", b"after"]
            assert await port_of(worker) == replica.port

    def examined(sentinel: Server) -> list[str]:
        url = f"redis://127.0.0.1:{sentinel.port}/0?sentinel={NAME}"
        found = [finding for finding in server(url) if finding.check in ("server", "replicas")]
        assert [finding.check for finding in found] == ["server", "replicas"]
        return [finding.state for finding in found]

    with running_pair(short_tmp) as (primary, replica), running_sentinel(short_tmp, primary) as sentinel:
        assert examined(sentinel) == ["ok", "ok"]
        asyncio.run(main(primary, replica, sentinel))
        assert examined(sentinel) == ["ok", "warning"]
