"""The worker: a Faust app around the engine.

Chunks come from the ``samples`` topic, findings and alarm events go to theirs. A chunk is acknowledged only
when everything that it brought about has been published and the bed's state has been written: a worker that
dies leaves nothing behind but work that another does again, and alarm events that are published again are
dropped by their key. Findings may come twice then; bed, session and window number name them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import faust
import uvloop
from faust.types import TP, EventT, Message, StreamT
from faust.types.tables import TableT
from redis.exceptions import RedisError

from models.backends.choice import SWITCH_S
from models.session import Session
from stream import heartbeat, metrics
from stream.answering import Answering
from stream.audit.recorder import Recorder
from stream.bed_settings import SettingsBook
from stream.broker import Broker
from stream.bus import Bus, until_answered
from stream.clock import Clock, SystemClock
from stream.contract import AlarmEvent, MalformedMessageError, SampleChunk
from stream.judging import Delivery
from stream.logs import is_json
from stream.outgoing import Outgoing
from stream.refill import NEWEST, history
from stream.scorer import Rows, Scorer
from stream.selfreport import SelfReport
from stream.snapshots.keeper import Beds, Keeper
from stream.snapshots.process import Order, SnapshotProcess
from stream.topics import ALARMS, BEDS_TABLE, COMMANDS, MEMORIES_TABLE, SAMPLES
from stream.transport.layout import partition_of

log = logging.getLogger(__name__)

# Chunks taken at once, before others get a turn.
_TOGETHER = 64
# Turns of the event loop without a new chunk, after which no more is under way of what was read together:
# between two there may be one in which Faust hands the next one on.
_STILL = 2
# Chunks that wait to be taken before the stream has to hold them.
_WAITING = 512
# New objects between two looks for garbage, instead of 700: two hundred chunks' worth. Next to nothing here
# is garbage that refers to itself.
_GARBAGE = 50_000
_TICK_S = 1.0
# What came since the last one is done again after a crash: two seconds of chunks.
_CHECKPOINT_S = 2.0
_LOOK_S = 0.5
# Alarm events that are read back: more than come in the seconds between the death of a worker and the next
# one's first look, also where every bed of a ward has an alarm then.
_EVENTS = 1_000
# A worker has started, and read back what it has to, by then.
_SETTLED_S = 5.0


class Worker:
    """One Faust worker.

    Parameters
    ----------
    broker : Broker
        Where the Faust app runs.
    bus : callable
        Returns the worker's own connection to the deployment's Redis server.
    redis_url : str
        That server, for the process that makes snapshots.
    session : Session
        The loaded model; beds may choose others.
    prefix : str
        Start of every key of the deployment.
    bundle : pathlib.Path
        Folder of the model's bundle, for the process that makes snapshots.
    hop_s : float, optional
        How often a bed is judged; see `stream.engine.Engine`.
    on_ready : callable, optional
        Called once the worker has got its first partitions.
    clock : Clock, optional
    """

    def __init__(
        self,
        broker: Broker,
        bus: Callable[[], Awaitable[Bus]],
        redis_url: str,
        session: Session,
        *,
        prefix: str,
        bundle: Path,
        hop_s: float | None = None,
        on_ready: Callable[[], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._session = session
        self._snapshots = SnapshotProcess(
            Order(url=redis_url, prefix=prefix, bundle=str(bundle), json_log=is_json())
        )
        self._clock = clock or SystemClock()
        self._broker = broker
        self._get_bus = bus
        self._samples = broker.topic(SAMPLES)
        self._on_ready = on_ready
        self._hop_s = hop_s
        self._waiting: deque[tuple[TP, Delivery]] = deque()
        self._came = asyncio.Event()
        self._went = asyncio.Event()
        self._partition_of: dict[str, TP] = {}
        self._refilled: set[TP] = set()
        # How often partitions were given away: what was read before one is not to be relied upon after it.
        self._given_away = 0
        # The last chunk that was taken, and whether its feed comes in real time.
        self._taken: dict[TP, tuple[Message, bool]] = {}
        self._partitions: set[int] = set()
        self._behind_s = 0.0
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._left = False
        # Faust wants a folder even for tables in memory, and would leave one where the user stands.
        self._datadir = tempfile.TemporaryDirectory(prefix="bedside-worker-")
        self.app = faust.App(
            broker.app_id,
            broker=broker.url,
            datadir=self._datadir.name,
            store="memory://",
            web_enabled=False,
            topic_partitions=broker.partitions,
            topic_disable_leader=True,
            # A commit says how much is done again after a crash: half a second of chunks.
            broker_commit_interval=0.5,
            # A dead worker's beds are without a worker for this long, and a stalled one is fenced off.
            broker_session_timeout=broker.session_timeout_s,
            # Whoever is left notices so much later.
            broker_heartbeat_interval=broker.session_timeout_s / 6,
            # Events are acknowledged by ourselves, also long after the stream has moved on.
            stream_wait_empty=False,
            **broker.app_options,
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
        # The thread of the model needs the interpreter now and then, for a moment. With the 5 ms of Python
        # itself, each of those moments waits as long behind a busy event loop.
        sys.setswitchinterval(SWITCH_S)
        # What is there now stays: looking through it again and again for garbage makes the longest waits.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        loop = uvloop.new_event_loop()
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
            self._scorer.close()
            self._report.close()

    def _wire(self) -> None:
        app = self.app

        def topic(name: str) -> Any:
            return app.topic(
                self._broker.topic(name),
                key_serializer="raw",
                value_serializer="raw",
                value_type=bytes,
                partitions=self._broker.partitions,
            )

        self._outgoing = Outgoing(app.maybe_start_producer, self._broker.topic)
        self._recorder = Recorder(self._get_bus)
        self._table, rows = self._make_table(BEDS_TABLE)
        _, memories = self._make_table(MEMORIES_TABLE)
        fallback = self._fallback()
        self._report = SelfReport(self._session, fallback, self._clock.now_ns())
        self._scorer = Scorer(
            self._session,
            self._outgoing,
            self._recorder,
            SettingsBook(self._get_bus),
            rows,
            memories,
            self._broker.confirm,
            self._clock,
            fallback=fallback,
            hop_s=self._hop_s,
        )
        answering = Answering(
            self._scorer, self._recorder, self._outgoing, self._get_bus, self._broker.asked_ms, self._clock
        )
        self._keeper = Keeper(self._snapshots.make, Beds(self._scorer, rows, self._held), self._clock)
        app.agent(topic(SAMPLES), name="samples")(self._take_samples)
        app.agent(topic(COMMANDS), name="commands")(answering.take)
        app.task(self._take_forever)
        app.task(self._scorer.judging.run_forever)
        app.task(self._scorer.publish_forever)
        app.task(self._keep_snapshots)
        app.timer(_TICK_S)(self._scorer.tick)
        # The first one at once: a timer begins with a wait.
        app.task(self._beat)
        app.timer(heartbeat.BEAT_S)(self._beat)
        app.timer(_CHECKPOINT_S)(self._scorer.checkpoint)
        app.timer(_LOOK_S)(self._look)
        self._broker.attach(app)
        app.on_before_shutdown.connect(self._on_shutdown, weak=False)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_partitions_assigned.connect(self._on_assigned, weak=False)

    def _fallback(self) -> str | None:
        fallbacks = self._session.fallbacks
        for fallback in fallbacks:
            metrics.FALLBACKS.labels(fallback.backend).inc()
        passed_over = "; ".join(f"{fallback.backend}: {fallback.reason}" for fallback in fallbacks)
        return f"model runs on {self._session.backend}, not on {passed_over}" if passed_over else None

    async def _on_assigned(self, app: Any, /, *args: Any, signal: Any, **__: Any) -> None:
        self._partitions = {tp.partition for tp in args[0] if tp.topic == self._samples}
        if self._on_ready is not None:
            if not self._broker.keeps_monitor:
                # Faust's own records of every message, which nobody looks at: we have metrics.
                self.app.sensors.remove(self.app.monitor)
            self._on_ready()
            self._on_ready = None

    async def _on_revoked(self, app: Any, /, *args: Any, signal: Any, **_: Any) -> None:
        gone: set[TP] = set(args[0])
        self._given_away += 1
        self._partitions -= {tp.partition for tp in gone if tp.topic == self._samples}
        self._refilled -= gone
        self._waiting = deque((tp, delivery) for tp, delivery in self._waiting if tp not in gone)
        for tp in gone:
            self._taken.pop(tp, None)
        beds = [bed for bed, tp in self._partition_of.items() if tp in gone]
        for bed in beds:
            del self._partition_of[bed]
        await self._scorer.forget(beds)

    async def _on_shutdown(self, app: Any, /, *_: Any, signal: Any, **__: Any) -> None:
        # What has been published need not be done again by the next worker.
        await self._scorer.finish()
        await self._snapshots.end()
        await self._leave()
        await self._broker.close()

    async def _keep_snapshots(self) -> None:
        # Nobody has an alarm worth a snapshot so early, and the worker has its own start to see to.
        await asyncio.sleep(_SETTLED_S)
        await self._snapshots.start()
        await self._keeper.keep_forever()

    def _held(self) -> list[str]:
        # The table may hold rows of other workers' beds, too, in case that they fail.
        ours = self.app.consumer.assignment()
        partitions = self._broker.partitions
        return [
            bed.decode() for bed in self._table if TP(self._samples, partition_of(bed, partitions)) in ours
        ]

    def _make_table(self, name: str) -> tuple[TableT[bytes, bytes], Rows]:
        # use_partitioner: rows lie by key, as samples do, and may be written from any task.
        table = self.app.Table(
            name,
            key_type=bytes,
            value_type=bytes,
            partitions=self._broker.partitions,
            use_partitioner=True,
        )

        def put(bed: str, row: bytes) -> None:
            table[bed.encode()] = row

        return table, Rows(lambda bed: table.get(bed.encode()), put, lambda: self._broker.written(table))

    async def _take_samples(self, stream: StreamT[Any]) -> None:
        # StreamT does not name noack; every stream of a topic has it.
        deferred = cast(faust.Stream[bytes], stream).noack()
        try:
            async for event in deferred.events():
                await self._receive(event)
        except Exception as error:
            # Faust would start the agent again and go on behind the chunk that it failed on. A worker that
            # ends is seen, and another one takes that chunk again.
            await self.app.crash(error)
            raise

    async def _receive(self, event: EventT[bytes]) -> None:
        metrics.CHUNKS.inc()
        try:
            if event.value is None:
                raise MalformedMessageError("no value")
            chunk = SampleChunk.decode(event.value)
        except MalformedMessageError as error:
            await (await self._outgoing.dead_letter(event, str(error)))
            event.ack()
            return
        self._waiting.append((event.message.tp, self._scorer.delivery(chunk, event)))
        self._came.set()
        while len(self._waiting) >= _WAITING:
            self._went.clear()
            await self._went.wait()

    async def _take_forever(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            # What a worker that leaves has not taken comes to the next one.
            while self._waiting and not self._left:
                await self._scorer.room()
                await self._gathered()
                await self._take_waiting()
            self._went.set()

    async def _gathered(self) -> None:
        # What was read together is delivered one by one: wait until no more comes. The chunks of many beds
        # cost less in one call than in several.
        waiting, still = 0, 0
        while still < _STILL and waiting < _TOGETHER:
            still = 0 if len(self._waiting) > waiting else still + 1
            waiting = len(self._waiting)
            await asyncio.sleep(0)

    async def _take_waiting(self) -> None:
        # What waits, of partitions whose rings are filled, up to the first one of another.
        if not self._waiting:
            return
        tp, first = self._waiting[0]
        if tp not in self._refilled:
            assert first.event is not None
            await self._refill(tp, first.event.message.offset)
            return
        some: list[tuple[TP, Delivery]] = []
        while self._waiting and self._waiting[0][0] in self._refilled and len(some) < _TOGETHER:
            tp, delivery = self._waiting.popleft()
            assert delivery.event is not None
            self._taken[tp] = (delivery.event.message, delivery.chunk.header.pace > 0)
            some.append((tp, delivery))
        await self._take_all(some)

    async def _take_all(self, deliveries: list[tuple[TP, Delivery]]) -> None:
        self._partition_of |= {delivery.chunk.header.bed: tp for tp, delivery in deliveries}
        rest = [delivery for _, delivery in deliveries]
        while rest:
            await self._scorer.ready_for(rest[0])
            rest = await self._scorer.take(rest)

    async def _refill(self, tp: TP, offset: int) -> None:
        # The rings of this partition's beds are empty: fill them from what came before this chunk.
        before = self._given_away
        chunks = await self._history(tp.partition, offset)
        events = await self._newest_events()
        if self._given_away != before:
            # Perhaps to ourselves: others may have told more meanwhile.
            return
        self._scorer.note_told(events)
        self._refilled.add(tp)
        for at in range(0, len(chunks), _TOGETHER):
            await self._scorer.room()
            if tp not in self._refilled:
                # Given away meanwhile, perhaps to ourselves: then the rings are filled anew.
                return
            await self._take_all(
                [(tp, self._scorer.delivery(chunk)) for chunk in chunks[at : at + _TOGETHER]]
            )

    async def _history(self, partition: int, before: int) -> list[SampleChunk]:
        async def read() -> list[SampleChunk]:
            return await history(
                partial(self._broker.recent, partition),
                before,
                self._session.manifest.window.seconds,
                self._scorer.needed_since_s,
            )

        # As the transport does: wait for a server that is away.
        return await until_answered("cannot read back the samples", read)

    async def _newest_events(self) -> list[AlarmEvent]:
        async def read() -> list[AlarmEvent]:
            bus = await self._get_bus()
            entries = await bus.recent(ALARMS, 0, NEWEST, _EVENTS)
            return [AlarmEvent.decode(entry.value) for entry in reversed(entries)]

        return await until_answered("cannot read back the alarms", read)

    async def _look(self) -> None:
        # Feeds that do not come in real time are as far ahead as they may be.
        taken = {tp: message for tp, (message, live) in self._taken.items() if live}
        behind_s = await self._broker.behind_s(self.app.consumer, taken)
        if behind_s is not None:
            self._behind_s = behind_s
            self._scorer.look(behind_s)

    async def _beat(self) -> None:
        if self._left:
            return
        status = self._report.take(
            self._clock.now_ns(),
            beds=len(self._scorer.engine.beds),
            partitions=self._partitions,
            behind_s=self._behind_s,
            shedding=self._scorer.shedding.step,
        )
        try:
            await self._broker.beat(self.app.maybe_start_producer, self._name, status)
        except (RedisError, OSError) as error:
            # No heartbeat is the message.
            log.warning("no heartbeat: %s", error)

    async def _leave(self) -> None:
        # One that fails does not take itself off the books: its silence is an alarm.
        if self.app.crashed or self._left:
            return
        self._left = True
        with suppress(RedisError, OSError):
            await self._broker.leave(self.app.maybe_start_producer, self._name)
            log.info("worker %s stops on purpose", self._name)
