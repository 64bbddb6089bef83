"""The worker: a Faust app around the engine.

Chunks come from the ``samples`` topic, findings and alarm events go to theirs. A chunk is acknowledged only
when everything that it brought about has been published and the bed's state has been written: a worker that
dies leaves nothing behind but work that another does again, and alarm events that are published again are
dropped by their key. Findings may come twice then; bed, session and window number name them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import faust
from faust.types import TP, EventT, StreamT
from redis.exceptions import RedisError

from models.session import Session
from stream import metrics
from stream.alarms import BedState
from stream.batching import MicroBatch
from stream.bus import Bus, BusUnavailableError
from stream.clock import Clock, SystemClock
from stream.contract import AlarmEvent, Audit, Command, CommandKind, MalformedMessageError, SampleChunk
from stream.engine import Accepted, Engine, Pending
from stream.explain import explain
from stream.outgoing import Outgoing
from stream.refill import history
from stream.topics import COMMANDS, SAMPLES, TOPICS
from stream.transport.ids import id_of
from stream.verdict import Verdict, judge

log = logging.getLogger(__name__)

APP_ID = "bedside-worker"
HEARTBEAT = "worker:"
"""Key of a worker's heartbeat, behind the deployment's prefix and before the worker's name."""

# The longest that a window waits for others to share a run of the model. At two windows a second, 64 beds
# bring about three in this time: a longer wait would delay every alarm and save little.
_BATCH_WAIT_NS = 20_000_000
# So many batches may wait before the worker stops taking chunks and lets the stream hold them.
_BATCHES_WAITING = 4
_TICK_S = 1.0
_RETRY_S = 1.0
# Five missed heartbeats and a worker counts as gone.
_HEARTBEAT_TTL_S = 5
# A request to watch a bed for longer than this is a display that forgot.
_WATCH_LIMIT_S = 60.0


@dataclass(slots=True)
class _Delivery:
    # A chunk as Faust delivered it, and how many of its windows are still under way.
    event: EventT[bytes]
    windows: int


@dataclass(slots=True)
class _Item:
    # What waits for the model: a window, or (without one) a delivery to acknowledge after those before it.
    pending: Pending | None
    delivery: _Delivery | None


class Worker:
    """One Faust worker.

    Parameters
    ----------
    broker_url : str
        Where the Faust app runs: ``redis://``, ``rediss://`` or ``unix://``, prefix as a query.
    redis_url : str
        Server of the streams, for heartbeats and for reading back what rings need.
    session : Session
        The loaded model.
    prefix : str
        Start of every key of the deployment.
    on_ready : callable, optional
        Called once the worker has got its first partitions.
    clock : Clock, optional
    """

    def __init__(
        self,
        broker_url: str,
        redis_url: str,
        session: Session,
        *,
        prefix: str,
        on_ready: Callable[[], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._session = session
        self._clock = clock or SystemClock()
        self._redis_url = redis_url
        self._prefix = prefix
        self._on_ready = on_ready
        self._engine = Engine(session.manifest, session.precision)
        self._batch: MicroBatch[_Item] = MicroBatch(session.manifest.max_batch, _BATCH_WAIT_NS)
        self._arrived = asyncio.Event()
        self._judged = asyncio.Event()
        # Held from a change of a bed's state until that change is published and in the table, so that the
        # table never knows of an event that the world does not.
        self._writing = asyncio.Lock()
        # One thread: a session serves one caller at a time, and the order within a bed is kept.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._partition_of: dict[str, TP] = {}
        self._refilled: set[TP] = set()
        self._watched_until: dict[str, int] = {}
        self._bus: Bus | None = None
        # Faust wants a folder even for tables in memory, and would leave one where the user stands.
        self._datadir = tempfile.TemporaryDirectory(prefix="bedside-worker-")
        self.app = faust.App(
            APP_ID,
            broker=broker_url,
            datadir=self._datadir.name,
            store="memory://",
            web_enabled=False,
            topic_partitions=TOPICS[SAMPLES].partitions,
            topic_disable_leader=True,
            # A commit says how much is done again after a crash: half a second of chunks.
            broker_commit_interval=0.5,
            # A dead worker's beds are without a worker for this long, and a stalled one is fenced off.
            broker_session_timeout=6.0,
            broker_heartbeat_interval=1.0,
            # Events are acknowledged by ourselves, also long after the stream has moved on.
            stream_wait_empty=False,
        )
        metrics.MODEL.info(
            {
                "model": session.manifest.name,
                "backend": session.backend,
                "precision": session.precision,
            }
        )
        self._wire()

    def run(self) -> None:
        """Run until SIGINT or SIGTERM; raise what made the worker fail, if something did."""
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        worker = faust.Worker(
            self.app, quiet=True, loglevel="WARN", redirect_stdouts=False, override_logging=False, loop=loop
        )
        worker.spinner = None
        try:
            worker.execute_from_commandline()
        except SystemExit as stop:
            if stop.code:
                raise
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _wire(self) -> None:
        app = self.app

        def topic(name: str, partitions: int | None = None) -> Any:
            return app.topic(
                name, key_serializer="raw", value_serializer="raw", value_type=bytes, partitions=partitions
            )

        topics = {name: topic(name, config.partitions) for name, config in TOPICS.items()}
        self._outgoing = Outgoing(topics)
        # use_partitioner: rows lie by key, as samples do, and may be written from any task.
        self._table = app.Table(
            "beds",
            key_type=bytes,
            value_type=bytes,
            partitions=TOPICS[SAMPLES].partitions,
            use_partitioner=True,
        )
        app.agent(topics[SAMPLES], name="samples")(self._take_samples)
        app.agent(topics[COMMANDS], name="commands")(self._take_commands)
        app.task(self._judge_forever)
        app.timer(_TICK_S)(self._tick)
        app.timer(_TICK_S)(self._beat)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_partitions_assigned.connect(self._on_assigned, weak=False)

    async def _get_bus(self) -> Bus:
        if self._bus is None:
            self._bus = await Bus.connect(self._redis_url, prefix=self._prefix, clock=self._clock)
        return self._bus

    async def _on_assigned(self, app: Any, /, *_: Any, signal: Any, **__: Any) -> None:
        if self._on_ready is not None:
            self._on_ready()
            self._on_ready = None

    async def _on_revoked(self, app: Any, /, *args: Any, signal: Any, **_: Any) -> None:
        gone: set[TP] = set(args[0])
        # Not while a change of one of these beds is on its way out: that is still ours to finish.
        async with self._writing:
            self._refilled -= gone
            for bed in [bed for bed, tp in self._partition_of.items() if tp in gone]:
                self._engine.forget(bed)
                del self._partition_of[bed]
        metrics.BEDS.set(len(self._engine.beds))

    async def _take_samples(self, stream: StreamT[Any]) -> None:
        try:
            await self._take_chunks(stream)
        except Exception as error:
            # Faust would start the agent again and go on behind the chunk that it failed on. A worker that
            # ends is seen, and another one takes that chunk again.
            await self.app.crash(error)
            raise

    async def _take_chunks(self, stream: StreamT[Any]) -> None:
        # StreamT does not name noack; every stream of a topic has it.
        deferred = cast(faust.Stream[bytes], stream).noack()
        async for event in deferred.events():
            tp = event.message.tp
            if tp not in self._refilled:
                await self._refill(tp, event.message.offset)
            try:
                await self._take_chunk(event, tp)
            except MalformedMessageError as error:
                await (await self._outgoing.dead_letter(event, str(error)))
                event.ack()
            while len(self._batch) > _BATCHES_WAITING * self._session.manifest.max_batch:
                await self._next_judged()

    async def _refill(self, tp: TP, offset: int) -> None:
        # The rings of this partition's beds are empty: fill them from what came before this chunk.
        for chunk in await self._history(tp.partition, id_of(offset)):
            with suppress(MalformedMessageError):
                await self._accept(chunk, tp, None)
        self._refilled.add(tp)

    async def _history(self, partition: int, before: str) -> list[SampleChunk]:
        while True:
            try:
                bus = await self._get_bus()
                return await history(bus, partition, before, self._session.manifest.window.seconds)
            except (RedisError, BusUnavailableError) as error:
                # As the transport does: wait for a server that is away.
                log.warning("cannot read back the samples, trying again: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def _take_chunk(self, event: EventT[bytes], tp: TP) -> None:
        metrics.CHUNKS.inc()
        if event.value is None:
            raise MalformedMessageError("no value")
        chunk = SampleChunk.decode(event.value)
        await self._accept(chunk, tp, event)

    async def _accept(self, chunk: SampleChunk, tp: TP, event: EventT[bytes] | None) -> None:
        bed = chunk.header.bed
        now_ns = self._clock.now_ns()
        while self._engine.busy(bed) and self._engine.state(bed).session != chunk.header.session:
            # The old session's windows are judged before the new one ends it.
            await self._next_judged()
        async with self._writing:
            if not self._engine.knows(bed):
                self._restore(bed)
            accepted = self._engine.accept(chunk, now_ns)
            self._partition_of[bed] = tp
            if accepted.events:
                await self._publish_events(accepted.events)
                self._keep([bed])
        if event is not None:
            self._count(chunk, accepted, now_ns)
        delivery = _Delivery(event, len(accepted.windows)) if event is not None else None
        ready_ns = self._clock.now_ns()
        for pending in accepted.windows:
            pending.ready_ns = ready_ns
            self._batch.add(_Item(pending, delivery), ready_ns)
        if accepted.windows:
            self._arrived.set()
        elif delivery is not None and accepted.dropped and self._engine.busy(bed):
            # A repeat of a chunk whose windows may still be under way: not done before they are.
            delivery.windows = 1
            self._batch.add(_Item(None, delivery), ready_ns)
            self._arrived.set()
        elif event is not None:
            event.ack()

    async def _next_judged(self) -> None:
        self._judged.clear()
        await self._judged.wait()

    def _restore(self, bed: str) -> None:
        row = self._table.get(bed.encode())
        if row is not None:
            self._engine.restore(bed, BedState.model_validate_json(row))

    def _count(self, chunk: SampleChunk, accepted: Accepted, now_ns: int) -> None:
        metrics.LAG.set((now_ns - chunk.header.ingest_ns) / 1e9)
        metrics.BEDS.set(len(self._engine.beds))
        if accepted.dropped:
            metrics.LEFT_OUT.labels(accepted.dropped).inc()
        if accepted.missing:
            metrics.GAPS.inc()
            metrics.MISSING.inc(accepted.missing)

    async def _judge_forever(self) -> None:
        while not self.app.should_stop:
            due_ns = self._batch.due_ns()
            wait_ns = None if due_ns is None else due_ns - self._clock.now_ns()
            if wait_ns is not None and wait_ns <= 0:
                await self._judge_batch(self._batch.take())
                self._judged.set()
                continue
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wait_ns is None else wait_ns / 1e9):
                    await self._arrived.wait()

    async def _judge_batch(self, items: list[_Item]) -> None:
        begun_ns = self._clock.now_ns()
        windows = [item.pending for item in items if item.pending is not None]
        loop = asyncio.get_running_loop()
        verdicts = iter(
            await loop.run_in_executor(
                self._executor, judge, self._session, [pending.window for pending in windows]
            )
        )
        inferred_ns = self._clock.now_ns()
        async with self._writing:
            sends: list[Awaitable[Any]] = []
            beds: dict[str, None] = {}
            done: list[_Delivery] = []
            for item in items:
                if item.pending is not None:
                    kept = await self._conclude(item.pending, next(verdicts), inferred_ns, sends)
                    if not kept:
                        continue
                    beds[item.pending.moment.bed] = None
                if item.delivery is not None:
                    item.delivery.windows -= 1
                    if not item.delivery.windows:
                        done.append(item.delivery)
            await asyncio.gather(*sends)
            self._keep(beds)
        for delivery in done:
            delivery.event.ack()
        metrics.observe_batch(windows, begun_ns, inferred_ns, self._clock.now_ns())

    async def _conclude(
        self, pending: Pending, verdict: Verdict | None, inferred_ns: int, sends: list[Awaitable[Any]]
    ) -> bool:
        # False if the bed was given away meanwhile: its chunk comes again, to whoever has it now.
        bed = pending.moment.bed
        concluded = self._engine.conclude(pending, verdict)
        if concluded is None:
            return False
        finding, events = concluded
        stamps = finding.stamps.model_copy(
            update={"inferred_ns": inferred_ns, "published_ns": self._clock.now_ns()}
        )
        finding = finding.model_copy(update={"stamps": stamps})
        sends += [await self._outgoing.event(event) for event in events]
        sends.append(await self._outgoing.finding(finding))
        metrics.WINDOWS.labels("scored" if verdict else "unscored").inc()
        if verdict is not None and self._watched_until.get(bed, 0) > self._clock.now_ns():
            explanation = explain(self._session.manifest, pending, verdict)
            sends.append(await self._outgoing.explanation(explanation))
        return True

    async def _publish_events(self, events: Iterable[AlarmEvent]) -> None:
        await asyncio.gather(*[await self._outgoing.event(event) for event in events])

    def _keep(self, beds: Iterable[str]) -> None:
        for bed in beds:
            self._table[bed.encode()] = self._engine.state(bed).model_dump_json().encode()

    async def _take_commands(self, stream: StreamT[Any]) -> None:
        async for event in stream.events():
            try:
                command = Command.decode(event.value or b"")
            except MalformedMessageError as error:
                await (await self._outgoing.dead_letter(event, str(error)))
                continue
            await self._obey(command)

    async def _obey(self, command: Command) -> None:
        now_ns = self._clock.now_ns()
        if command.kind is CommandKind.WATCH and now_ns <= command.expires:
            with suppress(TypeError, ValueError):
                seconds = min(float(command.value), _WATCH_LIMIT_S)
                self._watched_until[command.bed] = now_ns + round(seconds * 1e9)
            return
        why = "expired" if now_ns > command.expires else "not supported by this worker"
        audit = Audit(
            command=command.id,
            bed=command.bed,
            kind=command.kind,
            who=command.who,
            at=now_ns,
            done=False,
            message=why,
        )
        await (await self._outgoing.audit(audit))

    async def _tick(self) -> None:
        async with self._writing:
            events = self._engine.tick(self._clock.now_ns())
            await self._publish_events(events)
            self._keep({event.bed for event in events})

    async def _beat(self) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}"
        body = {
            "model": self._session.manifest.name,
            "backend": self._session.backend,
            "precision": self._session.precision,
            "beds": len(self._engine.beds),
            "at": self._clock.now_ns(),
        }
        try:
            bus = await self._get_bus()
            await bus.client.set(f"{self._prefix}{HEARTBEAT}{name}", json.dumps(body), ex=_HEARTBEAT_TTL_S)
        except (RedisError, BusUnavailableError) as error:
            # No heartbeat is the message.
            log.warning("no heartbeat: %s", error)
