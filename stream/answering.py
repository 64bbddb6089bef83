"""Answering what is asked of a worker's beds; `stream.asking` is the other side.

Every command is answered in the audit log. Those of a bed are obeyed in their order; one that chooses a model
waits for it to be loaded, and with it only those of its bed that come behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import faust
from faust.types import EventT, Message, StreamT

from stream.alarms.operator import RefusedError, another_patient
from stream.audit.recorder import Recorder
from stream.bus import Bus, until_answered
from stream.clock import Clock
from stream.contract import Command, CommandKind, MalformedMessageError
from stream.model_pool import ModelUnavailableError
from stream.outgoing import Outgoing
from stream.scorer import OvertakenError, Scorer
from stream.snapshots.store import SnapshotStore

log = logging.getLogger(__name__)

# A request to watch a bed for longer than this is a display that forgot.
_WATCH_LIMIT_S = 60.0


class Answering:
    """Obeys commands, and says what came of them.

    Parameters
    ----------
    scorer : Scorer
    recorder : Recorder
    outgoing : Outgoing
    bus : callable
        Returns the worker's own connection.
    asked_ms : callable
        Returns when the server took a command; see `stream.broker.Broker.asked_ms`.
    clock : Clock
    """

    def __init__(
        self,
        scorer: Scorer,
        recorder: Recorder,
        outgoing: Outgoing,
        bus: Callable[[], Awaitable[Bus]],
        asked_ms: Callable[[Message], float],
        clock: Clock,
    ) -> None:
        self._scorer = scorer
        self._recorder = recorder
        self._outgoing = outgoing
        self._bus = bus
        self._asked_ms = asked_ms
        self._clock = clock
        # The last command of a bed for which one waits for a model.
        self._waiting: dict[str, asyncio.Task[None]] = {}

    async def take(self, stream: StreamT[Any]) -> None:
        """Take commands as they come: the worker's Faust agent."""
        # StreamT does not name noack; every stream of a topic has it.
        deferred = cast(faust.Stream[bytes], stream).noack()
        async for event in deferred.events():
            try:
                command = Command.decode(event.value or b"")
            except MalformedMessageError as error:
                await (await self._outgoing.dead_letter(event, str(error)))
                event.ack()
                continue
            if command.kind is CommandKind.WATCH:
                await self._watch(command, event)
                event.ack()
            elif command.kind is CommandKind.SET_MODEL or command.bed in self._waiting:
                self._obey_later(command, event)
            else:
                await self._obey(command, event)

    async def _watch(self, command: Command, event: EventT[bytes]) -> None:
        if await self._in_time(command, event):
            with suppress(TypeError, ValueError):
                seconds = min(float(command.value), _WATCH_LIMIT_S)
                self._scorer.watch(command.bed, self._clock.now_ns() + round(seconds * 1e9))

    async def _in_time(self, command: Command, event: EventT[bytes]) -> bool:
        # By the server's clock alone: that of whoever asks may be an hour off, and ours may have been set.
        async def read() -> float:
            seconds, microseconds = await (await self._bus()).client.time()
            return seconds * 1e3 + microseconds / 1e3 - self._asked_ms(event.message)

        age_ms = await until_answered("cannot read the server's clock", read)
        return age_ms <= (command.expires - command.at) / 1e6

    def _obey_later(self, command: Command, event: EventT[bytes]) -> None:
        before = self._waiting.get(command.bed)

        async def obey() -> None:
            if before is not None:
                await asyncio.wait([before])
            await self._obey(command, event)

        def over(task: asyncio.Task[None]) -> None:
            if self._waiting.get(command.bed) is task:
                del self._waiting[command.bed]
            if not task.cancelled() and (error := task.exception()) is not None:
                about = {"bed": command.bed, "command": command.id}
                log.error("command %s of bed %s failed", *about.values(), exc_info=error, extra=about)

        self._waiting[command.bed] = asyncio.create_task(obey())
        self._waiting[command.bed].add_done_callback(over)

    async def _obey(self, command: Command, event: EventT[bytes]) -> None:
        try:
            await self._answer(command, event)
        finally:
            event.ack()

    async def _answer(self, command: Command, event: EventT[bytes]) -> None:
        now_ns = self._clock.now_ns()
        answer, refusal = None, "expired"
        if await self._in_time(command, event):
            try:
                async with self._with_model(command, event):
                    answer = await self._scorer.obey(command)
                if another_patient(command):
                    await self._close_history(command.bed)
            except (RefusedError, ModelUnavailableError) as error:
                refusal = str(error)
            except OvertakenError:
                return
        # Whoever reads the answer may rely on it, also if this worker dies now.
        await self._scorer.flush()
        await self._recorder.answer(command, now_ns, answer, refusal)

    @asynccontextmanager
    async def _with_model(self, command: Command, event: EventT[bytes]) -> AsyncIterator[None]:
        # Has the model that a command chooses loaded. What would be refused anyway loads nothing.
        model, engine = command.value, self._scorer.engine
        if command.kind is not CommandKind.SET_MODEL or model is None or not engine.knows(command.bed):
            yield
            return
        if not isinstance(model, str):
            raise RefusedError("model: needs the name of one, or nothing for the worker's own")
        async with self._scorer.pool.holding(model):
            if not await self._in_time(command, event):
                raise RefusedError(f"expired while {model} was being loaded")
            yield

    async def _close_history(self, bed: str) -> None:
        # The snapshots so far are those of a patient who has left.
        async def mark() -> None:
            store = SnapshotStore(await self._bus())
            await store.patient_left(bed, self._scorer.engine.moment(bed).t)

        await until_answered(f"cannot mark the snapshots of bed {bed}", mark)
