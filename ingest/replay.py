"""Replaying recordings to a bus in their own time: many beds, one schedule, no drift."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingest import metrics
from ingest.chunks import CHUNK_S, Cut, Cutter, Feed
from ingest.looping import LoopedRecording
from ingest.publisher import Publisher
from ingest.source import IngestError
from stream.clock import Clock, SystemClock
from stream.contract import SampleChunk

_log = logging.getLogger(__name__)

AS_FAST_AS_POSSIBLE = math.inf
"""The speed at which nothing waits for the clock."""

# As the wire contract has it; nothing is that fast.
_FASTEST = 1_000_000

# Chunks in one round trip. When late, or unpaced: enough that the round trip costs little beside them,
# few enough (150 kB) that the server serves others in between.
_BATCH = 64

# No sleep is longer, so that a request to stop and a piece that was read are seen soon.
_LOOK_NS = 200_000_000

_STATUS_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ReplayStatus:
    """How a replay is doing, about once a second.

    Attributes
    ----------
    beds : int
        Feeds under way.
    chunks, samples : int
        Published so far; a sample counts once for all leads.
    behind_s, max_behind_s : float
        How late the latest of the last second's chunks was, and of all; 0 if unpaced.
    """

    beds: int
    chunks: int
    samples: int
    behind_s: float
    max_behind_s: float


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay did.

    Attributes
    ----------
    chunks, samples : int
        Published; a sample counts once for all leads.
    max_behind_s : float
        How late the latest chunk was; 0 if unpaced.
    stopped : bool
        Whether it was asked to stop before all feeds had ended.
    failed : dict of str to str
        Why the feed of a bed broke off, by bed. Its session has no last chunk: that feed is lost.
    faults : dict of str to int
        To how many chunks a fault happened that concerns single chunks, by its name in a fault script.
    """

    chunks: int
    samples: int
    max_behind_s: float
    stopped: bool
    failed: dict[str, str] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)


def parse_speed(text: str) -> float:
    """Return the speed that a command line asks for.

    Parameters
    ----------
    text : str
        A number greater than 0, or ``max``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if text == "max":
        return AS_FAST_AS_POSSIBLE
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed <= _FASTEST:
        raise ValueError(f"speed '{text}': expected a number greater than 0 (to {_FASTEST:,}), or max")
    return speed


async def replay(
    feeds: Sequence[Feed],
    publisher: Publisher,
    *,
    speed: float = 1.0,
    chunk_s: float = CHUNK_S,
    clock: Clock | None = None,
    stop_event: asyncio.Event | None = None,
    on_status: Callable[[ReplayStatus], None] | None = None,
) -> ReplayReport:
    """Replay recordings until they end, or until asked to stop.

    Parameters
    ----------
    feeds : sequence of Feed
        One per bed.
    publisher : Publisher
    speed : float
        Device seconds per real second; `AS_FAST_AS_POSSIBLE` for no pacing.
    chunk_s : float
        Length of a chunk in device time, 0.05 to 0.5 s.
    clock : Clock, optional
    stop_event : asyncio.Event, optional
        When set, every feed ends with an empty last chunk.
    on_status : callable, optional
        Called with a `ReplayStatus` about once a second.

    Returns
    -------
    ReplayReport

    Raises
    ------
    IngestError
        If a feed cannot begin (an empty part, a loop of a recording that is too short).
    ValueError
        If two feeds are of one bed, or a speed or a length is out of range.

    Notes
    -----
    A chunk is due when its last sample would have been acquired, and times are computed from the chunk's
    number, so that neither a slow reader nor rounding makes a replay drift; one that is late catches up.
    The beds' schedules are shifted against each other, evenly over the length of a chunk. Files
    are read in a thread, one piece of ten seconds ahead; a bed whose file is slow delays no other.
    """
    if not (0 < speed <= _FASTEST or speed == AS_FAST_AS_POSSIBLE):
        raise ValueError(f"a speed of {speed}: it must be greater than 0")
    beds = [feed.bed for feed in feeds]
    if doubled := {bed for bed in beds if beds.count(bed) > 1}:
        raise ValueError(f"two feeds for bed {', '.join(sorted(doubled))}")
    clock = clock or SystemClock()
    # In a thread: a loop looks for its seam in the file.
    players = [await asyncio.to_thread(_Player, feed, speed, chunk_s) for feed in feeds]
    for number, player in enumerate(players):
        # Beds that read at the same moment make one another late: their first pieces differ in length.
        player.first_share = (number + 1) / len(players)
    run = _Run(players, publisher, clock, stop_event or asyncio.Event(), on_status)
    try:
        await asyncio.gather(*(player.load() for player in players))
        run.start(phase_ns=chunk_s * 1e9 / speed / max(1, len(players)))
        return await run.to_the_end()
    finally:
        metrics.BEDS.set(0)
        for player in players:
            player.close()


class _Player:
    # One feed: the chunks that have been read, and the piece that is being read ahead.

    def __init__(self, feed: Feed, speed: float, chunk_s: float) -> None:
        self.feed = feed
        self.paced = not math.isinf(speed)
        self.failure: str | None = None
        self.first_share = 1.0
        self.reading: asyncio.Task[list[Cut]] | None = None
        self._speed, self._chunk_s = speed, chunk_s
        recording, start_s, stop_s = feed.recording, feed.start_s, feed.stop_s
        if feed.loop:
            recording = LoopedRecording(recording, start_s, stop_s)
            start_s, stop_s = feed.offset_s, None
            if feed.lasts_s is not None:
                stop_s = start_s + feed.lasts_s
        self.line = None
        if feed.faults is not None:
            recording, self.line = feed.faults.on_signal(recording, start_s), feed.faults.line()
        self._cutter = Cutter(
            recording,
            feed.bed,
            feed.session,
            start_s=start_s,
            stop_s=stop_s,
            chunk_s=chunk_s,
            pace=speed if self.paced else 0.0,
        )
        self._cuts: deque[Cut] = deque()
        self._seq = 0
        self._start_ns = 0
        # Whether the last chunk of the recording has been taken.
        self._all_taken = False

    def start(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._cutter.base_time_ns = start_ns if self.feed.base_time_ns is None else self.feed.base_time_ns

    @property
    def ended(self) -> bool:
        return self._all_taken and (self.line is None or self.line.next_ns is None)

    def due(self) -> tuple[int, int]:
        # By the clock of the replay, then by number: unpaced beds take turns.
        if self.line is None:
            cut = self._cuts[0]
            device, place = self._acquired_ns(cut), cut.seq
        else:
            assert self.line.next_ns is not None
            device = self.line.next_ns
            place = round(device / (self._chunk_s * 1e9))
        return (self._start_ns + round(device / self._speed) if self.paced else 0), place

    def _acquired_ns(self, cut: Cut) -> int:
        # Device time since the feed began.
        return self._cutter.due_ns(cut) - self._cutter.base_time_ns

    async def load(self) -> None:
        # The first piece and the one after it, before the clock starts.
        for _ in range(2):
            self._has_cut()
            if self.reading is not None:
                await asyncio.wait([self.reading])

    def has_chunk(self) -> bool:
        if self.line is None:
            return self._has_cut()
        # Whatever was sent before the next one arrives has to be under way.
        while not self._all_taken and self._has_cut():
            arrives = self.line.next_ns
            if arrives is not None and arrives <= self._acquired_ns(self._cuts[0]):
                return True
            cut = self._take()
            second = self._cutter.first_sample(cut.seq) / self._cutter.recording.fs
            self.line.send(self._cutter.chunk(cut, 0), self._acquired_ns(cut), second)
        return self.line.next_ns is not None and (self._all_taken or self.failure is not None)

    def _has_cut(self) -> bool:
        # Takes over what was read ahead, or begins to read.
        if self._cuts or self.failure is not None:
            return bool(self._cuts)
        try:
            if not self._cutter.recording.blocking:
                self._cuts.extend(self._cutter.read(self._seq))
            elif self.reading is None:
                self._read_ahead(self._seq)
            elif self.reading.done():
                self._cuts.extend(self.reading.result())
                self.reading = None
                if not self._cuts[-1].last:
                    self._read_ahead(self._cuts[-1].seq + 1)
        except IngestError as error:
            self.failure = str(error)
        return bool(self._cuts)

    def _take(self) -> Cut:
        cut = self._cuts.popleft()
        self._seq, self._all_taken = cut.seq + 1, cut.last
        return cut

    def next_chunk(self, now_ns: int) -> SampleChunk:
        if self.line is None:
            return self._cutter.chunk(self._take(), now_ns)
        chunk = self.line.receive()
        return SampleChunk(chunk.header.model_copy(update={"ingest_ns": now_ns}), chunk.samples)

    def last_chunks(self, now_ns: int) -> list[SampleChunk]:
        # For a session that ends before its time: what is under way, and an empty one.
        under_way = []
        while self.line is not None and self.line.next_ns is not None:
            under_way.append(self.next_chunk(now_ns))
        last = self._cutter.chunk(self._cutter.nothing(self._seq), now_ns)
        return [*under_way, last if self.line is None else self.line.last(last)]

    def following(self) -> _Player | None:
        feed = self.feed.following
        return None if feed is None else _Player(feed, self._speed, self._chunk_s)

    def close(self) -> None:
        if self.reading is not None and not self.reading.cancel() and not self.reading.cancelled():
            # Looked at, so that asyncio does not complain of an error that nobody waits for any more.
            self.reading.exception()

    def _read_ahead(self, seq: int) -> None:
        share = self.first_share if seq == 0 else 1.0
        self.reading = asyncio.create_task(asyncio.to_thread(self._cutter.read, seq, share))


class _Run:
    # One replay: the schedule of all players, and what is told about it.

    def __init__(
        self,
        players: list[_Player],
        publisher: Publisher,
        clock: Clock,
        stop_event: asyncio.Event,
        on_status: Callable[[ReplayStatus], None] | None,
    ) -> None:
        # The list itself, so that who made it closes those that follow, too.
        self._players = players
        self._publisher = publisher
        self._clock = clock
        self._stop = stop_event
        self._on_status = on_status
        self._schedule: list[tuple[tuple[int, int], int]] = []
        self._waiting: list[int] = []
        self._failed: dict[str, str] = {}
        self._faults: Counter[str] = Counter()
        self._chunks = self._samples = 0
        self._behind_ns = self._max_behind_ns = 0
        self._status_ns = 0

    def start(self, phase_ns: float) -> None:
        now = self._clock.now_ns()
        self._status_ns = now + _STATUS_NS
        for number, player in enumerate(self._players):
            player.start(now + round(number * phase_ns))
            self._arrange(number)
        metrics.BEDS.set(len(self._schedule) + len(self._waiting))

    async def to_the_end(self) -> ReplayReport:
        while (self._schedule or self._waiting) and not self._stop.is_set():
            self._look_for_pieces()
            now = self._clock.now_ns()
            self._tell(now)
            batch = self._due(now)
            if batch:
                await self._publish(batch)
            elif self._schedule:
                await self._clock.sleep_until(min(self._schedule[0][0][0], now + _LOOK_NS))
            elif self._waiting:
                readings = [self._players[number].reading for number in self._waiting]
                tasks = [task for task in readings if task is not None]
                await asyncio.wait(tasks, timeout=_LOOK_NS / 1e9, return_when=asyncio.FIRST_COMPLETED)
        stopped = bool(self._schedule or self._waiting)
        active = [number for _, number in self._schedule] + self._waiting
        now = self._clock.now_ns()
        await self._publish([last for number in active for last in self._players[number].last_chunks(now)])
        for number in active:
            self._count_faults(self._players[number])
        behind_s = self._max_behind_ns / 1e9
        return ReplayReport(self._chunks, self._samples, behind_s, stopped, self._failed, dict(self._faults))

    def _arrange(self, number: int) -> None:
        # Puts a player where it belongs: among those with a chunk, or among those that read.
        player = self._players[number]
        if player.has_chunk():
            heapq.heappush(self._schedule, (player.due(), number))
        elif player.ended:
            # The last ones got lost on the way.
            self._go_on(number)
        elif player.failure is not None:
            self._failed[player.feed.bed] = player.failure
            self._count_faults(player)
            bed = player.feed.bed
            _log.error("bed %s: the feed broke off: %s", bed, player.failure, extra={"bed": bed})
        else:
            self._waiting.append(number)

    def _look_for_pieces(self) -> None:
        waiting, self._waiting = self._waiting, []
        for number in waiting:
            self._arrange(number)

    def _due(self, now: int) -> list[SampleChunk]:
        batch: list[SampleChunk] = []
        while self._schedule and self._schedule[0][0][0] <= now and len(batch) < _BATCH:
            (due, _), number = heapq.heappop(self._schedule)
            player = self._players[number]
            chunk = player.next_chunk(now)
            batch.append(chunk)
            if player.paced:
                self._behind_ns = max(self._behind_ns, now - due)
            if player.ended:
                self._go_on(number)
            else:
                self._arrange(number)
        self._max_behind_ns = max(self._max_behind_ns, self._behind_ns)
        return batch

    def _go_on(self, number: int) -> None:
        # With another session of the bed, if one follows.
        player = self._players[number]
        self._count_faults(player)
        following = player.following()
        if following is None:
            return
        self._players[number] = following
        following.start(self._clock.now_ns())
        self._arrange(number)

    def _count_faults(self, player: _Player) -> None:
        if player.line is not None:
            self._faults += player.line.counts

    async def _publish(self, batch: Sequence[SampleChunk]) -> None:
        if not batch:
            return
        await self._publisher.publish(batch)
        # A publisher that does not wait for anything must not keep others from running.
        await asyncio.sleep(0)
        self._chunks += len(batch)
        self._samples += sum(len(chunk.samples) for chunk in batch)

    def _tell(self, now: int) -> None:
        if now < self._status_ns:
            return
        self._status_ns = now + _STATUS_NS
        beds = len(self._schedule) + len(self._waiting)
        metrics.BEDS.set(beds)
        metrics.BEHIND.set(self._behind_ns / 1e9)
        if self._on_status is not None:
            self._on_status(
                ReplayStatus(
                    beds, self._chunks, self._samples, self._behind_ns / 1e9, self._max_behind_ns / 1e9
                )
            )
        self._behind_ns = 0
