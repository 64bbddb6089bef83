"""Reading back what a worker's rings need, from a real server."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from stream import refill
from stream.broker import Kept, RedisBroker
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import SampleChunk
from stream.durability import Durability
from stream.embedded import EmbeddedServer
from stream.preprocess import SETTLING_S
from stream.topics import SAMPLES, TOPICS
from stream.transport.ids import offset_of
from stream.transport.layout import partition_of, stream_key
from tests.stream.synthetic import ecg, every, feed

FS = 100.0
WINDOW_S = 8.0
NEEDED_S = WINDOW_S + SETTLING_S
PARTITION = 3
BEDS = [
    bed
    for bed in (f"bed-{number}" for number in range(200))
    if partition_of(bed.encode(), TOPICS[SAMPLES].partitions) == PARTITION
][:3]

Server = EmbeddedServer


def chunks_of(bed: str, seconds: float, session: str = "s") -> list[SampleChunk]:
    x = ecg(seconds, FS)
    return feed(x, FS, every(0.5, FS, len(x)), bed=bed, session=session)


def interleaved(*feeds: list[SampleChunk]) -> list[SampleChunk]:
    """Return the chunks of feeds that end together, in the order in which live feeds bring them."""
    log = [
        (chunk.end - chunks[-1].end, number, chunk) for number, chunks in enumerate(feeds) for chunk in chunks
    ]
    return [chunk for _, _, chunk in sorted(log, key=lambda entry: entry[:2])]


def recent_on_redis(bus: Bus, partition: int) -> Callable[[int, int], Awaitable[list[Kept]]]:
    async def connected() -> Bus:
        return bus

    return partial(RedisBroker("", 1, connected, Durability(connected, SystemClock(), "")).recent, partition)


def read_back(
    server: Server, prefix: str, log: list[SampleChunk | bytes], before: int | None = None
) -> dict[str, list[SampleChunk]]:
    """Publish a log, and return the history before one of its entries (default: before the next), by bed."""

    async def go() -> list[SampleChunk]:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            ids = await bus.publish_many(
                SAMPLES,
                [(BEDS[0].encode(), entry if isinstance(entry, bytes) else entry.encode()) for entry in log],
            )
            stream = stream_key(prefix, SAMPLES, PARTITION)
            assert await bus.client.xlen(stream) == len(log)
            limit = ids[before] if before is not None else await bus.publish(SAMPLES, BEDS[0].encode(), b"-")
            return await refill.history(recent_on_redis(bus, PARTITION), offset_of(limit), WINDOW_S)

    by_bed = defaultdict(list)
    for chunk in asyncio.run(go()):
        by_bed[chunk.header.bed].append(chunk)
    return by_bed


def assert_is_the_end_of(found: list[SampleChunk], feed_: list[SampleChunk]) -> None:
    """What was found is the feed's end, in order: long enough, and at most a chunk longer than that."""
    assert [c.header for c in found] == [c.header for c in feed_[-len(found) :]]
    assert [c.samples.tolist() for c in found] == [c.samples.tolist() for c in feed_[-len(found) :]]
    span = (found[-1].end - found[0].header.n0) / FS
    available = (feed_[-1].end - feed_[0].header.n0) / FS
    assert min(NEEDED_S, available) <= span < NEEDED_S + 0.5


@pytest.mark.parametrize("piece", [7, 512])
def test_each_bed_of_a_partition_gets_what_it_needs(
    redis_server_module: Server, prefix: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refill, "_PIECE", piece)
    feeds = [chunks_of(bed, seconds) for bed, seconds in zip(BEDS, (60, 45, 10), strict=True)]
    log = interleaved(*feeds)
    found = read_back(redis_server_module, prefix, [*log])
    assert set(found) == set(BEDS)
    for bed, chunks in zip(BEDS, feeds, strict=True):
        assert_is_the_end_of(found[bed], chunks)


def test_nothing_from_the_given_entry_on_is_read(redis_server_module: Server, prefix: str) -> None:
    log = interleaved(chunks_of(BEDS[0], 40), chunks_of(BEDS[1], 40))
    found = read_back(redis_server_module, prefix, [*log], before=100)
    for bed in BEDS[:2]:
        assert_is_the_end_of(found[bed], [chunk for chunk in log[:100] if chunk.header.bed == bed])


@pytest.mark.parametrize("lost", [0, 2])
def test_only_the_newest_session_counts(redis_server_module: Server, prefix: str, lost: int) -> None:
    # Also if its beginning is not there to be seen.
    old, new = chunks_of(BEDS[0], 30, "old"), chunks_of(BEDS[0], 6, "new")[lost:]
    other = chunks_of(BEDS[1], 50)
    found = read_back(redis_server_module, prefix, [*other[:60], *old, *other[60:], *new])
    assert_is_the_end_of(found[BEDS[0]], new)
    assert len(found[BEDS[0]]) == len(new)
    assert_is_the_end_of(found[BEDS[1]], other)


def test_what_is_no_chunk_is_skipped(redis_server_module: Server, prefix: str) -> None:
    chunks = chunks_of(BEDS[0], 40)
    log: list[SampleChunk | bytes] = []
    for chunk in chunks:
        log += [b"", b"{}\n", chunk.encode()[:-1], chunk]
    found = read_back(redis_server_module, prefix, log)
    assert_is_the_end_of(found[BEDS[0]], chunks)


def poisoned(chunk: SampleChunk, kind: str) -> SampleChunk:
    """Return a chunk that contradicts its session: a worker has refused it when it came."""
    changes: dict[str, object] = {"seq": chunk.header.seq + 1_000_000}
    changes |= {"fs": {"fs": 2 * FS}, "leads": {"leads": ("V1",)}, "n0": {"n0": 0}}[kind]
    header = chunk.header.model_copy(update=changes)
    return SampleChunk(header, chunk.samples)


@pytest.mark.parametrize("kind", ["fs", "leads", "n0"])
@pytest.mark.parametrize("ago", [0, 10, 44, 45, 46, 47, 48])
def test_a_bed_begins_with_none_that_contradicts_its_session(
    redis_server_module: Server, prefix: str, kind: str, ago: int
) -> None:
    chunks = chunks_of(BEDS[0], 60)
    at = len(chunks) - ago
    log = [*chunks[:at], poisoned(chunks[at - 1], kind), *chunks[at:]]
    found = read_back(redis_server_module, prefix, log)[BEDS[0]]
    assert found[0].header == chunks[found[0].header.seq].header
    good = [chunk for chunk in found if chunk.header.seq < 1_000_000]
    assert_is_the_end_of(good, chunks)


def test_a_session_that_has_lost_every_second_chunk_is_read_back_all_the_same(
    redis_server_module: Server, prefix: str
) -> None:
    chunks = chunks_of(BEDS[0], 90)[::2]
    found = read_back(redis_server_module, prefix, [*chunks])[BEDS[0]]
    assert [chunk.header.seq for chunk in found] == [chunk.header.seq for chunk in chunks[-len(found) :]]
    assert (found[-1].end - found[0].header.n0) / FS >= NEEDED_S
    assert len(found) < len(chunks)


def test_a_stream_that_holds_less_gives_what_it_has(redis_server_module: Server, prefix: str) -> None:
    chunks = chunks_of(BEDS[0], 60)
    found = read_back(redis_server_module, prefix, [*chunks[100:]])
    assert [c.header.seq for c in found[BEDS[0]]] == list(range(100, 120))


def test_an_empty_partition_has_no_history(redis_server_module: Server, prefix: str) -> None:
    assert read_back(redis_server_module, prefix, []) == {}


def test_it_stops_reading_when_no_bed_needs_more(
    redis_server_module: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refill, "_PIECE", 10)
    monkeypatch.setattr(refill, "_PIECES", 3)
    chunks = chunks_of(BEDS[0], 60)
    found = read_back(redis_server_module, prefix, [*chunks])
    assert [c.header.seq for c in found[BEDS[0]]] == list(range(90, 120))


def stretch_of(
    server: Server, prefix: str, log: list[SampleChunk | bytes], first: int, stop: int, bed: str = BEDS[0]
) -> list[int]:
    """Publish a log, and return the numbers of the chunks that hold a stretch of a bed's session ``s``."""

    async def go() -> list[SampleChunk]:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await bus.publish_many(
                SAMPLES,
                [
                    (BEDS[0].encode(), entry)
                    if isinstance(entry, bytes)
                    else (entry.header.bed.encode(), entry.encode())
                    for entry in log
                ],
            )
            return await refill.stretch(bus, bed, "s", lambda fs: (first, stop))

    return [chunk.header.seq for chunk in asyncio.run(go())]


@pytest.mark.parametrize("piece", [7, 512])
def test_a_stretch_of_one_bed_is_found_among_others(
    redis_server_module: Server, prefix: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refill, "_SMALL_PIECE", piece)
    log: list[SampleChunk | bytes] = [*interleaved(chunks_of(BEDS[0], 40), chunks_of(BEDS[1], 45)), b"{}"]
    log += chunks_of(BEDS[0], 5, "next")
    # Chunks of 50 samples: from the one that holds the first sample to the one before the last.
    assert stretch_of(redis_server_module, prefix, log, 1025, 1500) == list(range(20, 30))


def test_of_a_stretch_there_is_what_the_stream_holds(redis_server_module: Server, prefix: str) -> None:
    chunks = chunks_of(BEDS[0], 20)
    assert stretch_of(redis_server_module, prefix, [*chunks[10:]], 0, 10_000) == list(range(10, 40))


def test_of_a_bed_that_never_sent_there_is_nothing(redis_server_module: Server, prefix: str) -> None:
    assert stretch_of(redis_server_module, prefix, [*chunks_of(BEDS[0], 5)], 0, 500, BEDS[1]) == []
