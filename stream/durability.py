"""Whether alarms are where the loss of the server does not reach them: on a replica, and in its file.

A Redis server answers before its replicas have what was written, and before its append-only file is synced.
A worker therefore asks, before chunks are done that brought about alarms, whether these are there (``WAIT``,
``WAITAOF``). Where they are not in time it goes on all the same, and says so: no alarm is late for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis.exceptions import RedisError, ResponseError

from stream import metrics
from stream.audit.log import AuditLog
from stream.bus import Bus
from stream.clock import Clock
from stream.contract import AlarmEvent, Priority
from stream.notices import Notices

log = logging.getLogger(__name__)

ALARMS_AT_RISK = "alarms-at-risk"
"""Rule of the alarm that alarms lie on one machine, or in its memory only."""

# An append-only file is synced each second, and a second later if the disk is busy. A replica has what was
# written within milliseconds; one that needs longer than this stands still.
WAIT_MS = 2_000


class Durability:
    """Asks one server, and tells when the answer is no.

    A server without replicas and without a file promises nothing, and is not asked. One that had replicas is
    expected to have them.

    Parameters
    ----------
    bus : callable
        Returns the worker's own connection.
    clock : Clock
    url : str
        Of the server. One that Sentinels name is expected to have a replica, too: they need another one to
        choose.
    """

    def __init__(self, bus: Callable[[], Awaitable[Bus]], clock: Clock, url: str) -> None:
        self._bus = bus
        self._clock = clock
        self._expects_replica = "sentinel" in parse_qs(urlsplit(url).query)
        self._has_waitaof = True
        self._at_risk = False
        # Which process answered last, and what was open there.
        self._server = ""
        self._known: list[AlarmEvent] = []

    async def confirm(self, *, published: bool) -> None:
        """Return when alarms are safe, or cannot be made so in time: then an alarm says that.

        Parameters
        ----------
        published : bool
            Whether alarms were published since the last call. Without any nobody is asked, except whether an
            alarm of ours is over.
        """
        if not published and not self._at_risk:
            return
        try:
            bus = await self._bus()
            about: Mapping[str, Any] = await bus.client.info()
            missing = await self._missing(bus, about)
            self._at_risk = bool(missing)
            metrics.ALARMS_AT_RISK.set(self._at_risk)
            await self._tell(bus, about["run_id"], "; ".join(missing))
        except (RedisError, OSError) as error:
            log.warning("cannot tell whether alarms are safe: %s", error)

    async def _missing(self, bus: Bus, about: Mapping[str, Any]) -> list[str]:
        replicas = about["connected_slaves"]
        has_file = bool(about["aof_enabled"]) and self._has_waitaof
        self._expects_replica |= replicas > 0
        missing = ["no replica is connected"] if self._expects_replica and not replicas else []
        pipeline = bus.client.pipeline(transaction=False)
        # A connection waits for what it has written itself, and so for everything that was written before.
        pipeline.set(f"{bus.prefix}durability:asked", 1)
        if replicas:
            pipeline.execute_command("WAIT", 1, WAIT_MS)
        if has_file:
            pipeline.execute_command("WAITAOF", 1, 0, WAIT_MS)
        _, *answers = await _all(pipeline)
        if replicas and not answers.pop(0):
            missing.append(f"no replica has them within {WAIT_MS / 1000:g} s")
        if has_file:
            missing += self._of_file(answers.pop(0))
        return missing

    def _of_file(self, answer: Any) -> list[str]:
        if isinstance(answer, ResponseError):
            if "unknown command" not in str(answer):
                raise answer
            # Redis before 7.2.
            log.info("the server has no WAITAOF: its file is not waited for")
            self._has_waitaof = False
            return []
        return [] if answer[0] else [f"the append-only file does not have them within {WAIT_MS / 1000:g} s"]

    async def _tell(self, bus: Bus, server: str, missing: str) -> None:
        # Another worker may have raised it, or have died with it.
        key = f"{bus.prefix}durability:open"
        notices = Notices(bus.client, bus.prefix, key, self._clock, AuditLog(bus))
        seconds, microseconds = await bus.client.time()
        now_ms = seconds * 1000 + microseconds // 1000
        if server != self._server:
            # Whoever was told of an alarm that went down with another server is told when it ends.
            for event in self._known:
                await notices.begin_again(event, now_ms)
        raised = await notices.open()
        if missing and not raised:
            message = f"alarms are at risk: {missing}"
            raised = [await notices.begin(ALARMS_AT_RISK, "server", now_ms, Priority.MEDIUM, message, now_ms)]
        elif not missing:
            for event in raised:
                await notices.end(event, "alarms are safe again", now_ms)
            raised = []
        self._server, self._known = server, raised


async def _all(pipeline: Any) -> list[Any]:
    # Answers; the last may be an error of a command that the server does not know.
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    for answer in answers[:-1]:
        if isinstance(answer, Exception):
            raise answer
    return answers
