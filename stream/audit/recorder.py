"""What a worker writes into the audit log: what operators asked for, and what became of alarms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from stream.alarms.operator import Answer
from stream.audit.log import AuditLog
from stream.bus import Bus, until_answered
from stream.contract import AlarmEvent, Command, Presence


class Recorder:
    """Appends to the audit log, and waits for a server that is away: an entry is late, never left out.

    Parameters
    ----------
    bus : callable
        Returns the worker's own connection.
    """

    def __init__(self, bus: Callable[[], Awaitable[Bus]]) -> None:
        self._bus = bus
        self._log: AuditLog | None = None

    async def answer(self, command: Command, at: int, answer: Answer | None, refusal: str = "") -> None:
        """Answer a command: with what was done, or why it was not."""
        value: dict[str, Any] = {"asked": command.value}
        if answer is not None and (answer.before is not None or answer.after is not None):
            value |= {"before": answer.before, "after": answer.after}
        await self._append(
            entry=command.id,
            bed=command.bed,
            kind=command.kind,
            who=command.who,
            at=at,
            done=answer is not None,
            value=value,
            message=refusal if answer is None else answer.message,
        )

    async def events(self, events: Iterable[AlarmEvent], at: int) -> None:
        """Record transitions of alarms; one that comes again after a crash is recorded once."""
        for event in events:
            await self._append(**entry_of(event, at))

    async def _append(self, **fields: Any) -> None:
        async def append() -> None:
            if self._log is None:
                self._log = AuditLog(await self._bus())
            await self._log.append(**fields)

        await until_answered("cannot write the audit log", append)


def entry_of(event: AlarmEvent, at: int) -> dict[str, Any]:
    """Return what `stream.audit.log.AuditLog.append` takes for a transition of an alarm."""
    return {
        "entry": event.event,
        "bed": event.bed,
        "kind": _what_happened(event),
        "who": event.who,
        "at": at,
        "done": True,
        "value": {"rule": event.rule, "priority": event.priority, "since": event.since},
        "message": event.message,
    }


def _what_happened(event: AlarmEvent) -> str:
    if event.presence is Presence.ON:
        if event.escalation:
            return "escalate"
        return "raise" if not event.number else "raise again"
    return {
        Presence.LATCHED: "escalate" if event.escalation else "latch",
        Presence.ACKNOWLEDGED: "acknowledge",
        Presence.OFF: "end",
    }[event.presence]
