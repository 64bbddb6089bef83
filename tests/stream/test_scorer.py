"""What a scorer tells, and does not, on a real server; whole workers are in `test_worker`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import faust
import pytest

from models.session import Session
from stream.audit.log import AuditLog
from stream.audit.recorder import Recorder
from stream.bed_settings import SettingsBook
from stream.bus import Bus
from stream.clock import ManualClock
from stream.contract import AlarmEvent, Command, CommandKind, Finding, Presence, SampleChunk
from stream.embedded import EmbeddedServer
from stream.judging import Delivery
from stream.outgoing import Outgoing
from stream.scorer import OvertakenError, Rows, Scorer
from stream.settings import broker_with_prefix
from stream.topics import ALARMS, FINDINGS
from stream.transport.layout import group_key
from tests.stream.synthetic import T0, StandIn, ecg, every, feed, small_manifest

FS = 100.0


class Desk:
    """A scorer that publishes as a member of a consumer group, in its fifth generation."""

    def __init__(self, app: faust.App, bus: Bus) -> None:
        async def get_bus() -> Bus:
            return bus

        session: Session = StandIn(small_manifest())  # type: ignore[assignment]
        self.bus, self.app = bus, app
        self.clock = ManualClock(T0)
        self.table: dict[str, bytes] = {}
        self.confirmed: list[bool] = []
        self.scorer = Scorer(
            session,
            Outgoing(app.maybe_start_producer),
            Recorder(get_bus),
            SettingsBook(get_bus),
            Rows(self.table.get, self.table.__setitem__, self._written),
            Rows({}.get, {}.__setitem__, self._written),
            self._confirm,
            self.clock,
        )
        app.consumer_generation_id = 5

    async def _written(self) -> None:
        return

    async def _confirm(self, *, published: bool) -> None:
        # What was told is there before one asks whether it is safe.
        self.confirmed.append(published and bool(await self.events()) and bool(await self.audit()))

    async def lose_a_feed(self) -> None:
        x = ecg(2.0, FS)
        for chunk in feed(x, FS, every(0.5, FS, len(x)), bed="bed-1", pace=1.0):
            self.scorer.engine.accept(chunk, chunk.header.ingest_ns)
        # In steps: a tick that comes late is one of a worker that stood still.
        for _ in range(6):
            self.clock.set(self.clock.now_ns() + 10**9)
            await self.scorer.tick()

    async def owned_by(self, generation: int) -> None:
        key = group_key(self.bus.prefix, self.app.conf.id, "assigned")
        await self.bus.client.set(key, generation)

    async def events(self) -> list[AlarmEvent]:
        return [AlarmEvent.decode(entry.value) async for entry in self.bus.kept(ALARMS)]

    async def audit(self) -> list[Any]:
        return [entry async for _, entry in AuditLog(self.bus).entries()]


class Taken:
    """What Faust hands over with a chunk, as far as a scorer uses it."""

    def __init__(self) -> None:
        self.acked = False

    def ack(self) -> None:
        self.acked = True


@asynccontextmanager
async def desk(server: EmbeddedServer) -> AsyncIterator[Desk]:
    app = faust.App("test", broker=broker_with_prefix(server.url, "bedside:"), web_enabled=False)
    async with await Bus.connect(server.url) as bus:
        await bus.declare_all()
        found = Desk(app, bus)
        try:
            yield found
        finally:
            found.scorer.close()
            await app.producer.stop()


def test_an_alarm_is_recorded_and_is_safe_before_its_chunks_are_done(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        async with desk(redis_server) as at:
            await at.scorer.checkpoint()
            await at.lose_a_feed()
            (event,) = await at.events()
            assert (event.rule, event.presence) == ("feed-lost", Presence.ON)
            assert [entry.entry for entry in await at.audit()] == [event.event]
            await at.scorer.checkpoint()
            await at.scorer.checkpoint()
            assert at.confirmed == [False, True, False]

    asyncio.run(main())


def test_whoever_has_lost_a_bed_records_nothing_that_is_not_told(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        async with desk(redis_server) as at:
            await at.owned_by(7)
            await at.lose_a_feed()
            assert at.scorer.engine.state("bed-1").open
            # Nor does it keep a state that knows of it: the bed may come back.
            at.scorer.changed("bed-1")
            await at.scorer.checkpoint()
            assert (await at.events(), await at.audit(), at.confirmed, at.table) == ([], [], [False], {})
            await at.scorer.forget(["bed-1"])
            await at.owned_by(5)
            await at.lose_a_feed()
            assert len(await at.events()) == 1
            assert list(at.table) == ["bed-1"]

    asyncio.run(main())


def test_whoever_has_lost_a_bed_answers_nobody(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        async with desk(redis_server) as at:
            await at.lose_a_feed()
            (event,) = await at.events()
            command = Command(
                id="1",
                bed="bed-1",
                kind=CommandKind.ACKNOWLEDGE,
                value=event.alarm,
                who="anna",
                at=at.clock.now_ns(),
                expires=at.clock.now_ns() + 10**10,
            )
            await at.owned_by(7)
            with pytest.raises(OvertakenError):
                await at.scorer.obey(command)
            assert len(await at.events()) == len(await at.audit()) == 1

    asyncio.run(main())


@pytest.mark.parametrize("given_away", [False, True])
def test_a_chunk_of_before_a_bed_was_given_away_is_not_done_where_the_bed_comes_back(
    redis_server: EmbeddedServer, given_away: bool
) -> None:
    async def main() -> None:
        async with desk(redis_server) as at:
            working = [
                asyncio.create_task(forever())
                for forever in (at.scorer.judging.run_forever, at.scorer.publish_forever)
            ]
            x = ecg(4.0, FS)
            events = [Taken() for _ in range(8)]
            chunks = feed(x, FS, every(0.5, FS, len(x)), bed="bed-1", pace=1.0)
            deliveries: Any = [Delivery(*pair) for pair in zip(chunks, events, strict=True)]
            assert await at.scorer.take(deliveries) == []
            async with asyncio.timeout(10):
                # Whoever may forget a bed has waited until what was judged of it is out.
                async for entry in at.bus.tail(FINDINGS, after="0"):
                    if Finding.decode(entry.value).end == len(x):
                        break
            if given_away:
                # Rows are written at intervals: none knows of these windows yet.
                await at.scorer.forget(["bed-1"])
            at.table.clear()
            for one in working:
                one.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            before = [event.acked for event in events]
            await at.scorer.checkpoint()
            assert not all(before)
            assert [event.acked for event in events] == (before if given_away else [True] * 8)
            assert list(at.table) == ([] if given_away else ["bed-1"])

    asyncio.run(main())


def test_the_end_of_a_feed_is_not_done_before_windows_that_were_read_back(
    redis_server: EmbeddedServer,
) -> None:
    async def main() -> None:
        async with desk(redis_server) as at:
            # The last one, a tenth of a second, completes nothing.
            x = ecg(4.1, FS)
            *chunks, last = feed(x, FS, every(0.5, FS, len(x)), bed="bed-1", pace=1.0)
            end = Taken()
            header = last.header.model_copy(update={"last": True})
            ended: Any = Delivery(SampleChunk(header, last.samples), end)  # type: ignore[arg-type]
            assert await at.scorer.take([*map(Delivery, chunks), ended]) == []
            await at.scorer.checkpoint()
            assert not end.acked
            working = [
                asyncio.create_task(forever())
                for forever in (at.scorer.judging.run_forever, at.scorer.publish_forever)
            ]
            async with asyncio.timeout(10):
                while at.scorer.engine.busy("bed-1"):  # noqa: ASYNC110 (publishing takes a lock, and tells nobody)
                    await asyncio.sleep(0.01)
                await at.scorer.checkpoint()
            assert end.acked
            for one in working:
                one.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    asyncio.run(main())


def test_a_chunk_whose_alarms_are_others_to_tell_is_not_done(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        async with desk(redis_server) as at:
            await at.lose_a_feed()
            await at.owned_by(7)
            # It is back: that ends the alarm, and completes nothing else.
            x = ecg(2.1, FS)
            *_, last = feed(x, FS, every(0.5, FS, len(x)), bed="bed-1", pace=1.0)
            taken = Taken()
            delivery: Any = Delivery(last, taken)  # type: ignore[arg-type]
            assert await at.scorer.take([delivery]) == []
            await at.scorer.checkpoint()
            assert len(await at.events()) == 1
            assert not taken.acked

    asyncio.run(main())
