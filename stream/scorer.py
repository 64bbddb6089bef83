"""What a worker does with chunks: through the engine and the models, to what it publishes.

Chunks are taken together as they come, windows are judged together (`stream.judging`) while others are on
their way out: three stages, each in the order of arrival for every bed. What has to outlive the worker is
written down at intervals; only then are the chunks behind it done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from faust.types import EventT

from models.session import Session
from stream import metrics
from stream.alarms.operator import Answer
from stream.alarms.state import BedState
from stream.alarms.told import catch_up
from stream.audit.recorder import Recorder
from stream.bed_settings import SettingsBook
from stream.clock import Clock
from stream.contract import AlarmEvent, Command, MalformedMessageError, SampleChunk
from stream.engine import Accepted, Engine, Load, Pending, RefusedChunkError
from stream.explain import explain
from stream.judging import Delivery, Item, Judged, Judging
from stream.model_pool import ModelPool
from stream.outgoing import Outgoing
from stream.refill import needed_since_s
from stream.shedding import Shedding
from stream.snapshots.keeper import note
from stream.vitals.memory import ForeignMemoryError, Memory

log = logging.getLogger(__name__)

# Ticks come each second.
_STALLED_NS = 2_500_000_000


class OvertakenError(Exception):
    """The bed is another worker's by now, who does what was asked."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Where something is kept of each bed.

    Attributes
    ----------
    get : callable
        Row of a bed, None if there is none.
    put : callable
    written : callable
        Awaited before a chunk is done whose changes were put.
    """

    get: Callable[[str], bytes | None]
    put: Callable[[str, bytes], None]
    written: Callable[[], Awaitable[None]]


class Scorer:
    """Engine, models and publishing of one worker.

    Parameters
    ----------
    session : Session
        The worker's own model.
    outgoing : Outgoing
    recorder : Recorder
    book : SettingsBook
    rows, memories : Rows
        Where the state of beds is kept, and what has been learnt of their signal.
    confirm : callable
        Awaited before chunks are done; told (``published``) whether there were alarms. See
        `stream.broker.Broker.confirm`.
    clock : Clock
    fallback, hop_s : optional
        See `stream.engine.Engine`.
    """

    def __init__(
        self,
        session: Session,
        outgoing: Outgoing,
        recorder: Recorder,
        book: SettingsBook,
        rows: Rows,
        memories: Rows,
        confirm: Callable[..., Awaitable[None]],
        clock: Clock,
        *,
        fallback: str | None = None,
        hop_s: float | None = None,
    ) -> None:
        self.pool = ModelPool(session)
        self.engine = Engine(
            session.manifest, session.precision, fallback=fallback, models=self.pool.criteria, hop_s=hop_s
        )
        self.shedding = Shedding()
        self._outgoing = outgoing
        self._recorder = recorder
        self._book = book
        self._rows = rows
        self._memories = memories
        self._confirm = confirm
        self._clock = clock
        self.judging = Judging(self.pool, clock, self.engine.model_of, self._explained)
        self._published = asyncio.Event()
        # Held from a change of a bed's state until the alarm events of that change are published and the
        # state is in the table, so that the table never knows of an event that the world does not.
        self._writing = asyncio.Lock()
        # The broker takes nothing more: what is under way comes again, to another worker.
        self._finished = False
        # The newest alarm events of beds that are not held yet.
        self._told: dict[str, list[AlarmEvent]] = {}
        # Beds of which something was not ours to tell any more: their state knows of what the world does not.
        self._overtaken: set[str] = set()
        # How often each bed was given away.
        self._terms: Counter[str] = Counter()
        self._watched_until: dict[str, int] = {}
        self._ticked_ns = clock.now_ns()
        # Since the last checkpoint.
        self._published_alarms = False
        self._changed: dict[str, None] = {}
        self._sends: list[Awaitable[Any]] = []
        self._done: list[Delivery] = []

    def close(self) -> None:
        """Wait for the models."""
        self.judging.close()
        self.pool.close()

    def watch(self, bed: str, until_ns: int) -> None:
        """Explain the windows of a bed until then."""
        self._watched_until[bed] = until_ns

    # -- in

    def delivery(self, chunk: SampleChunk, event: EventT[bytes] | None = None) -> Delivery:
        """Return what to `take` of a chunk that has come; nothing, if its bed is given away before."""
        return Delivery(chunk, event, term=self._terms[chunk.header.bed])

    def _is_of_this_term(self, delivery: Delivery) -> bool:
        return delivery.term == self._terms[delivery.chunk.header.bed]

    async def room(self) -> None:
        """Return when the worker may take more chunks."""
        while self.judging.full:
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
            if self._finished:
                return []
            some = [delivery for delivery in some if self._is_of_this_term(delivery)]
            self._restore(delivery.chunk.header.bed for delivery in some)
            outcomes = self.engine.accept_many([delivery.chunk for delivery in some], now_ns, self._load())
            accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
            await self._tell(
                [
                    event
                    for outcome in outcomes
                    if isinstance(outcome, Accepted | RefusedChunkError)
                    for event in outcome.events
                ]
            )
            await self._write_settings(
                delivery.chunk.header.bed
                for delivery, outcome in zip(some, outcomes, strict=True)
                if isinstance(outcome, Accepted) and outcome.opened
            )
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
                self._ack(delivery)
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
                state = BedState.model_validate_json(row)
                catch_up(state, self._told.get(bed, ()))
                self.engine.restore(bed, state, self._memory(bed))

    def note_told(self, events: Iterable[AlarmEvent]) -> None:
        """Take note of the newest alarm events, in order, before beds are taken over from others."""
        told: defaultdict[str, list[AlarmEvent]] = defaultdict(list)
        for event in events:
            told[event.bed].append(event)
        self._told = {bed: of_bed for bed, of_bed in told.items() if not self.engine.knows(bed)}

    def _memory(self, bed: str) -> Memory | None:
        kept = self._memories.get(bed)
        if kept is None:
            return None
        try:
            return Memory.decode(kept)
        except ForeignMemoryError as error:
            log.warning("what was learnt of the bed is learnt anew: %s", error, extra={"bed": bed})
            return None

    def needed_since_s(self, bed: str, session: str) -> float | None:
        """Return from which second of a session on samples are needed beside what is kept of the bed."""
        row = self._rows.get(bed)
        state = None if row is None else BedState.model_validate_json(row)
        return needed_since_s(session, state, self._memory(bed), self.pool.own.manifest.window)

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
            self.judging.add(Item(pending, delivery), ready_ns)
        waits = accepted.dropped or (delivery.chunk.header.last and not accepted.windows)
        if waits and self.engine.busy(bed):
            # A repeat of a chunk whose windows may still be under way, or the end of a feed of which windows
            # are, whose own chunks may have been read back: behind it nothing would bring them again.
            delivery.windows = 1
            self.judging.add(Item(None, delivery), ready_ns)
        elif not accepted.windows:
            self._ack(delivery)

    def _ack(self, delivery: Delivery) -> None:
        # What was taken before the bed was given away comes again, to whoever has it now: that may be us, and
        # the broker would take the chunk for done that the state in the table does not know of. Nor is one
        # done where something of the bed was not ours to tell: whoever has it must find that again.
        if self._is_of_this_term(delivery) and delivery.chunk.header.bed not in self._overtaken:
            delivery.ack()

    async def forget(self, beds: Collection[str]) -> None:
        """Drop beds: they are another worker's now."""
        self._terms.update(beds)
        # Not while a change of one of them is on its way out: that is still ours to finish.
        async with self._writing:
            for bed in beds:
                self.engine.forget(bed)
                self.judging.drop(bed)
                self._changed.pop(bed, None)
                self._overtaken.discard(bed)
        metrics.BEDS.set(len(self.engine.beds))

    # -- out

    async def publish_forever(self) -> None:
        """Publish what has been judged."""
        while True:
            batch = await self.judging.next()
            async with self._writing:
                if self._finished:
                    return
                for judged in await self.judging.by_present_models(batch):
                    await self._publish(judged)
            self._published.set()

    async def _publish(self, judged: Judged) -> None:
        verdicts = iter(judged.verdicts)
        told: list[AlarmEvent] = []
        published: list[Pending] = []
        for item in judged.items:
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
                    assert judged.manifest is not None
                    explanation = explain(judged.manifest, pending, verdict)
                    self._sends.append(await self._outgoing.explanation(explanation))
                self._changed[bed] = None
            item.delivery.windows -= 1
            if not item.delivery.windows:
                self._done.append(item.delivery)
        await self._tell(told)
        metrics.observe_batch(published, sum(verdict is not None for verdict in judged.verdicts))

    def _explained(self, bed: str) -> bool:
        return not self.shedding.step and self._watched_until.get(bed, 0) > self._clock.now_ns()

    async def _tell(self, events: Collection[AlarmEvent]) -> bool:
        # Alarm events are out and recorded, and the server has said so, before the state that knows of them
        # is written. False if some are not ours to tell any more: nothing tells of those.
        if not events:
            return True
        out = await asyncio.gather(*[await self._outgoing.event(event) for event in events])
        told = [event for event, is_out in zip(events, out, strict=True) if is_out]
        self._overtaken |= {event.bed for event, is_out in zip(events, out, strict=True) if not is_out}
        await self._recorder.events(told, self._clock.now_ns())
        self._published_alarms |= bool(told)
        for event in told:
            if self.engine.knows(event.bed):
                note(self.engine.state(event.bed), event)
        for bed in dict.fromkeys(event.bed for event in told):
            self._keep(bed)
        return all(out)

    def _is_ours(self, bed: str) -> bool:
        # The broker would refuse the row of a bed that is others'; the table here would keep it, and the bed
        # may come back.
        return self.engine.knows(bed) and bed not in self._overtaken

    def _keep(self, bed: str) -> None:
        if self._is_ours(bed):
            self._rows.put(bed, self.engine.state(bed).model_dump_json().encode())

    def _take_memory(self, bed: str, *, now: bool = False) -> bytes | None:
        memory = self.engine.memory(bed, now=now) if self._is_ours(bed) else None
        return None if memory is None else memory.encode()

    def changed(self, bed: str) -> None:
        """Have the state of a bed written down at the next checkpoint."""
        self._changed[bed] = None

    async def checkpoint(self) -> None:
        """Write down the state of every bed, and call done the chunks that it covers.

        Between two of these a worker that dies loses nothing: its chunks come again, and their findings,
        too. A row goes out behind the findings that it covers, through the same connection.
        """
        async with self._writing:
            memories: dict[str, bytes] = {}
            for bed in self._changed:
                self._keep(bed)
                if (memory := self._take_memory(bed)) is not None:
                    memories[bed] = memory
            self._changed.clear()
            told, self._published_alarms = self._published_alarms, False
            sends, self._sends = self._sends, []
            done, self._done = self._done, []
        await asyncio.gather(*sends)
        await self._rows.written()
        async with self._writing:
            # Behind the rows, never before them: without the state up to there it says nothing.
            for bed, memory in memories.items():
                if self.engine.knows(bed):
                    self._memories.put(bed, memory)
        await self._memories.written()
        # Nobody waits for this: what is published meanwhile goes out.
        await self._confirm(published=told)
        for delivery in done:
            self._ack(delivery)

    async def finish(self) -> None:
        """Write down and call done what has been published, and publish nothing more: the worker stops."""
        async with self._writing:
            self._finished = True
        await self.checkpoint()

    # -- the operator

    async def obey(self, command: Command) -> Answer:
        """Do what an operator asks; see `stream.engine.Engine.obey`.

        A model that is chosen has to be in the pool, and has to stay there until this returns.

        Raises
        ------
        stream.alarms.operator.RefusedError
        OvertakenError
        """
        if self._finished:
            # Not refused: it comes again, too.
            await asyncio.Event().wait()
        async with self._writing:
            answer = self.engine.obey(command)
            if not await self._tell(answer.events):
                raise OvertakenError(command.bed)
            await self._write_settings([command.bed])
            self._keep(command.bed)
            # Up to here the limits of before were in force.
            if (memory := self._take_memory(command.bed, now=True)) is not None:
                self._memories.put(command.bed, memory)
        self.judging.release()
        return answer

    async def flush(self) -> None:
        """Return when the broker has everything that was sent before, rows too."""
        await self._outgoing.flush()
        await self._rows.written()
        await self._memories.written()

    async def _write_settings(self, beds: Iterable[str]) -> None:
        now_ns = self._clock.now_ns()
        await self._book.write([self.engine.settings(bed, now_ns) for bed in beds])

    # -- the clock

    async def tick(self) -> None:
        """Look at the beds that have fallen silent."""
        now_ns = self._clock.now_ns()
        stalled, self._ticked_ns = now_ns - self._ticked_ns > _STALLED_NS, now_ns
        if stalled:
            # It was this worker that heard nothing: what came meanwhile has not been taken yet.
            return
        async with self._writing:
            if self._finished:
                return
            metrics.CLOCK_SKEW.set(self.engine.largest_skew_s)
            await self._tell(self.engine.tick(now_ns))
            self.judging.refresh(now_ns, self.engine.beds)

    def look(self, behind_s: float) -> None:
        """Take note of how far the worker is behind the newest samples, in seconds."""
        self.shedding.look(behind_s, self._clock.now_ns() / 1e9)
        metrics.SHEDDING.set(self.shedding.step)
