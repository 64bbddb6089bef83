"""What a worker does with chunks: through the engine and the model, to what it publishes.

Chunks are taken together as they come, windows are judged together while others are on their way out:
three stages, each in the order of arrival for every bed. What has to outlive the worker is written down
at intervals; only then are the chunks behind it done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from faust.types import EventT

from models.session import Session
from stream import metrics
from stream.alarms.operator import Answer
from stream.alarms.state import BedState
from stream.audit.recorder import Recorder
from stream.batching import MicroBatch
from stream.clock import Clock
from stream.contract import AlarmEvent, Command, MalformedMessageError, SampleChunk
from stream.engine import Accepted, Engine, Load, Pending
from stream.explain import explain
from stream.outgoing import Outgoing
from stream.shedding import Shedding
from stream.snapshots.keeper import note
from stream.verdict import Verdict, judge
from stream.windows import Window

log = logging.getLogger(__name__)

# The longest that a window waits for others to share a run of the model.
_BATCH_WAIT_NS = 10_000_000
# So many batches may wait before the worker stops taking chunks and lets the stream hold them.
_BATCHES_WAITING = 4
# Ticks come each second.
_STALLED_NS = 2_500_000_000
# Batches that lie ready for the model, so that it never waits for a busy event loop to hand it the next.
_BATCHES_READY = 1


@dataclass(slots=True)
class Delivery:
    """A chunk on its way through the worker.

    Attributes
    ----------
    chunk : SampleChunk
    event : faust.Event, optional
        To acknowledge when everything that it brought about is done; none for a chunk that was read back.
    windows : int
        How many of its windows are still under way.
    given_away : bool
        Its partition is another worker's now.
    """

    chunk: SampleChunk
    event: EventT[bytes] | None = None
    windows: int = 0
    given_away: bool = False

    def ack(self) -> None:
        if self.event is not None:
            self.event.ack()


@dataclass(slots=True)
class _Item:
    # What waits for the model: a window, or (without one) a delivery to acknowledge after those before it.
    pending: Pending | None
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class _Judged:
    verdicts: list[Verdict | None]
    failure: str | None
    """How the model failed, if it did."""
    begun_ns: int
    inferred_ns: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the state of beds is kept.

    Attributes
    ----------
    get : callable
        Row of a bed, None if there is none.
    put : callable
    """

    get: Callable[[str], bytes | None]
    put: Callable[[str, bytes], None]


class Scorer:
    """Engine, model and publishing of one worker.

    Parameters
    ----------
    session : Session
    outgoing : Outgoing
    recorder : Recorder
    rows : Rows
    clock : Clock
    fallback : str, optional
        See `stream.engine.Engine`.
    """

    def __init__(
        self,
        session: Session,
        outgoing: Outgoing,
        recorder: Recorder,
        rows: Rows,
        clock: Clock,
        *,
        fallback: str | None = None,
    ) -> None:
        self.engine = Engine(session.manifest, session.precision, fallback=fallback)
        self.shedding = Shedding()
        self._session = session
        self._outgoing = outgoing
        self._recorder = recorder
        self._rows = rows
        self._clock = clock
        self._batch: MicroBatch[_Item] = MicroBatch(session.max_batch, _BATCH_WAIT_NS)
        self._arrived = asyncio.Event()
        self._published = asyncio.Event()
        # Batches that the model has not answered yet.
        self._unanswered = 0
        self._in_model: asyncio.Queue[tuple[list[_Item], asyncio.Future[_Judged]]] = asyncio.Queue(
            _BATCHES_READY
        )
        # Held from a change of a bed's state until the alarm events of that change are published and the
        # state is in the table, so that the table never knows of an event that the world does not.
        self._writing = asyncio.Lock()
        # One thread: a session serves one caller at a time, and the order within a bed is kept.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._watched_until: dict[str, int] = {}
        self._ticked_ns = clock.now_ns()
        # Since the last checkpoint.
        self._changed: dict[str, None] = {}
        self._sends: list[Awaitable[Any]] = []
        self._done: list[Delivery] = []

    def close(self) -> None:
        """Wait for the model."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def watch(self, bed: str, until_ns: int) -> None:
        """Explain the windows of a bed until then."""
        self._watched_until[bed] = until_ns

    # -- in

    async def room(self) -> None:
        """Return when the worker may take more chunks."""
        while len(self._batch) > _BATCHES_WAITING * self._session.max_batch:
            await self._next_published()

    async def ready_for(self, delivery: Delivery) -> None:
        """Return when a chunk may be taken: the windows of a session are judged before a new one ends it."""
        bed, session = delivery.chunk.header.bed, delivery.chunk.header.session
        while self.engine.busy(bed) and self.engine.state(bed).session != session:
            await self._next_published()

    async def _next_published(self) -> None:
        self._published.clear()
        await self._published.wait()

    async def take(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Take chunks in order, as many as can be taken now.

        Returns
        -------
        list of Delivery
            The rest: what comes from the first chunk on that has to wait until the scorer is `ready_for` it.
        """
        some, rest = self._together(deliveries)
        now_ns = self._clock.now_ns()
        refused = []
        async with self._writing:
            some = [delivery for delivery in some if not delivery.given_away]
            self._restore(delivery.chunk.header.bed for delivery in some)
            outcomes = self.engine.accept_many([delivery.chunk for delivery in some], now_ns, self._load())
            accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
            await self._tell([event for one in accepted for event in one.events])
            for vitals in (vitals for one in accepted for vitals in one.vitals):
                self._sends.append(await self._outgoing.vitals(vitals))
                self._changed[vitals.bed] = None
        for delivery, outcome in zip(some, outcomes, strict=True):
            if isinstance(outcome, MalformedMessageError):
                refused.append((delivery, str(outcome)))
                continue
            if delivery.event is not None:
                metrics.observe_chunk(delivery.chunk, outcome, now_ns)
            self._queue(delivery, outcome)
        metrics.BEDS.set(len(self.engine.beds))
        for delivery, why in refused:
            if delivery.event is not None:
                await (await self._outgoing.dead_letter(delivery.event, why))
                delivery.ack()
        return rest

    def _together(self, deliveries: list[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        sessions: dict[str, str] = {}
        for number, delivery in enumerate(deliveries):
            bed, session = delivery.chunk.header.bed, delivery.chunk.header.session
            if bed not in sessions:
                sessions[bed] = self.engine.state(bed).session if self.engine.busy(bed) else session
            if sessions[bed] != session:
                return deliveries[:number], deliveries[number:]
        return deliveries, []

    def _restore(self, beds: Iterable[str]) -> None:
        for bed in beds:
            if not self.engine.knows(bed) and (row := self._rows.get(bed)) is not None:
                self.engine.restore(bed, BedState.model_validate_json(row))

    def _load(self) -> Load:
        if not self.shedding.step:
            return Load()
        now_ns = self._clock.now_ns()
        watched = frozenset(bed for bed, until_ns in self._watched_until.items() if until_ns > now_ns)
        return Load(self.shedding.every, watched)

    def _queue(self, delivery: Delivery, accepted: Accepted) -> None:
        bed, ready_ns = delivery.chunk.header.bed, self._clock.now_ns()
        delivery.windows = len(accepted.windows)
        for pending in accepted.windows:
            pending.ready_ns = ready_ns
            self._batch.add(bed, _Item(pending, delivery), ready_ns)
        if accepted.windows:
            self._arrived.set()
        elif accepted.dropped and self.engine.busy(bed):
            # A repeat of a chunk whose windows may still be under way: not done before they are.
            delivery.windows = 1
            self._batch.add(bed, _Item(None, delivery), ready_ns)
            self._arrived.set()
        else:
            delivery.ack()

    async def forget(self, beds: Collection[str]) -> None:
        """Drop beds: they are another worker's now."""
        # Not while a change of one of them is on its way out: that is still ours to finish.
        async with self._writing:
            for bed in beds:
                self.engine.forget(bed)
                self._batch.drop(bed)
                self._changed.pop(bed, None)
        metrics.BEDS.set(len(self.engine.beds))

    # -- through the model

    async def judge_forever(self) -> None:
        """Give the model what waits for it."""
        loop = asyncio.get_running_loop()
        while True:
            await self._batch_due()
            items = self._batch.take()
            pending = [item.pending for item in items if item.pending is not None]
            windows = [one.window for one in pending]
            explained = {place for place, one in enumerate(pending) if self._explained(one.moment.bed)}
            judged = loop.run_in_executor(self._executor, self._judge, windows, explained)
            self._unanswered += 1
            judged.add_done_callback(self._answered)
            await self._in_model.put((items, judged))

    def _answered(self, _: asyncio.Future[_Judged]) -> None:
        self._unanswered -= 1
        self._arrived.set()

    def _judge(self, windows: list[Window], explained: set[int]) -> _Judged:
        begun_ns, failure = self._clock.now_ns(), None
        verdicts: list[Verdict | None]
        try:
            verdicts = judge(self._session, windows, explained)
        except Exception as error:
            # Out of memory, a driver that is gone: whatever it is, heart rate and signal go on being watched,
            # every bed says that its model does not, and the next batch is another attempt.
            log.exception("the model failed on %d windows", len(windows))
            metrics.MODEL_FAILURES.inc()
            verdicts, failure = [None] * len(windows), " ".join(str(error).split()) or type(error).__name__
        return _Judged(verdicts, failure, begun_ns, self._clock.now_ns())

    async def _batch_due(self) -> None:
        # An idle model waits for nobody: what comes while it is at work makes the next batch.
        while True:
            due_ns = self._batch.due_ns() if self._unanswered or not len(self._batch) else 0
            wait_ns = None if due_ns is None else due_ns - self._clock.now_ns()
            if wait_ns is not None and wait_ns <= 0:
                return
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wait_ns is None else wait_ns / 1e9):
                    await self._arrived.wait()

    # -- out

    async def publish_forever(self) -> None:
        """Publish what has been judged."""
        while True:
            items, judged = await self._in_model.get()
            verdicts = await judged
            async with self._writing:
                await self._publish(items, verdicts)
            self._published.set()

    async def _publish(self, items: list[_Item], judged: _Judged) -> None:
        verdicts = iter(judged.verdicts)
        told: list[AlarmEvent] = []
        published: list[Pending] = []
        for item in items:
            pending = item.pending
            if pending is not None:
                bed, verdict = pending.moment.bed, next(verdicts)
                pending.begun_ns, pending.inferred_ns = judged.begun_ns, judged.inferred_ns
                pending.published_ns = self._clock.now_ns()
                concluded = self.engine.conclude(pending, verdict, judged.failure)
                if concluded is None:
                    # The bed was given away meanwhile: its chunk comes again, to whoever has it now.
                    continue
                finding, events = concluded
                told += events
                published.append(pending)
                self._sends.append(await self._outgoing.finding(finding))
                if verdict is not None and verdict.reconstruction is not None:
                    explanation = explain(self._session.manifest, pending, verdict)
                    self._sends.append(await self._outgoing.explanation(explanation))
                self._changed[bed] = None
            item.delivery.windows -= 1
            if not item.delivery.windows:
                self._done.append(item.delivery)
        await self._tell(told)
        metrics.observe_batch(published, sum(verdict is not None for verdict in judged.verdicts))

    def _explained(self, bed: str) -> bool:
        return not self.shedding.step and self._watched_until.get(bed, 0) > self._clock.now_ns()

    async def _tell(self, events: Collection[AlarmEvent]) -> None:
        # Alarm events are out and recorded, and the server has said so, before the state that knows of them
        # is written.
        if not events:
            return
        await asyncio.gather(*[await self._outgoing.event(event) for event in events])
        await self._recorder.events(events, self._clock.now_ns())
        for event in events:
            if self.engine.knows(event.bed):
                note(self.engine.state(event.bed), event)
        for bed in dict.fromkeys(event.bed for event in events):
            self._keep(bed)

    def _keep(self, bed: str) -> None:
        if self.engine.knows(bed):
            self._rows.put(bed, self.engine.state(bed).model_dump_json().encode())

    def changed(self, bed: str) -> None:
        """Have the state of a bed written down at the next checkpoint."""
        self._changed[bed] = None

    async def checkpoint(self) -> None:
        """Write down the state of every bed, and call done the chunks that it covers.

        Between two of these a worker that dies loses nothing: its chunks come again, and their findings,
        too. A row goes out behind the findings that it covers, through the same connection.
        """
        async with self._writing:
            for bed in self._changed:
                self._keep(bed)
            self._changed.clear()
            sends, self._sends = self._sends, []
            done, self._done = self._done, []
        await asyncio.gather(*sends)
        for delivery in done:
            delivery.ack()

    # -- the operator

    async def obey(self, command: Command) -> Answer:
        """Do what an operator asks; see `stream.engine.Engine.obey`."""
        async with self._writing:
            answer = self.engine.obey(command)
            await self._tell(answer.events)
            self._keep(command.bed)
        return answer

    # -- the clock

    async def tick(self) -> None:
        """Look at the beds that have fallen silent."""
        now_ns = self._clock.now_ns()
        stalled, self._ticked_ns = now_ns - self._ticked_ns > _STALLED_NS, now_ns
        if stalled:
            # It was this worker that heard nothing: what came meanwhile has not been taken yet.
            return
        async with self._writing:
            await self._tell(self.engine.tick(now_ns))

    def look(self, behind_s: float) -> None:
        """Take note of how far the worker is behind the newest samples, in seconds."""
        self.shedding.look(behind_s, self._clock.now_ns() / 1e9)
        metrics.SHEDDING.set(self.shedding.step)
