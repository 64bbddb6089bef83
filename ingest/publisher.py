"""Bringing chunks onto the bus, and no faster than they are taken off it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.exceptions import RedisError, ResponseError

from ingest import metrics
from stream.bus import Bus, heed_cancellation
from stream.clock import Clock, SystemClock
from stream.contract import SampleChunk
from stream.topics import SAMPLES
from stream.transport.connection import passes
from stream.transport.layout import partition_of, stream_key

_log = logging.getLogger(__name__)

# How many chunks an unpaced replay may be ahead of the slowest reader. Enough that a worker which commits
# once a second and takes 4 000 chunks/s never waits for us; a fifth of what the bus keeps of an unpaced
# partition (20 000), so that nothing is trimmed unread; and 10 MB of the server's memory.
MAX_AHEAD = 4_000

# How often the readers' positions are looked at while there is no room: short against the second in which a
# worker commits, and 50 small requests a second to the server.
_POLL_NS = 20_000_000

# How soon a server that has refused is asked again: within what a live feed may be late.
_AGAIN_NS = 200_000_000

# A reader that has not moved for this long is worth a word: a worker takes a few seconds to start.
_STALLED_NS = 10_000_000_000


class Publisher(Protocol):
    """Where replay puts its chunks."""

    async def publish(self, chunks: Sequence[SampleChunk]) -> None:
        """Publish chunks in one go, in order; return when they are safe."""
        ...


class BusPublisher:
    """Publishes chunks on the topic ``samples``.

    Chunks of pace 0 wait for their readers: they are never more than `MAX_AHEAD` ahead of the slowest
    consumer group. The others keep their own time.

    Parameters
    ----------
    bus : Bus
    clock : Clock, optional
    on_wait : callable, optional
        Called with a line of text when there is nobody to wait for, a reader stands still, or the server is
        away or full; logged if there is no such callable.
    stop_event : asyncio.Event, optional
        The one that stops the replay: once set, nothing is waited for, so that the last chunks get out.
    max_ahead : int

    Notes
    -----
    A server that is away, or takes nothing for lack of memory or disk, is waited for, and so are the chunks
    that would come next. What that interrupted is repeated, so a chunk may arrive twice, never out of order;
    readers drop repeats by session and sequence number.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        clock: Clock | None = None,
        on_wait: Callable[[str], None] | None = None,
        stop_event: asyncio.Event | None = None,
        max_ahead: int = MAX_AHEAD,
    ) -> None:
        self._bus = bus
        self._clock = clock or SystemClock()
        self._on_wait = on_wait or _log.warning
        self._stop = stop_event or asyncio.Event()
        self._max_ahead = max_ahead
        # Ids of what was published and not yet read, by stream.
        self._unread: dict[str, deque[tuple[int, int]]] = {}
        self._said = ""

    async def publish(self, chunks: Sequence[SampleChunk]) -> None:
        """Publish chunks in one round trip, in order.

        Raises
        ------
        redis.exceptions.RedisError
            If the server refuses for a reason that no patience helps against, or is away when the replay is
            to stop.
        """
        if not chunks:
            return
        pace = chunks[0].header.pace
        messages = [(chunk.header.bed.encode(), chunk.encode()) for chunk in chunks]
        streams: list[str] = []
        if pace == 0:
            partitions = (await self._bus.declare(SAMPLES)).partitions
            streams = [
                stream_key(self._bus.prefix, SAMPLES, partition_of(bed, partitions)) for bed, _ in messages
            ]
            await self._wait_for_room(streams)
        # What is faster than real time must be kept by count: ten minutes of its signal pass in less.
        ids = await self._hand_over(messages, paced=0 < pace <= 1)
        for stream, entry_id in zip(streams, ids, strict=False):
            self._unread[stream].append(_position(entry_id))
        metrics.observe(chunks, [value for _, value in messages])

    async def _hand_over(self, messages: Sequence[tuple[bytes, bytes]], *, paced: bool) -> list[str]:
        while True:
            try:
                ids = await self._bus.publish_many(SAMPLES, messages, paced=paced)
            except (RedisError, OSError) as error:
                if self._stop.is_set() or not passes(error):
                    raise
                # Without the command that redis-py quotes: it holds samples.
                self._say(f"waiting for the server: {str(error).rpartition('caused error: ')[2]}")
                heed_cancellation()
                await self._clock.sleep_until(self._clock.now_ns() + _AGAIN_NS)
            else:
                self._said = ""
                return ids

    async def _wait_for_room(self, streams: Sequence[str]) -> None:
        new = set(streams) - set(self._unread)
        self._unread |= {stream: deque() for stream in new}
        since, ahead = self._clock.now_ns(), self._ahead()
        while (new or self._ahead() + len(streams) > self._max_ahead) and not self._stop.is_set():
            lacking = await self._forget_what_was_read()
            new = lacking & set(streams)
            if not new and self._ahead() + len(streams) <= self._max_ahead:
                break
            if self._ahead() < ahead:
                since, ahead = self._clock.now_ns(), self._ahead()
            if lacking:
                self._say("waiting for a worker: nothing reads the samples yet")
            elif self._clock.now_ns() - since > _STALLED_NS:
                self._say("waiting: what reads the samples does not move on")
            await self._clock.sleep_until(self._clock.now_ns() + _POLL_NS)
        self._said = ""

    def _ahead(self) -> int:
        return sum(len(unread) for unread in self._unread.values())

    async def _forget_what_was_read(self) -> set[str]:
        # Returns the streams that have no consumer group.
        pipeline = self._bus.client.pipeline(transaction=False)
        for stream in self._unread:
            pipeline.xinfo_groups(stream)
            pipeline.xinfo_stream(stream)
        replies = await pipeline.execute(raise_on_error=False)
        lacking = set()
        for number, (stream, unread) in enumerate(self._unread.items()):
            groups, info = replies[2 * number : 2 * number + 2]
            if isinstance(info, ResponseError):
                # There is no such stream: not yet, or no more since the server came back empty.
                unread.clear()
                lacking.add(stream)
                continue
            if not groups:
                lacking.add(stream)
                continue
            slowest = min(_position(group["last-delivered-id"]) for group in groups)
            newest = _position(info["last-generated-id"])
            while unread and (unread[0] <= slowest or unread[0] > newest):
                unread.popleft()
        return lacking

    def _say(self, text: str) -> None:
        # Once for each reason to wait, not once for each look.
        if self._said != text:
            self._said = text
            self._on_wait(text)


def _position(entry_id: Any) -> tuple[int, int]:
    text = entry_id.decode() if isinstance(entry_id, bytes) else str(entry_id)
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)
