"""The worker on a Kafka-compatible broker: what comes out is what comes out on Redis."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.ward import Ward
from ingest.kafka_publisher import kafka_publisher
from models.session import Session
from stream import asking, topics
from stream.bus import Bus
from stream.contract import AlarmEvent, Presence, SampleChunk
from stream.kafka.resize import check_done
from stream.kafka.topics import administrator, create_topics, list_topics
from stream.offline import run
from stream.settings import BrokerError
from tests.command_line import started
from tests.stream.test_worker import (
    PATIENCE_S,
    RECOVERS,
    Received,
    assert_same,
    collect,
    feed,
    has_all_of,
    interleaved,
    patient,
    publish,
    ward_and_bus,
)

_numbers = itertools.count()
PARTITIONS = 8


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a prefix of its own to everything that this test starts."""
    prefix = f"worker-{next(_numbers)}:"
    monkeypatch.setenv("BEDSIDE_PREFIX", prefix)
    return prefix


@asynccontextmanager
async def kafka_ward(
    directory: Path, kafka: str, prefix: str, scorer: tuple[str, ...] | None = None
) -> AsyncIterator[tuple[Ward, Bus]]:
    await create_topics(kafka, prefix, PARTITIONS, 1)
    with Ward(directory, kafka=kafka, scorer=scorer) as ward:
        await ward.ready()
        async with await ward.connect() as bus:
            await bus.declare_all()
            yield ward, bus
        ward.check()


async def publish_on_kafka(
    kafka: str, prefix: str, chunks: Iterable[SampleChunk], *, pause_s: float = 0.0
) -> None:
    async with kafka_publisher(kafka, prefix, on_wait=print, stop_event=asyncio.Event()) as publisher:
        for chunk in chunks:
            await publisher.publish([chunk])
            if pause_s:
                await asyncio.sleep(pause_s)


@pytest.mark.slow
def test_kafka_and_redis_give_the_same(
    kafka: str, deployment: str, short_tmp: Path, shipped: Session
) -> None:
    feeds = [feed(f"bed-{seed}", patient(seed, RECOVERS, 60.0)) for seed in range(4)]
    expected = run(interleaved(feeds), shipped)

    async def on_redis() -> Received:
        async with ward_and_bus(short_tmp / "r") as (_, bus):
            await publish(bus, interleaved(feeds))
            return await collect(bus, has_all_of(expected))

    async def on_kafka() -> Received:
        async with kafka_ward(short_tmp / "k", kafka, deployment) as (_, bus):
            await publish_on_kafka(kafka, deployment, interleaved(feeds))
            received = await collect(bus, has_all_of(expected))
            # A command goes there and back: the bridge hands it on, the worker answers in the audit log.
            answer = await asking.pause(bus, "bed-1", 60, who="me")
            assert answer.done
            refused = await asking.confirm_baseline(bus, "nobody", who="me")
            assert (refused.done, refused.message) == (False, "bed nobody has not been heard")
            # What displays draw is there, too.
            assert sum([1 async for _ in bus.kept(topics.SAMPLES)]) == sum(map(len, feeds))
            return received

    async def both() -> tuple[Received, Received]:
        return await asyncio.gather(on_redis(), on_kafka())

    redis, kafka_ = asyncio.run(both())
    for received in (redis, kafka_):
        assert_same(received, expected)
    assert {event.event for event in redis.events} == {event.event for event in kafka_.events}


@pytest.mark.slow
def test_nothing_is_lost_while_a_worker_finds_its_place(
    kafka: str, deployment: str, short_tmp: Path, shipped: Session
) -> None:
    # Enough chunks that some still lie in Faust's queues when the first have been taken.
    chunks = list(interleaved([feed(f"bed-{seed}", patient(seed, RECOVERS, 60.0)) for seed in range(4)]))
    cut = 400
    expected = run(chunks, shipped)

    async def main() -> Received:
        slow = (str(Path(__file__).with_name("slow_seek.py")), "--broker", kafka)
        async with kafka_ward(short_tmp, kafka, deployment, slow) as (ward, bus):
            await publish_on_kafka(kafka, deployment, chunks[:cut])
            await collect(bus, has_all_of(run(chunks[:cut], shipped)))
            # The next one has tables to restore, and Faust reads on from then on.
            await all_committed(kafka, deployment)
            ward.children.pop("worker").kill()
            await publish_on_kafka(kafka, deployment, chunks[cut:])
            ward.start_worker("second")
            return await collect(bus, has_all_of(expected))

    assert_same(asyncio.run(main()), expected)


@pytest.mark.slow
def test_workers_and_bridges_join_leave_and_die_under_load(
    kafka: str, deployment: str, short_tmp: Path, shipped: Session
) -> None:
    feeds = [feed(f"bed-{seed}", patient(seed, RECOVERS, 60.0)) for seed in range(6)]
    expected = run(interleaved(feeds), shipped)

    async def main() -> Received:
        async with kafka_ward(short_tmp, kafka, deployment) as (ward, bus):

            async def heard(count: int) -> None:
                await collect(bus, lambda received: len(received.findings) >= count)

            # 300 rounds of 60 ms: alarms are open while workers and bridges come and go.
            publishing = asyncio.ensure_future(
                publish_on_kafka(kafka, deployment, interleaved(feeds), pause_s=0.01)
            )
            await heard(60)
            ward.start_worker("second")
            ward.start_bridge("other bridge")
            await heard(180)
            ward.children.pop("worker").kill()
            await heard(260)
            ward.children.pop("bridge").kill()
            await heard(320)
            ward.start_worker("third")
            leaving = ward.children.pop("second")
            leaving.terminate()
            await publishing
            received = await collect(bus, has_all_of(expected))
            assert leaving.wait(20) == 0, ward.log("second")
            return received

    received = asyncio.run(main())
    assert_same(received, expected)
    raised = [event.event for event in received.events]
    assert len(raised) == len(set(raised)), "the stream holds an alarm event twice"


@pytest.mark.slow
def test_beds_keep_their_alarms_when_the_number_of_partitions_changes(
    kafka: str, deployment: str, short_tmp: Path, shipped: Session
) -> None:
    chunks = {bed: feed(bed, patient(seed, RECOVERS, 60.0)) for seed, bed in enumerate(("bed-1", "bed-2"))}
    # VT since second 15, and every alarm of it open.
    cut = 150
    before = list(interleaved([feed_[:cut] for feed_ in chunks.values()]))
    after = list(interleaved([feed_[cut:] for feed_ in chunks.values()]))
    open_then = open_alarms(run(before, shipped).events)
    assert {alarm.rule for alarm in open_then.values()} >= {"anomaly", "ventricular-fibrillation"}

    async def main() -> tuple[Received, str]:
        async with kafka_ward(short_tmp, kafka, deployment) as (ward, bus):
            at_work = await asyncio.to_thread(resize, kafka, 5)
            assert "a worker is at work" in at_work.stderr
            await publish_on_kafka(kafka, deployment, before)
            await collect(bus, lambda received: open_alarms(received.events).keys() >= open_then.keys())
            for name in ("worker", "bridge"):
                # In this order: what the worker says last has to be handed on.
                await all_committed(kafka, deployment)
                child = ward.children.pop(name)
                child.terminate()
                assert await asyncio.to_thread(child.wait, 20) == 0, ward.log(name)
            resized = await asyncio.to_thread(resize, kafka, 5)
            assert resized.returncode == 0, resized.stderr
            ward.start_bridge("bridge")
            ward.start_worker("worker")
            await publish_on_kafka(kafka, deployment, after)

            def all_over(received: Received) -> bool:
                over = {event.alarm for event in received.events if event.presence is Presence.OFF}
                return over >= open_then.keys()

            return await collect(bus, all_over), resized.stderr

    received, said = asyncio.run(main())
    assert "5 partitions, with the state of 2 beds" in said
    numbers = [(event.alarm, event.number) for event in received.events]
    assert len(numbers) == len(set(numbers)), "an alarm event twice"
    for alarm in open_then:
        # Raised before, ended after, and never raised anew in between.
        mine = sorted(number for name, number in numbers if name == alarm)
        assert mine == list(range(len(mine)))


def open_alarms(events: Sequence[AlarmEvent]) -> dict[str, AlarmEvent]:
    newest = {event.alarm: event for event in events}
    return {alarm: event for alarm, event in newest.items() if event.presence is not Presence.OFF}


def resize(kafka: str, partitions: int) -> subprocess.CompletedProcess[str]:
    return started("topics", "resize", "--broker", kafka, "--partitions", partitions)


async def all_committed(kafka: str, prefix: str) -> None:
    """Return when workers and bridges have nothing left to do."""
    async with administrator(kafka) as admin:
        there = {topic.name: topic for topic in await list_topics(kafka, prefix)}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await check_done(admin, kafka, prefix, there)
                except BrokerError:
                    await asyncio.sleep(0.1)
                else:
                    return
