"""Numbered alarm events, and a server that does not stay: what every way of subscribing must survive."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from stream.bus import Bus
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority
from stream.embedded import EmbeddedServer
from stream.topics import ALARMS


def event(number: int, bed: str = "bed-1", **changes: Any) -> AlarmEvent:
    """Return an alarm event that carries a number."""
    fields: dict[str, Any] = {
        "alarm": f"alarm-{number}",
        "event": f"alarm-{number}-0",
        "bed": bed,
        "session": "s",
        "rule": "anomaly",
        "kind": AlarmKind.PHYSIOLOGICAL,
        "code": "ECG_ANOMALY",
        "priority": Priority.MEDIUM,
        "presence": Presence.ON,
        "onset": 0,
        "onset_t": 0,
        "since": 0,
        "message": "",
        "ingest_ns": 0,
    }
    return AlarmEvent(**fields | changes)


def number_of(seen: AlarmEvent | dict[str, Any]) -> int:
    """Return the number that an event carries."""
    alarm = seen.alarm if isinstance(seen, AlarmEvent) else seen["alarm"]
    return int(alarm.removeprefix("alarm-"))


async def publish(bus: Bus, *events: AlarmEvent) -> list[str]:
    return await bus.publish_many(ALARMS, [(e.bed.encode(), e.encode()) for e in events])


@asynccontextmanager
async def lasting_server(folder: Path) -> AsyncIterator[EmbeddedServer]:
    """Run a server whose streams survive a restart."""
    server = EmbeddedServer(folder / "server", appendonly=True).start()
    try:
        yield server
    finally:
        server.stop()


async def cut(server: EmbeddedServer) -> None:
    """Close every connection to the server."""
    async with redis.asyncio.Redis.from_url(server.url, protocol=2) as client:
        await client.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")


def restart(server: EmbeddedServer, *, kill: bool = False) -> None:
    """Stop the server, or kill it, and start it again. Blocks, so that nobody sees it away for long.

    One that is killed has what it answered for in its file before: while its disk is busy it writes up to two
    seconds late, and would forget what no subscriber could then see.
    """
    if kill:
        assert server.pid is not None
        with redis.Redis.from_url(server.url, protocol=2) as client:
            # A connection waits for what it has written itself, and so for everything before.
            client.set("turmoil:killed", 1)
            assert client.execute_command("WAITAOF", 1, 0, 0)[0] == 1
        os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()


async def publish_in_turmoil(server: EmbeddedServer, count: int, *, first: int = 0) -> None:
    """Publish events `first` to ``first + count - 1`` while connections are cut and the server is restarted.

    What is published while a connection breaks may lie there twice.
    """
    async with await Bus.connect(server.url) as bus:
        for number in range(count):
            match number % 50:
                case 10 | 35:
                    await cut(server)
                case 20:
                    restart(server)
                case 45:
                    restart(server, kill=True)
            await publish(bus, event(first + number))
            if number % 5 == 0:
                await asyncio.sleep(0.01)
