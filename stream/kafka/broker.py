"""Kafka as a worker's broker: Faust's own transport, and what that does not offer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import faust
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from faust.types import TP, FutureMessage, Message
from faust.types.tables import TableT
from faust.types.transports import ConsumerT

from stream.broker import Kept, StartProducer
from stream.heartbeat import WorkerStatus
from stream.kafka.access import access_of
from stream.kafka.topics import HEARTBEATS, SESSION_S, find_topics, topic_name
from stream.topics import SAMPLES, WORKER_GROUP
from stream.transport.layout import partition_of

ASKED_MS = "asked-ms"
"""Header of a command: when the Redis server took it, ms since the epoch by its clock."""

# Another broker leads a partition within a few seconds; what takes longer belongs in the log.
_PATIENCE_S = 10.0
_FETCH_MS = 500


class KafkaBroker:
    """A Kafka cluster; see `stream.broker.Broker`.

    Parameters
    ----------
    url : str
        See `stream.kafka.access`.
    prefix : str
        Start of every key of the deployment.
    partitions : int
    """

    def __init__(self, url: str, prefix: str, partitions: int) -> None:
        self._access = access_of(url)
        self.url = self._access.faust_url
        self.app_id = topic_name(prefix, WORKER_GROUP)
        self.partitions = partitions
        self.session_timeout_s = SESSION_S
        # Beds lie where they lie on Redis, whoever publishes them.
        self.app_options: Mapping[str, Any] = {
            "Table": RememberingTable,
            "producer_partitioner": _partition_of_key,
            "broker_credentials": self._access.faust_credentials,
        }
        # Faust's consumer tells by it whether a stream stands still.
        self.keeps_monitor = True
        self._prefix = prefix
        self._reader: AIOKafkaConsumer | None = None
        self._reading = asyncio.Lock()

    @classmethod
    async def find(cls, url: str, prefix: str) -> KafkaBroker:
        """Return a cluster that has the deployment's topics.

        Raises
        ------
        BrokerError
            If it does not answer, or they are not there.
        """
        return cls(url, prefix, (await find_topics(url, prefix))[SAMPLES])

    def topic(self, name: str) -> str:
        return topic_name(self._prefix, name)

    def attach(self, app: faust.App) -> None:
        async def stop_flow(app: Any, /, *_: Any, signal: Any, **__: Any) -> None:
            # At the end of a rebalance Faust resumes the partitions, awaits a seek, and then resumes the
            # flow, which clears the queues. While it restored tables the flow was on: what is read in
            # between would be lost, and nothing of that partition be committed again.
            app.consumer.stop_flow()

        app.on_rebalance_complete.connect(stop_flow, weak=False)

    async def recent(self, partition: int, before: int, count: int) -> list[Kept]:
        records = await self._read_back(partition, before, count)
        return [Kept(record.offset, record.value or b"") for record in reversed(records)]

    async def behind_s(self, consumer: ConsumerT, taken: Mapping[TP, Message]) -> float | None:
        try:
            ends = await consumer.highwaters(*taken) if taken else {}
            ahead = {tp: end - 1 - taken[tp].offset for tp, end in ends.items()}
            furthest = max(ahead, key=ahead.__getitem__, default=None)
            if furthest is None or ahead[furthest] <= 0:
                return 0.0
            (newest,) = await self._read_back(furthest.partition, ends[furthest], 1)
        except (KafkaError, OSError, ValueError):
            # Faust's consumer waits for the broker and says so.
            return None
        behind_s: float = newest.timestamp / 1000 - (taken[furthest].timestamp or 0.0)
        return max(0.0, behind_s)

    def asked_ms(self, message: Message) -> float:
        asked = dict(message.headers or ()).get(ASKED_MS)
        # Without it a program put the command on Kafka itself.
        return float(asked) if asked is not None else (message.timestamp or 0.0) * 1000

    async def written(self, table: TableT[Any, Any]) -> None:
        # Faust commits without looking whether what its tables sent has arrived.
        await cast(RememberingTable, table).written()

    async def confirm(self, *, published: bool) -> None:
        # A message counts as sent once the copies that it needs have it (`stream.kafka.topics`).
        return

    async def beat(self, producer: StartProducer, name: str, status: WorkerStatus) -> None:
        # The way of findings: should they not arrive, neither do signs of life.
        await self._tell(producer, name, status.model_dump_json(exclude_none=True).encode())

    async def leave(self, producer: StartProducer, name: str) -> None:
        await self._tell(producer, name, None)
        await (await producer()).flush()

    async def _tell(self, producer: StartProducer, name: str, value: bytes | None) -> None:
        await (await producer()).send(self.topic(HEARTBEATS), name.encode(), value, None, None, None)

    async def close(self) -> None:
        # Not in the middle of what is being read back: aiokafka would raise what is no Kafka error.
        async with self._reading:
            reader, self._reader = self._reader, None
            if reader is not None:
                await reader.stop()

    async def _read_back(self, partition: int, before: int, count: int) -> list[ConsumerRecord]:
        # Up to `count` records before an offset, oldest first.
        tp = TopicPartition(self.topic(SAMPLES), partition)
        found: list[ConsumerRecord] = []
        try:
            async with self._reading, asyncio.timeout(_PATIENCE_S):
                reader = await self._get_reader()
                reader.assign([tp])
                oldest = (await reader.beginning_offsets([tp]))[tp]
                at = max(before - count, oldest)
                reader.seek(tp, at)
                while at < before:
                    fetched = await reader.getmany(tp, timeout_ms=_FETCH_MS, max_records=before - at)
                    found += [record for record in fetched.get(tp, ()) if record.offset < before]
                    at = await reader.position(tp)
        except KafkaError as error:
            raise ConnectionError(f"the Kafka broker does not answer: {error}") from error
        return found

    async def _get_reader(self) -> AIOKafkaConsumer:
        if self._reader is None:
            # Of no group: it takes nothing from anybody.
            reader = AIOKafkaConsumer(
                **self._access.client_options,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            await reader.start()
            self._reader = reader
        return self._reader


class RememberingTable(faust.Table[Any, Any]):
    """A table that knows which of its changes the broker has not taken yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_their_way: set[FutureMessage] = set()

    def send_changelog(self, *args: Any, **kwargs: Any) -> FutureMessage:
        """Send a change to the changelog."""
        message = super().send_changelog(*args, **kwargs)
        self._on_their_way.add(message)
        return message

    async def written(self) -> None:
        """Return when the broker has every change up to now; raise what made one fail."""
        sent, self._on_their_way = self._on_their_way, set()
        await asyncio.gather(*sent)


def _partition_of_key(key: bytes | None, everything: Sequence[int], available: Sequence[int]) -> int:
    return partition_of(key or b"", len(everything))
