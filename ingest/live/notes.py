"""What people are told of devices: technical alarms that name the source, on as long as it goes on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum

import redis.asyncio as redis

from stream.clock import Clock
from stream.contract import AlarmEvent, Priority
from stream.notices import Notices

log = logging.getLogger(__name__)


class Rule(StrEnum):
    """Why a device is spoken of."""

    CONFLICT = "source-conflict"
    REFUSED = "source-refused"
    RATE = "source-rate"
    CHANGED = "source-changed"

    @property
    def priority(self) -> Priority:
        """How urgent it is: what a device has changed is watched all the same, from then on."""
        return Priority.LOW if self is Rule.CHANGED else Priority.MEDIUM


# Long enough that a message in ten that is refused is one alarm, and not ten.
_HOLD_NS = 15_000_000_000
# Of one adapter: so many lines are read by somebody, more by nobody.
_MOST = 64


@dataclass(slots=True)
class _Note:
    why: str
    since_ns: int
    last_ns: int
    raised: AlarmEvent | None = None


class Notes:
    """The alarms of one adapter. None of its methods raises a second alarm for what goes on.

    Parameters
    ----------
    client : redis.asyncio.Redis
    prefix : str
        Start of every key of the deployment.
    name : str
        Of the feed.
    clock : Clock
    """

    def __init__(self, client: redis.Redis, prefix: str, name: str, clock: Clock) -> None:
        self._name, self._clock = name, clock
        self._notices = Notices(client, prefix, f"{prefix}ingest:{name}:alarms", clock)
        self._notes: dict[tuple[Rule, str, str | None], _Note] = {}

    async def recall(self) -> None:
        """End what an adapter of this name left open when it died: what goes on will be told anew."""
        now_ms = self._clock.now_ns() // 1_000_000
        for event in await self._notices.open():
            await self._notices.end(event, "the adapter was started again", now_ms)

    def tell(self, rule: Rule, device: str, bed: str | None, why: str, now_ns: int) -> None:
        """Say, or say again, what is wrong with a device."""
        key = (rule, device, bed)
        note = self._notes.get(key)
        if note is not None:
            note.last_ns = now_ns
        elif len(self._notes) < _MOST:
            self._notes[key] = _Note(why, now_ns, now_ns)
        else:
            log.warning("%s: %s %s", rule, device, why)

    async def look(self, now_ns: int) -> None:
        """Raise what is new and end what is over.

        Raises
        ------
        redis.exceptions.RedisError
        """
        for key, note in list(self._notes.items()):
            rule, device, bed = key
            if note.raised is None:
                text = f"{self._name}: {device}: {note.why}"
                # An alarm is known by its session and onset: two beds of a device are two alarms.
                who = device if bed is None else f"{bed} {device}"[:64]
                note.raised = await self._notices.begin(
                    rule, who, note.since_ns // 1_000_000, rule.priority, text, now_ns // 1_000_000
                )
            elif now_ns - note.last_ns > _HOLD_NS:
                await self._end(key, now_ns)

    async def end_all(self, now_ns: int) -> None:
        """End everything: the adapter stops."""
        for key in list(self._notes):
            await self._end(key, now_ns)

    async def _end(self, key: tuple[Rule, str, str | None], now_ns: int) -> None:
        note = self._notes[key]
        if note.raised is not None:
            await self._notices.end(note.raised, f"over: {note.raised.message}", now_ns // 1_000_000)
        del self._notes[key]
