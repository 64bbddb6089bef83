"""Whether a worker can tell that alarms are on a replica and in the file: on real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stream import durability
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import AlarmEvent, AlarmKind, Presence
from stream.durability import ALARMS_AT_RISK, Durability
from stream.embedded import EmbeddedServer
from stream.topics import ALARMS
from tests.stream.servers import Server, free_ports, running, running_pair
from tests.stream.transport.conftest import eventually


def asking(bus: Bus, url: str = "") -> Durability:
    async def get() -> Bus:
        return bus

    return Durability(get, SystemClock(), url)


@asynccontextmanager
async def connected(server: Server | EmbeddedServer) -> AsyncIterator[Bus]:
    async with await Bus.connect(server.url) as bus:
        yield bus


async def told(bus: Bus) -> list[tuple[Presence, str]]:
    events = [AlarmEvent.decode(entry.value) async for entry in bus.kept(ALARMS)]
    assert all((e.rule, e.kind, e.bed) == (ALARMS_AT_RISK, AlarmKind.TECHNICAL, "*") for e in events)
    return [(event.presence, event.message) for event in events]


def calls(server: Server | EmbeddedServer, command: str) -> int:
    import redis

    with redis.Redis.from_url(server.url) as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


async def timed(work: Coroutine[Any, Any, None]) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


def test_a_server_that_promises_nothing_is_not_waited_for(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(redis_server) as bus:
            await asking(bus).confirm(published=True)
            assert await told(bus) == []

    asyncio.run(main())
    assert calls(redis_server, "wait") == calls(redis_server, "waitaof") == 0


def test_nobody_is_asked_where_no_alarm_was_published(short_tmp: Path) -> None:
    async def main(primary: Server) -> None:
        async with connected(primary) as bus:
            before = calls(primary, "info")
            await asking(bus).confirm(published=False)
            assert calls(primary, "info") == before + 1  # our own look

    with running_pair(short_tmp) as (primary, _):
        asyncio.run(main(primary))


def test_alarms_are_on_the_replica_and_in_the_file_when_it_says_so(short_tmp: Path) -> None:
    async def main(primary: Server, replica: Server) -> None:
        async with connected(primary) as bus, connected(replica) as other:
            safe = asking(bus)
            for number in range(3):
                # On another connection than the one that asks.
                await bus.publish("findings", b"", b"%d" % number)
                await safe.confirm(published=True)
                assert [int(e.value) async for e in other.kept("findings")] == [*range(number + 1)]
            assert await told(bus) == []

    with running_pair(short_tmp, "--appendonly", "yes", "--appendfsync", "everysec") as (primary, replica):
        asyncio.run(main(primary, replica))
        assert calls(primary, "waitaof") == 3


def test_a_replica_that_stands_still_is_told_once_and_holds_nobody_up(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "WAIT_MS", 200)

    async def main(primary: Server, replica: Server) -> None:
        async with connected(primary) as bus:
            safe, of_another = asking(bus), asking(bus)
            await bus.publish("findings", b"", b"")
            os.kill(replica.process.pid, signal.SIGSTOP)
            for one in (safe, of_another, safe):
                assert 0.2 <= await timed(one.confirm(published=True)) < 5
            assert await told(bus) == [(Presence.ON, "alarms are at risk: no replica has them within 0.2 s")]
            os.kill(replica.process.pid, signal.SIGCONT)
            # Also without an alarm: that one is over.
            for _ in range(50):
                await safe.confirm(published=False)
                if len(await told(bus)) == 2:
                    break
            assert (await told(bus))[1:] == [(Presence.OFF, "alarms are safe again")]
            # Whoever did not end it knows it, too.
            await of_another.confirm(published=True)
            assert len(await told(bus)) == 2

    with running_pair(short_tmp) as (primary, replica):
        asyncio.run(main(primary, replica))


def test_an_alarm_that_only_the_dead_server_had_ends_on_the_one_that_took_over(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "WAIT_MS", 200)

    async def main(primary: Server, replica: Server) -> None:
        async with connected(primary) as before, connected(replica) as after:
            buses = [before]

            async def get() -> Bus:
                return buses[-1]

            safe = Durability(get, SystemClock(), "")
            os.kill(replica.process.pid, signal.SIGSTOP)
            await safe.confirm(published=True)
            ((raised, _),) = [(entry.value, entry.key) async for entry in before.kept(ALARMS)]
            primary.process.kill()
            os.kill(replica.process.pid, signal.SIGCONT)
            with replica.client() as client:
                client.replicaof("NO", "ONE")
            buses.append(after)
            for _ in range(2):
                await safe.confirm(published=True)
                assert [entry.value async for entry in after.kept(ALARMS)] == [raised]
            (port,) = free_ports(1)
            follows = ("--save", "", "--replicaof", f"127.0.0.1 {replica.port}")
            with running(short_tmp / "3", port, *follows) as another, another.client() as client:
                eventually(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
                await safe.confirm(published=False)
            begun, ended = [AlarmEvent.decode(entry.value) async for entry in after.kept(ALARMS)]
            assert (ended.alarm, ended.presence) == (begun.alarm, Presence.OFF)

    with running_pair(short_tmp) as (primary, replica):
        asyncio.run(main(primary, replica))


def test_a_replica_that_is_gone_is_missed(short_tmp: Path) -> None:
    async def main(primary: Server, replica: Server) -> None:
        async with connected(primary) as bus:
            safe = asking(bus)
            await safe.confirm(published=True)
            assert await told(bus) == []
            replica.process.kill()
            with primary.client() as client:
                eventually(lambda: not client.info("replication")["connected_slaves"], "no replica")
            await safe.confirm(published=True)
            assert await told(bus) == [(Presence.ON, "alarms are at risk: no replica is connected")]

    with running_pair(short_tmp) as (primary, replica):
        asyncio.run(main(primary, replica))


def test_whoever_has_sentinels_is_meant_to_have_a_replica(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(redis_server) as bus:
            await asking(bus, "redis://sentinel:26379/0?sentinel=ward").confirm(published=True)
            assert [message for _, message in await told(bus)] == [
                "alarms are at risk: no replica is connected"
            ]

    asyncio.run(main())


def test_a_file_that_is_not_synced_is_told(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "WAIT_MS", 200)

    async def main(server: Server) -> None:
        async with connected(server) as bus:
            await asking(bus).confirm(published=True)
            assert [message for _, message in await told(bus)] == [
                "alarms are at risk: the append-only file does not have them within 0.2 s"
            ]

    # The operating system may write whenever it likes.
    (port,) = free_ports(1)
    options = ("--save", "", "--appendonly", "yes", "--appendfsync", "no")
    with running(short_tmp / "1", port, *options) as server:
        asyncio.run(main(server))


def test_a_server_without_waitaof_is_asked_about_its_replica_only(short_tmp: Path) -> None:
    async def main(primary: Server) -> None:
        async with connected(primary) as bus:
            safe = asking(bus)
            for _ in range(2):
                await safe.confirm(published=True)
            assert await told(bus) == []

    with running_pair(short_tmp, "--appendonly", "yes", "--rename-command", "WAITAOF", "") as (primary, _):
        asyncio.run(main(primary))
        assert calls(primary, "wait") == 2


def test_the_rules_of_compose_let_a_worker_ask(redis_server: EmbeddedServer) -> None:
    import redis

    rules = (Path(__file__).parents[2] / "compose" / "users.acl.in").read_text()
    (rule,) = [line for line in rules.splitlines() if line.startswith("user worker ")]
    with redis.Redis.from_url(redis_server.url) as client:
        connect = "+auth +hello +ping +select +client|setinfo +time"
        words = rule.replace("@connect@", connect).replace("#@worker@", "nopass").split()
        client.execute_command("ACL", "SETUSER", *words[1:])
        for command in ("WAIT 1 10", "WAITAOF 1 0 10", "INFO", "SET bedside:durability:asked 1"):
            assert client.execute_command("ACL", "DRYRUN", "worker", *command.split()) == b"OK", command
