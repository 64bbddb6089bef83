"""Watching the workers: a dead one cannot say so itself.

A watcher looks at the workers' signs of life (`stream.heartbeat`) and raises the technical alarm
``worker-silent`` on the alarms topic: with high priority when no worker is left, with medium priority when
one of several fell silent. Any number of watchers do so together: an alarm is named after the last sign of
life, and published once. It ends when a worker is heard of again: the first one after all had gone, or, in
place of one of several, the same or one that came after it fell silent.

A worker that stops on purpose takes itself off the books. If it was the last one, that is an alarm only while
feeds are live; so is a deployment whose feeds no worker has taken up.
"""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError

from stream.audit.log import AuditLog
from stream.bus import Bus, heed_cancellation, open_client
from stream.clock import Clock, SystemClock
from stream.contract import AlarmEvent, MalformedMessageError, Priority, SampleChunk
from stream.heartbeat import STEP_MS, Signs, forget, read_signs, workers_key
from stream.notices import Notices, read_config
from stream.topics import SAMPLES
from stream.transport.layout import stream_key

log = logging.getLogger(__name__)

WORKER_SILENT = "worker-silent"

# Heartbeats come every second: three that were missed. With the next look it is told within five seconds.
_SILENT_MS = 4_000
_LOOK_S = 0.25
# A worker that came no later than this after another's last sign may have known it alive.
_BOTH_MS = 1_500
# Feeds may come up before their worker, whose model takes a while to load.
_UNCLAIMED_MS = 10_000
# A feed whose newest chunk is older than this is not live.
_LIVE_MS = 3_000
_SOCKET_TIMEOUT_S = 2.0
_ALL = "workers"


class Watch:
    """One watcher.

    Parameters
    ----------
    url : str
        Server of the streams.
    prefix : str
        Start of every key of the deployment.
    clock : Clock, optional
    """

    def __init__(self, url: str, *, prefix: str, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._prefix = prefix
        self._client = open_client(url, retries=0, socket_timeout_s=_SOCKET_TIMEOUT_S)
        # Which alarms are open is known to all watchers.
        audit = AuditLog(Bus(self._client, prefix=prefix))
        self._notices = Notices(self._client, prefix, f"{workers_key(prefix)}:silent", self._clock, audit)
        # By the server's clock: since when it has answered, and gone, without a break. Workers that could not
        # reach it before, or were heard of at a time that is no longer, get the time to beat again.
        self._since_ms: int | None = None
        # By how much the server's clock is ahead of ours.
        self._ahead_ms = 0

    async def run(self) -> None:
        """Watch for ever; a server that goes away is waited for."""
        try:
            while True:
                try:
                    await self.look()
                except (RedisError, OSError) as error:
                    if self._since_ms is not None:
                        log.warning("watching the workers: %s; trying again", error)
                    self._since_ms = None
                heed_cancellation()
                await asyncio.sleep(_LOOK_S)
        finally:
            await self._client.aclose()

    async def look(self) -> None:
        """Look once: raise what is to be raised, and end what is over.

        Raises
        ------
        redis.exceptions.RedisError
        """
        signs = await read_signs(self._client, self._prefix)
        ahead_ms = signs.now_ms - self._clock.now_ns() // 1_000_000
        if self._since_ms is None or abs(ahead_ms - self._ahead_ms) > STEP_MS:
            self._since_ms = signs.now_ms
        self._ahead_ms = ahead_ms
        open_alarms = await self._notices.open()
        silent = {event.session: event for event in open_alarms if event.session != _ALL}
        whole = [event for event in open_alarms if event.session == _ALL]
        alive = {
            worker for worker, ms in signs.last_ms.items() if -STEP_MS <= signs.now_ms - ms <= _SILENT_MS
        }
        # Whoever has just come, or come back, gives them the time to beat.
        sure = signs.now_ms - self._since_ms > _SILENT_MS
        if alive:
            for event in whole:
                await self._end(event, f"worker {min(alive)} is heard of", signs)
            newest_ms = max(signs.joined_ms.get(worker, 0) for worker in alive)
            for worker, ms in sorted(signs.last_ms.items()):
                if worker in alive:
                    continue
                if newest_ms > ms + _BOTH_MS:
                    # Another has come for it.
                    if worker in silent:
                        await self._end(silent.pop(worker), f"worker {worker} has been replaced", signs)
                    await forget(self._client, self._prefix, worker)
                elif worker not in silent and sure:
                    others = f"{len(alive)} other{'s' if len(alive) > 1 else ''}"
                    message = f"worker {worker} is silent; {others} left"
                    await self._raise(worker, ms, Priority.MEDIUM, message, signs)
            for worker, event in silent.items():
                if worker not in signs.last_ms or worker in alive:
                    await self._end(event, f"worker {worker} is heard of again", signs)
        elif not whole and sure:
            await self._look_at_none(signs)

    async def _look_at_none(self, signs: Signs) -> None:
        assert self._since_ms is not None
        if signs.last_ms:
            worker, ms = max(signs.last_ms.items(), key=lambda sign: (sign[1], sign[0]))
            await self._raise(_ALL, ms, Priority.HIGH, f"no worker is left: {worker} is silent", signs)
        elif signs.left is not None:
            ms, worker = signs.left
            if signs.now_ms - ms > _SILENT_MS and await self._feeds_are_live(signs.now_ms):
                message = f"no worker is left: {worker} was stopped, and feeds go on"
                await self._raise(_ALL, ms, Priority.HIGH, message, signs)
        elif signs.now_ms - self._since_ms > _UNCLAIMED_MS and await self._feeds_are_live(signs.now_ms):
            await self._raise(_ALL, 0, Priority.HIGH, "no worker takes the feeds that come in", signs)

    async def _feeds_are_live(self, now_ms: int) -> bool:
        config = await read_config(self._client, self._prefix, SAMPLES)
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(config.partitions):
            pipeline.xrevrange(stream_key(self._prefix, SAMPLES, partition), count=1)
        for rows in await pipeline.execute():
            for entry_id, fields in rows:
                if now_ms - int(entry_id.partition(b"-")[0]) > _LIVE_MS:
                    continue
                try:
                    header = SampleChunk.decode(fields.get(b"v", b"")).header
                except MalformedMessageError:
                    continue
                if header.pace > 0 and not header.last:
                    return True
        return False

    async def _raise(self, who: str, last_ms: int, priority: Priority, message: str, signs: Signs) -> None:
        await self._notices.begin(WORKER_SILENT, who, last_ms, priority, message, signs.now_ms)

    async def _end(self, raised: AlarmEvent, message: str, signs: Signs) -> None:
        await self._notices.end(raised, message, signs.now_ms)
