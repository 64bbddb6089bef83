"""Bringing chunks onto a Kafka cluster, and no faster than they are taken off it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]

from ingest.metrics import observe
from ingest.publisher import MAX_AHEAD
from stream.clock import Clock, SystemClock
from stream.contract import SampleChunk
from stream.kafka.access import access_of
from stream.kafka.topics import administrator, find_topics, topic_name
from stream.topics import SAMPLES, WORKER_GROUP
from stream.transport.layout import partition_of

# A worker commits twice a second: looking more often shows nothing.
_POLL_NS = 100_000_000
# As long without a commit is worth a word: a group of workers forms in five seconds.
_STALLED_NS = 15_000_000_000


class KafkaPublisher:
    """Publishes chunks on the topic ``samples``; see `ingest.publisher.BusPublisher`.

    Parameters
    ----------
    producer : AIOKafkaProducer
        One that repeats what a broker did not answer: a chunk may be there twice, never out of order.
    admin : AIOKafkaAdminClient
    prefix : str
        Start of every key of the deployment.
    partitions : int
    on_wait : callable
        Called with a line of text when nobody reads.
    stop_event : asyncio.Event
        Once set, nothing is waited for.
    clock : Clock, optional
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        admin: AIOKafkaAdminClient,
        *,
        prefix: str,
        partitions: int,
        on_wait: Callable[[str], None],
        stop_event: asyncio.Event,
        clock: Clock | None = None,
    ) -> None:
        self._producer = producer
        self._admin = admin
        self._topic = topic_name(prefix, SAMPLES)
        self._group = topic_name(prefix, WORKER_GROUP)
        self._partitions = partitions
        self._on_wait = on_wait
        self._stop = stop_event
        self._clock = clock or SystemClock()
        # Of each partition: the offset behind the last chunk that we published, and the one up to which the
        # workers have taken them, as far as we know.
        self._published: dict[int, int] = {}
        self._taken: dict[int, int] = {}

    async def publish(self, chunks: Sequence[SampleChunk]) -> None:
        """Publish chunks, those of each bed in order; return when the brokers have them.

        Raises
        ------
        aiokafka.errors.KafkaError
            If the cluster stays away for longer than the producer is willing to wait.
        """
        if not chunks:
            return
        unpaced = chunks[0].header.pace == 0
        if unpaced:
            await self._wait_for_room(len(chunks))
        values = [chunk.encode() for chunk in chunks]
        sent = []
        for chunk, value in zip(chunks, values, strict=True):
            bed = chunk.header.bed.encode()
            partition = partition_of(bed, self._partitions)
            sent.append(await self._producer.send(self._topic, value, key=bed, partition=partition))
        for record in await asyncio.gather(*sent):
            if unpaced:
                self._taken.setdefault(record.partition, record.offset)
                self._published[record.partition] = record.offset + 1
        observe(chunks, values)

    async def _wait_for_room(self, count: int) -> None:
        since, ahead, said = self._clock.now_ns(), self._ahead(), False
        while self._ahead() + count > MAX_AHEAD and not self._stop.is_set():
            await self._see_what_was_taken()
            if self._ahead() < ahead:
                since, ahead = self._clock.now_ns(), self._ahead()
            elif self._clock.now_ns() - since > _STALLED_NS and not said:
                said = True
                self._on_wait("waiting: no worker takes the samples")
            if self._ahead() + count > MAX_AHEAD:
                await self._clock.sleep_until(self._clock.now_ns() + _POLL_NS)

    def _ahead(self) -> int:
        return sum(end - self._taken[partition] for partition, end in self._published.items())

    async def _see_what_was_taken(self) -> None:
        asked = [TopicPartition(self._topic, partition) for partition in self._published]
        committed = await self._admin.list_consumer_group_offsets(self._group, partitions=asked)
        for tp, position in committed.items():
            self._taken[tp.partition] = max(self._taken[tp.partition], position.offset)


@asynccontextmanager
async def kafka_publisher(
    url: str, prefix: str, *, on_wait: Callable[[str], None], stop_event: asyncio.Event
) -> AsyncIterator[KafkaPublisher]:
    """Open a publisher for a cluster.

    Raises
    ------
    stream.settings.BrokerError
        If it does not answer, or has no topics of this deployment.
    """
    partitions = (await find_topics(url, prefix))[SAMPLES]
    producer = AIOKafkaProducer(**access_of(url).client_options, acks="all")
    async with administrator(url) as admin, producer:
        yield KafkaPublisher(
            producer, admin, prefix=prefix, partitions=partitions, on_wait=on_wait, stop_event=stop_event
        )
