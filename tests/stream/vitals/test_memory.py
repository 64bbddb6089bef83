"""A worker that takes a bed over judges as the one before would have, whatever the heart does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from stream import refill
from stream.alarms.state import BedState
from stream.broker import Kept
from stream.contract import AlarmEvent, Command, CommandKind, SampleChunk
from stream.engine import Engine
from stream.leads import LEADS
from stream.verdict import judge
from stream.vitals.memory import ForeignMemoryError, Memory
from tests.stream.synthetic import StandIn, small_manifest

SESSION = StandIn(small_manifest())
BED = "bed-1"
FS = 250.0
THREE = ("I", "II", "V1")
CHUNK_S = 0.2

RHYTHMS = ("sinus:35", "sinus:80", "sinus:150", "vt:120", "vt:180", "vf", "asystole", "af:70", "af:160")
BESIDE = ("pvc:30", "motion:2", "leadoff:V1", "leadoff:I,II,V1")
episodes = st.lists(st.tuples(st.sampled_from(RHYTHMS), st.integers(4, 25)), min_size=1, max_size=6)
disturbances = st.lists(
    st.tuples(st.sampled_from(BESIDE), st.integers(0, 70), st.sampled_from([0.15, 1, 4, 20])), max_size=3
)


def patient(
    timeline: str, seconds: float, seed: int = 1, leads: Sequence[str] = THREE, session: str = "s"
) -> list[SampleChunk]:
    simulator = PatientSimulator(seed, timeline, fs=FS, duration_s=seconds, leads=leads)
    return list(chunks_of(simulator, BED, session, chunk_s=CHUNK_S))


@dataclass
class Written:
    """What the tables have of a bed at a time, and how many events had been told by then."""

    row: str
    memory: bytes | None
    told: int


class Worker:
    """An engine, and the rows that a worker around it would have written."""

    def __init__(self) -> None:
        self.engine = Engine(SESSION.manifest, SESSION.precision)
        self.events: list[AlarmEvent] = []
        self.memory: bytes | None = None

    def take(self, chunk: SampleChunk) -> None:
        accepted = self.engine.accept(chunk, 0)
        self.events += accepted.events
        for pending in accepted.windows:
            verdict = judge(SESSION, [pending.window])[0] if pending.window.reason is None else None
            concluded = self.engine.conclude(pending, verdict)
            assert concluded is not None
            self.events += concluded[1]

    def checkpoint(self) -> Written:
        memory = self.engine.memory(BED)
        if memory is not None:
            self.memory = memory.encode()
        return Written(self.engine.state(BED).model_dump_json(), self.memory, len(self.events))

    def set_limits(self, **limits: float) -> None:
        command = Command(
            id="c", bed=BED, kind=CommandKind.SET_LIMITS, value=limits, who="nurse", at=0, expires=1
        )
        self.events += self.engine.obey(command).events


def take_over(log: list[SampleChunk], at: int, kept: Written, *, recalls: bool = True) -> Worker:
    """Return another worker that has gone on with a bed from chunk `at` to the end; it may read no memory."""
    memory = None if kept.memory is None else Memory.decode(kept.memory)
    state = BedState.model_validate_json(kept.row)
    other = Worker()
    other.engine.restore(BED, state, memory if recalls else None)
    entries = [Kept(number, chunk.encode()) for number, chunk in enumerate(log)]

    async def recent(before: int, count: int) -> list[Kept]:
        return entries[:before][::-1][:count]

    def since_s(bed: str, session: str) -> float | None:
        return refill.needed_since_s(session, state, memory, window)

    window = SESSION.manifest.window
    for chunk in asyncio.run(refill.history(recent, at, window.seconds, since_s)):
        other.take(chunk)
    assert other.events == []
    for chunk in log[at:]:
        other.take(chunk)
    return other


def course(events: list[AlarmEvent]) -> list[AlarmEvent]:
    # Scores are those of a filter that began later: the same within 1e-5.
    return sorted((event.model_copy(update={"score": None}) for event in events), key=lambda one: one.event)


@settings(max_examples=30, deadline=None)
@given(
    episodes=episodes,
    disturbances=disturbances,
    leads=st.sampled_from([THREE, ("II",), LEADS]),
    seed=st.integers(0, 10_000),
)
def test_takeovers_at_any_time_change_no_event(
    episodes: list[tuple[str, int]],
    disturbances: list[tuple[str, int, float]],
    leads: tuple[str, ...],
    seed: int,
) -> None:
    chance, at, timeline = random.Random(seed), 0, ""
    for rhythm, seconds in episodes:
        timeline += f" {rhythm}@{at}"
        at += seconds
    timeline += "".join(f" {what}@{begin}+{length}" for what, begin, length in disturbances)
    log = patient(timeline, at, seed, leads)
    worker, kept = Worker(), Written("", None, 0)
    takeovers: list[tuple[int, Written]] = []
    for position, chunk in enumerate(log):
        worker.take(chunk)
        # The rows are two seconds old at most.
        if position % 10 == 9:
            kept = worker.checkpoint()
        if kept.row and chance.random() < 3 / len(log):
            takeovers.append((position // 10 * 10, kept))
    for position, there in takeovers:
        assert course(take_over(log, position, there).events) == course(worker.events[there.told :])


def hear(log: list[SampleChunk], every: int) -> tuple[Worker, dict[int, Written]]:
    """Return a worker that has heard a feed, and what it had written down at every so many chunks."""
    worker, kept = Worker(), {}
    for position, chunk in enumerate(log):
        worker.take(chunk)
        if position % every == every - 1:
            kept[position + 1] = worker.checkpoint()
    return worker, kept


@pytest.mark.parametrize("timeline", ["sinus:80@0 vt:180@15", "sinus:80@0 vt:180@15 sinus:80@35"])
def test_the_usual_beat_outlasts_a_rhythm_that_fills_all_that_is_read_back(timeline: str) -> None:
    log = patient(timeline, 66.0)
    worker, kept = hear(log, 25)
    without = 0
    for position, there in kept.items():
        wanted = course(worker.events[there.told :])
        assert course(take_over(log, position, there).events) == wanted
        # As a row of a version that wrote no memories.
        without += course(take_over(log, position, Written(there.row, None, 0)).events) != wanted
    assert without


def test_another_worker_goes_on_with_limits_that_were_set_meanwhile() -> None:
    log, worker = patient("sinus:80@0 sinus:130@25", 60.0), Worker()
    for chunk in log[:140]:
        worker.take(chunk)
    worker.set_limits(tachycardia_bpm=120.0)
    kept = worker.checkpoint()
    for chunk in log[140:]:
        worker.take(chunk)
    assert {event.rule for event in worker.events[kept.told :]} >= {"extreme-tachycardia"}
    assert course(take_over(log, 140, kept).events) == course(worker.events[kept.told :])


def test_a_memory_says_only_something_of_its_own_session_leads_and_time() -> None:
    log = patient("sinus:80@0 vt:180@15", 66.0)
    _, kept = hear(log, 5)
    there, later = kept[200], kept[230]
    assert there.memory is not None
    assert later.memory is not None
    cold = course(take_over(log, 200, there, recalls=False).events)
    assert course(take_over(log, 200, there).events) != cold
    memory = Memory.decode(there.memory)
    others = {
        "of another session": Memory("other", memory.at, memory.leads, memory.arrays).encode(),
        "of a feed with another number of leads": Memory("s", memory.at, 2, memory.arrays).encode(),
        "newer than the state": later.memory,
    }
    for what, other in others.items():
        written = Written(there.row, other, 0)
        cold = course(take_over(log, 200, written, recalls=False).events)
        assert course(take_over(log, 200, written).events) == cold, what


def test_a_bed_whose_leads_change_begins_anew_with_them() -> None:
    first, second = patient("vt:180@5", 30.0), patient("sinus:80@0 vt:180@12", 30.0, 2, LEADS, "t")
    log = [*first, *second]
    worker, kept = hear(log, 10)
    for position in (120, 150, 160, 200, 290):
        there = kept[position]
        assert course(take_over(log, position, there).events) == course(worker.events[there.told :])


def test_memories_are_seldom_and_small() -> None:
    log = patient("pvc:40@0 af:150@20 vt:180@60 sinus:80@80 motion:2@30+50", 120.0, leads=LEADS)
    worker, taken, largest = Worker(), [], 0
    for position, chunk in enumerate(log):
        worker.take(chunk)
        memory = worker.engine.memory(BED)
        if memory is not None:
            taken.append(position)
            largest = max(largest, len(memory.encode()))
    assert set(np.diff(taken).tolist()) == {6.0 / CHUNK_S}
    # 12 leads, four kinds of beats, 64 beats, and a few that may be some.
    assert largest < 20_000
    assert worker.engine.memory(BED) is None
    assert worker.engine.memory(BED, now=True) is not None


def test_until_it_has_heard_as_much_as_the_other_a_worker_writes_no_memory() -> None:
    log = patient("sinus:80@0 vt:180@15", 60.0)
    _, kept = hear(log, 5)
    there = kept[250]
    assert there.memory is not None
    memory = Memory.decode(there.memory)
    other = Worker()
    other.engine.restore(BED, BedState.model_validate_json(there.row), memory)
    for chunk in log[:250]:
        other.take(chunk)
        one = other.engine.memory(BED, now=True)
        assert one is None or one.at >= memory.at
    assert one is not None


def test_a_memory_is_read_as_it_was_written_or_not_at_all() -> None:
    memory = Memory("a session", 12_345, 3, {"x": np.arange(6.0).reshape(2, 3), "none": np.empty(0)})
    data = memory.encode()
    again = Memory.decode(data)
    assert (again.session, again.at, again.leads) == ("a session", 12_345, 3)
    assert {name: array.tolist() for name, array in again.arrays.items()} == {
        "x": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "none": [],
    }
    assert again.since_s == pytest.approx(108.45)
    later = data.replace(np.int64(1).tobytes() + np.int64(12_345).tobytes(), np.int64(2).tobytes() * 2)
    for wrong in (b"", b"{}", data[:-3], later, memory.encode()[:8]):
        with pytest.raises(ForeignMemoryError):
            Memory.decode(wrong)
