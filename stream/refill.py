"""Reading samples back from the stream: to rebuild a worker's rings, and to look at an alarm again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from stream.broker import Kept
from stream.bus import Bus
from stream.contract import MalformedMessageError, SampleChunk
from stream.preprocess import SETTLING_S
from stream.reorder import WAIT_S
from stream.topics import SAMPLES
from stream.transport.layout import partition_of

# Read backwards in pieces: 512 chunks are 25 s of four beds.
_PIECE = 512
# At most about 30 000 chunks (80 MB): far more than 23 s of all the beds that fit a partition. A bed not
# seen by then has been silent for so long that its ring starts anew anyway.
_PIECES = 60
NEWEST = f"{2**64 - 1}-{2**64 - 1}"
"""Behind every entry of a stream."""
# Of one bed, beside work that must not wait: 128 chunks hold the interpreter for well under a millisecond.
_SMALL_PIECE = 128


async def history(
    recent: Callable[[int, int], Awaitable[Sequence[Kept]]], before: int, window_s: float
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

    Returns
    -------
    list of SampleChunk
        In the order of the stream: of each bed's newest session, at least one window and the filter's
        settling time, where the stream still holds as much.
    """
    needed_s = window_s + SETTLING_S
    newest: dict[str, SampleChunk] = {}
    complete: set[str] = set()
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
            first = newest.setdefault(header.bed, chunk)
            if header.bed in complete or header.session != first.header.session:
                continue
            found.append(chunk)
            if first.end - header.n0 >= needed_s * header.fs or header.n0 == 0:
                complete.add(header.bed)
        if len(kept) < _PIECE or complete == newest.keys():
            break
        before = kept[-1].offset
    return found[::-1]


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
