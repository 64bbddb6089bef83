"""What an adapter leaves for the next one of its name, should it die: sessions, and where its source stood.

The hash ``<prefix>ingest:<name>`` has a field for each session, written when it begins and taken out when it
ends, and the field ``position``. How far a session came is not written down: its chunks are on the stream.
"""

from __future__ import annotations

import json
from typing import Any

from ingest.live.feed import BedFeed, Progress
from stream.bus import Bus
from stream.clock import Clock
from stream.contract import MalformedMessageError, SampleChunk
from stream.topics import SAMPLES, TEN_MINUTES_MS
from stream.transport.layout import partition_of

_POSITION = "position"
_SESSION = "session:"
_PAGE = 512
# Behind every entry: XREVRANGE has no open interval that ends nowhere.
_END = "18446744073709551615-18446744073709551615"


class Ledger:
    """The ledger of one adapter.

    Parameters
    ----------
    bus : Bus
    name : str
        Of the feed.
    clock : Clock
    """

    def __init__(self, bus: Bus, name: str, clock: Clock) -> None:
        self._bus, self._clock = bus, clock
        self._key = f"{bus.prefix}ingest:{name}"

    async def begun(self, feed: BedFeed) -> None:
        """Write down that a session of a bed has begun."""
        entry = {"device": feed.device, "session": feed.session, "counted_from": feed.counted_from}
        await self._bus.client.hset(self._key, f"{_SESSION}{feed.bed}", json.dumps(entry))

    async def ended(self, bed: str) -> None:
        """Strike out the session of a bed."""
        await self._bus.client.hdel(self._key, f"{_SESSION}{bed}")

    async def stands_at(self, position: Any) -> None:
        """Write down where the source stands."""
        await self._bus.client.hset(self._key, _POSITION, json.dumps(position))

    async def read(self) -> tuple[Any, dict[tuple[str, str], Progress]]:
        """Return where the source stood, and the sessions that may go on, by bed and device."""
        rows: Any = await self._bus.client.hgetall(self._key)
        fields = {key.decode(): json.loads(value) for key, value in rows.items()}
        position = fields.pop(_POSITION, None)
        sessions = {key.removeprefix(_SESSION): entry for key, entry in fields.items()}
        found: dict[tuple[str, str], Progress] = {}
        for bed, chunk in (await self._last_chunks(set(sessions))).items():
            entry = sessions[bed]
            if chunk.header.session == entry["session"]:
                found[bed, entry["device"]] = Progress(
                    entry["session"], entry["counted_from"], chunk.header, chunk.end
                )
        for bed in sessions:
            if all(bed != known for known, _ in found):
                await self.ended(bed)
        return position, found

    async def _last_chunks(self, beds: set[str]) -> dict[str, SampleChunk]:
        # From the end of each partition back, as far as it is kept.
        if not beds:
            return {}
        config = await self._bus.declare(SAMPLES)
        partitions: dict[int, set[str]] = {}
        for bed in beds:
            partitions.setdefault(partition_of(bed.encode(), config.partitions), set()).add(bed)
        oldest_ms = self._clock.now_ns() // 1_000_000 - TEN_MINUTES_MS
        found: dict[str, SampleChunk] = {}
        for partition, wanted in partitions.items():
            before = _END
            while wanted and (entries := await self._bus.recent(SAMPLES, partition, before, _PAGE)):
                before = entries[-1].id
                for entry in entries:
                    bed = entry.key.decode(errors="replace")
                    if bed not in wanted:
                        continue
                    wanted.discard(bed)
                    try:
                        found[bed] = SampleChunk.decode(entry.value)
                    except MalformedMessageError:
                        continue
                if entries[-1].time_ms < oldest_ms:
                    break
        return found
