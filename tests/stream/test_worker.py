"""The worker as its users have it: its own process, a real server, chunks in, findings and alarms out."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.ward import Ward
from ingest.chunks import chunks_of
from ingest.recordings import open_recording
from ingest.simulator import PatientSimulator
from models.session import Session
from stream import asking, topics
from stream.audit.log import AuditLog, verify
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import (
    AlarmEvent,
    Audit,
    Command,
    CommandKind,
    Explanation,
    Finding,
    Presence,
    Priority,
    SampleChunk,
)
from stream.embedded import EmbeddedServer
from stream.heartbeat import read_signs, read_statuses
from stream.offline import Outcome, run

# Long enough for a worker that takes over from a killed one: it waits for that one's session to expire.
PATIENCE_S = 60.0

FALLS_ILL = "sinus:80@0 vt:180@15"
# VT and back: an alarm that is raised and ends.
RECOVERS = "sinus:80@0 vt:180@15 sinus:80@35"


def patient(seed: int, timeline: str, seconds: float, *, fs: float = 500.0) -> PatientSimulator:
    return PatientSimulator(seed, timeline, fs=fs, duration_s=seconds)


def feed(bed: str, recording: Any, *, chunk_s: float = 0.2) -> list[SampleChunk]:
    return list(chunks_of(recording, bed, f"session-of-{bed}", chunk_s=chunk_s))


def interleaved(feeds: Sequence[Sequence[SampleChunk]]) -> Iterator[SampleChunk]:
    for number in range(max(len(one) for one in feeds)):
        for one in feeds:
            if number < len(one):
                yield one[number]


class Received:
    """Everything on the findings and alarms topics, as it lies there: with repeats."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.events: list[AlarmEvent] = []

    @property
    def windows(self) -> dict[tuple[str, int], Finding]:
        return {(finding.bed, finding.window): finding for finding in self.findings}


async def publish(bus: Bus, chunks: Iterable[SampleChunk], *, pause_s: float = 0.0) -> None:
    clock = SystemClock()
    for chunk in chunks:
        header = chunk.header.model_copy(update={"ingest_ns": clock.now_ns()})
        value = SampleChunk(header, chunk.samples).encode()
        await bus.publish(topics.SAMPLES, header.bed.encode(), value)
        if pause_s:
            await asyncio.sleep(pause_s)


async def collect(bus: Bus, done: Callable[[Received], bool], *, timeout_s: float = PATIENCE_S) -> Received:
    received = Received()
    async with asyncio.timeout(timeout_s):
        async for entry in bus.tail(topics.FINDINGS, topics.ALARMS, after="0"):
            if entry.topic == topics.FINDINGS:
                received.findings.append(Finding.decode(entry.value))
            else:
                received.events.append(AlarmEvent.decode(entry.value))
            if done(received):
                break
    return received


def has_all_of(expected: Outcome) -> Callable[[Received], bool]:
    windows = {(finding.bed, finding.window) for finding in expected.findings}
    events = {event.event for event in expected.events}

    def done(received: Received) -> bool:
        if received.windows.keys() < windows:
            return False
        return windows <= received.windows.keys() and events <= {event.event for event in received.events}

    return done


def assert_same(received: Received, expected: Outcome) -> None:
    """As the design defines same: windows, flags, alarm ids and transitions; scores within 1e-5 relative."""
    wanted = {(finding.bed, finding.window): finding for finding in expected.findings}
    got = received.windows
    assert got.keys() == wanted.keys()
    for key, finding in wanted.items():
        other = got[key]
        assert (other.start, other.end) == (finding.start, finding.end), key
        # A chunk's time is rounded to whole ns, so another chunk may place the same sample 1 ns aside.
        times = pytest.approx((finding.t_start, finding.t_end), abs=1, rel=0)
        assert (other.t_start, other.t_end) == times, key
        assert (other.anomalous, other.reason) == (finding.anomalous, finding.reason), key
        # Scores are counted in standard deviations: near zero "relative" means nothing, 1e-6 of one does.
        scores = [{} if f.score is None else {**f.lead_scores, "": f.score} for f in (other, finding)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-5, abs=1e-6), key
    for bed in {event.bed for event in expected.events} | {event.bed for event in received.events}:
        # Each rule in its own order: windows are judged later than the signal, and how much later depends.
        transitions = [
            sorted((e.rule, e.number, e.event, e.presence, e.onset, e.since) for e in events if e.bed == bed)
            for events in (received.events, expected.events)
        ]
        assert transitions[0] == transitions[1]


@asynccontextmanager
async def ward_and_bus(directory: Path) -> AsyncIterator[tuple[Ward, Bus]]:
    with Ward(directory) as ward:
        await ward.ready()
        async with await ward.connect() as bus:
            yield ward, bus
        ward.check()


def in_ward(directory: Path, test: Callable[[Ward, Bus], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with ward_and_bus(directory) as (ward, bus):
            await test(ward, bus)

    asyncio.run(main())


def test_a_stream_gives_what_the_analysis_of_the_file_gives(short_tmp: Path, shipped: Session) -> None:
    recordings = {
        "bed-1": patient(1, RECOVERS, 60.0),
        "bed-2": patient(2, "sinus:62@0 leadoff:V1@20+12", 40.0, fs=257.0),
        "bed-3": patient(3, FALLS_ILL, 40.0, fs=360.0),
    }
    expected = Outcome()
    for bed, recording in recordings.items():
        # Other chunks, and batches of one bed instead of three: neither may matter.
        outcome = run(feed(bed, recording, chunk_s=0.41), shipped)
        expected.findings += outcome.findings
        expected.events += outcome.events
    rules = {bed: {event.rule for event in expected.events if event.bed == bed} for bed in recordings}
    assert "anomaly" in rules["bed-1"] & rules["bed-3"]
    assert "ventricular-fibrillation" in rules["bed-1"] & rules["bed-3"]
    assert rules["bed-2"] == {"lead-off"}

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, interleaved([feed(bed, recording) for bed, recording in recordings.items()]))
        assert_same(await collect(bus, has_all_of(expected)), expected)

    in_ward(short_tmp, test)


@pytest.mark.data
def test_real_records_streamed_give_what_their_analysis_gives(
    short_tmp: Path, shipped: Session, data_dir: Path
) -> None:
    paths = {
        "bed-1": data_dir / "ptb-xl/records500/00000/00001_hr",
        "bed-2": data_dir / "cinc2015/a170s",
        "bed-3": data_dir / "mitdb/207",
    }
    feeds = {}
    for bed, path in paths.items():
        recording = open_recording(path)
        feeds[bed] = list(chunks_of(recording, bed, f"session-of-{bed}", stop=120.0))
    expected = Outcome()
    for chunks in feeds.values():
        outcome = run(chunks, shipped)
        expected.findings += outcome.findings
        expected.events += outcome.events

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, interleaved(list(feeds.values())))
        assert_same(await collect(bus, has_all_of(expected)), expected)

    in_ward(short_tmp, test)


@pytest.mark.slow
def test_kill_9_in_the_middle_loses_nothing_and_doubles_no_alarm(short_tmp: Path, shipped: Session) -> None:
    feeds = [feed(f"bed-{seed}", patient(seed, RECOVERS, 60.0)) for seed in range(4)]
    expected = run(interleaved(feeds), shipped)
    assert len(expected.events) >= 4

    async def test(ward: Ward, bus: Bus) -> None:
        # 300 chunks a bed at 6 ms a round: the replay takes 8 s, and the kills come while alarms are open.
        publishing = asyncio.ensure_future(publish(bus, interleaved(feeds), pause_s=0.006))
        for kill, after in (("worker", 60), ("second", 300)):
            await collect(bus, lambda received, after=after: len(received.findings) >= after)  # type: ignore[misc]
            ward.children.pop(kill).kill()
            ward.start_worker("second" if kill == "worker" else "third")
        await publishing
        received = await collect(bus, has_all_of(expected))
        assert_same(received, expected)
        raised = [event.event for event in received.events]
        assert len(raised) == len(set(raised)), "the raw stream holds an alarm event twice"

    in_ward(short_tmp, test)


def test_an_alarm_open_at_a_restart_is_the_same_alarm_after_it(short_tmp: Path, shipped: Session) -> None:
    chunks = feed("bed-1", patient(1, RECOVERS, 60.0))
    expected = run(chunks, shipped)
    raised = expected.events[0]

    async def test(ward: Ward, bus: Bus) -> None:
        cut = next(n for n, chunk in enumerate(chunks) if chunk.header.t0 > raised.since) + 5
        await publish(bus, chunks[:cut])
        await collect(bus, lambda received: bool(received.events))
        worker = ward.children.pop("worker")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0, "a worker that is told to stop stops cleanly"
        ward.start_worker("second")
        await publish(bus, chunks[cut:])
        received = await collect(bus, has_all_of(expected))
        assert_same(received, expected)

    in_ward(short_tmp, test)


def test_a_new_session_does_not_cut_off_the_windows_of_the_old_one(short_tmp: Path, shipped: Session) -> None:
    first = list(chunks_of(patient(1, FALLS_ILL, 40.0), "bed-1", "first"))
    # Broken off: without the chunk that ends the session, so that the second one ends its alarm.
    first = first[:-1]
    second = list(chunks_of(patient(2, "", 20.0), "bed-1", "second"))
    expected = run([*first, *second], shipped)
    anomaly = [event for event in expected.events if event.rule == "anomaly"]
    assert [event.presence for event in anomaly] == ["on", "off"]

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, [*first, *second])
        wanted = {(finding.session, finding.window) for finding in expected.findings}
        received = await collect(
            bus,
            lambda r: wanted <= {(f.session, f.window) for f in r.findings} and len(r.events) >= 2,
        )
        assert [event.event for event in received.events] == [event.event for event in expected.events]

    in_ward(short_tmp, test)


def test_a_malformed_chunk_is_a_dead_letter_and_the_other_beds_go_on(
    short_tmp: Path, shipped: Session
) -> None:
    chunks = feed("bed-1", patient(1, "", 15.0))
    expected = run(chunks, shipped)
    other_leads = chunks[20].header.model_copy(update={"leads": tuple("abcdefghijkl")})
    rubbish = {
        b"bed-2": b"not ours",
        b"bed-3": chunks[0].encode()[:-3],
        # It contradicts its own session: refused as well, and bed-1's feed is none the worse.
        b"bed-1": SampleChunk(other_leads, chunks[20].samples).encode(),
    }

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, chunks[:20])
        for key, value in rubbish.items():
            await bus.publish(topics.SAMPLES, key, value)
        await publish(bus, chunks[20:])

        def refusal_is_over(received: Received) -> bool:
            told = [event.presence for event in received.events if event.rule == "feed-refused"]
            return told == [Presence.ON, Presence.OFF]

        complete = has_all_of(expected)
        received = await collect(bus, lambda so_far: complete(so_far) and refusal_is_over(so_far))
        refused = [event for event in received.events if event.rule == "feed-refused"]
        assert "session session-of-bed-1: leads: changed" in refused[0].message
        received.events = [event for event in received.events if event not in refused]
        assert_same(received, expected)
        dead = {entry.key: entry.value async for entry in bus.kept(topics.DEAD_LETTERS)}
        assert dead == rubbish

    in_ward(short_tmp, test)


def test_explanations_come_for_watched_beds_only(short_tmp: Path) -> None:
    feeds = [feed(bed, patient(seed, "", 20.0)) for seed, bed in enumerate(("seen", "unseen"))]

    async def test(ward: Ward, bus: Bus) -> None:
        now = SystemClock().now_ns()
        watch = Command(id="c1", bed="seen", kind=CommandKind.WATCH, value=30, at=now, expires=now + 10**10)
        model = Command(
            id="c2", bed="seen", kind=CommandKind.SET_MODEL, who="me", at=now, expires=now + 10**10
        )
        for command in (watch, model):
            await bus.publish(topics.COMMANDS, b"seen", command.encode())
        # Its answer shows that the commands before it have been taken.
        async for entry in bus.tail(topics.AUDIT, after="0"):
            audit = Audit.decode(entry.value)
            break
        assert (audit.entry, audit.done, audit.message) == ("c2", False, "bed seen has not been heard")
        await publish(bus, interleaved(feeds))
        await collect(bus, lambda received: len(received.findings) >= 2 * 24)
        explanations = [Explanation.decode(entry.value) async for entry in bus.kept(topics.EXPLANATIONS)]
        assert {explanation.header.bed for explanation in explanations} == {"seen"}
        assert len({explanation.header.window for explanation in explanations}) >= 20
        for explanation in explanations:
            assert explanation.arrays["reconstruction"].shape == (12, 800)

    in_ward(short_tmp, test)


def test_a_worker_says_that_it_lives_and_how_it_does(short_tmp: Path) -> None:
    feeds = [feed(f"bed-{seed}", patient(seed, "sinus:80@0", 30.0)) for seed in range(3)]

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, interleaved(feeds))
        await bus.client.xadd("bedside:samples:5", {"v": "no chunk"})
        await collect(bus, lambda received: len(received.findings) >= 3 * 40)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                signs = await read_signs(bus.client, bus.prefix)
                ((name, status),) = (await read_statuses(bus.client, bus.prefix, list(signs.last_ms))).items()
                if status is not None and status.recent_errors and status.stages:
                    break
                await asyncio.sleep(0.1)
        assert (status.model, status.precision, status.shedding) == ("cae-100hz", "fp32", 0)
        assert status.partitions == tuple(range(16))
        assert (status.beds, status.errors["dead letters"], status.recent_errors) == (3, 1, 1)
        assert status.warning is not None
        assert "dead letter" in status.warning.text
        assert status.windows_per_s > 0 < status.chunks_per_s
        assert status.stages["total"].p99_ms >= status.stages["total"].p50_ms > 0
        assert status.cpu > 0 < (status.rss_mb or 0)
        assert name.endswith(f"-{ward.children['worker'].pid}")
        # A worker's last words outlive it, for whoever wants to know what became of it.
        ward.children.pop("worker").kill()
        assert await bus.client.ttl(f"bedside:worker:{name}") > 3600

    in_ward(short_tmp, test)


def test_an_operator_acknowledges_pauses_and_sets_and_the_log_says_so(short_tmp: Path) -> None:
    chunks = feed("icu-1", patient(3, FALLS_ILL, 60.0))
    # The feed has not ended: its alarms are still there.
    chunks = [chunk for chunk in chunks if not chunk.header.last]

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, chunks)
        received = await collect(bus, lambda received: any(e.rule == "anomaly" for e in received.events))
        raised = next(event for event in received.events if event.rule == "anomaly")
        answer = await asking.acknowledge(bus, raised.alarm, who="nurse")
        assert (answer.done, answer.who, answer.message) == (True, "nurse", "acknowledged: anomaly")
        again = await asking.acknowledge(bus, raised.alarm, who="nurse")
        assert (again.done, again.message) == (False, f"alarm {raised.alarm} is acknowledged already")
        paused = await asking.pause(bus, "icu-1", 60.0, who="nurse")
        assert paused.done
        assert (await asking.resume(bus, "icu-1", who="nurse")).done
        strange = await asking.pause(bus, "nobody", 60.0, who="nurse")
        assert (strange.done, strange.message) == (False, "bed nobody has not been heard")
        events = [AlarmEvent.decode(entry.value) async for entry in bus.kept(topics.ALARMS)]
        mine = [event for event in events if event.alarm == raised.alarm]
        assert [(event.number, event.presence) for event in mine[:2]] == [
            (0, Presence.ON),
            (1, Presence.ACKNOWLEDGED),
        ]
        assert mine[1].who == "nurse"
        pauses = [event.presence for event in events if event.rule == "paused"]
        assert pauses == [Presence.ON, Presence.OFF]
        log = [audit async for _, audit in AuditLog(bus).entries()]
        assert all(isinstance(audit, Audit) for audit in log)
        entries = [audit for audit in log if isinstance(audit, Audit)]
        assert verify(entries) == []
        # Every transition that was published is in the log, once, and so is every answer.
        assert {event.event for event in events} <= {audit.entry for audit in entries}
        assert len({audit.entry for audit in entries}) == len(entries)
        assert [a.kind for a in entries if a.entry == raised.event] == ["raise"]
        assert {a.kind for a in entries if a.who == "nurse"} == {"acknowledge", "pause", "resume", "end"}

    in_ward(short_tmp, test)


def test_a_request_is_over_by_the_server_s_clock_and_by_no_other(short_tmp: Path) -> None:
    def request(name: str, at: int, seconds: float) -> Command:
        expires = at + round(seconds * 1e9)
        return Command(id=name, bed="b", kind=CommandKind.RESUME, who="nurse", at=at, expires=expires)

    async def test(ward: Ward, bus: Bus) -> None:
        ward.children.pop("worker").kill()
        now, hour = SystemClock().now_ns(), 3600 * 10**9
        # Nobody is there until the next one has started. Those who ask have clocks that are an hour off.
        asked = [request("late", now + hour, 0.01), request("in time", now - hour, 60.0)]
        for command in asked:
            await bus.publish(topics.COMMANDS, b"b", command.encode())
        ward.start_worker("second")
        answers: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_S):
            async for entry in bus.tail(topics.AUDIT, after="0"):
                answer = Audit.decode(entry.value)
                answers[answer.entry] = answer.message
                if len(answers) == 2:
                    break
        assert answers == {"late": "expired", "in time": "bed b has not been heard"}

    in_ward(short_tmp, test)


# A worker like any other, but that its model fails on the first few batches.
_FAILING_MODEL = """
import sys
import bedside, stream.judging

works, left = stream.judging.judge, 5

def judge(*args):
    global left
    left -= 1
    if left >= 0:
        raise RuntimeError("out of memory")
    return works(*args)

stream.judging.judge = judge
sys.argv = ["bedside", "worker", "--redis", sys.argv[1], "--metrics-port", "0"]
bedside.main()
"""


def test_a_model_that_fails_is_an_alarm_and_is_tried_again(short_tmp: Path) -> None:
    chunks = feed("bed-1", patient(1, "", 60.0))

    async def main() -> Received:
        async with await Bus.connect(server.url) as bus:
            await publish(bus, chunks)
            return await collect(bus, lambda r: len(r.windows) == 105 and over(r))

    def over(received: Received) -> bool:
        return any(e.rule == "model-failed" and e.presence is Presence.OFF for e in received.events)

    with EmbeddedServer(short_tmp) as server:
        worker = subprocess.Popen(
            [sys.executable, "-c", _FAILING_MODEL, server.url], stderr=subprocess.PIPE, text=True
        )
        try:
            received = asyncio.run(main())
            assert worker.poll() is None
        finally:
            worker.kill()
            _, said = worker.communicate()
    raised, *_, ended = [event for event in received.events if event.rule == "model-failed"]
    assert (raised.priority, raised.presence) == (Priority.HIGH, Presence.ON)
    assert raised.message == "model failed: out of memory"
    assert ended.presence is Presence.OFF
    reasons = [received.windows["bed-1", window].reason for window in range(105)]
    failed = reasons.count("model failed")
    assert reasons == ["model failed"] * failed + [None] * (105 - failed)
    assert failed >= 5
    assert said.count("RuntimeError: out of memory") == 5


# A worker like any other, but for one function that fails.
_FAILING = """
import sys
import bedside, stream.engine

def fail(*_):
    raise RuntimeError("it broke")

stream.engine.Engine.accept_many = fail
sys.argv = ["bedside", "worker", "--redis", sys.argv[1], "--metrics-port", "0"]
bedside.main()
"""


def test_a_worker_that_cannot_do_its_work_ends_loudly(short_tmp: Path) -> None:
    chunks = feed("bed-1", patient(1, "", 9.0))
    with EmbeddedServer(short_tmp) as server:
        worker = subprocess.Popen(
            [sys.executable, "-c", _FAILING, server.url], stderr=subprocess.PIPE, text=True
        )

        async def main() -> None:
            async with await Bus.connect(server.url) as bus:
                await publish(bus, chunks)

        asyncio.run(main())
        try:
            _, said = worker.communicate(timeout=PATIENCE_S)
        finally:
            worker.kill()
    assert worker.returncode == 1
    assert "RuntimeError: it broke" in said


def hops(received: Received) -> dict[str, set[int]]:
    """Return by bed how far its findings are apart, in windows."""
    last: dict[str, int] = {}
    found: dict[str, set[int]] = {}
    for finding in received.findings:
        if finding.bed in last:
            found.setdefault(finding.bed, set()).add(finding.window - last[finding.bed])
        last[finding.bed] = finding.window
    return found


def stamped(chunk: SampleChunk, ingest_ns: int) -> SampleChunk:
    return SampleChunk(chunk.header.model_copy(update={"ingest_ns": ingest_ns}), chunk.samples)


def live_one(chunk: SampleChunk) -> SampleChunk:
    return SampleChunk(chunk.header.model_copy(update={"pace": 1.0}), chunk.samples)


# A worker like any other, but that its model takes 20 ms a window: enough for 50 windows a second.
_SLOW = """
import sys, time
import bedside, stream.judging

quick = stream.judging.judge

def slow(session, windows, explained):
    time.sleep(0.02 * len(windows))
    return quick(session, windows, explained)

stream.judging.judge = slow
sys.argv = ["bedside", "worker", "--redis", sys.argv[1], "--metrics-port", "0"]
bedside.main()
"""


@pytest.mark.slow
def test_an_overloaded_worker_says_so_and_scores_fewer_windows_of_every_bed(short_tmp: Path) -> None:
    # Two windows a second of each of 64 beds.
    beds = [f"bed-{number}" for number in range(64)]
    recording = patient(1, "", 40.0)
    feeds = [[live_one(chunk) for chunk in feed(bed, recording)] for bed in beds]
    ready = 40  # chunks before the first window

    async def live(bus: Bus) -> None:
        for number in range(ready, len(feeds[0])):
            # All beds in one round trip: the load must not wait for the machine.
            now_ns = SystemClock().now_ns()
            chunks = [stamped(chunks[number], now_ns) for chunks in feeds]
            await bus.publish_many(topics.SAMPLES, [(c.header.bed.encode(), c.encode()) for c in chunks])
            await asyncio.sleep(0.2)

    async def main() -> Received:
        async with await Bus.connect(server.url) as bus:
            await publish(bus, [chunk for chunks in feeds for chunk in chunks[:ready]])
            sending = asyncio.ensure_future(live(bus))

            def done(received: Received) -> bool:
                told = {event.bed for event in received.events if event.message.startswith("worker overl")}
                if told != set(beds):
                    return False
                found = hops(received)
                return all(found.get(bed, set()) - {1} for bed in beds)

            received = await collect(bus, done)
            sending.cancel()
            return received

    with EmbeddedServer(short_tmp) as server:
        worker = subprocess.Popen([sys.executable, "-c", _SLOW, server.url], stderr=subprocess.DEVNULL)
        try:
            received = asyncio.run(main())
            assert worker.poll() is None
        finally:
            worker.kill()
            worker.wait()
    overload = [event for event in received.events if event.rule == "overload"]
    assert {event.message for event in overload} <= {
        f"worker overloaded: one of {hops} windows is scored" for hops in (2, 4, 8)
    }
    # What is scored is whole: no sample was left out.
    assert all(finding.reason is None for finding in received.findings)
    found = hops(received)
    for bed in beds:
        # In order; every other, fourth or eighth. How long all were scored before is the machine's affair.
        assert found[bed] <= set(range(1, 9))
        assert found[bed] & set(range(2, 9))
