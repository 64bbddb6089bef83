"""Alarms about the deployment, raised by processes other than workers.

Any number of processes may raise the same one: it is named after what happened, published once, and which
are open is kept in a hash on the server, so that whoever comes later can end it. Those of workers and
watchers go into the audit log, too; adapters of feeds have no business there.
"""

from __future__ import annotations

import logging
from typing import Any

import redis.asyncio as redis
from redis.exceptions import ResponseError

from stream.audit.log import AuditLog
from stream.audit.recorder import entry_of
from stream.clock import Clock
from stream.contract import EVERY_BED, AlarmEvent, AlarmKind, Presence, Priority, alarm_id
from stream.topics import ALARMS, TOPICS
from stream.transport.layout import (
    Message,
    TopicConfig,
    encode_message,
    once_key,
    registry_key,
    stream_key,
    trim_options,
)
from stream.transport.scripts import PUBLISH, publish_call

log = logging.getLogger(__name__)


async def read_config(client: redis.Redis, prefix: str, topic: str) -> TopicConfig:
    """Return a topic's configuration without declaring it: whoever publishes on it first does that."""
    registered: Any = await client.hget(registry_key(prefix), topic)
    return TopicConfig.from_json(registered) if registered else TOPICS[topic]


class Notices:
    """Technical alarms of bed ``*``.

    Parameters
    ----------
    client : redis.asyncio.Redis
    prefix : str
        Start of every key of the deployment.
    key : str
        Of the hash in which the open ones are kept.
    clock : Clock
    audit : AuditLog, optional
        Where they are recorded.
    """

    def __init__(
        self, client: redis.Redis, prefix: str, key: str, clock: Clock, audit: AuditLog | None = None
    ) -> None:
        self._client, self._prefix, self._key, self._clock = client, prefix, key, clock
        self._audit = audit
        self._publish = client.register_script(PUBLISH)

    async def open(self) -> list[AlarmEvent]:
        """Return the raises of the alarms that nobody has ended."""
        rows: Any = await self._client.hgetall(self._key)
        return [AlarmEvent.decode(value) for value in rows.values()]

    async def begin(
        self, rule: str, who: str, onset_ms: int, priority: Priority, message: str, now_ms: int
    ) -> AlarmEvent:
        """Raise an alarm, unless it was raised before.

        Parameters
        ----------
        rule : str
        who : str
            What it is about: the session of the alarm.
        onset_ms : int
            Since when, ms since the epoch: names the alarm. 0: since ever, and told as now.
        priority : Priority
        message : str
        now_ms : int
            By the server's clock.
        """
        alarm = alarm_id(EVERY_BED, who, rule, onset_ms)
        event = AlarmEvent(
            alarm=alarm,
            event=f"{alarm}-0",
            bed=EVERY_BED,
            session=who,
            rule=rule,
            kind=AlarmKind.TECHNICAL,
            code=rule.upper().replace("-", "_"),
            priority=priority,
            presence=Presence.ON,
            onset=0,
            onset_t=(onset_ms or now_ms) * 1_000_000,
            since=now_ms * 1_000_000,
            message=message,
            ingest_ns=self._clock.now_ns(),
        )
        await self._send(event, now_ms)
        await self._client.hset(self._key, alarm, event.encode())
        return event

    async def begin_again(self, raised: AlarmEvent, now_ms: int) -> None:
        """Raise an alarm on a server that took over from the one that knew of it, if it does not."""
        if await self._send(raised, now_ms):
            await self._client.hset(self._key, raised.alarm, raised.encode())

    async def end(self, raised: AlarmEvent, message: str, now_ms: int) -> None:
        """End an alarm."""
        event = raised.model_copy(
            update={
                "event": f"{raised.alarm}-1",
                "presence": Presence.OFF,
                "since": now_ms * 1_000_000,
                "message": message,
                "ingest_ns": self._clock.now_ns(),
            }
        )
        await self._send(event, now_ms)
        await self._client.hdel(self._key, raised.alarm)

    async def _send(self, event: AlarmEvent, now_ms: int) -> bool:
        stream = stream_key(self._prefix, ALARMS, 0)
        bed = event.bed.encode()
        config = await read_config(self._client, self._prefix, ALARMS)
        fields = encode_message(Message(now_ms, bed, event.encode(), []))
        keys, args = publish_call(
            stream,
            [*trim_options(config, now_ms), "*", *fields],
            once=once_key(self._prefix, ALARMS, event.event.encode()),
        )
        _, is_new = await self._publish(keys=keys, args=args)
        if is_new:
            log.warning("%s: %s (%s)", event.rule, event.message, event.presence)
        await self._record(event)
        return bool(is_new)

    async def _record(self, event: AlarmEvent) -> None:
        # Also of one that another process published, which may have died before it came to this: each is
        # recorded once.
        if self._audit is None:
            return
        try:
            await self._audit.append(**entry_of(event, self._clock.now_ns()))
        except ResponseError as error:
            # A user who may not: the alarm is what matters.
            log.warning("%s is not in the audit log: %s", event.rule, error)
