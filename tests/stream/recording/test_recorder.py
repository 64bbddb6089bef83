"""The recorder on a real server: nothing lost, nothing doubled, and troubles told in words."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal as signals
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import wfdb

from stream.bus import Bus
from stream.contract import EVERY_BED, AlarmEvent, Presence, SampleChunk
from stream.embedded import EmbeddedServer
from stream.recording.names import folder_of
from stream.recording.recorder import POSITION
from stream.recording.segment import beside
from stream.recording.store import Recordings
from stream.topics import SAMPLES
from tests.command_line import assert_refused, run, started
from tests.stream.recording.making import FS, HOUR, T0, chunk, chunks, publish, record, signal
from tests.stream.turmoil import event, lasting_server, restart
from tests.stream.turmoil import publish as publish_alarms

PATIENCE_S = 30.0


def recorded(root: Path, bed: str = "icu-1") -> list[tuple[int, int]]:
    """Return what is recorded of a bed, having checked that every sample is the one that was sent."""
    found = []
    for segment in Recordings(root).segments(bed):
        n0, end = segment.begin.n0, segment.end
        np.testing.assert_array_equal(segment.read(n0, end), signal(n0, end, len(segment.begin.leads)))
        found.append((n0, end))
    return sorted(found)


def whole(root: Path, bed: str = "icu-1") -> tuple[int, int]:
    """Return the span of a bed's samples, having checked that none is missing or there twice."""
    parts = recorded(root, bed)
    for (_, end), (begin, _) in pairwise(parts):
        assert end == begin
    return parts[0][0], parts[-1][1]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def recorder(server: EmbeddedServer, root: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command until the block ends, from when it is ready."""
    command = [sys.executable, "-m", "bedside", "record", "--out", str(root), "--redis", server.url]
    process = subprocess.Popen(
        [*command, "--metrics-port", "0", *options], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "recording" in line, line + process.stderr.read()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signals.SIGINT)
        process.wait(PATIENCE_S)
        assert process.stderr is not None
        process.stderr.close()


def send(server: EmbeddedServer, sent: list[SampleChunk]) -> None:
    async def go() -> None:
        async with await Bus.connect(server.url) as bus:
            await publish(bus, sent)

    asyncio.run(go())


def test_every_bed_is_recorded_to_the_bit(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    beds = ["icu-1", "icu/2", "Bett 3"]
    sent = [chunk(n, bed=bed, session=bed) for n in range(0, 1000, 100) for bed in beds]
    (told,) = asyncio.run(record(redis_server, tmp_path / "new", sent))
    assert told.startswith("compressing 3 segments")
    for bed in beds:
        assert whole(tmp_path / "new", bed) == (0, 1000)
    for path in (tmp_path / "new").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "new" / folder_of("icu-1") / "20251129T103000_123.flac").exists()


def test_only_the_beds_that_were_named_are_recorded(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    sent = [chunk(0, bed=bed) for bed in ("icu-1", "icu-2", "icu-3")]
    asyncio.run(record(redis_server, tmp_path, sent, beds=["icu-3", "icu-1"]))
    assert Recordings(tmp_path).beds() == ["icu-1", "icu-3"]


def test_what_is_no_chunk_holds_up_nobody(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    async def rubbish(bus: Bus) -> None:
        await bus.publish(SAMPLES, b"icu-1", b"no chunk")
        await publish(bus, [chunk(100)])

    asyncio.run(record(redis_server, tmp_path, [chunk(0)], also=rubbish))
    assert whole(tmp_path) == (0, 200)


def test_it_begins_with_what_comes_and_goes_on_with_what_came_meanwhile(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    send(redis_server, chunks(0, 500))
    asyncio.run(record(redis_server, tmp_path, chunks(500, 1000)))
    send(redis_server, chunks(1000, 1500))
    asyncio.run(record(redis_server, tmp_path, chunks(1500, 2000)))
    assert whole(tmp_path) == (500, 2000)
    (stretch,) = Recordings(tmp_path).read("icu-1", 0, 2**62)
    assert (stretch.n0, stretch.end) == (500, 2000), "segments of the same session go on without a break"


@pytest.mark.parametrize("left", [b"", b"{", b"[]", None])
def test_a_position_that_is_lost_costs_nothing(
    redis_server: EmbeddedServer, tmp_path: Path, left: bytes | None
) -> None:
    asyncio.run(record(redis_server, tmp_path, chunks(0, 1000)))
    send(redis_server, chunks(1000, 1500))
    (tmp_path / POSITION).unlink()
    if left is not None:
        (tmp_path / POSITION).write_bytes(left)
    asyncio.run(record(redis_server, tmp_path))
    assert whole(tmp_path) == (0, 1500)


def test_a_feed_of_any_pace_is_recorded_by_its_own_time(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    # More than two hours at once, more of it than is read at once, with an alarm in the second hour.
    fs, step = 50.0, 250
    sent = chunks(0, 430_000, step, fs=fs, pace=0)
    at = 200_000
    raised = event(
        1, "icu-1", onset=at - 100, onset_t=sent[0].time_of(at - 100), since=sent[0].time_of(at), message="VT"
    )
    other = raised.model_copy(update={"bed": "icu-2", "event": "x-0"})

    async def backlog() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, sent)
            await publish_alarms(bus, raised, other, raised.model_copy(update={"bed": EVERY_BED}))

    asyncio.run(record(redis_server, tmp_path))
    asyncio.run(backlog())
    asyncio.run(record(redis_server, tmp_path))
    assert whole(tmp_path) == (0, 430_000)
    recordings = Recordings(tmp_path)
    first, second, third = recordings.segments("icu-1")
    for segment in (second, third):
        assert segment.begin.t0 % HOUR < 1e9 / fs
    assert recordings.alarms("icu-1", 0, 2**62) == [raised]
    assert recordings.beds() == ["icu-1"]
    assert [len(segment.side.alarms) for segment in (first, second, third)] == [0, 1, 0]
    notes = wfdb.rdann(str(second.record), "alm")
    assert notes.aux_note == [
        "bedside recording of bed icu-1",
        "(alarm alarm-1, medium priority: VT",
        "raised alarm-1",
    ]
    assert list(notes.sample) == [1, at - 100 - second.begin.n0, at - second.begin.n0]


def test_alarms_are_noted_once_and_answers_with_them(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    def at(n: int, number: int, presence: Presence, **fields: str) -> AlarmEvent:
        t = chunk(0).time_of(n)
        return event(
            1,
            "icu-1",
            event=f"a-{number}",
            presence=presence,
            onset=200,
            onset_t=T0 + 4 * 10**8,
            since=t,
            **fields,
        )

    events = [
        at(250, 0, Presence.ON),
        at(300, 1, Presence.ACKNOWLEDGED, who="nurse 7"),
        # After the end of the feed.
        at(5000, 2, Presence.OFF),
    ]

    async def tell(bus: Bus) -> None:
        await publish_alarms(bus, *events, events[0])

    asyncio.run(record(redis_server, tmp_path, chunks(0, 500), also=tell))
    asyncio.run(record(redis_server, tmp_path, also=tell))
    (segment,) = Recordings(tmp_path).segments("icu-1")
    assert segment.side.alarms == events
    notes = wfdb.rdann(str(segment.record), "alm")
    assert list(zip(notes.sample, notes.aux_note, strict=True))[1:] == [
        (200, "(alarm alarm-1, medium priority:"),
        (250, "raised alarm-1"),
        (300, "acknowledged alarm-1 by nurse 7"),
        (500, "alarm) alarm-1"),
    ]


def test_a_second_recorder_in_the_folder_is_refused(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    with recorder(redis_server, tmp_path) as process:
        second = started("record", "--out", tmp_path, "--redis", redis_server.url, "--metrics-port", "0")
        assert_refused(second, "another recorder", str(process.pid), str(tmp_path), "--out")


def test_kill_9_leaves_a_record_and_the_next_goes_on(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    sent = chunks(0, 60_000, 50)
    published = 0

    async def live(until_gone: Callable[[], bool]) -> None:
        nonlocal published
        async with await Bus.connect(redis_server.url) as bus:
            while not until_gone():
                one = sent[published]
                await publish(bus, [one])
                published += 1
                await asyncio.sleep(0.02)

    def on_disk() -> int:
        return max((end for _, end in recorded(tmp_path)), default=0)

    for number in range(3):
        with recorder(redis_server, tmp_path) as process:
            goal = published * 50 + 2000
            asyncio.run(live(lambda goal=goal: on_disk() >= goal))
            process.kill()
            process.wait()
        lost_s = (published * 50 - on_disk()) * 0.02 / 50
        assert lost_s < 3, f"{number}: a second, and what a busy machine adds"
        open_segment = Recordings(tmp_path).segments("icu-1")[-1]
        assert open_segment.is_open
        read = wfdb.rdrecord(str(open_segment.record), physical=False)
        np.testing.assert_array_equal(
            read.d_signal, signal(open_segment.begin.n0, open_segment.begin.n0 + len(read.d_signal))
        )
    asyncio.run(record(redis_server, tmp_path))
    assert whole(tmp_path) == (0, published * 50)
    assert not any(segment.is_open for segment in Recordings(tmp_path).segments("icu-1"))


def test_kill_9_leaves_nothing_that_is_said_to_be_recorded(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    def listed() -> str:
        return run("record", "list", "--out", tmp_path).stdout

    with recorder(redis_server, tmp_path) as process:
        send(redis_server, chunks(0, 1000))
        until(lambda: recorded(tmp_path) == [(0, 1000)])
        assert "being recorded" in listed()
        process.kill()
        process.wait()
    (segment,) = Recordings(tmp_path).segments("icu-1")
    raw = segment.record.with_name(f"{segment.record.name}.dat")
    written_ns = raw.stat().st_mtime_ns
    assert segment.is_growing(written_ns + 10 * 10**9)
    assert not segment.is_growing(written_ns + 60 * 10**9)
    # As it is an hour later.
    os.utime(raw, ns=(written_ns, written_ns - HOUR))
    assert "icu-1" in listed()
    assert "being recorded" not in listed()


def test_kill_9_while_something_waits_for_a_late_chunk(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    async def send(sent: list[SampleChunk]) -> None:
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, sent)

    with recorder(redis_server, tmp_path) as process:
        asyncio.run(send(chunks(0, 1000)))
        until(lambda: recorded(tmp_path) == [(0, 1000)])
        # A sync later, and less than the two seconds for which it waits.
        noted = (tmp_path / POSITION).stat().st_mtime_ns
        asyncio.run(send(chunks(1200, 1400)))
        until(lambda: (tmp_path / POSITION).stat().st_mtime_ns > noted)
        process.kill()
        process.wait()
    assert recorded(tmp_path) == [(0, 1000)]
    asyncio.run(record(redis_server, tmp_path, chunks(1000, 1200)))
    assert whole(tmp_path) == (0, 1400)


def test_a_server_that_restarts_is_waited_for(short_tmp: Path, tmp_path: Path) -> None:
    async def go() -> list[str]:
        async with lasting_server(short_tmp) as server:

            async def turmoil(_: Bus) -> None:
                for n in range(500, 2000, 500):
                    restart(server, kill=n == 1000)
                    async with await Bus.connect(server.url) as bus:
                        await publish(bus, chunks(n, n + 500))
                    await asyncio.to_thread(until, lambda n=n: recorded(tmp_path) == [(0, n + 500)])

            async with asyncio.timeout(PATIENCE_S):
                return await record(server, tmp_path, chunks(0, 500), also=turmoil)

    asyncio.run(go())
    assert whole(tmp_path) == (0, 2000)


def test_a_disk_that_takes_no_more_is_told_and_recording_goes_on_by_itself(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    limit = 4099
    with recorder(redis_server, tmp_path) as process:
        assert process.stderr is not None
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))
        send(redis_server, chunks(0, 500))
        until(lambda: recorded(tmp_path) == [(0, 500)])
        send(redis_server, chunks(500, 1000))
        told = process.stderr.readline()
        assert "cannot write in" in told
        assert "recording waits" in told
        (segment,) = Recordings(tmp_path).segments("icu-1")
        assert beside(segment.record, ".dat").stat().st_size == 3000, "nothing half written stays"
        np.testing.assert_array_equal(
            wfdb.rdrecord(str(segment.record), physical=False).d_signal, signal(0, 500)
        )
        send(redis_server, chunks(1000, 1500))
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert "recording goes on" in process.stderr.readline()
        until(lambda: recorded(tmp_path) == [(0, 1500)])
    assert whole(tmp_path) == (0, 1500)


def test_a_bed_is_deleted_while_it_is_recorded_and_the_log_says_who_did_it(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    with recorder(redis_server, tmp_path):
        send(redis_server, chunks(0, 500) + chunks(0, 500, bed="icu-2"))
        until(lambda: len(recorded(tmp_path)) == len(recorded(tmp_path, "icu-2")) == 1)
        who = ("--who", "nurse 7", "--redis", redis_server.url)
        deleted = run("record", "delete", "--out", tmp_path, "--bed", "icu-1", *who)
        assert deleted.returncode == 0, deleted.stderr
        assert recorded(tmp_path) == []
        send(redis_server, chunks(500, 600))
        # What comes with the news that the segment is gone goes with it.
        n = 600
        while not recorded(tmp_path):
            send(redis_server, [chunk(n)])
            n += 100
            time.sleep(0.1)
    begin, end = whole(tmp_path)
    assert begin >= 500
    assert end == n
    assert whole(tmp_path, "icu-2") == (0, 500)
    (entry,) = run("audit", "list", "--json", "--redis", redis_server.url).stdout.splitlines()
    logged = json.loads(entry)
    assert (logged["bed"], logged["kind"], logged["who"]) == ("icu-1", "delete_recordings", "nurse 7")


def test_without_a_server_there_is_no_audit_log_and_it_says_so(tmp_path: Path) -> None:
    runtime = {"BEDSIDE_RUNTIME_DIR": str(tmp_path / "nothing here")}
    (tmp_path / "out" / "icu-1").mkdir(parents=True)
    deleted = run("record", "delete", "--bed", "icu-1", "--who", "me", "--out", tmp_path / "out", **runtime)
    assert deleted.returncode == 0
    assert "no audit log" in deleted.stdout
    again = run("record", "delete", "--bed", "icu-1", "--who", "me", "--out", tmp_path / "out", **runtime)
    assert_refused(again, "nothing of bed icu-1")


def test_the_list_says_what_there_is(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    assert "nothing is recorded" in run("record", "list", "--out", tmp_path).stdout
    asyncio.run(
        record(redis_server, tmp_path, [*chunks(0, 1000), *chunks(0, 500, bed="Bett 2", session="t")])
    )
    lines = run("record", "list", "--out", tmp_path, "--json").stdout.splitlines()
    second, first = (json.loads(line) for line in lines)
    assert (second["bed"], first["bed"]) == ("Bett 2", "icu-1")
    assert first["hours"] == pytest.approx(1000 / FS / 3600)
    assert first["bytes"] == Recordings(tmp_path).size("icu-1")
    assert (first["segments"], first["recording"]) == (1, False)
    assert first["from"] == "2025-11-29T10:30:00.123Z"
    assert first["to"] == "2025-11-29T10:30:02.123Z"
    assert "icu-1" in run("record", "list", "--out", tmp_path).stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bed", "a\nb"), ("--bed",)),
        (("--quota", "0"), ("--quota",)),
        (("--retention", "1", "list"), ("without list",)),
        (("delete", "--bed", "icu-1"), ("--who",)),
    ],
)
def test_bad_usage_is_told(options: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(run("record", *options), *words, code=2)


def test_a_folder_that_cannot_be_is_one_clear_line(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = ("--redis", redis_server.url, "--metrics-port", "0")
    assert_refused(run("record", "--out", tmp_path / "file", *options), str(tmp_path / "file"))
