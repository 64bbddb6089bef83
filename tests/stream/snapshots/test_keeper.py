"""Who makes a snapshot and when; and the whole way: a real server, real workers, a patient who falls ill."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bench.ward import Ward
from models.backends import open_session
from models.bundle import load_bundle
from models.session import Session
from stream import asking
from stream.alarms.state import BedState, DueSnapshot, Stay
from stream.audit.recorder import Recorder
from stream.bed_settings import SettingsBook
from stream.bus import Bus
from stream.clock import ManualClock, SystemClock
from stream.contract import AlarmKind, Audit, Command, CommandKind, Presence, SampleChunk
from stream.embedded import EmbeddedServer
from stream.offline import analyse, run
from stream.outgoing import Outgoing
from stream.overlay import Overlay
from stream.scorer import Rows, Scorer
from stream.shedding import Shedding
from stream.snapshots.hindsight import span_of
from stream.snapshots.keeper import Beds, Keeper, note
from stream.snapshots.process import Answer, NotMadeError, Order, SnapshotProcess
from stream.snapshots.store import Snapshot, SnapshotStore
from stream.topics import AUDIT, COMMANDS
from tests.stream.snapshots.test_store import raised
from tests.stream.synthetic import T0, StandIn, ecg, every, feed, small_manifest
from tests.stream.test_worker import FALLS_ILL, PATIENCE_S, collect, in_ward, patient, publish
from tests.stream.test_worker import feed as feed_of

FS = 100.0
SECOND_NS = 10**9


async def _nobody() -> Any:
    raise AssertionError("nothing is sent")


class Floor:
    """The beds of one worker that has not been started: its engine, its rows, its keeper."""

    def __init__(self) -> None:
        session: Session = StandIn(small_manifest())  # type: ignore[assignment]
        self.clock = ManualClock(T0)
        self.table: dict[str, bytes] = {}
        rows = Rows(self.table.get, self.table.__setitem__, _nobody)
        book = SettingsBook(_nobody)
        memories = Rows({}.get, {}.__setitem__, _nobody)
        outgoing, recorder = Outgoing(_nobody), Recorder(_nobody)
        self.scorer = Scorer(session, outgoing, recorder, book, rows, memories, _nobody, self.clock)
        self.beds = Beds(self.scorer, rows, lambda: self.table)
        self.keeper = Keeper(self.make, self.beds, self.clock)

    def hear(self, seconds: float, bed: str = "bed-1", session: str = "s", *, last: bool = False) -> None:
        """Let the engine hear a feed up to then, as far as it has not."""
        x = ecg(seconds, FS)
        for chunk in feed(x, FS, every(0.5, FS, len(x)), bed=bed, session=session, last=last):
            if not self.scorer.engine.knows(bed) or chunk.end > self.scorer.engine.moment(bed).sample:
                self.scorer.engine.accept(chunk, chunk.header.ingest_ns)

    async def make(self, due: DueSnapshot) -> Answer:
        raise NotMadeError("it died")

    def due(self, after_s: float = 0.0) -> list[tuple[str, str]]:
        self.clock.set(self.clock.now_ns() + round(after_s * SECOND_NS))
        return [(bed, due.raised.alarm) for bed, due in self.keeper.due(self.clock.now_ns())]


def at(seconds: float, alarm: str = "abc", bed: str = "bed-1") -> Any:
    since = T0 + round(seconds * SECOND_NS)
    event = raised(alarm, bed, since)
    return event.model_copy(update={"onset": round(seconds * FS), "onset_t": since})


def test_the_raise_of_a_physiological_alarm_is_noted_once() -> None:
    state = BedState(session="s", model="cae", stay=Stay(threshold=4.0, session="s", admitted_t=5))
    event = at(20)
    note(state, event.model_copy(update={"kind": AlarmKind.TECHNICAL}))
    note(state, event.model_copy(update={"event": "abc-1", "presence": Presence.OFF}))
    assert state.snapshots == []
    note(state, event)
    note(state, event)
    (due,) = BedState.model_validate_json(state.model_dump_json()).snapshots
    assert (due.raised, due.model, due.threshold, due.admitted_t) == (event, "cae", 4.0, 5)
    for number in range(40):
        note(state, at(20, f"a{number}"))
    assert [due.raised.alarm for due in state.snapshots] == [f"a{number}" for number in range(8, 40)]


def test_it_is_due_when_the_bed_was_heard_for_ten_seconds_more() -> None:
    floor = Floor()
    floor.hear(20.5)
    note(floor.scorer.engine.state("bed-1"), at(20))
    assert floor.due() == []
    floor.hear(29.5)
    assert floor.due() == []
    floor.hear(30.0)
    assert floor.due() == [("bed-1", "abc")]
    floor.beds.made("bed-1", "abc")
    assert floor.due() == []
    assert floor.scorer.engine.state("bed-1").snapshots == []


@pytest.mark.parametrize("ends", ["last", "session"])
def test_it_is_due_when_the_feed_ends(ends: str) -> None:
    floor = Floor()
    floor.hear(20.5)
    note(floor.scorer.engine.state("bed-1"), at(20))
    if ends == "last":
        floor.hear(22.0, last=True)
    else:
        x = ecg(1, FS)
        for chunk in feed(x, FS, [], session="another"):
            floor.scorer.engine.accept(chunk, chunk.header.ingest_ns)
    assert floor.due() == [("bed-1", "abc")]


def test_it_is_due_when_the_feed_is_silent_for_ten_seconds() -> None:
    floor = Floor()
    floor.hear(20.5)
    note(floor.scorer.engine.state("bed-1"), at(20))
    assert floor.due() == floor.due(9.9) == []
    floor.hear(21.0)
    assert floor.due() == floor.due(9.9) == []
    assert floor.due(0.1) == [("bed-1", "abc")]


def test_a_bed_that_fell_silent_before_its_former_worker_did_is_not_forgotten() -> None:
    floor = Floor()
    state = BedState(session="s")
    note(state, at(20))
    floor.table |= {"bed-1": state.model_dump_json().encode(), "bed-2": b'{"session": "s"}'}
    assert floor.due() == floor.due(9.9) == []
    assert floor.due(0.1) == [("bed-1", "abc")]
    floor.beds.made("bed-1", "abc")
    assert BedState.model_validate_json(floor.table["bed-1"]).snapshots == []
    assert floor.due(20.0) == []


def test_an_overloaded_worker_puts_it_off_but_not_for_ever() -> None:
    floor = Floor()
    floor.hear(30.0)
    note(floor.scorer.engine.state("bed-1"), at(20))
    overloaded = Shedding()
    overloaded.step = 1
    floor.scorer.shedding = overloaded
    assert floor.due() == []
    assert floor.due(319) == []
    assert floor.due(2) == [("bed-1", "abc")]


def test_what_cannot_be_made_is_given_up_after_three_attempts() -> None:
    floor = Floor()
    floor.hear(30.0)
    note(floor.scorer.engine.state("bed-1"), at(20))
    ((_, due),) = floor.keeper.due(floor.clock.now_ns())
    assert [asyncio.run(floor.keeper._is_done(due)) for _ in range(3)] == [False, False, True]


# ---- with the process that makes them --------------------------------------------------------------------


def test_the_process_says_what_came_of_it(redis_server: EmbeddedServer, short_tmp: Path) -> None:
    due = DueSnapshot(raised=at(20))

    async def main() -> None:
        bundle = str(load_bundle("cae-100hz").path)
        process = SnapshotProcess(Order(url=redis_server.url, prefix="p:", bundle=bundle))
        before = psutil.Process().children()
        await process.start()
        try:
            (started,) = set(psutil.Process().children()) - set(before)
            assert (await process.make(due)).outcome == "stored"
            assert set(psutil.Process().children()) - set(before) == {started}
            assert (await process.make(due)).outcome == "there"
            async with await Bus.connect(redis_server.url, prefix="p:") as bus:
                # Nothing was sent, and that is what it says.
                snapshot = await SnapshotStore(bus).get("abc")
            assert snapshot is not None
            assert snapshot.header.remarks[0].startswith("no samples")
            redis_server.stop()
            gone = await process.make(DueSnapshot(raised=at(20, "def")))
            assert gone.outcome == "again"
        finally:
            await process.end()

    asyncio.run(main())


def test_how_many_are_kept_is_a_setting(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEDSIDE_SNAPSHOTS", "1")
    monkeypatch.setenv("BEDSIDE_SNAPSHOT_HOURS", "2")

    async def main() -> None:
        bundle = str(load_bundle("cae-100hz").path)
        process = SnapshotProcess(Order(url=redis_server.url, prefix="p:", bundle=bundle))
        try:
            for alarm in ("first", "second"):
                due = DueSnapshot(raised=at(20).model_copy(update={"alarm": alarm, "event": f"{alarm}-0"}))
                assert (await process.make(due)).outcome == "stored"
            async with await Bus.connect(redis_server.url, prefix="p:") as bus:
                assert [one.header.alarm.alarm for one in await SnapshotStore(bus).listed()] == ["second"]
                assert 0 < await bus.client.pttl("p:snapshot:second") <= 2 * 3600 * 1000
        finally:
            await process.end()

    asyncio.run(main())


def test_a_process_that_dies_is_started_again(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        broken = SnapshotProcess(Order(url=redis_server.url, prefix="p:", bundle="/nowhere"))
        for _ in range(2):
            with pytest.raises(NotMadeError, match="died"):
                await broken.make(DueSnapshot(raised=at(20)))

    asyncio.run(main())


# ---- with workers ----------------------------------------------------------------------------------------


async def stored(bus: Bus, alarm: str) -> Snapshot:
    async with asyncio.timeout(PATIENCE_S):
        # Another process stores it, and nothing says when.
        while (snapshot := await SnapshotStore(bus).get(alarm)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return snapshot


def assert_is_of(snapshot: Snapshot, sent: list[SampleChunk], session: Session) -> None:
    """It holds the samples that were sent, and what `bedside analyze` says of the same."""
    header, samples = snapshot.header, snapshot.arrays["samples"]
    fs = header.fs
    span = span_of(header.alarm, fs)
    whole = np.concatenate([chunk.samples for chunk in sent])
    assert (header.n0, header.n0 + len(samples)) == (span.start, min(span.end, len(whole)))
    np.testing.assert_array_equal(samples, whole[span.start : span.end])
    cut = [
        SampleChunk(chunk.header, chunk.samples[: span.end - chunk.header.n0])
        for chunk in sent
        if chunk.header.n0 < span.end
    ]
    overlay = Overlay(session.manifest, header.leads, fs, span.end / fs)
    analysis = analyse(overlay.heard(cut), session, record="file", on_window=overlay.add)
    traces = overlay.traces()
    first = int(np.searchsorted(traces.t_s, (header.trace_t0 - sent[0].header.t0) / 1e9 - 0.001))
    points = slice(first, first + snapshot.arrays["signal"].shape[1])
    for name, wanted in {"signal": traces.signal, "reconstruction": traces.reconstruction}.items():
        np.testing.assert_allclose(snapshot.arrays[name], wanted[:, points], rtol=1e-3, atol=1e-3)
    scores = {round(window.start_s * fs): window.score for window in analysis.windows}
    starts = snapshot.arrays["windows"][:, 0].tolist()
    assert snapshot.arrays["window_score"].tolist() == pytest.approx(
        [scores[start] for start in starts], rel=1e-4, abs=1e-5
    )
    assert max(snapshot.arrays["window_score"]) > header.threshold


def test_an_alarm_gets_its_snapshot_and_a_quiet_bed_gets_none(short_tmp: Path, shipped: Session) -> None:
    ill, well = feed_of("ill", patient(1, FALLS_ILL, 45.0)), feed_of("well", patient(2, "", 45.0))
    # The feeds go on: it is the time that has passed which makes the snapshot due.
    ill, well = ill[:-1], well[:-1]
    expected = [event for event in run(ill, shipped).events if event.kind is AlarmKind.PHYSIOLOGICAL]

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, [chunk for pair in zip(ill, well, strict=True) for chunk in pair])
        received = await collect(bus, lambda r: any(e.event == expected[0].event for e in r.events))
        event = next(e for e in received.events if e.event == expected[0].event)
        assert event.snapshot == event.alarm
        snapshot = await stored(bus, event.snapshot)
        assert snapshot.header.alarm == event
        assert snapshot.header.remarks == ()
        assert_is_of(snapshot, ill, shipped)
        store = SnapshotStore(bus)
        raises = {e.alarm for e in expected if not e.number}
        assert {listed.header.alarm.alarm for listed in await store.listed()} <= raises
        assert not any(listed.former for listed in await store.listed())
        now = SystemClock().now_ns()
        discharge = Command(
            id="c1", bed="ill", kind=CommandKind.DISCHARGE, who="nurse", at=now, expires=now + 10**10
        )
        await bus.publish(COMMANDS, b"ill", discharge.encode())
        async with asyncio.timeout(PATIENCE_S):
            async for entry in bus.tail(AUDIT, after="0"):
                if (answer := Audit.decode(entry.value)).entry == "c1":
                    break
        assert answer.done
        assert all(listed.former for listed in await store.listed())

    in_ward(short_tmp, test)


def test_an_alarm_is_explained_by_the_model_that_raised_it(short_tmp: Path) -> None:
    session = open_session(load_bundle("vae-bilstm-100hz"))
    # The feed goes on.
    chunks = feed_of("bed-1", patient(1, FALLS_ILL, 60.0))[:-1]
    raise_ = next(event for event in run(chunks, session).events if event.rule == "anomaly")
    first = 60
    until = next(n for n, chunk in enumerate(chunks) if chunk.header.t0 > raise_.since) + 3

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, chunks[:first])
        await collect(bus, lambda received: len(received.findings) >= 5)
        assert (await asking.set_model(bus, "bed-1", "vae-bilstm-100hz", who="nurse")).done
        await publish(bus, chunks[first:until])
        received = await collect(bus, lambda r: any(e.rule == "anomaly" for e in r.events))
        raised = next(event for event in received.events if event.rule == "anomaly")
        # Changed again before the snapshot is due.
        assert (await asking.set_model(bus, "bed-1", None, who="nurse")).done
        await publish(bus, chunks[until:])
        snapshot = await stored(bus, raised.alarm)
        assert (snapshot.header.model, snapshot.header.remarks) == ("vae-bilstm-100hz", ())
        assert snapshot.header.threshold == session.manifest.thresholds["fp32"].window
        assert "spread" in snapshot.arrays
        assert_is_of(snapshot, chunks, session)

    in_ward(short_tmp, test)


def test_without_that_model_the_samples_are_kept(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        bundle = str(load_bundle("cae-100hz").path)
        process = SnapshotProcess(Order(url=redis_server.url, prefix="bedside:", bundle=bundle))
        chunks = feed_of("bed-1", patient(1, "", 30.0))
        try:
            async with await Bus.connect(redis_server.url) as bus:
                await publish(bus, chunks)
                event = at(20).model_copy(update={"session": "session-of-bed-1"})
                due = DueSnapshot(raised=event, model="a model that was here once")
                assert (await process.make(due)).outcome == "stored"
                snapshot = await SnapshotStore(bus).get("abc")
        finally:
            await process.end()
        assert snapshot is not None
        assert snapshot.header.model == "a model that was here once"
        assert "not explained: the model could not be run" in snapshot.header.remarks
        assert len(snapshot.arrays["samples"])

    asyncio.run(main())


def test_a_worker_killed_before_leaves_it_to_the_next_one(short_tmp: Path, shipped: Session) -> None:
    chunks = feed_of("bed-1", patient(1, FALLS_ILL, 45.0))
    raise_ = next(event for event in run(chunks, shipped).events if event.kind is AlarmKind.PHYSIOLOGICAL)
    after = next(n for n, chunk in enumerate(chunks) if chunk.header.t0 > raise_.since + 5 * SECOND_NS)

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, chunks[:after])
        await collect(bus, lambda received: any(e.event == raise_.event for e in received.events))
        assert not await SnapshotStore(bus).has(raise_.alarm)
        ward.children.pop("worker").kill()
        ward.start_worker("second")
        await publish(bus, chunks[after:])
        snapshot = await stored(bus, raise_.alarm)
        assert snapshot.header.alarm.model_copy(update={"ingest_ns": 0}) == raise_.model_copy(
            update={"ingest_ns": 0}
        )
        assert_is_of(snapshot, chunks, shipped)

    in_ward(short_tmp, test)
