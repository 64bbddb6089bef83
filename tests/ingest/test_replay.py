"""Replay: on time, in order, without drift, however many beds and however slow their files."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from ingest.chunks import Feed, chunks_of
from ingest.replay import AS_FAST_AS_POSSIBLE, ReplayReport, ReplayStatus, parse_speed, replay
from ingest.simulator import PatientSimulator
from ingest.source import ArrayRecording, IngestError, Recording
from stream.clock import ManualClock
from stream.contract import SampleChunk

START = 1_700_000_000_000_000_000


class Received:
    """A publisher that notes what it is given, and when."""

    def __init__(self, clock: ManualClock, *, takes_ns: Callable[[int], int] = lambda _: 0) -> None:
        self.batches: list[tuple[int, list[SampleChunk]]] = []
        self._clock = clock
        self._takes_ns = takes_ns

    async def publish(self, chunks: Sequence[SampleChunk]) -> None:
        self.batches.append((self._clock.now_ns(), list(chunks)))
        self._clock.set(self._clock.now_ns() + self._takes_ns(len(self.batches)))

    @property
    def chunks(self) -> list[SampleChunk]:
        return [chunk for _, batch in self.batches for chunk in batch]

    def of(self, bed: str) -> list[tuple[int, SampleChunk]]:
        return [(at, chunk) for at, batch in self.batches for chunk in batch if chunk.header.bed == bed]


def recording(seconds: float, fs: float = 500.0, seed: int = 0) -> ArrayRecording:
    samples = np.random.default_rng(seed).integers(-2000, 2000, (round(seconds * fs), 2)).astype(np.int16)
    return ArrayRecording(samples, name=f"r{seed}", fs=fs, leads=["I", "II"], gain=[1000.0] * 2)


def run(feeds: Sequence[Feed], *, takes_ns: Any = None, **options: Any) -> tuple[Received, ReplayReport]:
    clock = ManualClock(START)
    received = Received(clock, takes_ns=takes_ns) if takes_ns else Received(clock)
    report = asyncio.run(replay(feeds, received, clock=clock, **options))
    return received, report


@settings(max_examples=25, deadline=None)
@given(
    beds=st.integers(1, 9),
    fs=st.sampled_from([100.0, 128.0, 257.0, 360.0, 499.907, 500.0]),
    chunk_s=st.sampled_from([0.05, 0.2, 0.333, 0.5]),
    speed=st.sampled_from([0.5, 1.0, 2.0, 7.0]),
)
def test_every_chunk_goes_when_its_last_sample_would_have_been_acquired(
    beds: int, fs: float, chunk_s: float, speed: float
) -> None:
    feeds = [Feed(f"b{k}", recording(23.4, fs, k), session=f"s{k}") for k in range(beds)]
    received, report = run(feeds, chunk_s=chunk_s, speed=speed)
    for number, feed in enumerate(feeds):
        shift = round(number * chunk_s * 1e9 / speed / beds)
        sent = received.of(feed.bed)
        whole = np.concatenate([chunk.samples for _, chunk in sent])
        np.testing.assert_array_equal(whole, feed.recording.read(0, 10**6))
        assert [chunk.header.seq for _, chunk in sent] == list(range(len(sent)))
        for at, chunk in sent:
            assert abs(at - START - shift - chunk.end / fs * 1e9 / speed) <= 2
            assert chunk.header.ingest_ns == at
            assert chunk.header.pace == speed
            assert abs(chunk.header.t0 - START - shift - chunk.header.n0 / fs * 1e9) <= 2
        assert [chunk.header.last for _, chunk in sent] == [False] * (len(sent) - 1) + [True]
    assert report.chunks == len(received.chunks)
    assert report.samples == sum(len(chunk.samples) for chunk in received.chunks)
    assert report.max_behind_s == 0.0
    assert not report.stopped


def test_chunks_are_those_of_offline_cutting() -> None:
    source = recording(5.0, 360.0)
    received, _ = run([Feed("b", source, 1.0, 4.3, session="s", base_time_ns=77)])
    offline = list(chunks_of(source, "b", "s", start=1.0, stop=4.3, base_time_ns=77))
    assert len(received.chunks) == len(offline)
    for live, cut in zip(received.chunks, offline, strict=True):
        np.testing.assert_array_equal(live.samples, cut.samples)
        changed = {"ingest_ns": live.header.ingest_ns, "pace": 1.0}
        assert live.header == cut.header.model_copy(update=changed)


def test_live_device_time_is_the_clock_s() -> None:
    received, _ = run([Feed("b", recording(1.0))])
    at, chunk = received.of("b")[0]
    assert chunk.time_of(chunk.end) == at


def test_beds_do_not_all_go_at_once() -> None:
    received, _ = run([Feed(f"b{k}", recording(2.0)) for k in range(64)])
    assert max(len(batch) for _, batch in received.batches) == 1


def test_chunks_due_at_one_wake_go_together() -> None:
    # Half a second of somebody else's work: what became due meanwhile goes in one call.
    slow = {3: 500_000_000}
    received, report = run(
        [Feed(f"b{k}", recording(4.0)) for k in range(10)], takes_ns=lambda call: slow.get(call, 0)
    )
    assert max(len(batch) for _, batch in received.batches) == 25
    assert report.max_behind_s == pytest.approx(0.5, abs=0.03)
    # It catches up, and the end is where it would have been.
    assert received.batches[-1][0] - START == pytest.approx(4.18e9, abs=2)


def test_a_slow_publisher_does_not_make_the_schedule_drift() -> None:
    received, report = run([Feed("b", recording(20.0))], takes_ns=lambda _: 30_000_000)
    for at, chunk in received.of("b"):
        assert abs(at - START - chunk.end / 500 * 1e9) <= 2
    assert report.max_behind_s == 0.0


def test_as_fast_as_possible_beds_take_turns() -> None:
    received, report = run(
        [Feed(f"b{k}", recording(30.0, seed=k)) for k in range(3)], speed=AS_FAST_AS_POSSIBLE
    )
    order = [(chunk.header.bed, chunk.header.seq) for chunk in received.chunks]
    assert order == [(f"b{k}", seq) for seq in range(150) for k in range(3)]
    assert max(len(batch) for _, batch in received.batches) == 64
    assert {chunk.header.pace for chunk in received.chunks} == {0.0}
    assert report.max_behind_s == 0.0
    assert received.batches[-1][0] == START


def test_a_loop_goes_on_until_it_is_stopped() -> None:
    async def main() -> tuple[Received, ReplayReport]:
        clock, stop = ManualClock(START), asyncio.Event()
        received = Received(clock)

        def tell(status: ReplayStatus) -> None:
            if clock.now_ns() > START + 60e9:
                stop.set()

        feed = Feed("b", PatientSimulator(1, duration_s=8.0), loop=True, session="s")
        report = await replay([feed], received, clock=clock, stop_event=stop, on_status=tell)
        return received, report

    received, report = asyncio.run(main())
    assert report.stopped
    last = received.chunks[-1]
    assert last.header.last
    assert len(last.samples) == 0
    assert last.header.n0 == received.chunks[-2].end
    assert last.header.seq == len(received.chunks) - 1
    assert 60 < last.header.n0 / 500 < 63
    SampleChunk.decode(last.encode())


def test_a_stop_ends_every_feed_on_purpose() -> None:
    async def main() -> tuple[Received, ReplayReport]:
        clock, stop = ManualClock(START), asyncio.Event()
        stop.set()
        received = Received(clock)
        feeds = [Feed(f"b{k}", recording(5.0)) for k in range(3)]
        return received, await replay(feeds, received, clock=clock, stop_event=stop)

    received, report = asyncio.run(main())
    assert sorted(chunk.header.bed for chunk in received.chunks) == ["b0", "b1", "b2"]
    assert all(chunk.header.last for chunk in received.chunks)
    assert report.stopped


def test_the_status_tells_the_lateness_of_the_last_second_and_of_all() -> None:
    slow = {4: 3_000_000_000}
    told: list[ReplayStatus] = []
    run([Feed("b", recording(10.0))], takes_ns=lambda call: slow.get(call, 0), on_status=told.append)
    assert max(status.behind_s for status in told) == pytest.approx(2.8, abs=0.05)
    assert told[-1].behind_s == 0.0
    assert told[-1].max_behind_s == pytest.approx(2.8, abs=0.05)
    assert told[-1].beds == 1
    assert 0 < told[0].chunks < told[-1].chunks <= 50


class OnDisk(Recording):
    """A recording whose reads happen in a thread, wait to be allowed, and may fail."""

    def __init__(self, seconds: float, *, fails_from: int | None = None) -> None:
        super().__init__(name="disk", fs=100.0, leads=["II"], gain=[1000.0], n_samples=round(seconds * 100))
        self.threads: set[int] = set()
        self.reads: list[tuple[int, int]] = []
        self.allowed = threading.Event()
        self.allowed.set()
        self.waits_from = 10**9
        self._fails_from = fails_from

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        self.threads.add(threading.get_ident())
        self.reads.append((start, stop))
        if start >= self.waits_from:
            self.allowed.wait(30)
        if self._fails_from is not None and start >= self._fails_from:
            raise IngestError("disk", "gone")
        return np.arange(start, stop, dtype=np.int16)[:, None]


def test_files_are_read_in_a_thread_one_piece_ahead() -> None:
    source = OnDisk(65.0)
    received, _ = run([Feed("b", source)])
    assert threading.get_ident() not in source.threads
    assert source.reads == [(k * 1000, min(6500, k * 1000 + 1000)) for k in range(7)]
    whole = np.concatenate([chunk.samples for chunk in received.chunks])
    np.testing.assert_array_equal(whole[:, 0], np.arange(6500))


def test_beds_read_their_files_one_after_the_other() -> None:
    sources = [OnDisk(65.0) for _ in range(4)]
    run([Feed(f"b{k}", source) for k, source in enumerate(sources)])
    assert [source.reads[0] for source in sources] == [(0, 240), (0, 500), (0, 760), (0, 1000)]
    assert {stop - start for source in sources for start, stop in source.reads[1:-1]} == {1000}


def test_a_bed_whose_file_is_slow_delays_no_other() -> None:
    slow, quick = OnDisk(30.0), recording(30.0)
    slow.waits_from = 2000
    slow.allowed.clear()

    class Allowing(Received):
        async def publish(self, chunks: Sequence[SampleChunk]) -> None:
            await super().publish(chunks)
            if any(chunk.header.bed == "quick" and chunk.header.last for chunk in chunks):
                slow.allowed.set()

    async def main() -> Received:
        clock = ManualClock(START)
        received = Allowing(clock)
        await replay([Feed("slow", slow), Feed("quick", quick)], received, clock=clock)
        return received

    received = asyncio.run(main())
    for at, chunk in received.of("quick"):
        assert abs(at - START - 0.1e9 - chunk.end / 500 * 1e9) <= 2
    assert received.of("slow")[-1][1].header.last
    assert sum(len(chunk.samples) for _, chunk in received.of("slow")) == 3000


@pytest.mark.parametrize("fails_from", [0, 1000, 2000])
def test_a_feed_that_breaks_off_is_told_and_ends_without_a_last_chunk(fails_from: int) -> None:
    received, report = run([Feed("good", recording(30.0)), Feed("bad", OnDisk(30.0, fails_from=fails_from))])
    assert report.failed == {"bad": "disk: gone"}
    assert not any(chunk.header.last for _, chunk in received.of("bad"))
    assert sum(len(chunk.samples) for _, chunk in received.of("bad")) == fails_from
    assert received.of("good")[-1][1].header.last
    assert not report.stopped


def test_an_error_of_the_publisher_ends_the_replay() -> None:
    class Broken:
        async def publish(self, chunks: Sequence[SampleChunk]) -> None:
            raise ConnectionError("server gone")

    with pytest.raises(ConnectionError, match="server gone"):
        asyncio.run(replay([Feed("b", OnDisk(30.0))], Broken(), clock=ManualClock(START)))


@pytest.mark.parametrize(
    ("feeds", "options", "says"),
    [
        ([Feed("b", recording(5.0)), Feed("b", recording(5.0))], {}, "two feeds for bed b"),
        ([Feed("b", recording(5.0))], {"speed": 0.0}, "greater than 0"),
        ([Feed("b", recording(5.0))], {"speed": float("nan")}, "greater than 0"),
        ([Feed("b", recording(5.0))], {"chunk_s": 1.0}, "from 0.05 to 0.5 s"),
        ([Feed("b", recording(5.0), start_s=6.0)], {}, "nothing to send from 6 s on"),
        ([Feed("b", recording(2.0), loop=True)], {}, "shorter than 3 s"),
    ],
)
def test_what_cannot_be_replayed_is_refused(feeds: list[Feed], options: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run(feeds, **options)


@pytest.mark.parametrize(("text", "speed"), [("1", 1.0), ("2.5", 2.5), ("max", AS_FAST_AS_POSSIBLE)])
def test_a_speed_is_read(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["0", "-1", "fast", "", "nan", "inf", "1e7"])
def test_a_speed_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a number greater than 0 .*, or max"):
        parse_speed(text)


def test_no_metric_names_a_bed() -> None:
    told = []
    run([Feed("mrs-smith", recording(4.0))], on_status=told.append)
    names = defaultdict(set)
    for metric in REGISTRY.collect():
        if metric.name.startswith("bedside_ingest"):
            for sample in metric.samples:
                names[metric.name] |= set(sample.labels)
    assert set(names) >= {"bedside_ingest_beds", "bedside_ingest_behind_seconds", "bedside_ingest_chunks"}
    assert not any(names.values())
    assert REGISTRY.get_sample_value("bedside_ingest_beds") == 0
