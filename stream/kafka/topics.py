"""The topics of a deployment on a Kafka cluster."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError, TopicAlreadyExistsError  # type: ignore[import-untyped]

from stream.kafka.access import access_of
from stream.masking import without_credentials
from stream.settings import BrokerError
from stream.topics import (
    ALARMS,
    BEDS_TABLE,
    COMMANDS,
    DEAD_LETTERS,
    EXPLANATIONS,
    FINDINGS,
    MEMORIES_TABLE,
    SAMPLES,
    TOPICS,
    VITALS,
    WORKER_GROUP,
)
from stream.transport.layout import TopicConfig, check_topic

BRIDGE_GROUP = "bedside-bridge"
"""The bridges' consumer group."""

SPREAD = (SAMPLES, COMMANDS, FINDINGS, VITALS, EXPLANATIONS)
"""Topics of several partitions, by bed."""

CHANGELOGS = tuple(f"{WORKER_GROUP}-{table}-changelog" for table in (BEDS_TABLE, MEMORIES_TABLE))
"""What restores the workers' tables, by bed, too."""

HEARTBEATS = "heartbeats"
"""Signs of life of the workers, on their way to Redis; see `stream.heartbeat`."""

HANDED_ON = (SAMPLES, FINDINGS, VITALS, ALARMS, EXPLANATIONS, DEAD_LETTERS, HEARTBEATS)
"""Topics that a bridge takes to the Redis server."""

SESSION_S = 6.0
"""Of workers and bridges, seconds: a Kafka broker refuses less unless it is told otherwise
(``group.min.session.timeout.ms``)."""

# Kafka only carries what the Redis server keeps: until that is back after an outage. Alarms must outlive a
# long one.
_ALARMS_MS = 7 * 24 * 3600 * 1000
_HEARTBEATS_MS = 60_000
# Kafka deletes whole segments, and never the one that is being written: without this it keeps a gigabyte.
_SEGMENTS = 5
# A write is safe once two of three copies have it, and one broker may be away meanwhile.
_SAFE_COPIES = 2


def topic_name(prefix: str, topic: str) -> str:
    """Return what a topic is called on a cluster, which others may share and whose names allow no colon."""
    return prefix.replace(":", ".") + topic


def wanted_topics(prefix: str, partitions: int) -> dict[str, TopicConfig]:
    """Return every topic that a deployment has on Kafka, by its name there.

    Parameters
    ----------
    prefix : str
        Start of every key of the deployment.
    partitions : int
        Of what is spread by bed. Alarms are one sequence, as they are on Redis.
    """
    by_bed = {topic: replace(TOPICS[topic], partitions=partitions) for topic in SPREAD}
    single = {
        ALARMS: TopicConfig(1, retention_ms=_ALARMS_MS),
        DEAD_LETTERS: TopicConfig(1, retention_ms=_ALARMS_MS),
        HEARTBEATS: TopicConfig(1, retention_ms=_HEARTBEATS_MS),
        **{changelog: TopicConfig(partitions, compact=True) for changelog in CHANGELOGS},
    }
    return {topic_name(prefix, topic): config for topic, config in (by_bed | single).items()}


@dataclass(frozen=True, slots=True)
class KafkaTopic:
    """A topic as the cluster has it."""

    name: str
    partitions: int
    replicas: int
    wanted: TopicConfig


@asynccontextmanager
async def administrator(url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect to a cluster as who makes topics.

    Raises
    ------
    BrokerError
        If it does not answer.
    """
    admin = AIOKafkaAdminClient(**access_of(url).client_options)
    try:
        with _silent_client():
            await admin.start()
    except (KafkaError, OSError, KeyError) as error:
        await admin.close()
        # aiokafka (0.14) does not expect a refusal within SCRAM, and misses a field in it.
        why = "the user is refused" if isinstance(error, KeyError) else error
        raise BrokerError(f"cannot use the Kafka broker at {without_credentials(url)}: {why}") from error
    try:
        yield admin
    finally:
        await admin.close()


@contextmanager
def _silent_client() -> Iterator[None]:
    # It logs what it then raises, in many lines.
    client = logging.getLogger("aiokafka")
    before = client.level
    client.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        client.setLevel(before)


async def list_topics(url: str, prefix: str) -> list[KafkaTopic]:
    """Return the topics of a deployment that exist.

    Raises
    ------
    BrokerError
    """
    async with administrator(url) as admin:
        return await _existing(admin, prefix)


async def find_topics(url: str, prefix: str) -> dict[str, int]:
    """Return the number of partitions of each topic of a deployment; all of them have to exist.

    Raises
    ------
    BrokerError
        If the cluster does not answer, one is missing, or beds and their commands would lie apart.
    """
    there = {topic.name: topic.partitions for topic in await list_topics(url, prefix)}
    missing = wanted_topics(prefix, 1).keys() - there.keys()
    if missing:
        raise BrokerError(
            f"the Kafka broker has no topic {min(missing)}:"
            f" `bedside topics create --broker {without_credentials(url)}` makes it"
        )
    found = {name.removeprefix(topic_name(prefix, "")): count for name, count in there.items()}
    if found[SAMPLES] != found[COMMANDS]:
        raise BrokerError(
            f"{SAMPLES} has {found[SAMPLES]} partitions and {COMMANDS} {found[COMMANDS]}: with the same"
            " number a bed's worker receives its commands; use `bedside topics resize`"
        )
    return found


async def _existing(admin: AIOKafkaAdminClient, prefix: str) -> list[KafkaTopic]:
    # Only what is there is asked about: some brokers create what they are asked about.
    names = sorted(wanted_topics(prefix, 1).keys() & set(await admin.list_topics()))
    described = await admin.describe_topics(names) if names else []
    counts = {topic["topic"]: topic["partitions"] for topic in described}
    partitions = len(counts.get(topic_name(prefix, SAMPLES), ())) or TOPICS[SAMPLES].partitions
    wanted = wanted_topics(prefix, partitions)
    return [
        KafkaTopic(name, len(counts[name]), len(counts[name][0]["replicas"]), wanted[name]) for name in names
    ]


async def create_topics(url: str, prefix: str, partitions: int, replication: int) -> list[str]:
    """Create those topics of a deployment that do not exist.

    Parameters
    ----------
    url : str
    prefix : str
    partitions : int
        Of what is spread by bed.
    replication : int
        On how many brokers each partition lies.

    Returns
    -------
    list of str
        Names of those created.

    Raises
    ------
    BrokerError
        If the cluster refuses one, or has one with another number of partitions.
    """
    wanted = wanted_topics(prefix, partitions)
    for name in wanted:
        try:
            check_topic(name)
        except ValueError as error:
            raise BrokerError(f"{error}: change BEDSIDE_PREFIX") from error
    async with administrator(url) as admin:
        there = {topic.name: topic for topic in await _existing(admin, prefix)}
        for topic in there.values():
            if topic.partitions != wanted[topic.name].partitions:
                raise BrokerError(
                    f"topic {topic.name} has {topic.partitions} partitions, not"
                    f" {wanted[topic.name].partitions}: beds would move away from their state;"
                    " use `bedside topics resize`"
                )
        missing = [name for name in wanted if name not in there]
        reply = await admin.create_topics(
            [
                NewTopic(
                    name,
                    wanted[name].partitions,
                    replication,
                    topic_configs=_settings(wanted[name], replication),
                )
                for name in missing
            ]
        )
        for name, code, reason in (error[:3] for error in reply.topic_errors):
            if code not in (0, TopicAlreadyExistsError.errno):
                raise BrokerError(f"the Kafka broker does not create {name}: {reason or f'error {code}'}")
    return missing


def _settings(config: TopicConfig, replication: int) -> dict[str, str]:
    # The broker's clock counts, as the Redis server's does there.
    settings = {"message.timestamp.type": "LogAppendTime"}
    if config.compact:
        settings["cleanup.policy"] = "compact"
    elif config.retention_ms is not None:
        settings["retention.ms"] = str(config.retention_ms)
        settings["segment.ms"] = str(config.retention_ms // _SEGMENTS)
    if replication > _SAFE_COPIES:
        settings["min.insync.replicas"] = str(_SAFE_COPIES)
    return settings
