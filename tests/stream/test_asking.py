"""Acknowledging and pausing: what is asked, what is answered, and what is refused."""

from __future__ import annotations

import asyncio
import getpass
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import bedside
from stream import asking
from stream.audit.log import AuditLog, verify
from stream.bus import Bus
from stream.contract import EVERY_BED, Audit, Command, Presence
from stream.embedded import EmbeddedServer
from stream.topics import COMMANDS
from tests import command_line
from tests.stream.responder import REFUSES, responding
from tests.stream.turmoil import event, publish

Server = EmbeddedServer
Program = Callable[..., subprocess.CompletedProcess[str]]


def with_responder(
    server: Server, prefix: str, body: Callable[[Bus, list[Command]], Awaitable[None]]
) -> None:
    async def go() -> None:
        async with (
            await Bus.connect(server.url, prefix=prefix) as bus,
            responding(server.url, prefix) as taken,
        ):
            await asyncio.wait_for(body(bus, taken), 60)

    asyncio.run(go())


def test_requests_are_answered_and_on_the_record(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus, taken: list[Command]) -> None:
        await publish(bus, event(1, "bed-1"), event(2, "bed-2"))
        answers = [
            await asking.acknowledge(bus, "alarm-2", who="nurse 7"),
            await asking.acknowledge(bus, bed="bed-1", who="nurse 7"),
            await asking.pause(bus, "bed-1", 120.0, who="nurse 7"),
            await asking.resume(bus, "bed-1", who="nurse 7"),
        ]
        assert [(c.bed, c.kind.value, c.value, c.who) for c in taken] == [
            ("bed-2", "acknowledge", "alarm-2", "nurse 7"),
            ("bed-1", "acknowledge", None, "nurse 7"),
            ("bed-1", "pause", 120.0, "nurse 7"),
            ("bed-1", "resume", None, "nurse 7"),
        ]
        assert [answer.entry for answer in answers] == [command.id for command in taken]
        assert all(answer.done for answer in answers)
        entries = [entry async for _, entry in AuditLog(bus).entries() if isinstance(entry, Audit)]
        assert entries == answers
        assert verify(entries, await AuditLog(bus).head()) == []

    with_responder(redis_server_module, prefix, body)


def test_a_refusal_is_an_answer(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus, taken: list[Command]) -> None:
        answer = await asking.pause(bus, REFUSES, 60, who="n")
        assert (answer.done, answer.message) == (False, "there is no such bed here")

    with_responder(redis_server_module, prefix, body)


def test_alarms_that_cannot_be_acknowledged_are_not_asked_for(
    redis_server_module: Server, prefix: str
) -> None:
    async def body(bus: Bus, taken: list[Command]) -> None:
        await publish(bus, event(1), event(2), event(3, EVERY_BED), *[event(n) for n in range(10, 1_300)])
        await publish(bus, event(1, event="alarm-1-1", presence=Presence.OFF))
        await publish(bus, event(2, event="alarm-2-1", presence=Presence.LATCHED))
        with pytest.raises(asking.UnknownAlarmError, match="there is no alarm alarm-9999"):
            await asking.acknowledge(bus, "alarm-9999", who="n")
        # Part of an id is no id.
        with pytest.raises(asking.UnknownAlarmError):
            await asking.acknowledge(bus, "alarm-", who="n")
        with pytest.raises(asking.EndedAlarmError, match="alarm-1 of bed-1 is over"):
            await asking.acknowledge(bus, "alarm-1", who="n")
        with pytest.raises(asking.AskError, match="not of one bed"):
            await asking.acknowledge(bus, "alarm-3", who="n")
        assert taken == []
        assert (await asking.acknowledge(bus, "alarm-2", who="n")).done

    with_responder(redis_server_module, prefix, body)


@pytest.mark.parametrize("who", ["", "x" * 65, "a\nb"])
def test_who_asks_must_be_said(redis_server_module: Server, prefix: str, who: str) -> None:
    async def body(bus: Bus, taken: list[Command]) -> None:
        requests: list[Any] = [
            asking.acknowledge(bus, bed="b", who=who),
            asking.acknowledge(bus, "alarm-1", who=who),
            asking.pause(bus, "b", 60, who=who),
            asking.resume(bus, "b", who=who),
        ]
        for request in requests:
            with pytest.raises(asking.BadRequestError, match="who"):
                await request
        assert taken == []

    with_responder(redis_server_module, prefix, body)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pause_has_a_length(redis_server_module: Server, prefix: str, seconds: float) -> None:
    async def body(bus: Bus, taken: list[Command]) -> None:
        with pytest.raises(asking.BadRequestError):
            await asking.pause(bus, "b", seconds, who="n")

    with_responder(redis_server_module, prefix, body)


def test_without_a_worker_nothing_is_done_later(redis_server: Server) -> None:
    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            with pytest.raises(asking.NoAnswerError, match="no worker answered for bed-1"):
                await asking.resume(bus, "bed-1", who="n", timeout_s=0.2)
            (command,) = [Command.decode(entry.value) async for entry in bus.kept(COMMANDS)]
            # A worker that comes later refuses it.
            assert command.expires - command.at == 200_000_000

    asyncio.run(main())


def test_from_a_program(redis_server: Server) -> None:
    async def main() -> None:
        async with responding(redis_server.url) as taken:
            async with await Bus.connect(redis_server.url) as bus:
                await publish(bus, event(1))
            answers = [
                await bedside.acknowledge(redis_server.url, "alarm-1", who="n"),
                await bedside.pause(redis_server.url, "bed-1", 60, who="n"),
                await bedside.resume(redis_server.url, "bed-1", who="n"),
            ]
            assert [answer.done for answer in answers] == [True] * 3
            assert [command.kind.value for command in taken] == ["acknowledge", "pause", "resume"]

    asyncio.run(main())


async def run(server: Server, *arguments: str, how: Program = command_line.run) -> tuple[int, str, str]:
    # In a thread, while the event loop answers.
    done = await asyncio.to_thread(how, "alerts", *arguments, "--redis", server.url)
    return done.returncode, done.stdout, done.stderr


def test_from_the_command_line(redis_server: Server) -> None:
    async def main() -> None:
        async with responding(redis_server.url) as taken, await Bus.connect(redis_server.url) as bus:
            await publish(bus, event(1), event(2), event(2, event="alarm-2-1", presence=Presence.OFF))
            # The first of each outcome as a process of its own.
            acknowledged = await run(redis_server, "ack", "alarm-1", how=command_line.started)
            assert acknowledged == (0, "bed-1: as you say\n", "")
            assert taken[-1].who == getpass.getuser()
            assert (await run(redis_server, "ack", "--bed", "bed-1", "--who", "nurse 7"))[0] == 0
            assert (await run(redis_server, "pause", "bed-1", "--minutes", "2"))[0] == 0
            assert (await run(redis_server, "resume", "bed-1"))[0] == 0
            assert [(c.kind.value, c.value) for c in taken] == [
                ("acknowledge", "alarm-1"),
                ("acknowledge", None),
                ("pause", 120.0),
                ("resume", None),
            ]
            unknown = await run(redis_server, "ack", "alarm-8", how=command_line.started)
            assert unknown == (1, "", "bedside: there is no alarm alarm-8\n")
            refused = {
                ("ack", "alarm-9"): "bedside: there is no alarm alarm-9\n",
                ("ack", "alarm-2"): "bedside: alarm alarm-2 of bed-1 is over\n",
                ("resume", REFUSES): "bedside: resume refused: there is no such bed here\n",
            }
            for arguments, line in refused.items():
                assert await run(redis_server, *arguments) == (1, "", line)
            for arguments in [("ack",), ("ack", "a", "--bed", "b"), ("resume", "b", "--who", "")]:
                assert (await run(redis_server, *arguments))[0] == 2
            for arguments in [("pause", "b"), ("pause", "b", "--minutes", "0"), ("--follow", "resume", "b")]:
                assert (await run(redis_server, *arguments))[0] == 2

    asyncio.run(main())
