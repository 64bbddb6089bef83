"""Another number of partitions, without workers: what is refused, and what an interruption leaves."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]

from stream.kafka import resize
from stream.kafka.access import access_of
from stream.kafka.topics import (
    SPREAD,
    administrator,
    create_topics,
    find_topics,
    topic_name,
)
from stream.settings import BrokerError
from stream.topics import SAMPLES
from stream.transport.layout import partition_of

ROWS = {f"bed-{number}".encode(): f"state {number}".encode() for number in range(20)}


async def rows_there(kafka: str, prefix: str, partitions: int) -> dict[bytes, tuple[int, bytes]]:
    records = await resize._read_all(kafka, topic_name(prefix, resize._CHANGELOG), partitions)
    return {record.key: (record.partition, record.value) for record in records}


@pytest.mark.parametrize("complete", [True, False])
def test_after_an_interruption_it_is_started_again(kafka: str, prefix: str, complete: bool) -> None:
    async def main() -> dict[bytes, tuple[int, bytes]]:
        await create_topics(kafka, prefix, 4, 1)
        changelog = topic_name(prefix, resize._CHANGELOG)
        await resize._write(kafka, changelog, ROWS, 4)
        async with administrator(kafka) as admin:
            if complete:
                # Everything was put by, and the topics are gone.
                await resize._put_by(admin, kafka, prefix, ROWS, 1)
                await resize._delete(admin, [*(topic_name(prefix, topic) for topic in SPREAD), changelog])
            else:
                await resize._put_by(admin, kafka, prefix, {b"bed-1": b"old"}, 1)
                await resize._write(kafka, topic_name(prefix, resize._MOVING), {b"bed-2": b"half"}, 1)
        assert await resize.resize_topics(kafka, prefix, 6, 1) == len(ROWS)
        async with administrator(kafka) as admin:
            assert topic_name(prefix, resize._MOVING) not in await admin.list_topics()
        assert (await find_topics(kafka, prefix))[SAMPLES] == 6
        return await rows_there(kafka, prefix, 6)

    found = asyncio.run(main())
    assert found == {key: (partition_of(key, 6), value) for key, value in ROWS.items()}


def test_what_is_not_done_yet_is_not_thrown_away(kafka: str, prefix: str) -> None:
    async def main() -> None:
        await create_topics(kafka, prefix, 4, 1)
        async with AIOKafkaProducer(**access_of(kafka).client_options) as producer:
            await producer.send_and_wait(topic_name(prefix, SAMPLES), b"chunk", partition=3)
        await resize.resize_topics(kafka, prefix, 6, 1)

    with pytest.raises(BrokerError, match=r"samples holds 1 messages that no worker has done yet"):
        asyncio.run(main())
