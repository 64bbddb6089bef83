"""The intake on a real server: sessions, claims, alarms that name the source, and adapters that die."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from ingest.live import claims, intake, notes
from ingest.live.intake import Intake
from stream.bus import Bus
from stream.contract import EVERY_BED, AlarmEvent, AlarmKind, Presence
from stream.embedded import EmbeddedServer
from stream.topics import ALARMS
from tests.ingest.live.feeding import CLOCK, Hand, chunks_on, counted, intake_of, until_alarms, until_samples

Server = EmbeddedServer
_numbers = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"t{next(_numbers)}:"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let alarms and claims end within a moment."""
    monkeypatch.setattr(notes, "_HOLD_NS", 300_000_000)
    monkeypatch.setattr(intake, "_LOOK_NS", 20_000_000)
    monkeypatch.setattr(intake, "CLAIM_S", 0.5)
    monkeypatch.setattr(claims, "CLAIM_S", 0.5)


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 60))


def test_pieces_arrive_as_chunks_and_a_stop_ends_the_sessions(
    redis_server_module: Server, prefix: str
) -> None:
    source = Hand()

    async def body() -> None:
        async with intake_of(source, redis_server_module, prefix) as bus:
            for n0 in range(0, 200, 20):
                source.put(counted(n0, 20))
                source.put(counted(n0, 20, bed="icu-2"))
                await asyncio.sleep(0.001)
            chunks = await until_samples(bus, 400)
            assert REGISTRY.get_sample_value("bedside_ingest_beds") is not None
        async with await Bus.connect(redis_server_module.url, prefix=prefix) as bus:
            for bed in ("icu-1", "icu-2"):
                chunks = await chunks_on(bus, bed)
                data = np.concatenate([chunk.samples[:, 0] for chunk in chunks])
                assert data.tolist() == list(range(200))
                assert [chunk.header.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
                assert {chunk.header.pace for chunk in chunks} == {1.0}
                age_ns = CLOCK.now_ns() - chunks[0].header.ingest_ns
                assert 0 < age_ns < 20e9
            # Nothing is left behind.
            assert await bus.client.keys(f"{prefix}ingest:*") == []

    run(body)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("apart", [False, True])
def test_a_bed_has_one_device_and_the_other_is_named_aloud(
    redis_server_module: Server, prefix: str, apart: bool
) -> None:
    # Two devices of one adapter, or of two.
    first, second = Hand("first"), Hand("second") if apart else None
    other = second or first

    async def feed(stopped: asyncio.Event, source: Hand, device: str) -> None:
        n0 = 0
        while not stopped.is_set():
            source.put(counted(n0, 10, device=device))
            n0 += 10
            await asyncio.sleep(0.02)

    async def body() -> None:
        async with intake_of(first, redis_server_module, prefix) as bus:
            stopped, ended = asyncio.Event(), asyncio.Event()
            holding = asyncio.create_task(feed(stopped, first, "holder"))
            before = await until_samples(bus, 50)
            also = intake_of(second, redis_server_module, prefix) if second else None
            if also:
                await also.__aenter__()
            claiming = asyncio.create_task(feed(ended, other, "claimant"))
            (raised, *_) = await until_alarms(bus, 1)
            assert (raised.rule, raised.kind, raised.bed) == (
                "source-conflict",
                AlarmKind.TECHNICAL,
                EVERY_BED,
            )
            for word in (other.name, "claimant", "icu-1", "holder", first.name):
                assert word in raised.message
            assert {chunk.header.session for chunk in await chunks_on(bus)} == {before[0].header.session}
            # The holder falls silent: the bed is the other's, and the alarm ends.
            stopped.set()
            raised, over = (await until_alarms(bus, 2))[:2]
            assert (over.alarm, over.presence) == (raised.alarm, Presence.OFF)
            sessions = [chunk.header.session for chunk in await until_samples(bus, 200)]
            assert len(set(sessions)) == 2
            ended.set()
            await asyncio.gather(holding, claiming)
            if also:
                await also.__aexit__(None, None, None)

    run(body)


@pytest.mark.usefixtures("quick")
def test_an_adapter_that_slept_for_too_long_finds_its_bed_taken(
    redis_server_module: Server, prefix: str
) -> None:
    source = Hand()

    async def body() -> None:
        async with intake_of(source, redis_server_module, prefix) as bus:
            source.put(counted(0))
            before = await until_samples(bus, 50)
            await bus.client.set(f"{prefix}ingest:bed:icu-1", "monitor-2 (elsewhere)", px=60_000)
            events: list[AlarmEvent] = []
            async with asyncio.timeout(20):
                for n0 in itertools.count(50, 10):
                    source.put(counted(n0, 10))
                    await asyncio.sleep(0.02)
                    if events := [AlarmEvent.decode(entry.value) async for entry in bus.kept(ALARMS)]:
                        break
            assert "monitor-2 (elsewhere) feeds" in events[0].message
            assert {chunk.header.session for chunk in await chunks_on(bus)} == {before[0].header.session}
            # It does not take away the claim of the other when it goes.
        async with await Bus.connect(redis_server_module.url, prefix=prefix) as bus:
            assert await bus.client.get(f"{prefix}ingest:bed:icu-1") == b"monitor-2 (elsewhere)"

    run(body)


@pytest.mark.usefixtures("quick")
def test_troubles_become_one_alarm_each_that_names_the_source(
    redis_server_module: Server, prefix: str
) -> None:
    source = Hand("hand:1")

    async def body() -> None:
        async with intake_of(source, redis_server_module, prefix) as bus:
            for _ in range(5):
                source.refuse("10.0.0.7", "unknown unit 'mmHg': V, mV, uV or nV are known", "icu-3")
                source.refuse("10.0.0.8", "no message of ours")
                await asyncio.sleep(0.05)
            events = await until_alarms(bus, 4)
            raised = {e.alarm: e for e in events if e.presence is Presence.ON}
            assert len(events) == 4
            texts = sorted(e.message for e in raised.values())
            assert texts == [
                "hand:1: 10.0.0.7: unknown unit 'mmHg': V, mV, uV or nV are known (bed icu-3)",
                "hand:1: 10.0.0.8: no message of ours",
            ]
            assert {e.rule for e in events} == {"source-refused"}
            # What is still wrong when the adapter stops is over with it.
            source.refuse("10.0.0.9", "no message of ours")
            await until_alarms(bus, 5)
        async with await Bus.connect(redis_server_module.url, prefix=prefix) as bus:
            assert [e.presence for e in await until_alarms(bus, 6)][4:] == [Presence.ON, Presence.OFF]

    run(body)


def test_an_adapter_that_died_is_followed_by_one_that_goes_on(
    redis_server_module: Server, prefix: str
) -> None:
    first, second = Hand(), Hand()

    async def body() -> None:
        async with await Bus.connect(redis_server_module.url, prefix=prefix) as bus:
            dying = asyncio.create_task(Intake(first, bus, clock=CLOCK).run(asyncio.Event()))
            for n0 in range(1000, 1200, 50):
                first.put(counted(n0))
                first.put(counted(n0, bed="other", n0=None))
            first.refuse("monitor-1", "something")
            before = await until_samples(bus, 400)
            first.stands_at = {"read": 1200}
            await until_alarms(bus, 1)
            async with asyncio.timeout(10):
                while not await bus.client.hexists(f"{prefix}ingest:hand", "position"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
        async with intake_of(second, redis_server_module, prefix) as bus:
            # Read again from a little before, and without what was lost meanwhile.
            second.put(counted(1150))
            second.put(counted(1250))
            second.put(counted(0, bed="other", n0=None))
            after = await until_samples(bus, 500)
            assert second.started_at == {"read": 1200}
            assert (await until_alarms(bus, 2))[1].presence is Presence.OFF
        session = next(chunk.header.session for chunk in before if chunk.header.bed == "icu-1")
        own = [chunk for chunk in after if chunk.header.bed == "icu-1"]
        assert {chunk.header.session for chunk in own} == {session}
        assert [(chunk.header.seq, chunk.header.n0) for chunk in own] == [
            (0, 0), (1, 50), (2, 100), (3, 150), (4, 250),
        ]  # fmt: skip
        assert own[-1].samples[:, 0].tolist() == list(range(1250, 1300))
        # Without a count or a time nobody knows what is missing.
        assert len({chunk.header.session for chunk in after if chunk.header.bed == "other"}) == 2

    run(body)


def test_a_server_that_was_away_is_waited_for(short_tmp: Path) -> None:
    source = Hand()

    async def body() -> None:
        server = EmbeddedServer(short_tmp / "r", appendonly=True).start()
        try:
            async with intake_of(source, server, "p:") as bus:
                source.put(counted(0))
                await until_samples(bus, 50)
                server.stop()
                for n0 in range(50, 500, 50):
                    source.put(counted(n0))
                await asyncio.sleep(0.05)
                server.start()
                chunks = await until_samples(bus, 500)
                assert [chunk.header.n0 for chunk in chunks] == list(range(0, 500, 50))
        finally:
            server.stop()

    run(body)


def test_beds_that_a_device_makes_up_have_an_end(
    redis_server_module: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_BEDS", 3)
    source = Hand()

    async def body() -> None:
        async with intake_of(source, redis_server_module, prefix) as bus:
            for number in range(20):
                source.put(counted(0, bed=f"bed-{number}"))
            (event,) = await until_alarms(bus, 1)
            assert "one too many: 3 beds" in event.message
            assert len({chunk.header.bed for chunk in await until_samples(bus, 150)}) == 3

    run(body)
