"""From what devices send to the stream: one source, all its beds.

Pieces become chunks of 200 ms that leave at most 200 ms after their samples came; what is missing by then is
a gap. What a person should know of a device becomes a technical alarm that names it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ingest import metrics
from ingest.live.claims import CLAIM_S, Claims
from ingest.live.feed import BedFeed, Progress
from ingest.live.ledger import Ledger
from ingest.live.notes import Notes, Rule
from ingest.live.source import LiveSource, Piece
from ingest.publisher import BusPublisher
from stream.bus import Bus, until_answered
from stream.clock import Clock, SystemClock
from stream.contract import SampleChunk

log = logging.getLogger(__name__)

MAX_BEDS = 1024
"""Far more than one process can feed: a device that makes up beds takes no memory from the others."""

_NS = 1_000_000_000
_LOOK_NS = _NS
# Streams are kept for ten minutes: a device that is away for longer begins anew.
_FORGET_NS = 600 * _NS
# As the worker's alarm has it: times that are this far off name another moment than the one a nurse saw.
_CLOCK_OFF_NS = 5 * _NS
# Chunks in one round trip: as replay does.
_BATCH = 64
# To say good-bye to a server that does not answer.
_FAREWELL_S = 5.0
# Pieces that come within so short a time are handled together: waking up costs more than handling one.
_GATHER_S = 0.001


class Intake:
    """Brings one source onto the bus.

    Parameters
    ----------
    source : LiveSource
    bus : Bus
    clock : Clock, optional
        The one by which the source stamps what arrives.
    say : callable, optional
        Called with a line of text when a feed begins or something about it is worth a word; logged if there
        is no such callable.
    """

    def __init__(
        self,
        source: LiveSource,
        bus: Bus,
        *,
        clock: Clock | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._source, self._bus = source, bus
        self._clock = clock or SystemClock()
        self._say = say or log.info
        self._publisher = BusPublisher(bus, clock=self._clock)
        self._claims = Claims(bus.client, bus.prefix, source.name)
        self._ledger = Ledger(bus, source.name, self._clock)
        self._notes = Notes(bus.client, bus.prefix, source.name, self._clock)
        self._feeds: dict[str, BedFeed] = {}
        self._progress: dict[tuple[str, str], Progress] = {}
        # Devices that another one was in the way of, by when to ask again.
        self._refused: dict[tuple[str, str], tuple[int, str]] = {}
        self._sessions: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._position: Any = None
        self._look_ns = 0
        self._behind_ns = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Take what comes until asked to stop, then end all sessions.

        Raises
        ------
        IngestError
            If the source cannot start.
        redis.exceptions.RedisError
            If the server does not answer at the beginning. Later it is waited for.
        """
        position, self._progress = await self._ledger.read()
        await self._notes.recall()
        await self._source.start(position)
        self._say(f"waiting for devices: {self._source.where}")
        stopping = asyncio.create_task(stop.wait())
        working = asyncio.create_task(self._work(stop))
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                # It may be waiting for the server.
                await asyncio.wait((working,), timeout=_FAREWELL_S)
            if working.done():
                working.result()
            await self._source.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._farewell(working.done())
        finally:
            metrics.BEDS.set(0)
            for task in (stopping, working):
                task.cancel()
            await asyncio.gather(stopping, working, return_exceptions=True)
            await self._source.stop()

    async def _work(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                now = self._clock.now_ns()
                await self._take(now)
                if now >= self._look_ns:
                    await until_answered("the books of the feed", self._look)
                await self._wait(stopped)
        finally:
            stopped.cancel()

    async def _wait(self, stopped: asyncio.Task[bool]) -> None:
        # For something to take, or to send.
        dues = [feed.due_ns() for feed in self._feeds.values()]
        due = min([self._look_ns, *(at for at in (*dues, self._source.due_ns()) if at is not None)])
        timeout = max(_GATHER_S, (due - self._clock.now_ns()) / 1e9)
        arrived = asyncio.create_task(self._source.arrived.wait())
        try:
            await asyncio.wait((arrived, stopped), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived.cancel()
        await asyncio.sleep(_GATHER_S)

    async def _take(self, now_ns: int) -> None:
        pieces = self._source.take()
        for trouble in self._source.troubles():
            metrics.REFUSED.inc()
            about = f" (bed {trouble.bed})" if trouble.bed is not None else ""
            self._notes.tell(Rule.REFUSED, trouble.device, trouble.bed, f"{trouble.why}{about}", now_ns)
        await self._claim(pieces, now_ns)
        for piece in pieces:
            feed = self._feeds.get(piece.bed)
            if feed is None or feed.device != piece.device:
                self._refuse(piece, now_ns)
            else:
                feed.add(piece)
                if feed.change is not None:
                    why = f"bed {feed.bed}: sends {feed.change}: a new session begins"
                    self._notes.tell(Rule.CHANGED, feed.device, feed.bed, why, now_ns)
                    feed.change = None
        chunks = [chunk for feed in self._feeds.values() for chunk in feed.take(now_ns)]
        await self._publish(chunks)
        await self._note_sessions()

    async def _publish(self, chunks: Sequence[SampleChunk]) -> None:
        if not chunks:
            return
        for at in range(0, len(chunks), _BATCH):
            batch = chunks[at : at + _BATCH]
            await until_answered("publishing", partial(self._publisher.publish, batch))
        oldest = min(chunk.header.ingest_ns for chunk in chunks)
        self._behind_ns = max(self._behind_ns, self._clock.now_ns() - oldest)

    # -- who feeds a bed

    async def _claim(self, pieces: Sequence[Piece], now_ns: int) -> None:
        # For devices that have no bed yet. One that was refused asks again once in a while.
        asking: dict[tuple[str, str], Piece] = {}
        for piece in pieces:
            claim, feed = (piece.bed, piece.device), self._feeds.get(piece.bed)
            if feed is not None and now_ns - feed.heard_ns < CLAIM_S * _NS:
                continue
            if self._refused.get(claim, (0, ""))[0] > now_ns:
                continue
            if feed is None and (piece.last or len(self._feeds) + len(asking) >= MAX_BEDS):
                continue
            if all(bed != piece.bed for bed, _ in asking):
                asking[claim] = piece
        if not asking:
            return
        for bed, device in asking:
            feed = self._feeds.get(bed)
            if feed is not None and feed.device != device:
                # It has been silent for long enough.
                await self._part_from(feed)
        holders = await until_answered("claiming beds", lambda: self._claims.ask(asking))
        for claim in asking:
            bed, device = claim
            if claim in holders:
                self._refused[claim] = (now_ns + _LOOK_NS, holders[claim])
                if bed in self._feeds:
                    self._forget(self._feeds[bed])
            else:
                self._refused.pop(claim, None)
                if bed not in self._feeds:
                    self._feeds[bed] = BedFeed(
                        bed, device, self._progress.pop(claim, None), self._source.name
                    )

    def _refuse(self, piece: Piece, now_ns: int) -> None:
        metrics.REFUSED.inc()
        claim, feed = (piece.bed, piece.device), self._feeds.get(piece.bed)
        if feed is not None:
            holder = f"{feed.device} ({self._source.name})"
        elif claim in self._refused:
            holder = self._refused[claim][1]
        elif piece.last:
            return
        else:
            why = f"feeds bed {piece.bed}, which is one too many: {MAX_BEDS} beds can be fed at once"
            self._notes.tell(Rule.REFUSED, piece.device, None, why, now_ns)
            return
        why = f"claims bed {piece.bed}, which {holder} feeds: refused until that one falls silent"
        self._notes.tell(Rule.CONFLICT, piece.device, piece.bed, why, now_ns)

    async def _part_from(self, feed: BedFeed) -> None:
        # A device that gives way, has ended its feed, or has been away for too long.
        self._forget(feed)
        await until_answered("leaving a bed", lambda: self._claims.leave([(feed.bed, feed.device)]))
        await until_answered("leaving a bed", lambda: self._ledger.ended(feed.bed))

    def _forget(self, feed: BedFeed) -> None:
        metrics.DROPPED_SAMPLES.inc(feed.dropped)
        del self._feeds[feed.bed]
        self._sessions.pop(feed.bed, None)
        self._said.pop(feed.bed, None)

    async def _note_sessions(self) -> None:
        for bed, feed in list(self._feeds.items()):
            if feed.session and self._sessions.get(bed) != feed.session:
                self._sessions[bed] = feed.session
                self._say(f"bed {bed}: {feed.description} from {feed.device}")
                await until_answered("noting a session", partial(self._ledger.begun, feed))
            if feed.ended:
                await self._part_from(feed)

    # -- once a second

    async def _look(self) -> None:
        now = self._clock.now_ns()
        heard = [feed for feed in self._feeds.values() if now - feed.heard_ns < CLAIM_S * _NS]
        metrics.BEDS.set(len(heard))
        metrics.BEHIND.set(self._behind_ns / 1e9)
        offs = [feed.behind_ns for feed in heard if feed.behind_ns is not None]
        metrics.DEVICE_CLOCK.set(max(offs, key=abs, default=0) / 1e9)
        for feed in self._feeds.values():
            metrics.DROPPED_SAMPLES.inc(feed.dropped)
            feed.dropped = 0
        for feed in heard:
            self._look_at(feed, now)
        lost = await self._claims.ask((feed.bed, feed.device) for feed in heard)
        for bed, device in lost:
            # We were away for longer than a claim lasts.
            self._forget(self._feeds[bed])
            await self._ledger.ended(bed)
            self._refused[bed, device] = (now + _LOOK_NS, lost[bed, device])
        for feed in [feed for feed in self._feeds.values() if now - feed.heard_ns > _FORGET_NS]:
            await self._part_from(feed)
        self._refused = {claim: asked for claim, asked in self._refused.items() if asked[0] + _LOOK_NS > now}
        # What was taken up to a second ago has been published since.
        if self._position is not None:
            await self._ledger.stands_at(self._position)
        self._position = self._source.position()
        await self._notes.look(now)
        self._behind_ns = 0
        self._look_ns = now + _LOOK_NS

    def _look_at(self, feed: BedFeed, now_ns: int) -> None:
        behind = feed.behind_ns
        if feed.wrong_rate is not None:
            self._notes.tell(Rule.RATE, feed.device, feed.bed, f"bed {feed.bed}: {feed.wrong_rate}", now_ns)
        if behind is None:
            return
        said = ""
        if abs(behind) > _CLOCK_OFF_NS:
            said = f"clock of {feed.device} is {'behind' if behind > 0 else 'ahead of'} ours"
        if self._said.get(feed.bed, "") != said:
            self._said[feed.bed] = said
            by = f" by {abs(behind) / 1e9:.0f} s" if said else ""
            self._say(f"bed {feed.bed}: {said or f'clock of {feed.device} is right again'}{by}")

    async def _farewell(self, whole: bool) -> None:
        # If the server answers. Chunks in between that did not get out are a gap.
        now = self._clock.now_ns()
        if whole:
            await self._take(now)
        chunks = [chunk for feed in self._feeds.values() for chunk in feed.end(now)]
        await self._publish(chunks)
        for feed in list(self._feeds.values()):
            await self._part_from(feed)
        for bed, _ in self._progress:
            # Of a device that never came back.
            await self._ledger.ended(bed)
        if (position := self._source.position()) is not None:
            await self._ledger.stands_at(position)
        await self._notes.end_all(now)
