"""What a worker sends into the world, and how."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from faust.types import EventT
from faust.types.transports import ProducerT

from stream import metrics
from stream.contract import AlarmEvent, Explanation, Finding, Vitals
from stream.topics import ALARMS, DEAD_LETTERS, EXPLANATIONS, FINDINGS, VITALS
from stream.transport.layout import FENCED_OFFSET, IDEMPOTENCY_HEADER

log = logging.getLogger(__name__)


class Outgoing:
    """Sends messages to their topics.

    Every method hands its message to the producer, in the order of the calls, and returns what to await for
    the server's reply.

    Parameters
    ----------
    producer : callable
        Returns Faust's producer, started: it takes a third of the time of a topic's own ``send``, which is
        made for models and codecs that we do not use.
    named : callable, optional
        Returns what a topic is called at the broker.
    """

    def __init__(
        self, producer: Callable[[], Awaitable[ProducerT]], named: Callable[[str], str] = str
    ) -> None:
        self._producer = producer
        self._named = named

    async def finding(self, finding: Finding) -> Awaitable[Any]:
        metrics.FINDINGS.inc()
        return await self._send(FINDINGS, finding.bed.encode(), finding.encode())

    async def vitals(self, vitals: Vitals) -> Awaitable[Any]:
        return await self._send(VITALS, vitals.bed.encode(), vitals.encode())

    async def event(self, event: AlarmEvent) -> Awaitable[bool]:
        """Send a transition; what is returned tells whether it is out, and not another worker's to tell."""
        metrics.observe_event(event)
        # Not its message: that may name who acknowledged it.
        log.info(
            "%s: %s %s (%s)",
            event.bed,
            event.rule,
            event.presence,
            event.event,
            extra={"bed": event.bed, "session": event.session, "alarm": event.alarm},
        )
        once = {IDEMPOTENCY_HEADER: event.event.encode()}
        return _is_out(await self._send(ALARMS, event.bed.encode(), event.encode(), once))

    async def explanation(self, explanation: Explanation) -> Awaitable[Any]:
        return await self._send(EXPLANATIONS, explanation.header.bed.encode(), explanation.encode())

    async def dead_letter(self, event: EventT[bytes], why: str) -> Awaitable[Any]:
        """Keep a message that is not of the contract, with why and where it was."""
        metrics.DEAD_LETTERS.inc()
        message = event.message
        source = f"{message.topic}:{message.partition}:{message.offset}"
        about = {"bed": message.key.decode(errors="replace") if message.key else None, "chunk": source}
        log.warning("dead letter %s: %s", source, why, extra=about)
        headers = {"why": why.encode(), "source": source.encode()}
        return await self._send(DEAD_LETTERS, message.key, event.value, headers)

    async def flush(self) -> None:
        """Return when the server has everything that was sent before, rows of tables too."""
        await (await self._producer()).flush()

    async def _send(
        self, topic: str, key: Any, value: bytes | None, headers: Mapping[str, bytes] | None = None
    ) -> Awaitable[Any]:
        producer = await self._producer()
        return await producer.send(self._named(topic), key, value, None, None, dict(headers or {}))


async def _is_out(sent: Awaitable[Any]) -> bool:
    return bool((await sent).offset != FENCED_OFFSET)
