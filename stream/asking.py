"""Asking the worker of a bed for something, and waiting for its answer.

A request is a `Command` on the ``commands`` topic; the answer is an entry of the audit log. A request that is
not answered in time has expired and will not be obeyed later.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Mapping
from typing import Any

from stream.bus import Bus
from stream.clock import Clock, SystemClock
from stream.contract import (
    EVERY_BED,
    AlarmEvent,
    Audit,
    Command,
    CommandKind,
    MalformedMessageError,
    Presence,
    is_name,
)
from stream.topics import ALARMS, AUDIT, COMMANDS
from stream.transport.layout import stream_key

ANSWER_S = 10.0
"""How long a worker may take: a bed that changes hands after a crash is without one for six seconds."""

_PAGE = 500


class AskError(RuntimeError):
    """A request that leads to nothing; the text says why, in one line."""


class UnknownAlarmError(AskError):
    """There is no such alarm among those that are kept."""


class EndedAlarmError(AskError):
    """The alarm is over."""


class NoAnswerError(AskError):
    """No worker answered in time. The request has expired."""


class BadRequestError(ValueError):
    """A request that says too little or something impossible; the text says what."""


async def acknowledge(
    bus: Bus,
    alarm: str | None = None,
    *,
    bed: str | None = None,
    who: str,
    clock: Clock | None = None,
    timeout_s: float = ANSWER_S,
) -> Audit:
    """Acknowledge one alarm, or all open ones of a bed.

    Parameters
    ----------
    bus : Bus
    alarm : str, optional
        Id of an alarm; either this or `bed`.
    bed : str, optional
    who : str
        The person who has seen it.
    clock : Clock, optional
    timeout_s : float

    Returns
    -------
    Audit
        The worker's answer; its ``done`` says whether it obeyed, and its ``message`` why not.

    Raises
    ------
    BadRequestError
        If `who` is empty, or not one of `alarm` and `bed` is given.
    UnknownAlarmError, EndedAlarmError
    NoAnswerError
    """
    if (alarm is None) == (bed is None):
        raise BadRequestError("name one alarm, or a bed for all of its alarms")
    if alarm is not None:
        _check_who(who)
        newest = await newest_event(bus, alarm)
        if newest is None:
            raise UnknownAlarmError(f"there is no alarm {alarm}")
        if newest.presence is Presence.OFF:
            raise EndedAlarmError(f"alarm {alarm} of {newest.bed} is over")
        if newest.bed == EVERY_BED:
            raise AskError(f"alarm {alarm} is not of one bed: it ends by itself ({newest.message})")
        bed = newest.bed
    assert bed is not None
    return await _ask(bus, bed, CommandKind.ACKNOWLEDGE, alarm, who, clock, timeout_s)


async def pause(
    bus: Bus,
    bed: str,
    seconds: float,
    *,
    who: str,
    clock: Clock | None = None,
    timeout_s: float = ANSWER_S,
) -> Audit:
    """Pause a bed's alarms for so many seconds; for the rest see `acknowledge`.

    Raises
    ------
    BadRequestError
        If `seconds` is not a positive number, a name is none, or `who` is empty.
    NoAnswerError
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadRequestError(f"{seconds} s: alarms are paused for a number of seconds greater than 0")
    return await _ask(bus, bed, CommandKind.PAUSE, seconds, who, clock, timeout_s)


async def resume(
    bus: Bus, bed: str, *, who: str, clock: Clock | None = None, timeout_s: float = ANSWER_S
) -> Audit:
    """End the pause of a bed's alarms; for the rest see `acknowledge`.

    Raises
    ------
    BadRequestError
        If a name is none, or `who` is empty.
    NoAnswerError
    """
    return await _ask(bus, bed, CommandKind.RESUME, None, who, clock, timeout_s)


async def set_model(
    bus: Bus,
    bed: str,
    model: str | None,
    *,
    who: str,
    clock: Clock | None = None,
    timeout_s: float = ANSWER_S,
) -> Audit:
    """Have another model judge a bed: the name of a shipped one, None for the worker's own.

    What was set for the model before, its threshold or baseline, is dropped, and its alarm ends; the answer's
    ``message`` says so. For the rest see `acknowledge`.

    Raises
    ------
    BadRequestError
        If `model` is empty, a name is none, or `who` is empty.
    NoAnswerError
    """
    if model is not None and not is_name(model):
        raise BadRequestError("model: give its name, as `bedside models list` shows it")
    return await _ask(bus, bed, CommandKind.SET_MODEL, model, who, clock, timeout_s)


async def set_threshold(
    bus: Bus,
    bed: str,
    threshold: float | None,
    *,
    who: str,
    clock: Clock | None = None,
    timeout_s: float = ANSWER_S,
) -> Audit:
    """Set the alarm threshold of a bed's window scores, None for the model's; for the rest see `acknowledge`.

    Raises
    ------
    BadRequestError
        If `threshold` is no finite number, a name is none, or `who` is empty.
    NoAnswerError
    """
    if threshold is not None and not math.isfinite(threshold):
        raise BadRequestError("threshold: give a number, or nothing for the model's")
    return await _ask(bus, bed, CommandKind.SET_THRESHOLD, threshold, who, clock, timeout_s)


async def set_limits(
    bus: Bus,
    bed: str,
    limits: Mapping[str, float | None] | None,
    *,
    who: str,
    clock: Clock | None = None,
    timeout_s: float = ANSWER_S,
) -> Audit:
    """Set limits of a bed's alarms of rate and rhythm; for the rest see `acknowledge`.

    Parameters
    ----------
    bus : Bus
    bed : str
    limits : mapping of str to (float or None) or None
        Those to change, named as in `stream.vitals.rhythm.Limits`; None for a limit, or for all, is the
        default again.
    who : str
    clock : Clock, optional
    timeout_s : float

    Raises
    ------
    BadRequestError
        If it names no limit, a name is none, or `who` is empty.
    NoAnswerError
    """
    if limits is not None and not limits:
        raise BadRequestError("limits: name at least one, or give nothing for all as by default")
    value = None if limits is None else dict(limits)
    return await _ask(bus, bed, CommandKind.SET_LIMITS, value, who, clock, timeout_s)


async def confirm_baseline(
    bus: Bus, bed: str, *, who: str, clock: Clock | None = None, timeout_s: float = ANSWER_S
) -> Audit:
    """Say that a bed's ECG of the last minutes is this patient's usual one; for the rest see `acknowledge`.

    Raises
    ------
    BadRequestError
        If a name is none, or `who` is empty.
    NoAnswerError
    """
    return await _ask(bus, bed, CommandKind.CONFIRM_BASELINE, None, who, clock, timeout_s)


async def admit(
    bus: Bus,
    bed: str,
    *,
    same: bool = False,
    who: str,
    clock: Clock | None = None,
    timeout_s: float = ANSWER_S,
) -> Audit:
    """Say that a new patient is in a bed, or (`same`) the one of before with another device.

    For the rest see `acknowledge`.

    Raises
    ------
    BadRequestError
        If a name is none, or `who` is empty.
    NoAnswerError
    """
    return await _ask(bus, bed, CommandKind.ADMIT, "same" if same else None, who, clock, timeout_s)


async def discharge(
    bus: Bus, bed: str, *, who: str, clock: Clock | None = None, timeout_s: float = ANSWER_S
) -> Audit:
    """Say that the patient has left a bed, and everything set for them with them; see `acknowledge`.

    Raises
    ------
    BadRequestError
        If a name is none, or `who` is empty.
    NoAnswerError
    """
    return await _ask(bus, bed, CommandKind.DISCHARGE, None, who, clock, timeout_s)


async def newest_event(bus: Bus, alarm: str) -> AlarmEvent | None:
    """Return the newest transition of an alarm among those that are kept."""
    wanted = alarm.encode()
    before = "+"
    key = stream_key(bus.prefix, ALARMS, 0)
    while True:
        rows: Any = await bus.client.xrevrange(key, max=before, min="-", count=_PAGE)
        for _, fields in rows:
            value = fields.get(b"v", b"")
            if wanted not in value:
                continue
            try:
                event = AlarmEvent.decode(value)
            except MalformedMessageError:
                continue
            if event.alarm == alarm:
                return event
        if len(rows) < _PAGE:
            return None
        before = f"({rows[-1][0].decode()}"


def _check_who(who: str) -> None:
    if not is_name(who):
        raise BadRequestError("who: give the name of the person who asks, 1 to 64 characters")


async def _ask(
    bus: Bus, bed: str, kind: CommandKind, value: Any, who: str, clock: Clock | None, timeout_s: float
) -> Audit:
    _check_who(who)
    if not is_name(bed) or bed == EVERY_BED:
        raise BadRequestError("bed: give its name, 1 to 64 characters")
    now_ns = (clock or SystemClock()).now_ns()
    command = Command(
        id=uuid.uuid4().hex,
        bed=bed,
        kind=kind,
        value=value,
        who=who,
        at=now_ns,
        expires=now_ns + round(timeout_s * 1e9),
    )
    # Before the request, so that the answer cannot slip by.
    await bus.declare(AUDIT)
    after = await bus.last_id(stream_key(bus.prefix, AUDIT, 0))
    await bus.publish(COMMANDS, bed.encode(), command.encode())
    try:
        async with asyncio.timeout(timeout_s):
            return await _answer(bus, command.id, after)
    except TimeoutError:
        raise NoAnswerError(
            f"no worker answered for {bed} within {timeout_s:g} s: nothing was done"
        ) from None


async def _answer(bus: Bus, command: str, after: str) -> Audit:
    async for entry in bus.tail(AUDIT, after=after):
        try:
            audit = Audit.decode(entry.value)
        except MalformedMessageError:
            continue
        if audit.entry == command:
            return audit
    raise AssertionError("a topic is followed for ever")
