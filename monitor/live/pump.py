"""The one reader of the streams in a dashboard process, however many pages are open."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from redis.exceptions import RedisError

from monitor.live.ward import HISTORY_S, RING_S, Ward
from monitor.live.workers import heard, runs_on
from stream.bus import Bus, Entry
from stream.clock import Clock
from stream.contract import (
    AlarmEvent,
    Command,
    CommandKind,
    Explanation,
    Finding,
    MalformedMessageError,
    SampleChunk,
    Vitals,
)
from stream.heartbeat import WorkerStatus
from stream.topics import ALARMS, COMMANDS, EXPLANATIONS, FINDINGS, SAMPLES, VITALS
from stream.transport.layout import stream_key

log = logging.getLogger(__name__)

_TOPICS = (SAMPLES, FINDINGS, VITALS, ALARMS, EXPLANATIONS)
# Alarm events that are looked through for open alarms on start: a page of Redis each, and 5000 are more
# than a ward's two shifts. Older ones that are still open belong to a worker that died with them.
_ALARM_PAGE = 500
_ALARM_EVENTS = 5_000
# After so many messages the pages get a turn: 3 ms of work.
_BURST = 32
_PROBE_S = 1.0
# A server that does not answer a PING within this is shown as lost.
_PROBE_TIMEOUT_S = 2.0
_RETRY_S = 1.0
_INSIST_S = 0.1
_WATCH_S = 15
"""Seconds for which explanations are asked for."""
# A third of it: two requests may get lost.
_RENEW_S = 5.0


class Pump:
    """Follows a deployment's topics into a ward, and asks for explanations of the beds being looked at.

    Parameters
    ----------
    bus : Bus
    ward : Ward
    clock : Clock
    """

    def __init__(self, bus: Bus, ward: Ward, clock: Clock) -> None:
        self.ward = ward
        self.lost_since_ns: int | None = None
        """When the server stopped answering, by our clock; None while it answers."""
        self.lag_s = 0.0
        """How long the newest message had lain in its stream when it was taken."""
        self.malformed = 0
        """Messages that are not of the contract."""
        self._bus = bus
        self._clock = clock
        self._positions: dict[str, str] = {}
        self._server_ahead_ms = 0
        self._started_ms = 0
        self._begun = False
        self._watching: dict[object, tuple[str, Callable[[], None]]] = {}
        self._watch_changed = asyncio.Event()
        self._workers: list[WorkerStatus | None] = []
        self._partitions = 0
        self._takers: dict[str, Callable[[Entry], None]] = {
            SAMPLES: self._take_chunk,
            FINDINGS: lambda entry: self.ward.take_finding(Finding.decode(entry.value)),
            VITALS: lambda entry: self.ward.take_vitals(Vitals.decode(entry.value)),
            ALARMS: lambda entry: self.ward.take_alarm(AlarmEvent.decode(entry.value), self._clock.now_ns()),
            EXPLANATIONS: lambda entry: self.ward.take_explanation(Explanation.decode(entry.value)),
        }

    def watch(self, page: object, bed: str, wake: Callable[[], None]) -> None:
        """Say that a page shows a bed, instead of the one before; `wake` is called when its samples come."""
        watched = self._watching.get(page)
        if watched is None or watched[0] != bed:
            self._watching[page] = bed, wake
            self._watch_changed.set()

    def unwatch(self, page: object) -> None:
        """Say that a page shows no bed, or is gone."""
        self._watching.pop(page, None)

    @property
    def watched(self) -> set[str]:
        """The beds that some page shows."""
        return {bed for bed, _ in self._watching.values()}

    def runs_on(self, bed: str) -> str:
        """Return backend and precision by which a bed that is watched is judged; empty if nobody knows."""
        return runs_on(self._workers, bed, self._partitions)

    @property
    def alarms_position(self) -> str | None:
        """Stream id of the last alarm transition that the ward has taken; None before it has begun."""
        return self._positions.get(stream_key(self._bus.prefix, ALARMS, 0))

    async def behind_s(self) -> float | None:
        """Return for how long the oldest message that it has not taken has lain in its stream, seconds.

        None before it knows where to begin. Unlike `lag_s` it also tells of a pump that takes nothing.

        Raises
        ------
        redis.exceptions.RedisError, OSError, TimeoutError
            If the server does not answer.
        """
        if not self._begun:
            return None
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            pipeline = self._bus.client.pipeline(transaction=False)
            pipeline.time()
            for key, position in self._positions.items():
                pipeline.xrange(key, min=f"({position}", count=1)
            (seconds, microseconds), *waiting = await pipeline.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        oldest_ms = min((int(rows[0][0].partition(b"-")[0]) for rows in waiting if rows), default=now_ms)
        lag_s: float = max(0, now_ms - oldest_ms) / 1000
        return lag_s

    async def run(self) -> None:
        """Follow for ever; a server that goes away is waited for."""
        await _together(self._begin())
        self._begun = True
        await _together(self._follow(), self._probe(), self._ask(), self._hear())

    async def _begin(self) -> None:
        while True:
            try:
                await self._start()
            except (RedisError, OSError) as error:
                if self.lost_since_ns is None:
                    self.lost_since_ns = self._clock.now_ns()
                log.warning("reading where the streams stand: %s; trying again", error)
                await asyncio.sleep(_RETRY_S)
            else:
                self.lost_since_ns = None
                return

    async def _start(self) -> None:
        # Where to begin in each stream: samples and scores of the time that is shown, alarms from the open
        # ones, explanations from now on.
        seconds, microseconds = await self._bus.client.time()
        self._started_ms = seconds * 1000 + microseconds // 1000
        self._server_ahead_ms = self._started_ms - self._clock.now_ns() // 1_000_000
        begin_ms = {SAMPLES: self._started_ms - RING_S * 1000, FINDINGS: self._started_ms - HISTORY_S * 1000}
        self._partitions = (await self._bus.declare(SAMPLES)).partitions
        for topic in _TOPICS:
            for partition in range((await self._bus.declare(topic)).partitions):
                key = stream_key(self._bus.prefix, topic, partition)
                if topic in begin_ms:
                    self._positions[key] = f"{round(begin_ms[topic])}-0"
                    continue
                newest = await self._bus.last_id(key)
                if topic == ALARMS:
                    await self._read_alarms(partition, newest)
                self._positions[key] = newest
        self.ward.forget_silent(self._clock.now_ns())

    async def _read_alarms(self, partition: int, newest: str) -> None:
        entries: list[Entry] = []
        # The newest one included: `recent` takes an exclusive bound.
        before = f"{newest.partition('-')[0]}-{2**64 - 1}"
        while len(entries) < _ALARM_EVENTS:
            page = await self._bus.recent(ALARMS, partition, before, _ALARM_PAGE)
            entries += page
            if len(page) < _ALARM_PAGE:
                break
            before = page[-1].id
        for entry in reversed(entries):
            self._take(entry)

    async def _follow(self) -> None:
        while True:
            try:
                taken = 0
                async for entry in self._bus.tail(*_TOPICS, positions=self._positions):
                    self._positions[stream_key(self._bus.prefix, entry.topic, entry.partition)] = entry.id
                    self._take(entry)
                    taken += 1
                    if taken % _BURST == 0:
                        await asyncio.sleep(0)
            except (RedisError, OSError) as error:
                log.warning("following the streams: %s; trying again", error)
            await asyncio.sleep(_RETRY_S)

    def _take(self, entry: Entry) -> None:
        age_ms = self._clock.now_ns() // 1_000_000 + self._server_ahead_ms - entry.time_ms
        self.lag_s = max(0, age_ms) / 1000 if entry.time_ms >= self._started_ms else 0.0
        try:
            self._takers[entry.topic](entry)
        except MalformedMessageError as error:
            self.malformed += 1
            log.warning("%s %s: left out: %s", entry.topic, entry.id, error)

    def _take_chunk(self, entry: Entry) -> None:
        live = entry.time_ms >= self._started_ms
        arrival_ns = self._clock.now_ns() if live else (entry.time_ms - self._server_ahead_ms) * 1_000_000
        chunk = SampleChunk.decode(entry.value)
        self.ward.take_chunk(chunk, arrival_ns, live=live)
        for bed, wake in self._watching.values():
            if bed == chunk.header.bed:
                wake()

    async def _probe(self) -> None:
        # The reading connection retries on its own for many seconds: whether the server is there is asked
        # separately, so that the page says it at once.
        while True:
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await self._bus.client.ping()
            except (RedisError, OSError, TimeoutError):
                if self.lost_since_ns is None:
                    self.lost_since_ns = self._clock.now_ns()
                    self.ward.revision += 1
                    log.warning("the Redis server does not answer")
            else:
                if self.lost_since_ns is not None:
                    self.lost_since_ns = None
                    self.ward.revision += 1
                    log.warning("the Redis server answers again")
                self.ward.forget_silent(self._clock.now_ns())
            await asyncio.sleep(_PROBE_S)

    async def _hear(self) -> None:
        # Only while somebody looks at a bed.
        while True:
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    watched = bool(self._watching)
                    self._workers = await heard(self._bus.client, self._bus.prefix) if watched else []
            except (RedisError, OSError, TimeoutError):
                self._workers = []
            await asyncio.sleep(_PROBE_S)

    async def _ask(self) -> None:
        while True:
            self._watch_changed.clear()
            for bed in sorted(self.watched):
                try:
                    await self._bus.publish(COMMANDS, bed.encode(), self._watch_command(bed).encode())
                except (RedisError, OSError) as error:
                    log.warning("asking for explanations of a bed: %s", error)
            try:
                async with asyncio.timeout(_RENEW_S):
                    await self._watch_changed.wait()
            except TimeoutError:
                continue

    def _watch_command(self, bed: str) -> Command:
        now_ns = self._clock.now_ns()
        return Command(
            id=uuid.uuid4().hex,
            bed=bed,
            kind=CommandKind.WATCH,
            value=_WATCH_S,
            who="dashboard",
            at=now_ns,
            expires=now_ns + _WATCH_S * 1_000_000_000,
        )


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    # As a TaskGroup, but insistent: redis-py loses a cancellation that comes while it connects (8.1.0, one
    # in three), and what goes on as if nothing had been must be told again.
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        while running := [task for task in tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=_INSIST_S)
