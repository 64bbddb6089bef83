"""How many alarms were raised within the last hour."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, NamedTuple

import redis.asyncio as redis

from stream.contract import AlarmEvent, AlarmKind, MalformedMessageError, Priority
from stream.topics import ALARMS
from stream.transport.layout import stream_key

_HOUR_MS = 3_600_000
# Five milliseconds of work, before the pages get their turn.
_PAGE = 200


class Raised(NamedTuple):
    """What alarms are counted by."""

    priority: Priority
    kind: AlarmKind


class AlarmsOfLate:
    """Counts the alarms of an hour; reads only what has come since the count before.

    Parameters
    ----------
    client : redis.asyncio.Redis
    prefix : str
        Start of every key of the deployment.
    """

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._stream = stream_key(prefix, ALARMS, 0)
        self._at = "0"
        self._raised: deque[tuple[int, Raised]] = deque()

    async def count(self, now_ms: int) -> Counter[Raised]:
        """Return how many alarms were raised within the hour before a time, by the server's clock."""
        begin_ms = now_ms - _HOUR_MS
        if int(self._at.partition("-")[0]) < begin_ms:
            self._at = f"{begin_ms}-0"
        while rows := await self._page():
            for entry_id, fields in rows:
                self._at = entry_id.decode()
                self._take(int(entry_id.partition(b"-")[0]), fields.get(b"v", b""))
            if len(rows) < _PAGE:
                break
        while self._raised and self._raised[0][0] < begin_ms:
            self._raised.popleft()
        return Counter(raised for _, raised in self._raised)

    async def _page(self) -> Any:
        return await self._client.xrange(self._stream, min=f"({self._at}", max="+", count=_PAGE)

    def _take(self, at_ms: int, value: bytes) -> None:
        try:
            event = AlarmEvent.decode(value)
        except MalformedMessageError:
            return
        if event.number == 0:
            self._raised.append((at_ms, Raised(event.priority, event.kind)))
