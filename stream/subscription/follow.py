"""Subscribing to alarms: every transition once, in order, from wherever one left off.

A reader that keeps the position of the last transition it has dealt with, and begins there again, misses none
and sees none twice, whatever was restarted in between. Which entries are repeats depends on what lies before
them in the stream, and not on who reads it since when.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream.bus import Bus, BusUnavailableError, heed_cancellation, open_client
from stream.clock import Clock, SystemClock
from stream.contract import (
    EVERY_BED,
    AlarmEvent,
    AlarmKind,
    MalformedMessageError,
    Presence,
    Priority,
    alarm_id,
)
from stream.heartbeat import silence_ms
from stream.subscription.positions import after, is_of_time, place_of
from stream.topics import ALARMS, DEFAULT_PREFIX
from stream.transport.layout import stream_key

log = logging.getLogger(__name__)

SILENT_AFTER_S = 10.0
"""Time without a sign of life of any worker after which a subscriber is told (the alarm delay that
IEC 60601-2-27 allows)."""

SERVICE_SILENT = "service-silent"
"""Rule of the notice that no worker is heard of. Made by the subscription itself, never on the stream."""

EVENTS_MISSED = "events-missed"
"""Rule of the notice that the server no longer has all that follows a position."""

# The stream itself holds no repeats of a worker's events; those of another program follow within one
# redelivery. So many entries before an event are looked at.
_LOOKED_AT = 1_000
_COUNT = 256
# A reader that waits must still notice silence and a cancellation.
_BLOCK_MS = 1000
# A server that hangs must be noticed well before the silence is to be told.
_SOCKET_TIMEOUT_S = 3.0
_CHECK_S = 1.0
_BACKOFF_S = (0.05, 1.0)

_RANK = {priority: rank for rank, priority in enumerate(reversed(Priority))}


class Alarm(AlarmEvent):
    """One transition of one alarm, and where in the stream it lies."""

    position: str
    """Stream id. Begin a subscription with ``since=position``, and it goes on behind this transition."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which transitions a subscriber wants; what is about the whole deployment goes to all of them.

    Attributes
    ----------
    beds, rules : collection of str
        Only these; empty for all.
    kind : AlarmKind, optional
    priority : Priority, optional
        This one and the higher ones.
    """

    beds: Collection[str] = ()
    kind: AlarmKind | None = None
    priority: Priority | None = None
    rules: Collection[str] = ()

    def takes(self, event: AlarmEvent) -> bool:
        """Say whether a transition is wanted."""
        return (
            (not self.beds or event.bed in self.beds or event.bed == EVERY_BED)
            and (not self.rules or event.rule in self.rules)
            and self.kind in (None, event.kind)
            and (self.priority is None or _RANK[event.priority] >= _RANK[self.priority])
        )


def wanted(
    bed: str | Collection[str] | None = None,
    kind: str | None = None,
    priority: str | None = None,
    rule: str | Collection[str] | None = None,
) -> Wanted:
    """Return a filter from what a caller gives: one name or several, None for all.

    Raises
    ------
    ValueError
        If there is no such kind or priority.
    """

    def names(given: str | Collection[str] | None) -> Collection[str]:
        return frozenset((given,) if isinstance(given, str) else given or ())

    return Wanted(
        names(bed),
        None if kind is None else AlarmKind(kind),
        None if priority is None else Priority(priority),
        names(rule),
    )


class _Repeats:
    # Whether an event was among the entries just before this one.
    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()
        self._number = 0

    def is_repeat(self, event: str | None) -> bool:
        self._number += 1
        while self._last and next(iter(self._last.values())) < self._number - _LOOKED_AT:
            self._last.popitem(last=False)
        if event is None:
            return False
        known = event in self._last
        self._last[event] = self._number
        self._last.move_to_end(event)
        return known


class Subscription:
    """A reader of alarm transitions that survives restarts of the server.

    Nothing is read ahead of what is asked for, and nothing is kept: a slow reader costs nobody anything.

    Attributes
    ----------
    position : str
        Stream id of the last entry that was looked at, wanted or not: a new subscription may begin here.

    Examples
    --------
    >>> async with await Subscription.open("redis://localhost") as subscription:  # doctest: +SKIP
    ...     while True:
    ...         for event in await subscription.next():
    ...             print(event.bed, event.presence, event.message)
    """

    def __init__(
        self, url: str, prefix: str, position: str, wanted: Wanted, silent_after_s: float | None, clock: Clock
    ) -> None:
        self.position = position
        self._wanted = wanted
        self._clock = clock
        self._prefix = prefix
        self._stream = stream_key(prefix, ALARMS, 0)
        # Without repeating anything itself: silence must be noticed while the server is away.
        self._client = open_client(
            url, retries=0, socket_timeout_s=_SOCKET_TIMEOUT_S, on_connect=self._note_connection
        )
        self._connected = False
        self._repeats = _Repeats()
        self._silent_after_s = silent_after_s
        self._notices: list[Alarm] = []
        self._failures = 0
        # Whether the stream may have lost what we have not seen: on each new connection, and when going on.
        self._loss_possible = False
        # The position of which that has been told.
        self._lost_at = ""
        now_ns = clock.now_ns()
        self._asked_ns = now_ns
        self._checked_ns = now_ns
        # The beginning counts as a sign of life: whoever has just come does not know yet.
        self._sign_ns = now_ns
        self._silent: Alarm | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        since: str | datetime | Alarm | None = None,
        wanted: Wanted | None = None,
        silent_after_s: float | None = SILENT_AFTER_S,
        clock: Clock | None = None,
    ) -> Self:
        """Find the place to begin.

        Parameters
        ----------
        url : str
            Server of the streams.
        prefix : str
        since : str, datetime or Alarm, optional
            See `alarms`; by default the next transition.
        wanted : Wanted, optional
        silent_after_s : float, optional
            None for no notices.
        clock : Clock, optional

        Raises
        ------
        BusUnavailableError
            If the server cannot be used now.
        stream.subscription.positions.SinceError
            If `since` is no position and no time.
        """
        clock = clock or SystemClock()
        if isinstance(since, Alarm):
            since = since.position
        begin = None if since is None else after(since, clock.now_ns() // 1_000_000)
        async with await Bus.connect(url, prefix=prefix, clock=clock) as bus:
            try:
                partitions = (await bus.declare(ALARMS)).partitions
                stream = stream_key(prefix, ALARMS, 0)
                if begin is None:
                    begin = await bus.last_id(stream)
                before: Any = await bus.client.xrevrange(stream, max=begin, min="-", count=_LOOKED_AT)
            except RedisError as error:
                raise BusUnavailableError(f"cannot read the alarms: {error}") from error
        if partitions != 1:
            raise BusUnavailableError(f"topic {ALARMS} has {partitions} partitions: it must have one")
        subscription = cls(url, prefix, begin, wanted or Wanted(), silent_after_s, clock)
        for _, fields in reversed(before):
            event = _decoded(fields)
            subscription._repeats.is_repeat(event.event if isinstance(event, AlarmEvent) else None)
        # Whoever asks for a time takes what there is.
        subscription._loss_possible = isinstance(since, str) and begin == since and not is_of_time(begin)
        return subscription

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def next(self, *, wait: bool = True) -> list[Alarm]:
        """Return what comes next: at once if there is something, else after a second at most.

        A server that is away is waited for.

        Parameters
        ----------
        wait : bool
            False to return at once.

        Returns
        -------
        list of Alarm
            Wanted transitions and notices, in order; empty if none came.

        Raises
        ------
        redis.exceptions.RedisError
            If the server answers, but refuses.
        """
        self._allow_for_pause()
        events: list[Alarm] = []
        try:
            block = _BLOCK_MS if wait and not self._notices else None
            reply: Any = await self._client.xread({self._stream: self.position}, count=_COUNT, block=block)
            heed_cancellation()
            if self._failures:
                log.warning("the Redis server answers again")
                self._failures = 0
            if self._loss_possible:
                await self._look_for_loss()
                self._loss_possible = False
            # What is missing goes before what comes after it.
            events, self._notices = self._notices, []
            for _, entries in reply or ():
                events += self._take(entries)
            await self._check_life()
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            if isinstance(error, AuthenticationError | AuthorizationError):
                raise
            heed_cancellation()
            await self._wait_after(error)
        self._look_at_silence()
        self._asked_ns = self._clock.now_ns()
        notices, self._notices = self._notices, []
        return events + notices

    async def rest(self) -> AsyncIterator[Alarm]:
        """Yield what the stream holds now, and end."""
        while True:
            before = self.position
            for event in await self.next(wait=False):
                yield event
            if self.position == before and not self._failures:
                return

    def _note_connection(self) -> None:
        # Whether it is to the same server, and whether that has what it had, nobody says. The first one is as
        # `open` found it, unless the server was away since.
        self._loss_possible |= self._connected or self._failures > 0
        self._connected = True

    def _allow_for_pause(self) -> None:
        # While nobody asked, nobody listened for signs of life.
        now_ns = self._clock.now_ns()
        if now_ns - self._asked_ns > _CHECK_S * 1e9:
            self._sign_ns += now_ns - self._asked_ns
            # And the stream may have been trimmed beyond where we are.
            self._loss_possible = True

    def _take(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Alarm]:
        events: list[Alarm] = []
        for raw_id, fields in entries:
            self.position = raw_id.decode()
            event = _decoded(fields)
            if not isinstance(event, AlarmEvent):
                # One entry that is not ours must not silence those behind it.
                log.warning("%s: entry %s is no alarm event: %s", ALARMS, self.position, event)
                self._repeats.is_repeat(None)
            elif not self._repeats.is_repeat(event.event) and self._wanted.takes(event):
                events.append(Alarm(position=self.position, **event.model_dump()))
        return events

    async def _wait_after(self, error: Exception) -> None:
        if not self._failures:
            log.warning("waiting for the Redis server: %s", error)
        shortest, longest = _BACKOFF_S
        self._failures += 1
        pause_s = min(longest, shortest * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)
        await asyncio.sleep(pause_s)

    async def _look_for_loss(self) -> None:
        # A server that was restarted without all of its data, and a position that is older than what is kept.
        if self.position in ("0-0", self._lost_at):
            return
        # In this order: what is trimmed in between counts as trimmed.
        there: Any = await self._client.xrange(self._stream, self.position, self.position)
        oldest, newest, gone, holds = (0, 0), (0, 0), False, False
        if await self._client.exists(self._stream):
            info: Any = await self._client.xinfo_stream(self._stream)
            newest = place_of(info["last-generated-id"])
            gone, holds = info["entries-added"] > info["length"], bool(info["length"])
            oldest = place_of(info["first-entry"][0]) if holds else newest
        at = place_of(self.position)
        if gone and at < oldest:
            why = "the server no longer keeps all that follows the position"
        # At a time there need never have been an entry.
        elif not is_of_time(self.position) and (at > newest or (holds and at >= oldest and not there)):
            why = "the server has lost entries"
            self._lost_at = self.position
        else:
            return
        log.warning("alarm transitions may be missing: %s", why)
        now_ns = self._clock.now_ns()
        identity = alarm_id(EVERY_BED, self.position, EVENTS_MISSED, now_ns)
        message = f"alarm transitions may be missing: {why}"
        self._notices.append(
            self._notice(identity, 0, EVENTS_MISSED, Priority.MEDIUM, Presence.ON, message, now_ns)
        )

    async def _check_life(self) -> None:
        now_ns = self._clock.now_ns()
        if self._silent_after_s is None or now_ns - self._checked_ns < _CHECK_S * 1e9:
            return
        silent_ms = await silence_ms(self._client, self._prefix)
        self._checked_ns = now_ns = self._clock.now_ns()
        if silent_ms is not None:
            self._sign_ns = max(self._sign_ns, now_ns - silent_ms * 1_000_000)

    def _look_at_silence(self) -> None:
        if self._silent_after_s is None:
            return
        now_ns = self._clock.now_ns()
        silent = now_ns - self._sign_ns >= self._silent_after_s * 1e9
        if silent and self._silent is None:
            identity = alarm_id(EVERY_BED, "subscription", SERVICE_SILENT, self._sign_ns)
            away = "the Redis server does not answer" if self._failures else "no worker is heard of"
            self._silent = self._notice(
                identity,
                0,
                SERVICE_SILENT,
                Priority.HIGH,
                Presence.ON,
                f"service silent: {away}",
                self._sign_ns,
            )
            self._notices.append(self._silent)
        elif not silent and self._silent is not None:
            begun, self._silent = self._silent, None
            self._notices.append(
                self._notice(
                    begun.alarm,
                    1,
                    SERVICE_SILENT,
                    Priority.HIGH,
                    Presence.OFF,
                    "workers are heard of again",
                    begun.onset_t,
                )
            )

    def _notice(
        self,
        identity: str,
        number: int,
        rule: str,
        priority: Priority,
        presence: Presence,
        message: str,
        onset_ns: int,
    ) -> Alarm:
        now_ns = self._clock.now_ns()
        return Alarm(
            alarm=identity,
            event=f"{identity}-{number}",
            bed=EVERY_BED,
            session="subscription",
            rule=rule,
            kind=AlarmKind.TECHNICAL,
            code=rule.upper().replace("-", "_"),
            priority=priority,
            presence=presence,
            onset=0,
            onset_t=onset_ns,
            since=now_ns,
            message=message,
            ingest_ns=now_ns,
            position=self.position,
        )


def _decoded(fields: dict[bytes, bytes]) -> AlarmEvent | MalformedMessageError:
    try:
        return AlarmEvent.decode(fields.get(b"v", b""))
    except MalformedMessageError as error:
        return error


async def alarms(
    url: str,
    *,
    prefix: str = DEFAULT_PREFIX,
    bed: str | Collection[str] | None = None,
    kind: str | None = None,
    priority: str | None = None,
    rule: str | Collection[str] | None = None,
    since: str | datetime | Alarm | None = None,
    follow: bool = True,
    silent_after_s: float | None = SILENT_AFTER_S,
    clock: Clock | None = None,
) -> AsyncIterator[Alarm]:
    """Yield alarm transitions, each once, in order. A server that is restarted is waited for.

    Parameters
    ----------
    url : str
        Server of the streams.
    prefix : str
        Start of every key of the deployment.
    bed, rule : str or collection of str, optional
        Only these.
    kind : str, optional
        ``physiological`` or ``technical``.
    priority : str, optional
        The lowest that is wanted: ``high``, ``medium``, ``low`` or ``info``.
    since : str, datetime or Alarm, optional
        A position (stream id) or the transition that has it: those behind it. A time, as a datetime, ISO 8601
        text or so long ago (``"10m"``): those that the server took then or later. By default the next one
        when following, else the oldest that is kept.
    follow : bool
        Wait for more; otherwise end with the newest.
    silent_after_s : float, optional
        When following: if no worker is heard of for so long, say so with an event of rule ``service-silent``,
        which is on no stream, and again when one is. None for not.
    clock : Clock, optional

    Yields
    ------
    Alarm

    Raises
    ------
    BusUnavailableError
        If the server cannot be used at the beginning.
    stream.subscription.positions.SinceError
        If `since` is no position and no time.
    ValueError
        If there is no such kind or priority.
    """
    subscription = await Subscription.open(
        url,
        prefix=prefix,
        since=since if since is not None or follow else "0-0",
        wanted=wanted(bed, kind, priority, rule),
        silent_after_s=silent_after_s if follow else None,
        clock=clock,
    )
    async with subscription:
        if not follow:
            async for event in subscription.rest():
                yield event
            return
        while True:
            for event in await subscription.next():
                yield event


def follow_alarms(url: str, **options: Any) -> Iterator[Alarm]:
    """Yield alarm transitions, for programs without asyncio; parameters and errors as of `alarms`.

    Close the iterator, or let it go, to end the subscription.
    """
    # A loop in a thread of its own, so that it also works where a loop is running (a notebook).
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="bedside-alarms", daemon=True)
    thread.start()
    events = alarms(url, **options)

    async def following() -> Alarm | None:
        return await anext(events, None)

    waiting = None
    try:
        while True:
            waiting = asyncio.run_coroutine_threadsafe(following(), loop)
            event = waiting.result()
            if event is None:
                return
            yield event
    finally:
        asyncio.run_coroutine_threadsafe(_finish(events), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _finish(events: AsyncIterator[Alarm]) -> None:
    me = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not me]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await events.aclose()  # type: ignore[attr-defined]  # an async generator's
