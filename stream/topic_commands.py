"""The command ``topics``."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace

import click

from stream.console import (
    RefusalError,
    broker_option,
    json_lines_option,
    kafka_url,
    redis_option,
    server_url,
)
from stream.settings import BrokerError, Settings
from stream.topics import COMMANDS, SAMPLES, TOPICS
from stream.transport.layout import TopicConfig


@click.group("topics")
def topics() -> None:
    """Show and make the topics of a deployment.

    Partitions are shared out between workers: as many as there will ever be workers, at least. Redis servers
    make their topics by themselves, with 16; on Kafka they have to be there before anything else starts.
    """


@topics.command("create")
@click.option(
    "--partitions",
    default=TOPICS[SAMPLES].partitions,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Of everything that is spread by bed.",
)
@click.option(
    "--replication", default=1, show_default=True, type=click.IntRange(1, 9), help="Copies of each, on Kafka."
)
@broker_option
@redis_option
def create(partitions: int, replication: int, broker: str | None, redis: str | None) -> None:
    """Create the topics that do not exist; those that do stay as they are.

    \b
    bedside topics create --partitions 32
    bedside topics create --broker kafka://kafka.example:9092 --partitions 256 --replication 3
    """
    kafka, prefix = kafka_url(broker), Settings().prefix
    if kafka is not None:
        from stream.kafka.topics import create_topics

        made = asyncio.run(create_topics(kafka, prefix, partitions, replication))
    else:
        made = asyncio.run(_create_on_redis(broker or server_url(redis), prefix, partitions))
    for name in made:
        click.echo(name)
    click.echo(f"bedside: {len(made)} topics created", err=True)


async def _create_on_redis(url: str, prefix: str, partitions: int) -> list[str]:
    from stream.bus import Bus

    async with await Bus.connect(url, prefix=prefix) as bus:
        there = await bus.topics()
        for topic, config in TOPICS.items():
            wanted = replace(config, partitions=partitions) if topic in (SAMPLES, COMMANDS) else config
            found = await bus.declare(topic, wanted)
            if found.partitions != wanted.partitions:
                raise BrokerError(
                    f"topic {topic} has {found.partitions} partitions, not {wanted.partitions}: the number"
                    " cannot change on a Redis server; use another BEDSIDE_PREFIX"
                )
        return [prefix + topic for topic in TOPICS if topic not in there]


@topics.command("resize")
@click.option("--partitions", required=True, type=click.IntRange(1, 10_000), help="The new number.")
@click.option(
    "--replication", default=1, show_default=True, type=click.IntRange(1, 9), help="Copies of each."
)
@broker_option
def resize(partitions: int, replication: int, broker: str | None) -> None:
    """Give a Kafka deployment that stands still another number of partitions.

    Stop what publishes samples, let workers and bridges finish what is there, stop them; then resize, and
    start them again. Each bed keeps its open alarms, limits and settings. Interrupted, it is started again.

    \b
    bedside topics resize --broker kafka://kafka.example:9092 --partitions 500 --replication 3
    """
    kafka = kafka_url(broker)
    if kafka is None:
        raise click.UsageError("name the Kafka cluster: on a Redis server the number cannot change")
    from stream.kafka.resize import resize_topics

    beds = asyncio.run(resize_topics(kafka, Settings().prefix, partitions, replication))
    click.echo(f"bedside: {partitions} partitions, with the state of {beds} beds", err=True)


@topics.command("list")
@broker_option
@redis_option
@json_lines_option
def list_(broker: str | None, redis: str | None, as_json: bool) -> None:
    """List the topics that exist.

    \b
    bedside topics list
    bedside topics list --broker kafka://kafka.example:9092 --json
    """
    kafka, prefix = kafka_url(broker), Settings().prefix
    if kafka is not None:
        from stream.kafka.topics import list_topics

        found = {
            topic.name: replace(topic.wanted, partitions=topic.partitions)
            for topic in asyncio.run(list_topics(kafka, prefix))
        }
    else:
        found = asyncio.run(_list_on_redis(broker or server_url(redis), prefix))
    if not found:
        raise RefusalError("there are no topics yet: `bedside topics create` makes them")
    for name, config in sorted(found.items()):
        if as_json:
            click.echo(json.dumps({"topic": name, **asdict(config)}))
        else:
            click.echo(f"{name:<44} {config.partitions:>5}  {_kept(config)}")


async def _list_on_redis(url: str, prefix: str) -> dict[str, TopicConfig]:
    from stream.bus import Bus

    async with await Bus.connect(url, prefix=prefix) as bus:
        return {prefix + topic: config for topic, config in (await bus.topics()).items()}


def _kept(config: TopicConfig) -> str:
    if config.compact:
        return "the newest of each bed"
    if config.retention_ms is not None:
        return f"{config.retention_ms / 60_000:g} min"
    return f"{config.maxlen:,} messages" if config.maxlen is not None else "everything"
