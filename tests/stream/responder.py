"""A stand-in for the worker: answers commands in the audit log, and does nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from stream.audit.log import AuditLog
from stream.bus import Bus
from stream.contract import Command
from stream.topics import COMMANDS

REFUSES = "refuses"
"""A bed whose commands are refused."""


@asynccontextmanager
async def responding(url: str, prefix: str = "bedside:") -> AsyncIterator[list[Command]]:
    """Answer while the block runs; gives the list that the commands are put into."""
    async with await Bus.connect(url, prefix=prefix) as bus:
        await bus.declare_all()
        taken: list[Command] = []
        ready = asyncio.Event()

        async def respond() -> None:
            log = AuditLog(bus)
            ready.set()
            async for entry in bus.tail(COMMANDS, after="0"):
                command = Command.decode(entry.value)
                taken.append(command)
                await log.append(
                    entry=command.id,
                    bed=command.bed,
                    kind=command.kind,
                    who=command.who,
                    at=command.at,
                    done=command.bed != REFUSES,
                    value=command.value,
                    message="as you say" if command.bed != REFUSES else "there is no such bed here",
                )

        answering = asyncio.create_task(respond())
        try:
            await ready.wait()
            yield taken
        finally:
            answering.cancel()
            with suppress(asyncio.CancelledError):
                await answering
