"""Subscribing to alarms."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator

from stream.bus import Bus, Entry
from stream.contract import AlarmEvent, MalformedMessageError
from stream.topics import ALARMS

log = logging.getLogger(__name__)

# Repeats follow within one redelivery, half a second of a ward; this many events are hours of it.
_REMEMBERED = 10_000


async def alarms(
    bus: Bus, *, bed: str | None = None, since_ms: int | None = None, follow: bool = True
) -> AsyncIterator[AlarmEvent]:
    """Yield alarm transitions, each once, in order.

    Parameters
    ----------
    bus : Bus
    bed : str, optional
        Only this bed's.
    since_ms : int, optional
        Begin with those that the server took at this time, ms since the epoch, or later. By default with
        the next one when following, else with the oldest that is kept.
    follow : bool
        Wait for more; otherwise end with the newest.

    Yields
    ------
    AlarmEvent
    """
    after = "$" if follow else "0"
    if since_ms is not None:
        after = f"{max(0, since_ms - 1)}-{2**64 - 1}"
    entries: AsyncIterator[Entry] = bus.tail(ALARMS, after=after) if follow else bus.kept(ALARMS, after)
    seen: OrderedDict[str, None] = OrderedDict()
    async for entry in entries:
        try:
            event = AlarmEvent.decode(entry.value)
        except MalformedMessageError as error:
            # One entry that is not ours must not silence those behind it.
            log.warning("%s: entry %s is no alarm event: %s", ALARMS, entry.id, error)
            continue
        if event.event in seen or (bed is not None and event.bed != bed):
            continue
        seen[event.event] = None
        if len(seen) > _REMEMBERED:
            seen.popitem(last=False)
        yield event
