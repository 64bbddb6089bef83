"""Reading samples back from the stream: to rebuild a worker's rings, and to look at an alarm again."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

from models.manifest import WindowSpec
from stream.alarms.state import BedState
from stream.broker import Kept
from stream.bus import Bus
from stream.contract import MalformedMessageError, SampleChunk
from stream.preprocess import SETTLING_S
from stream.reorder import WAIT_S
from stream.topics import SAMPLES
from stream.transport.layout import partition_of
from stream.vitals.memory import Memory

# Read backwards in pieces: 512 chunks are 25 s of four beds.
_PIECE = 512
# At most about 30 000 chunks (80 MB): far more than 23 s of all the beds that fit a partition. A bed not
# seen by then has been silent for so long that its ring starts anew anyway.
_PIECES = 60
# The memory of a feed in real time is ten seconds old at most, and filters settle for 15 s before it; a feed
# may come four times as fast. For what is older, reading back would take longer than it is worth.
_LONG_AGO_S = 60.0
# A feed of which none of so many chunks joins on to another has lost every second one: then all will do.
_STRANGERS = 32
NEWEST = f"{2**64 - 1}-{2**64 - 1}"
"""Behind every entry of a stream."""
# Of one bed, beside work that must not wait: 128 chunks hold the interpreter for well under a millisecond.
_SMALL_PIECE = 128


async def history(
    recent: Callable[[int, int], Awaitable[Sequence[Kept]]],
    before: int,
    window_s: float,
    since_s: Callable[[str, str], float | None] = lambda bed, session: None,
) -> list[SampleChunk]:
    """Return the chunks from which the rings of a partition's beds can be rebuilt.

    Parameters
    ----------
    recent : callable
        Returns up to so many messages of the partition before an offset, newest first; see
        `stream.broker.Broker.recent`.
    before : int
        Offset of the first chunk that will come by itself.
    window_s : float
        Length of the model's window, s.
    since_s : callable, optional
        Returns from which second on the samples of a bed's session are needed for what is kept of it, None if
        nothing is; see `needed_since_s`.

    Returns
    -------
    list of SampleChunk
        In the order of the stream: of each bed's newest session, at least one window and the filter's
        settling time, and from what is needed on unless that is long ago; where the stream still holds
        as much. The first one of each bed is none that contradicts the others.
    """
    beds: dict[str, _ReadBack] = {}
    found: list[SampleChunk] = []
    for _ in range(_PIECES):
        kept = await recent(before, _PIECE)
        for message in kept:
            try:
                chunk = SampleChunk.decode(message.value)
            except MalformedMessageError:
                # Counted and kept as a dead letter when it came.
                continue
            header = chunk.header
            if header.bed not in beds:
                since = since_s(header.bed, header.session)
                beds[header.bed] = _ReadBack(header.session, window_s + SETTLING_S, since)
            if beds[header.bed].wants(chunk, len(found)):
                found.append(chunk)
        if len(kept) < _PIECE or all(bed.is_complete for bed in beds.values()):
            break
        before = kept[-1].offset
    return [chunk for place, chunk in enumerate(found) if place <= beds[chunk.header.bed].last][::-1]


def needed_since_s(
    session: str, state: BedState | None, memory: Memory | None, window: WindowSpec
) -> float | None:
    """Return from which second of a session on samples are needed to go on with what is kept of its bed.

    A state tells of every chunk that is done, or of more. Should one be older all the same, because a broker
    lost the newer one, its next windows are found again, with the same scores, if the samples reach back to
    them.

    Parameters
    ----------
    session : str
    state : BedState, optional
    memory : Memory, optional
        Either may be of another session, and is of no use then.
    window : WindowSpec
        Of the worker's models.
    """
    since_s = []
    if memory is not None and memory.session == session:
        since_s.append(memory.since_s)
    if state is not None and state.session == session:
        since_s.append(max(0.0, state.next_window * window.hop / window.fs - SETTLING_S))
    return min(since_s, default=None)


class _ReadBack:
    # The newest session of a bed, as far as it was read back: newest first.
    #
    # A bed is opened with the oldest chunk that is found, and whatever contradicts that one is refused. One
    # that was refused itself when it came, because it contradicted its session, must not be it; such a one
    # does not join on to any other.

    def __init__(self, session: str, needed_s: float, since_s: float | None) -> None:
        self._session = session
        self._needed_s, self._since_s = needed_s, since_s
        self._by_seq: dict[int, list[SampleChunk]] = {}
        self._count = 0
        self._any_will_do = False
        self._wanted_s: float | None = None
        self.is_complete = False
        # Place of the oldest that joins on to another, among all that were found; any if none does.
        self.last: float = math.inf

    def wants(self, chunk: SampleChunk, place: int) -> bool:
        """Take the next older chunk of the bed, found at a place; say whether it is of any use."""
        header = chunk.header
        if self.is_complete or header.session != self._session:
            return False
        newer = [other for other in self._by_seq.get(header.seq + 1, ()) if _joins(chunk, other)]
        # Two that came in the wrong order.
        newer += [other for other in self._by_seq.get(header.seq - 1, ()) if _joins(other, chunk)]
        self._by_seq.setdefault(header.seq, []).append(chunk)
        self._count += 1
        self._any_will_do |= math.isinf(self.last) and self._count > _STRANGERS
        if newer or self._any_will_do:
            self.last = place
            if self._wanted_s is None:
                self._wanted_s = self._wanted(max(one.end for one in (chunk, *newer)) / header.fs)
            self.is_complete = header.n0 <= max(0.0, self._wanted_s * header.fs)
        # The beginning of a session, whose second chunk may not have come.
        self.is_complete |= header.seq == header.n0 == 0
        return True

    def _wanted(self, end_s: float) -> float:
        wanted_s = end_s - self._needed_s
        if self._since_s is not None and end_s - self._since_s <= _LONG_AGO_S:
            return min(self._since_s, wanted_s)
        return wanted_s


def _joins(before: SampleChunk, after: SampleChunk) -> bool:
    same = (before.header.fs, before.header.leads) == (after.header.fs, after.header.leads)
    return same and before.end == after.header.n0


async def stretch(
    bus: Bus, bed: str, session: str, reach: Callable[[float], tuple[int, int]]
) -> list[SampleChunk]:
    """Return the chunks that hold a stretch of one session of one bed, as far as the stream still has them.

    Parameters
    ----------
    bus : Bus
    bed, session : str
    reach : callable
        Returns the first sample that is wanted, and the one after the last, for a sampling frequency in Hz.

    Returns
    -------
    list of SampleChunk
        In the order of their samples; a chunk that was sent twice may be there twice.
    """
    partition = partition_of(bed.encode(), (await bus.declare(SAMPLES)).partitions)
    found: list[SampleChunk] = []
    before = NEWEST
    while True:
        entries = await bus.recent(SAMPLES, partition, before, _SMALL_PIECE)
        for entry in entries:
            if entry.key not in (bed.encode(), b""):
                # Another bed's: not worth decoding. A sender may leave out the key.
                continue
            try:
                chunk = SampleChunk.decode(entry.value)
            except MalformedMessageError:
                continue
            if (chunk.header.bed, chunk.header.session) != (bed, session):
                continue
            first, stop = reach(chunk.header.fs)
            if chunk.header.n0 < stop and chunk.end > first:
                found.append(chunk)
            # What lies before the stretch may be a chunk that came late, behind others of it.
            if chunk.header.n0 <= max(0, first - WAIT_S * chunk.header.fs):
                return sorted(found, key=lambda one: one.header.n0)
        if len(entries) < _SMALL_PIECE:
            return sorted(found, key=lambda one: one.header.n0)
        before = entries[-1].id
