"""Reading streams: what comes next, and where they begin and end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis.asyncio as redis
from mode import get_logger
from redis.exceptions import ResponseError

from stream.transport.client import backoff_s
from stream.transport.connection import passes
from stream.transport.ids import id_before, offset_after, offset_of

logger = get_logger(__name__)

# Per stream and read. More makes replies so long that processing starves meanwhile.
_READ_COUNT = 64
# A partition that is resumed while a read is blocked waits for the next read: keep that short. Far below the
# socket timeout, beyond which redis-py takes a blocked read for a dead server.
BLOCK_MS = 250


class Record(NamedTuple):
    """A stream entry."""

    offset: int
    fields: Mapping[bytes, bytes]


# Reads begin at least so far apart. A message that comes alone is read at once; of those that follow each
# other closely, each would take a call of its own, which costs as much as dealing with the message does.
_GATHER_S = 0.01
# A busy process lets more messages gather, up to this: what is taken together costs less. Well below the
# 200 ms of signal in a chunk, which is how old its first sample is anyway.
_GATHER_MOST_S = 0.05
# Parts of the time of the event loop's thread: up to the first there is no hurry to save any. Above the
# second, other threads that want the interpreter, and other processes, leave it little more.
_EASY, _BUSY = 0.4, 0.8
# How busy it is counts over this time.
_OVER_S = 1.0


class Pace:
    """How far apart reads begin: the busier the reading thread is, the farther."""

    def __init__(self) -> None:
        self._busy = 0.0
        self._last: tuple[float, float] | None = None

    def gather_s(self, now_s: float, cpu_s: float) -> float:
        """Return how long to wait from the beginning of this read to that of the next, seconds.

        Parameters
        ----------
        now_s : float
            When this read begins, by any clock that does not run back.
        cpu_s : float
            Processor time that the thread has used until then.
        """
        if self._last is not None and now_s > self._last[0]:
            passed_s = now_s - self._last[0]
            share = min(1.0, (cpu_s - self._last[1]) / passed_s)
            self._busy += (1 - math.exp(-passed_s / _OVER_S)) * (share - self._busy)
        self._last = now_s, cpu_s
        part = min(1.0, max(0.0, (self._busy - _EASY) / (_BUSY - _EASY)))
        return _GATHER_S + part * (_GATHER_MOST_S - _GATHER_S)


class Reader:
    """Blocking reads of many streams.

    Parameters
    ----------
    client : redis.asyncio.Redis
        For this alone: a blocked connection blocks all that is queued on it.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._failures = 0
        self._not_before_s = 0.0
        self._pace = Pace()

    async def read(self, positions: Mapping[str, int], timeout: float) -> dict[str, list[Record]]:
        """Return what lies at these offsets and after, waiting for it for a moment.

        Nothing comes back while the server is away.

        Parameters
        ----------
        positions : mapping of str to int
            First offset wanted of each stream.
        timeout : float
            To wait at most, seconds; `BLOCK_MS` at the very most.

        Raises
        ------
        SequenceOverflowError
            If an id does not fit into an offset.
        """
        loop = asyncio.get_running_loop()
        if (pause_s := self._not_before_s - loop.time()) > 0:
            await asyncio.sleep(pause_s)
        now_s = loop.time()
        self._not_before_s = now_s + self._pace.gather_s(now_s, time.thread_time())
        try:
            reply: list[Any] = await self._client.xread(  # type: ignore[assignment]
                {stream: id_before(offset) for stream, offset in positions.items()},
                count=_READ_COUNT,
                block=min(int(timeout * 1000), BLOCK_MS),
            )
        except asyncio.CancelledError:
            # The answer is still to come: the next command on this connection would take it for its own.
            await self._client.connection_pool.disconnect()
            raise
        except Exception as error:
            if not passes(error):
                raise
            if self._failures == 0:
                logger.warning("waiting for the Redis server (reading): %s", error)
            await asyncio.sleep(backoff_s(self._failures))
            self._failures += 1
            return {}
        self._failures = 0
        return {
            stream.decode(): [Record(offset_of(entry_id), fields) for entry_id, fields in entries]
            for stream, entries in reply
            if entries
        }

    async def close(self) -> None:
        await self._client.aclose()


async def bounds(client: redis.Redis, streams: Sequence[str]) -> list[tuple[int, int]]:
    """Return the offset of the oldest message of each stream, and the one after its newest.

    The newest that is still there: a table is restored by reading up to it. Of an empty stream, both are
    where the next message may come.
    """
    async with client.pipeline(transaction=False) as pipeline:
        for stream in streams:
            pipeline.xinfo_stream(stream)
        replies = await pipeline.execute(raise_on_error=False)
    found = []
    for info in replies:
        if isinstance(info, ResponseError) and "no such key" in str(info):
            found.append((0, 0))
        elif isinstance(info, Exception):
            raise info
        elif info["last-entry"] is None:
            end = offset_after(info["last-generated-id"])
            found.append((end, end))
        else:
            found.append((offset_of(info["first-entry"][0]), offset_of(info["last-entry"][0]) + 1))
    return found
