"""Another number of partitions for a deployment that stands still.

A bed lies in the partition that its name and their number say. Adding partitions would leave its state behind
in another one than its samples, so the topics are made anew, and the state of every bed is put where it
belongs. Between the two it lies in a topic of its own, whose last message says that it is complete: after an
interruption the same is started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from aiokafka import (  # type: ignore[import-untyped]
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRecord,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]

from stream.heartbeat import BEAT_S
from stream.kafka.access import access_of
from stream.kafka.topics import (
    BRIDGE_GROUP,
    CHANGELOGS,
    HANDED_ON,
    HEARTBEATS,
    SPREAD,
    KafkaTopic,
    administrator,
    create_topics,
    list_topics,
    topic_name,
)
from stream.settings import BrokerError
from stream.topics import BEDS_TABLE, COMMANDS, SAMPLES, WORKER_GROUP
from stream.transport.layout import partition_of

_CHANGELOG = f"{WORKER_GROUP}-{BEDS_TABLE}-changelog"
_MOVING = f"{WORKER_GROUP}-{BEDS_TABLE}-moving"
# No bed has no name.
_COMPLETE = b""
_FETCH_MS = 500
# Brokers forget a deleted topic after a moment, and refuse its name until then.
_GONE_S = 30.0
_LOOK_S = 0.2
# A group forms in three seconds, and waits ten for members that have died.
_JOIN_S = 30.0
# A worker shows one each second.
_SIGNS_S = 3 * BEAT_S


async def resize_topics(url: str, prefix: str, partitions: int, replication: int) -> int:
    """Give what is spread by bed another number of partitions.

    Workers, bridges and sources have to be stopped. Samples that were scored are not carried over: the Redis
    server has them, and each bed's first windows afterwards come once its rings are full again.

    Parameters
    ----------
    url : str
    prefix : str
    partitions, replication : int

    Returns
    -------
    int
        Beds whose state was carried over.

    Raises
    ------
    BrokerError
        If the cluster does not answer, somebody is at work, or something is not done yet.
    """
    there = {topic.name: topic for topic in await list_topics(url, prefix)}
    async with administrator(url) as admin:
        rows = await _interrupted(admin, url, prefix)
        if rows is None:
            await _check_stopped(url, prefix)
            await check_done(admin, url, prefix, there)
            name = topic_name(prefix, _CHANGELOG)
            rows = _newest(await _read_all(url, name, there[name].partitions)) if name in there else {}
            await _put_by(admin, url, prefix, rows, replication)
        # What was learnt of the beds' signal is of no use without the samples that go with it.
        spread = {topic_name(prefix, topic) for topic in (*SPREAD, *CHANGELOGS)}
        await _delete(admin, spread & there.keys())
    await create_topics(url, prefix, partitions, replication)
    await _write(url, topic_name(prefix, _CHANGELOG), rows, partitions)
    async with administrator(url) as admin:
        await _begin_anew(admin, url, prefix, partitions)
        await _delete(admin, [topic_name(prefix, _MOVING)])
    return len(rows)


async def _interrupted(admin: AIOKafkaAdminClient, url: str, prefix: str) -> dict[bytes, bytes] | None:
    # What one that was interrupted has put by; None if there is none, or it had not got that far.
    name = topic_name(prefix, _MOVING)
    if name not in await admin.list_topics():
        return None
    records = await _read_all(url, name, 1)
    if not records or records[-1].key != _COMPLETE:
        await _delete(admin, [name])
        return None
    return _newest(records[:-1])


async def _check_stopped(url: str, prefix: str) -> None:
    # By their signs of life: some brokers list members of a group that have left it.
    tp = TopicPartition(topic_name(prefix, HEARTBEATS), 0)
    async with _reader(url) as reader:
        before = await reader.end_offsets([tp])
        await asyncio.sleep(_SIGNS_S)
        if await reader.end_offsets([tp]) != before:
            raise BrokerError("a worker is at work: stop workers, bridges and what publishes samples")


async def check_done(
    admin: AIOKafkaAdminClient, url: str, prefix: str, there: Mapping[str, KafkaTopic]
) -> None:
    """Raise BrokerError if workers or bridges have something left to do."""
    async with _reader(url) as reader:
        for group, what, topics in (
            (WORKER_GROUP, "worker", (SAMPLES, COMMANDS)),
            (BRIDGE_GROUP, "bridge", HANDED_ON),
        ):
            wanted = [topic_name(prefix, topic) for topic in topics]
            tps = [TopicPartition(topic, p) for topic in wanted for p in range(there[topic].partitions)]
            committed = await admin.list_consumer_group_offsets(topic_name(prefix, group), partitions=tps)
            ends = await reader.end_offsets(tps)
            for tp in tps:
                position = committed[tp].offset if tp in committed else 0
                if (left := ends[tp] - max(0, position)) > 0:
                    raise BrokerError(
                        f"{tp.topic} holds {left} messages that no {what} has done yet: stop what publishes"
                        " samples, let workers and bridges finish, then stop them"
                    )


async def _put_by(
    admin: AIOKafkaAdminClient, url: str, prefix: str, rows: Mapping[bytes, bytes], replication: int
) -> None:
    name = topic_name(prefix, _MOVING)
    await admin.create_topics([NewTopic(name, 1, replication)])
    await _write(url, name, {**rows, _COMPLETE: b""}, 1)


async def _delete(admin: AIOKafkaAdminClient, names: Collection[str]) -> None:
    if names:
        await admin.delete_topics(list(names))
    async with asyncio.timeout(_GONE_S):
        # Nobody tells when a broker has forgotten them.
        while set(names) & set(await admin.list_topics()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)


async def _write(url: str, topic: str, rows: Mapping[bytes, bytes], partitions: int) -> None:
    async with AIOKafkaProducer(**access_of(url).client_options, acks="all") as producer:
        # One by one: of several in a batch at the end of a partition some brokers count only the first, and a
        # worker that restores its table would stop there.
        for key, value in rows.items():
            await producer.send_and_wait(topic, value, key=key, partition=partition_of(key, partitions))


async def _begin_anew(admin: AIOKafkaAdminClient, url: str, prefix: str, partitions: int) -> None:
    # Kafka forgets how far a group had come in topics that are deleted; others do not, and a group that went
    # on from there would leave out what comes first.
    for group, topics in ((WORKER_GROUP, (SAMPLES, COMMANDS)), (BRIDGE_GROUP, SPREAD)):
        names = [topic_name(prefix, topic) for topic in topics]
        tps = {TopicPartition(name, partition) for name in names for partition in range(partitions)}
        known = await admin.list_consumer_group_offsets(topic_name(prefix, group), partitions=list(tps))
        if all(position.offset <= 0 for position in known.values()):
            continue
        async with _reader(url, topic_name(prefix, group)) as member, asyncio.timeout(_JOIN_S):
            # Only a member may commit where a broker still counts those that have left.
            member.subscribe(names)
            while member.assignment() != tps:
                await member.getmany(timeout_ms=_FETCH_MS)
            await member.commit(dict.fromkeys(tps, 0))


def _reader(url: str, group: str | None = None) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **access_of(url).client_options,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )


async def _read_all(url: str, topic: str, partitions: int) -> list[ConsumerRecord]:
    found: list[ConsumerRecord] = []
    tps = [TopicPartition(topic, partition) for partition in range(partitions)]
    async with _reader(url) as reader:
        reader.assign(tps)
        ends = await reader.end_offsets(tps)
        while [tp for tp in tps if await reader.position(tp) < ends[tp]]:
            fetched = await reader.getmany(timeout_ms=_FETCH_MS)
            found += [record for records in fetched.values() for record in records]
    return found


def _newest(records: Sequence[ConsumerRecord]) -> dict[bytes, bytes]:
    rows = {record.key: record.value for record in records}
    return {key: value for key, value in rows.items() if value is not None}
