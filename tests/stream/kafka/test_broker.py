"""What a worker reads back from a Kafka-compatible broker: for its rings, and to see how late it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from faust.types import TP, Message

from stream.contract import SampleChunk
from stream.kafka.access import access_of
from stream.kafka.broker import KafkaBroker
from stream.kafka.topics import create_topics
from stream.preprocess import SETTLING_S
from stream.refill import history
from stream.topics import SAMPLES
from tests.stream.synthetic import ecg, every, feed

FS = 100.0
PARTITION = 1
WINDOW_S = 8.0


@asynccontextmanager
async def written(kafka: str, prefix: str, values: list[bytes]) -> AsyncIterator[KafkaBroker]:
    """Put messages into a partition of the samples, and give the broker as a worker has it."""
    await create_topics(kafka, prefix, 2, 1)
    broker = await KafkaBroker.find(kafka, prefix)
    async with AIOKafkaProducer(**access_of(kafka).client_options) as producer:
        for value in values:
            await producer.send(broker.topic(SAMPLES), value, partition=PARTITION)
    try:
        yield broker
    finally:
        await broker.close()


def test_rings_are_filled_from_what_came_before(kafka: str, prefix: str) -> None:
    x = ecg(120, FS)
    chunks = feed(x, FS, every(0.2, FS, len(x)), bed="bed-1")
    # More than one piece of what is read at once, and more than one fetch.
    rubbish = [b"not ours" * 1000] * 100
    log = [*(chunk.encode() for chunk in chunks[:400]), *rubbish, *(c.encode() for c in chunks[400:])]

    async def main() -> tuple[list[SampleChunk], list[SampleChunk]]:
        async with written(kafka, prefix, log) as broker:
            recent = partial(broker.recent, PARTITION)
            return await history(recent, 520, WINDOW_S), await history(recent, 0, WINDOW_S)

    found, nothing = asyncio.run(main())
    assert nothing == []
    assert [chunk.header.seq for chunk in found] == list(range(420 - len(found), 420))
    seconds = (found[-1].end - found[0].header.n0) / FS
    assert WINDOW_S + SETTLING_S <= seconds < WINDOW_S + SETTLING_S + 0.2


class Ends:
    """The part of Faust's consumer that tells where partitions end."""

    def __init__(self, ends: Mapping[TP, int]) -> None:
        self._ends = ends

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return {tp: self._ends[tp] for tp in tps}


def test_how_far_a_worker_is_behind(kafka: str, prefix: str) -> None:
    async def main() -> None:
        async with written(kafka, prefix, [b"old", b"newer", b"newest"]) as broker:
            tp = TP(broker.topic(SAMPLES), PARTITION)
            consumer: Any = Ends({tp: 3})
            newest = (await broker._read_back(PARTITION, 3, 1))[0].timestamp / 1000

            def taken(offset: int, age_s: float) -> dict[TP, Message]:
                empty: Any = None
                return {tp: Message(tp.topic, PARTITION, offset, newest - age_s, 0, [], empty, b"", None)}

            assert await broker.behind_s(consumer, taken(0, 4.0)) == pytest.approx(4.0)
            assert await broker.behind_s(consumer, taken(2, 0.0)) == 0
            assert await broker.behind_s(consumer, {}) == 0

    asyncio.run(main())


def test_what_is_being_read_back_when_a_worker_leaves_is_read_to_its_end(kafka: str, prefix: str) -> None:
    async def main() -> None:
        async with written(kafka, prefix, [b"one", b"two"]) as broker:
            # The second waits for a record that is not there yet.
            reading = [asyncio.ensure_future(broker.recent(PARTITION, before, 3)) for before in (2, 3)]
            await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
            closing = asyncio.ensure_future(broker.close())
            async with AIOKafkaProducer(**access_of(kafka).client_options) as producer:
                await producer.send_and_wait(broker.topic(SAMPLES), b"three", partition=PARTITION)
            await closing
            found = [[kept.value for kept in await each] for each in reading]
            assert found == [[b"two", b"one"], [b"three", b"two", b"one"]]

    asyncio.run(main())
