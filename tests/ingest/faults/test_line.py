"""Faults on the way: observed on the chunks as they arrive, and the same for the same seed."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunks import Feed
from ingest.faults.line import BedFaults
from ingest.faults.script import parse_script
from ingest.replay import ReplayReport, replay
from ingest.source import ArrayRecording
from stream.clock import ManualClock
from stream.contract import INVALID, SampleChunk

START = 1_700_000_000_000_000_000
FS = 250.0
SECONDS = 40.0
CLEAN = np.random.default_rng(0).integers(-2000, 2000, (round(SECONDS * FS), 2)).astype(np.int16)
CHUNKS = 200

CHUNK_FAULTS = ("drop", "duplicate", "reorder", "delay", "jitter")


class Received:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[int, SampleChunk]] = []

    async def publish(self, chunks: Sequence[SampleChunk]) -> None:
        self.sent += [(self.clock.now_ns() - START, chunk) for chunk in chunks]

    @property
    def chunks(self) -> list[SampleChunk]:
        return [chunk for _, chunk in self.sent]

    @property
    def seqs(self) -> list[int]:
        return [chunk.header.seq for chunk in self.chunks]


def recording() -> ArrayRecording:
    return ArrayRecording(CLEAN, name="r", fs=FS, leads=["I", "II"], gain=[1000.0] * 2)


def play(
    faults: str, *, speed: float = 1.0, seed: int = 0, beds: Sequence[str] = ("b",), tell: Any = None
) -> tuple[Received, ReplayReport]:
    script = parse_script(f"faults: [{faults}]".encode())
    feeds = [
        Feed(bed, recording(), session="s", base_time_ns=START, faults=BedFaults(script, bed, seed, tell))
        for bed in beds
    ]
    clock = ManualClock(START)
    received = Received(clock)
    report = asyncio.run(replay(feeds, received, clock=clock, speed=speed))
    return received, report


def stable(chunks: Sequence[SampleChunk]) -> list[bytes]:
    """Return what does not depend on the clock of the replay."""
    return [
        SampleChunk(chunk.header.model_copy(update={"ingest_ns": 0, "pace": 0.0}), chunk.samples).encode()
        for chunk in chunks
    ]


def is_of_the_recording(chunk: SampleChunk) -> None:
    own = CLEAN[chunk.header.n0 : chunk.end]
    assert ((chunk.samples == own) | (chunk.samples == INVALID)).all()
    assert chunk.header.t0 == START + round(chunk.header.n0 / FS * 1e9)


some_faults = st.lists(
    st.builds(
        lambda name, at, lasts, rest, share, late: (
            f"{{fault: {name}, at: {at}, for: {lasts}, every: {lasts + rest}, probability: {share}"
            + (f", seconds: {late}}}" if name in ("reorder", "delay", "jitter") else "}")
        ),
        st.sampled_from([*CHUNK_FAULTS, "gap", "disconnect", "lead-off"]),
        st.integers(0, 30),
        st.sampled_from([0.2, 1, 3.3]),
        st.integers(1, 9),
        st.sampled_from([0.05, 0.5, 1]),
        st.sampled_from([0.1, 0.7, 2.5]),
    ),
    min_size=1,
    max_size=5,
).map(",".join)


@settings(max_examples=30, deadline=None)
@given(faults=some_faults, seed=st.integers(0, 2**32 - 1), speed=st.sampled_from([1.0, 7.3, math.inf]))
def test_the_same_seed_gives_the_same_bytes_at_any_speed(faults: str, seed: int, speed: float) -> None:
    first, report = play(faults, seed=seed)
    second, again = play(faults, seed=seed, speed=speed, beds=["b", "c"])
    assert stable(first.chunks) == stable([c for c in second.chunks if c.header.bed == "b"])
    assert report.faults.keys() <= again.faults.keys()
    sessions: dict[str, int] = {}
    for chunk in first.chunks:
        # Numbers in a session go on where it was not reordered, and each chunk is where it belongs.
        sessions.setdefault(chunk.header.session, chunk.header.n0 - 50 * chunk.header.seq)
        assert chunk.header.n0 - 50 * chunk.header.seq == sessions[chunk.header.session] == 0
        if chunk.header.session == "s":
            is_of_the_recording(chunk)


def test_without_a_fault_nothing_changes() -> None:
    received, report = play("{fault: drop, at: 1000}")
    assert received.seqs == list(range(CHUNKS))
    for at, chunk in received.sent:
        is_of_the_recording(chunk)
        assert abs(at - chunk.end / FS * 1e9) <= 2
        assert chunk.header.ingest_ns == START + at
    assert received.chunks[-1].header.last
    assert (report.faults, report.stopped) == ({}, False)


def test_drop() -> None:
    received, report = play("{fault: drop, at: 10, for: 20, probability: 0.3}")
    lost = set(range(CHUNKS)) - set(received.seqs)
    assert lost <= set(range(50, 150))
    assert report.faults == {"drop": len(lost)}
    assert 15 < len(lost) < 45
    everything, _ = play("{fault: drop}")
    assert everything.chunks == []


def test_duplicate() -> None:
    received, _ = play("{fault: duplicate, at: 10, for: 2, seconds: 0.5}")
    assert Counter(received.seqs) == {seq: 2 if 50 <= seq < 60 else 1 for seq in range(CHUNKS)}
    first, second = (at for at, chunk in received.sent if chunk.header.seq == 50)
    assert second - first == 500_000_000


def test_reorder_lets_others_overtake() -> None:
    received, _ = play("{fault: reorder, at: 10, for: 0.2, seconds: 0.5}")
    assert received.seqs[48:55] == [48, 49, 51, 52, 50, 53, 54]


@pytest.mark.parametrize("fault", ["delay", "jitter"])
def test_late_chunks_stay_in_order(fault: str) -> None:
    received, _ = play(f"{{fault: {fault}, at: 10, for: 2, seconds: 1.5}}")
    assert received.seqs == list(range(CHUNKS))
    late_s = {chunk.header.seq: at / 1e9 - chunk.end / FS for at, chunk in received.sent}
    assert all(late == pytest.approx(0, abs=1e-6) for seq, late in late_s.items() if not 50 <= seq < 68)
    within = [late_s[seq] for seq in range(50, 60)]
    if fault == "delay":
        assert within == pytest.approx([1.5] * 10)
        # Those behind wait.
        assert late_s[60] == pytest.approx(1.3)
    else:
        assert max(within) <= 1.5 + 1e-6
        assert len(set(within)) > 1


def test_gap() -> None:
    received, _ = play("{fault: gap, at: 10.1, for: 2}")
    # The chunks at both ends hold the rest of it, and no number is given twice.
    assert received.seqs == [*range(51), *range(60, CHUNKS)]
    sent = np.concatenate([chunk.samples for chunk in received.chunks])
    assert (sent == INVALID).all(axis=1).sum() == 50
    for chunk in received.chunks:
        is_of_the_recording(chunk)


def test_disconnect_begins_a_new_session() -> None:
    received, _ = play("{fault: disconnect, at: 10, for: 3, every: 15}")
    sessions = [chunk.header.session for chunk in received.chunks]
    assert list(dict.fromkeys(sessions)) == ["s", "s-1", "s-2"]
    second = [chunk for chunk in received.chunks if chunk.header.session == "s-1"]
    assert [chunk.header.seq for chunk in second] == list(range(60))
    assert [chunk.header.n0 for chunk in second] == [50 * seq for seq in range(60)]
    np.testing.assert_array_equal(np.concatenate([chunk.samples for chunk in second]), CLEAN[3250:6250])
    # The device's clock ran on.
    assert second[0].header.t0 == START + 13_000_000_000


@pytest.mark.parametrize(
    ("fault", "offset_s"),
    [
        ("{fault: clock-skew, ppm: 1000, at: 10, for: 20}", lambda s: 1e-3 * min(max(s - 10, 0), 20)),
        ("{fault: clock-step, seconds: -3, at: 10, for: 20}", lambda s: -3.0 if 10 <= s < 30 else 0.0),
    ],
)
def test_the_device_s_clock(fault: str, offset_s: Any) -> None:
    received, _ = play(fault)
    assert received.seqs == list(range(CHUNKS))
    for chunk in received.chunks:
        second = chunk.header.n0 / FS
        assert (chunk.header.t0 - START) / 1e9 - second == pytest.approx(offset_s(second), abs=1e-6)


@pytest.mark.parametrize("fs", [100.0, 180.0, 400.0])
@pytest.mark.parametrize("announced", [True, False])
def test_rate_change(fs: float, announced: bool) -> None:
    received, _ = play(f"{{fault: rate-change, fs: {fs}, announced: {announced}, at: 10, for: 20}}")
    changed = [chunk for chunk in received.chunks if 50 <= chunk.header.seq < 150]
    assert {chunk.header.fs for chunk in changed} == {fs if announced else FS}
    assert sum(len(chunk.samples) for chunk in changed) == pytest.approx(20 * fs, abs=1)
    # Indices go on, whatever they stand for.
    ends = [0, *(chunk.end for chunk in received.chunks)]
    assert [chunk.header.n0 for chunk in received.chunks] == ends[:-1]
    # A sample late, and on the straight line between two.
    got = np.concatenate([chunk.samples for chunk in changed])
    at = np.arange(len(got)) * FS / fs - 1
    wanted = np.interp(at[at > 0], np.arange(5000), CLEAN[2500:7500, 0])
    assert np.abs(got[at > 0, 0] - wanted).max() <= 0.5 + 1e-6


def test_lead_set() -> None:
    received, _ = play("{fault: lead-set, leads: [II], at: 10, for: 2}")
    changed = received.chunks[50:60]
    assert {chunk.header.leads for chunk in changed} == {("II",)}
    np.testing.assert_array_equal(np.concatenate([c.samples for c in changed])[:, 0], CLEAN[2500:3000, 1])
    for chunk in changed:
        assert SampleChunk.decode(chunk.encode()).header == chunk.header


def test_second_device() -> None:
    received, _ = play("{fault: second-device, at: 10, for: 2}")
    of = {name: [c for c in received.chunks if c.header.session == name] for name in ("s", "s-1")}
    assert [chunk.header.seq for chunk in of["s"]] == list(range(CHUNKS))
    assert [chunk.header.seq for chunk in of["s-1"]] == list(range(10))
    assert [chunk.header.n0 for chunk in of["s-1"]] == [50 * seq for seq in range(10)]


def test_it_says_what_begins_and_ends_when() -> None:
    told: list[str] = []
    play("{fault: gap, at: 10, for: 2, every: 20}, {fault: drop, at: 39, beds: [c]}", tell=told.append)
    assert told == [
        "b at 10 s begins: gap",
        "b at 12 s ends: gap",
        "b at 30 s begins: gap",
        "b at 32 s ends: gap",
    ]


def test_a_stop_ends_the_session_that_is_under_way() -> None:
    script = parse_script(
        b"faults: [{fault: disconnect, at: 1, for: 1}, {fault: rate-change, fs: 125, at: 3}]"
    )
    feed = Feed("b", recording(), session="s", faults=BedFaults(script, "b", 0))

    async def main() -> list[SampleChunk]:
        clock, stop = ManualClock(START), asyncio.Event()
        received = Received(clock)
        await replay([feed], received, clock=clock, stop_event=stop, on_status=_after(5, stop))
        return received.chunks

    *_, before, last = asyncio.run(main())
    assert (last.header.session, last.header.last, len(last.samples)) == ("s-1", True, 0)
    assert last.header.n0 == before.end
    assert last.header.seq == before.header.seq + 1


def _after(seconds: int, stop: asyncio.Event) -> Any:
    calls = iter(range(seconds))

    def told(_: object) -> None:
        if next(calls, None) is None:
            stop.set()

    return told
