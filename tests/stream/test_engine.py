"""The engine: what it drops, refuses, raises and ends; and that stopping anywhere changes nothing."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.session import Session
from stream import refill
from stream.alarms.criteria import Criteria
from stream.alarms.operator import Answer
from stream.alarms.state import BedState
from stream.broker import Kept
from stream.contract import (
    AlarmEvent,
    Command,
    CommandKind,
    Finding,
    MalformedMessageError,
    Presence,
    SampleChunk,
    Validity,
)
from stream.engine import Accepted, Engine, Load, Pending
from stream.preprocess import SETTLING_S
from stream.verdict import Verdict, judge
from stream.vitals.memory import Memory
from tests.stream.synthetic import T0, Float64Array, StandIn, disturb, ecg, every, feed, small_manifest

FS = 250.0
SECOND_NS = 1_000_000_000
MANIFEST = small_manifest()
SESSION = StandIn(MANIFEST)


def by_name(events: Iterable[AlarmEvent]) -> dict[str, AlarmEvent]:
    return {event.event: event for event in events}


class Desk:
    """Drives an engine as a worker does: publishes, then keeps the bed's state, then calls a chunk done."""

    def __init__(
        self,
        rows: dict[str, str] | None = None,
        session: Session = SESSION,
        memories: dict[str, Memory] | None = None,
    ) -> None:
        self.session = session
        self.engine = Engine(session.manifest, session.precision)
        self.rows, self.memories = dict(rows or {}), dict(memories or {})
        for bed, row in self.rows.items():
            self.engine.restore(bed, BedState.model_validate_json(row), self.memories.get(bed))
        self.events: list[AlarmEvent] = []
        self.findings: list[Finding] = []
        self.waiting: deque[tuple[int, Pending]] = deque()

    def take(self, chunk: SampleChunk, position: int = 0) -> Accepted:
        bed = chunk.header.bed
        if self.engine.busy(bed) and self.engine.state(bed).session != chunk.header.session:
            self.conclude(len(self.waiting))
        accepted = self.engine.accept(chunk, chunk.time_of(chunk.end))
        self.waiting += [(position, pending) for pending in accepted.windows]
        if accepted.events:
            self.publish(bed, accepted.events)
        return accepted

    def conclude(self, count: int) -> None:
        for _ in range(min(count, len(self.waiting))):
            _, pending = self.waiting.popleft()
            verdict = judge(self.session, [pending.window])[0] if pending.window.reason is None else None
            concluded = self.engine.conclude(pending, verdict)
            if concluded is not None:
                self.findings.append(concluded[0])
                self.publish(pending.moment.bed, concluded[1])

    def publish(self, bed: str, events: list[AlarmEvent]) -> None:
        self.events += events
        self.rows[bed] = self.engine.state(bed).model_dump_json()
        if (memory := self.engine.memory(bed)) is not None:
            self.memories[bed] = memory

    def run(self, chunks: list[SampleChunk]) -> Desk:
        """Take chunks and judge each window at once."""
        for chunk in chunks:
            self.take(chunk)
            self.conclude(len(self.waiting))
        return self

    def log(self) -> list[tuple[str, Presence]]:
        return [(event.rule, event.presence) for event in self.events]


def noisy(seconds: float, *stretches: tuple[float, float], fs: float = FS, seed: int = 0) -> Float64Array:
    """Return a feed that is unusual from one second to another."""
    x = ecg(seconds, fs, seed=seed)
    for begin, end in stretches:
        disturb(x, round(begin * fs), round(end * fs), fs=fs)
    return x


def cut(x: Float64Array, seconds: float = 0.5, fs: float = FS, **kwargs: Any) -> list[SampleChunk]:
    return feed(x, fs, every(seconds, fs, len(x)), **kwargs)


def without(chunks: list[SampleChunk], begin_s: float, end_s: float) -> list[SampleChunk]:
    return [c for c in chunks if c.end <= begin_s * c.header.fs or c.header.n0 >= end_s * c.header.fs]


def changed(chunk: SampleChunk, **fields: Any) -> SampleChunk:
    return replace(chunk, header=chunk.header.model_copy(update=fields))


# --- one window ---------------------------------------------------------------------------------------


def test_a_finding_says_where_when_and_how_sure() -> None:
    desk = Desk().run(cut(noisy(12, (6, 9))))
    assert [finding.window for finding in desk.findings] == list(range(21))
    for finding in desk.findings:
        assert (finding.start, finding.end) == (finding.window * 125, finding.window * 125 + 500)
        assert finding.t_start == pytest.approx(T0 + finding.start * SECOND_NS // 250, abs=2)
        assert finding.t_end == pytest.approx(T0 + finding.end * SECOND_NS // 250, abs=2)
        assert (finding.bed, finding.session, finding.model) == ("bed-1", "s", "stand-in")
        assert finding.score is not None
        assert finding.percentile is not None
        assert finding.anomalous == (finding.score > finding.threshold) == (finding.percentile > 50)
        assert set(finding.lead_scores) == {"I", "II", "V1"}
        assert finding.reason is None
        # Stamped with the chunk that completed the window.
        assert finding.stamps.dequeued_ns == finding.stamps.ingest_ns
        assert 0 <= finding.stamps.ingest_ns - finding.t_end + 20_000_000 < 0.6 * SECOND_NS
    touched = [finding.end > 6 * 250 and finding.start < 9 * 250 for finding in desk.findings]
    assert [finding.anomalous for finding in desk.findings] == touched


def test_the_onset_is_where_the_first_unusual_window_had_something_new() -> None:
    desk = Desk().run(cut(noisy(20, (6.1, 14))))
    (on, off) = desk.events
    assert (on.presence, off.presence) == (Presence.ON, Presence.OFF)
    assert on.onset == 6 * 250
    assert on.onset_t == pytest.approx(T0 + 6 * SECOND_NS, abs=2)
    # Three windows of half a second each since then.
    assert on.since == pytest.approx(T0 + 7.5 * SECOND_NS, abs=2)
    # The last unusual window begins at 13.5 s; it is the one of five that may be left.
    assert off.since == pytest.approx(T0 + 17.5 * SECOND_NS, abs=2)


def test_a_lead_that_is_off_counts_as_missing_whatever_its_samples_say() -> None:
    x = ecg(5, FS)
    told = cut(x, valid=(Validity.OK, Validity.OFF, Validity.QUESTIONABLE))
    x[:, 1] = np.nan
    seen = Desk().run(told).findings
    assert [f.lead_scores for f in seen] == [f.lead_scores for f in Desk().run(cut(x)).findings]
    assert {tuple(f.lead_scores) for f in seen} == {("I", "V1")}


def test_a_window_nobody_can_score_has_a_reason_and_no_score() -> None:
    desk = Desk().run(cut(np.full((1000, 3), np.nan)))
    assert len(desk.findings) == 5
    for finding in desk.findings:
        assert (finding.score, finding.percentile, finding.anomalous) == (None, None, False)
        assert finding.reason == "gap"
        assert finding.lead_scores == {}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_model_that_returns_no_number_has_not_scored(number: float) -> None:
    engine = Engine(MANIFEST, "fp32")
    events = []
    for chunk in cut(ecg(13, FS)):
        for pending in engine.accept(chunk, 0).windows:
            concluded = engine.conclude(pending, Verdict(number, {}, pending.window.x))
            assert concluded is not None
            assert concluded[0].score is None
            assert concluded[0].reason == "the model gave no number"
            assert Finding.decode(concluded[0].encode()) == concluded[0]
            events += concluded[1]
    assert [event.rule for event in events] == ["not-scored"]


def test_refuses_a_model_whose_first_window_takes_too_long() -> None:
    Engine(small_manifest(samples=999), "fp32")
    with pytest.raises(ValueError, match=r"a window of 10 s; it must be below 10 s"):
        Engine(small_manifest(samples=1000), "fp32")


# --- what does not belong ---------------------------------------------------------------------------


def test_a_repeat_is_dropped() -> None:
    chunks = cut(noisy(12, (4, 9)))
    clean = Desk().run(chunks)
    desk = Desk()
    for number, chunk in enumerate(chunks):
        desk.run([chunk])
        row = desk.engine.state("bed-1").model_dump_json()
        for earlier in {0, max(0, number - 3), number}:
            again = desk.take(chunks[earlier])
            assert (again.dropped, again.windows, again.events, again.missing) == ("repeat", [], [], 0)
        assert desk.engine.state("bed-1").model_dump_json() == row
    assert desk.findings == clean.findings
    assert desk.events == clean.events


def test_a_chunk_that_comes_too_late_is_a_gap() -> None:
    chunks = cut(ecg(12, FS))
    late = chunks.pop(10)
    desk = Desk()
    accepted = [desk.take(chunk) for chunk in [*chunks[:12], late, *chunks[12:]]]
    # The first one behind the hole completes no second of waiting, the second one does.
    assert [a.missing for a in accepted] == [0] * 11 + [125] + [0] * 12
    assert [a.dropped for a in accepted] == [None] * 12 + ["late"] + [None] * 11
    assert desk.take(chunks[5]).dropped == "repeat"


def outcome(desk: Desk) -> list[object]:
    found = [(f.window, f.start, f.end, f.t_start, f.t_end, f.score, f.reason) for f in desk.findings]
    return found + [(e.event, e.presence, e.onset, e.since) for e in desk.events]


@settings(max_examples=25, deadline=None)
@given(late=st.lists(st.tuples(st.integers(1, 58), st.integers(1, 4)), max_size=12), repeat=st.integers(1, 9))
def test_chunks_out_of_order_within_a_second_change_nothing(late: list[tuple[int, int]], repeat: int) -> None:
    # A fifth of a second each: four places are 0.8 s.
    chunks = cut(noisy(12, (4, 9)), 0.2)
    place = {number: float(number) for number in range(len(chunks))}
    for number, by in late:
        place[number] = number + by + 0.5
    order = sorted(place, key=lambda number: place[number])
    sent = [chunks[number] for number in order]
    if order[-1] == len(chunks) - 1:
        sent = [one for chunk in sent for one in [chunk] * (2 if chunk.header.seq % repeat == 0 else 1)]
        assert outcome(Desk().run(sent)) == outcome(Desk().run(chunks))


def test_chunks_of_former_sessions_are_stale() -> None:
    desk = Desk()
    sessions = [cut(ecg(4, FS, seed=n), session=f"s{n}") for n in range(5)]
    for chunks in sessions:
        desk.run(chunks)
    before = desk.engine.state("bed-1").model_dump_json()
    # Three are remembered.
    for chunks in sessions[1:4]:
        accepted = desk.take(chunks[-1])
        assert (accepted.dropped, accepted.windows, accepted.events) == ("stale", [], [])
    assert desk.engine.state("bed-1").model_dump_json() == before

    other = Desk(desk.rows)
    assert other.take(sessions[2][0]).dropped == "stale"
    assert not other.engine.knows("bed-1")
    # What was restored is still there for the session that it belongs to.
    assert other.take(sessions[4][-1]).dropped is None
    assert other.engine.state("bed-1").former == ["s1", "s2", "s3"]


def contradictions(chunk: SampleChunk) -> list[tuple[SampleChunk, str]]:
    narrow = changed(chunk, leads=("I", "II"), gain=(1.0, 1.0), valid=(Validity.OK,) * 2)
    return [
        (changed(chunk, fs=500.0), "fs"),
        (changed(chunk, leads=("I", "II", "V2")), "leads"),
        (replace(narrow, samples=chunk.samples[:, :2]), "leads"),
        (changed(chunk, n0=0), "n0: runs back"),
        (changed(chunk, session="other", fs=0.9, n0=0, seq=0), "fs: the 0.5 Hz high-pass cannot run at 0.9"),
    ]


@pytest.mark.parametrize("which", range(5))
def test_a_chunk_that_contradicts_its_session_changes_nothing(which: int) -> None:
    chunks = cut(noisy(14, (4, 9)))
    clean = Desk().run(chunks)
    desk = Desk().run(chunks[:17])
    wrong, why = contradictions(chunks[17])[which]
    row = desk.engine.state("bed-1").model_dump_json()
    with pytest.raises(MalformedMessageError, match=why):
        desk.take(wrong)
    state = desk.engine.state("bed-1").model_copy(deep=True)
    state.open.pop("feed-refused", None)
    assert state.model_dump_json() == row
    desk.run(chunks[17:])
    assert desk.findings == clean.findings
    assert [event for event in desk.events if event.rule != "feed-refused"] == clean.events


def test_a_refused_first_chunk_leaves_what_was_restored() -> None:
    chunks = cut(noisy(12, (3, 12)))
    first = Desk().run(chunks)
    second = Desk(first.rows)
    with pytest.raises(MalformedMessageError, match="fs"):
        second.take(changed(chunks[0], session="new", fs=0.5))
    assert not second.engine.knows("bed-1")
    second.run(cut(ecg(1, FS), session="new"))
    assert [event.message for event in second.events] == ["a new feed began"]


def test_a_part_that_is_already_there_is_cut_off() -> None:
    x = ecg(12, FS)
    chunks = cut(x)
    longer = feed(x, FS, [1000, 1400, 2000])[1]
    # Chunk 8 begins at 1000; this one runs from 1000 to 1400, over most of three.
    mixed = [*chunks[:9], changed(longer, seq=9), *[changed(c, seq=c.header.seq) for c in chunks[11:]]]
    ours, wanted = Desk().run(mixed).findings, Desk().run(chunks).findings
    assert [f.score for f in ours] == [f.score for f in wanted]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gain", (1e-6,) * 3),
        ("n0", 2**40),
        ("seq", 2**40),
        ("t0", 2**63 - 1),
        ("ingest_ns", 2**63 - 1),
        ("pace", 1e6),
        ("fs", 1.1),
        ("fs", 100_000.0),
    ],
)
def test_numbers_at_the_bounds_of_the_contract_break_nothing(field: str, value: object) -> None:
    desk, session = Desk(), cut(ecg(6, FS), pace=1.0)
    session = [changed(chunk, **{field: value}) for chunk in session] if field != "n0" else session
    if field == "seq":
        session = session[:1]
    for chunk in session:
        desk.run([SampleChunk.decode(chunk.encode())])
    if field == "n0":
        desk.run([SampleChunk.decode(changed(session[-1], n0=value, seq=99).encode())])
    events = desk.engine.tick(T0 + 3600 * SECOND_NS)
    for message in [*desk.findings, *events, *desk.events]:
        assert type(message).decode(message.encode()) == message


# --- holes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "raised"),
    [(1, False), (4, False), (7.5, False), (9, True), (11, True), (60, True), (9000, True)],
)
def test_a_hole_of_any_length_is_counted_and_reported_when_too_long(seconds: float, raised: bool) -> None:
    # With a hole the bed is without a verdict for as long as it lasts and a window more.
    before, behind = cut(ecg(6, FS)), cut(ecg(8, FS))
    samples = round(seconds * FS)
    later = [
        changed(
            chunk,
            n0=chunk.header.n0 + 1500 + samples,
            seq=chunk.header.seq + 12 + 5,
            t0=chunk.header.t0 + 6 * SECOND_NS + samples * 4_000_000,
        )
        for chunk in behind
    ]
    desk = Desk().run(before)
    assert desk.take(later[0]).missing == samples
    desk.run(later[1:])
    expected = [("not-scored", Presence.ON), ("not-scored", Presence.OFF)] if raised else []
    assert desk.log() == expected
    if raised:
        on, off = desk.events
        assert on.onset == 1500
        assert on.since <= later[4].header.t0
        assert off.since == pytest.approx(later[0].header.t0 + 2 * SECOND_NS, abs=0.5 * SECOND_NS + 2)
    scored = [finding for finding in desk.findings if finding.score is not None]
    assert all(finding.end <= 1500 or finding.start >= 1500 + samples for finding in scored)
    # Every window that holds something of the feed has a finding.
    windows = {finding.window for finding in desk.findings}
    held = {w for w in range(scored[-1].window + 1) if w * 125 < 1500 or w * 125 + 500 > 1500 + samples}
    assert held <= windows
    assert len(windows) == len(desk.findings) < len(held) + 12


# --- sessions and ends --------------------------------------------------------------------------------


def test_a_new_session_ends_the_alarms_of_the_one_before() -> None:
    first = cut(noisy(12, (3, 12)))
    second = cut(ecg(12, FS), session="t")
    moved = [changed(c, t0=c.header.t0 + 20 * SECOND_NS) for c in second]
    desk = Desk().run(first)
    assert desk.log() == [("anomaly", Presence.ON)]
    raised = desk.events[0]
    (ended,) = desk.take(moved[0]).events
    assert (ended.alarm, ended.event, ended.session) == (raised.alarm, f"{raised.alarm}-1", "s")
    assert (ended.presence, ended.since) == (Presence.OFF, moved[0].header.t0)
    desk.run(moved[1:])
    assert len(desk.events) == 2
    # The windows of the new session are counted from its own beginning.
    assert [f.window for f in desk.findings if f.session == "t"] == list(range(21))


def test_verdicts_on_windows_of_a_session_left_behind_are_dropped() -> None:
    engine = Engine(MANIFEST, "fp32")
    pending = [p for chunk in cut(ecg(5, FS)) for p in engine.accept(chunk, 0).windows]
    assert engine.busy("bed-1")
    engine.accept(cut(ecg(1, FS), session="t")[0], 0)
    assert not engine.busy("bed-1")
    row = engine.state("bed-1").model_dump_json()
    verdict = judge(SESSION, [pending[0].window])[0]
    assert engine.conclude(pending[0], verdict) is None
    assert engine.state("bed-1").model_dump_json() == row


@pytest.mark.parametrize("at_once", [True, False])
def test_the_last_chunk_ends_all_alarms_once_its_windows_are_judged(at_once: bool) -> None:
    desk = Desk()
    for chunk in cut(noisy(12, (3, 12)), last=True):
        accepted = desk.take(chunk)
        if at_once:
            desk.conclude(99)
        else:
            assert accepted.events == []
    assert at_once or desk.log() == []
    while desk.waiting:
        assert ("anomaly", Presence.OFF) not in desk.log()
        desk.conclude(1)
    assert desk.log() == [("anomaly", Presence.ON), ("anomaly", Presence.OFF)]
    assert desk.events[-1].since == T0 + 12 * SECOND_NS
    assert desk.events[-1].message == "the feed ended"


def test_an_empty_last_chunk_ends_the_feed() -> None:
    chunks = cut(noisy(12, (3, 12)))
    nothing = replace(chunks[-1], samples=chunks[-1].samples[:0])
    end = changed(nothing, n0=3000, seq=24, t0=T0 + 12 * SECOND_NS, last=True)
    (event,) = Desk().run(chunks).take(SampleChunk.decode(end.encode())).events
    assert event.message == "the feed ended"


@pytest.mark.parametrize("waits", [0, 1, 3, 1000])
def test_that_the_end_has_come_does_not_hide_that_nobody_scored(waits: int) -> None:
    x = ecg(16, FS)
    x[round(3 * FS) :] = np.nan
    desk = Desk()
    for chunk in cut(x, last=True):
        desk.take(chunk)
        desk.conclude(max(0, len(desk.waiting) - waits))
    desk.conclude(1000)
    assert desk.log() == [("not-scored", Presence.ON), ("not-scored", Presence.OFF)]


def test_a_feed_that_goes_on_after_its_last_chunk_is_watched_again() -> None:
    chunks = cut(ecg(12, FS), pace=1.0)
    chunks[9] = changed(chunks[9], last=True)
    desk = Desk().run(chunks[:10])
    assert desk.engine.tick(T0 + 100 * SECOND_NS) == []
    desk.run(chunks[10:])
    assert [event.rule for event in desk.engine.tick(T0 + 100 * SECOND_NS)] == ["feed-lost", "not-scored"]


def test_what_was_handed_over_stays_as_it_was() -> None:
    state = BedState(session="s")
    engine = Engine(MANIFEST, "fp32")
    engine.restore("bed-1", state)
    for chunk in cut(noisy(12, (3, 12))):
        for pending in engine.accept(chunk, 0).windows:
            engine.conclude(pending, judge(SESSION, [pending.window])[0])
    assert engine.state("bed-1").open
    assert state == BedState(session="s")


# --- beds that come and go -----------------------------------------------------------------------------


def test_verdicts_on_a_bed_given_away_are_dropped_even_when_it_has_come_back() -> None:
    chunks = cut(noisy(12, (3, 12)))
    desk = Desk()
    for chunk in chunks[:12]:
        desk.take(chunk)
    orphans = [pending for _, pending in desk.waiting]
    assert len(orphans) > 5
    engine = desk.engine
    engine.forget("bed-1")
    verdicts = judge(SESSION, [pending.window for pending in orphans])
    assert engine.conclude(orphans[0], verdicts[0]) is None
    assert not engine.knows("bed-1")
    assert engine.beds == []

    desk.waiting.clear()
    for chunk in chunks[:12]:
        desk.take(chunk)
    for pending, verdict in zip(orphans, verdicts, strict=True):
        assert engine.conclude(pending, verdict) is None
    desk.conclude(99)
    assert not engine.busy("bed-1")
    desk.run(chunks[12:])
    clean = Desk().run(chunks)
    assert desk.findings == clean.findings
    assert desk.events == clean.events


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_beds_do_not_see_each_other(seed: int) -> None:
    chance = random.Random(seed)
    beds = {
        "a": cut(noisy(14, (4, 8)), 0.2, bed="a"),
        "b": without(cut(noisy(18, (9, 12), seed=1), 0.37, bed="b"), 5, chance.uniform(5, 16)),
        "c": cut(np.full((3000, 3), np.nan), 0.5, bed="c", session="q", last=True),
    }
    desk, turns = Desk(), {bed: list(chunks) for bed, chunks in beds.items()}
    while turns:
        bed = chance.choice(sorted(turns))
        desk.take(turns[bed].pop(0))
        desk.conclude(chance.choice([0, 0, 1, 5]))
        turns = {bed: rest for bed, rest in turns.items() if rest}
    desk.conclude(1000)
    assert sorted(desk.engine.beds) == ["a", "b", "c"]
    for bed, chunks in beds.items():
        alone = Desk().run(chunks)
        assert [finding for finding in desk.findings if finding.bed == bed] == alone.findings
        # Of what windows and signal have brought about each comes in its order.
        assert by_name(event for event in desk.events if event.bed == bed) == by_name(alone.events)


# --- the clock ----------------------------------------------------------------------------------------


def silent_desk(pace: float = 1.0, seconds: float = 6.0, **kwargs: Any) -> Desk:
    return Desk().run(cut(ecg(seconds, FS), pace=pace, **kwargs))


def heard(desk: Desk) -> int:
    return T0 + 6 * SECOND_NS


@pytest.mark.parametrize(("pace", "after_s"), [(1.0, 10.0), (2.0, 5.0), (0.25, 40.0)])
def test_a_feed_that_falls_silent_is_reported_after_ten_of_its_seconds(pace: float, after_s: float) -> None:
    desk = silent_desk(pace)
    now = heard(desk)
    assert desk.engine.tick(now + 2 * SECOND_NS) == []
    (event,) = desk.engine.tick(now + round(2.01 * SECOND_NS))
    assert (event.rule, event.onset, event.message) == (
        "feed-lost",
        1500,
        "feed lost: silent for more than 2 s",
    )
    assert desk.engine.tick(now + round((after_s - 0.01) * SECOND_NS)) == []
    (event,) = desk.engine.tick(now + round((after_s + 0.01) * SECOND_NS))
    assert (event.rule, event.onset, event.message) == ("not-scored", 1500, "not scored: no signal")
    assert event.since == pytest.approx(T0 + 16 * SECOND_NS, abs=0.1 * SECOND_NS)
    # Once.
    assert desk.engine.tick(now + round((after_s + 1) * SECOND_NS)) == []


def test_silence_is_named_by_the_clock_and_by_the_feed_alike() -> None:
    # One worker's clock ticks; another one sees the hole when the feed is back. One alarm.
    chunks = without(cut(ecg(30, FS), pace=1.0), 6, 18)
    ticked = Desk().run(chunks[:12])
    ticked.publish("bed-1", ticked.engine.tick(T0 + 17 * SECOND_NS))
    ticked.run(chunks[12:])
    untouched = Desk().run(chunks)
    for rule in ("feed-lost", "not-scored"):
        named = [[e.event for e in desk.events if e.rule == rule] for desk in (ticked, untouched)]
        assert named[0] == named[1]
    assert ticked.log() == [
        ("feed-lost", Presence.ON),
        ("not-scored", Presence.ON),
        ("feed-lost", Presence.OFF),
        ("not-scored", Presence.OFF),
    ]


def test_a_feed_that_is_heard_is_not_measured_by_the_clock() -> None:
    # Nothing but a gap for 9.5 s: half a second later the windows themselves will say so.
    x = ecg(20, FS)
    x[round(3 * FS) :] = np.nan
    desk = Desk().run(cut(x, pace=1.0)[:25])
    assert desk.engine.tick(T0 + round(14.4 * SECOND_NS)) == []
    told = [event.rule for event in desk.engine.tick(T0 + round(14.6 * SECOND_NS))]
    assert told == ["feed-lost", "not-scored"]


def test_a_feed_without_a_pace_or_past_its_end_or_in_judgement_is_not_silent() -> None:
    late = T0 + 3600 * SECOND_NS
    assert silent_desk(0.0).engine.tick(late) == []
    assert silent_desk(1.0, last=True).engine.tick(late) == []
    desk = Desk()
    for chunk in cut(ecg(6, FS), pace=1.0):
        desk.take(chunk)
    assert [event.rule for event in desk.engine.tick(late)] == ["feed-lost"]
    desk.conclude(99)
    assert "not-scored" in {event.rule for event in desk.engine.tick(late)}


def test_a_tick_looks_at_each_bed_by_itself() -> None:
    desk = Desk()
    desk.run(cut(ecg(6, FS), pace=1.0, bed="a"))
    desk.run(cut(ecg(14, FS), pace=1.0, bed="b"))
    told = [(event.bed, event.rule) for event in desk.engine.tick(T0 + round(15.5 * SECOND_NS))]
    assert told == [("a", "feed-lost")]
    told = [(event.bed, event.rule) for event in desk.engine.tick(T0 + 17 * SECOND_NS)]
    assert told == [("a", "not-scored"), ("b", "feed-lost")]
    assert [event.bed for event in desk.engine.tick(T0 + 25 * SECOND_NS)] == ["b"]


# --- stopping and going on -----------------------------------------------------------------------------

KINDS = ("usual", "unusual", "short gap", "gap", "one lead gone", "lost")
segments = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 13)), min_size=1, max_size=5)


def script(parts: list[tuple[str, int]], seed: int, **kwargs: Any) -> list[SampleChunk]:
    x = ecg(sum(seconds for _, seconds in parts), FS, seed=seed)
    at, lost = 0, []
    for number, (kind, seconds) in enumerate(parts):
        end = at + round(seconds * FS)
        if kind == "unusual":
            disturb(x, at, end, seed=number)
        elif kind == "short gap":
            x[at : at + 40] = np.nan
        elif kind == "gap":
            x[at:end] = np.nan
        elif kind == "one lead gone":
            x[at:end, 0] = np.nan
        elif kind == "lost":
            lost.append((at / FS, end / FS))
        at = end
    chance, cuts = random.Random(seed), [0]
    while cuts[-1] < len(x):
        cuts.append(cuts[-1] + chance.choice([50, 93, 125, 200]))
    chunks = feed(x, FS, [c for c in cuts if c < len(x)], **kwargs)
    for begin_s, end_s in lost:
        chunks = without(chunks, begin_s, end_s)
    return chunks


SCORES = {"score", "percentile", "lead_scores"}


def refilled(
    log: list[SampleChunk],
    before: int,
    window_s: float = MANIFEST.window.seconds,
    memories: dict[str, Memory] | None = None,
    rows: dict[str, str] | None = None,
) -> list[SampleChunk]:
    kept = [Kept(number, chunk.encode()) for number, chunk in enumerate(log)]

    async def recent(before: int, count: int) -> list[Kept]:
        return kept[:before][::-1][:count]

    def since_s(bed: str, session: str) -> float | None:
        row = (rows or {}).get(bed)
        state = None if row is None else BedState.model_validate_json(row)
        return refill.needed_since_s(session, state, (memories or {}).get(bed), MANIFEST.window)

    return asyncio.run(refill.history(recent, before, window_s, since_s))


# A session whose first chunk was lost, and that has been heard for too short a time for a window.
@example(
    first=[("usual", 1), ("unusual", 2)],
    second=[("lost", 1), ("usual", 1)],
    other=[("usual", 1)],
    ends=False,
    stop=1.0,
    saved=1.0,
    back=0,
    seed=0,
)
@settings(max_examples=50, deadline=None)
@given(
    first=segments,
    second=segments,
    other=segments,
    ends=st.booleans(),
    stop=st.floats(0, 1),
    saved=st.floats(0.5, 1),
    back=st.sampled_from([0, 1, 7, 60, 1000]),
    seed=st.integers(0, 10_000),
)
def test_another_worker_goes_on_as_if_nothing_had_been(
    first: list[tuple[str, int]],
    second: list[tuple[str, int]],
    other: list[tuple[str, int]],
    ends: bool,
    stop: float,
    saved: float,
    back: int,
    seed: int,
) -> None:
    chance = random.Random(seed)
    sessions = [
        *script(first, seed, session="s1", last=ends),
        *script(second, seed + 1, session="s2", last=True),
    ]
    turns = [sessions, script(other, seed + 2, bed="bed-2", session="o")]
    log: list[SampleChunk] = []
    while any(turns):
        log.append(chance.choice([turn for turn in turns if turn]).pop(0))

    uninterrupted = Desk().run(log)

    # The first worker stops behind chunk `stop`; the table and the commit are a little older than that.
    stop_at = round(stop * len(log))
    saved_at = round(saved * stop_at)
    one = Desk()
    rows: dict[str, str] = {}
    memories: dict[str, Memory] = {}
    undone = 0
    for position in range(stop_at + 1):
        if position == saved_at:
            rows, memories = dict(one.rows), dict(one.memories)
            undone = one.waiting[0][0] if one.waiting else position
        if position < stop_at:
            one.take(log[position], position)
            one.conclude(chance.choice([0, 1, 2, 9]))

    again_from = max(0, undone - back)
    two = Desk(rows, memories=memories)
    for chunk in refilled(log, again_from, memories=memories, rows=rows):
        two.take(chunk)
        two.conclude(chance.choice([0, 1, 9]))
    for chunk in log[again_from:]:
        two.take(chunk)
        two.conclude(chance.choice([0, 1, 2, 9]))
    two.conclude(10_000)

    wanted = {event.event: event for event in uninterrupted.events}
    assert {event.event for event in [*one.events, *two.events]} == set(wanted)
    for event in two.events:
        same = wanted[event.event]
        if event.score is not None:
            assert event.score == pytest.approx(same.score, rel=1e-5)
        assert event.model_copy(update={"score": same.score}) == same

    findings = {(f.bed, f.session, f.window): f for f in uninterrupted.findings}
    assert len(findings) == len(uninterrupted.findings)
    seen = set()
    for finding in [*one.findings, *two.findings]:
        key = (finding.bed, finding.session, finding.window)
        seen.add(key)
        wanted_finding = findings[key]
        assert finding.model_dump(exclude=SCORES) == wanted_finding.model_dump(exclude=SCORES)
        assert (finding.score is None) == (wanted_finding.score is None)
        if wanted_finding.score is not None:
            assert finding.score == pytest.approx(wanted_finding.score, rel=1e-5)
        assert finding.lead_scores == pytest.approx(wanted_finding.lead_scores, rel=1e-5)
    assert seen == set(findings)


@pytest.mark.parametrize("left", [1, 2, 5])
def test_a_worker_that_stops_between_the_end_and_the_last_verdict(left: int) -> None:
    chunks = cut(noisy(20, (10, 20)), last=True)
    uninterrupted = Desk().run(chunks)
    assert uninterrupted.log() == [("anomaly", Presence.ON), ("anomaly", Presence.OFF)]
    one = Desk()
    for chunk in chunks:
        one.take(chunk)
    one.conclude(len(one.waiting) - left)
    # What it kept knows that the feed is over, and that an alarm is open: it ends with the feed, not before.
    assert BedState.model_validate_json(one.rows["bed-1"]).ended
    two = Desk(one.rows).run(chunks)
    assert one.events + two.events == uninterrupted.events


def disturbed_minute(leads: tuple[str, ...]) -> list[SampleChunk]:
    x = ecg(60, 500.0, len(leads), seed=4)
    disturb(x, 15_000, 24_000, fs=500.0)
    return feed(x, 500.0, every(0.2, 500.0, len(x)), leads=leads, last=True)


def test_another_worker_goes_on_with_the_shipped_model(shipped: Session) -> None:
    chunks = disturbed_minute(shipped.manifest.leads)
    uninterrupted = Desk(session=shipped).run(chunks)
    assert uninterrupted.log() == [("anomaly", Presence.ON), ("anomaly", Presence.OFF)]
    one = Desk(session=shipped).run(chunks[:223])
    two = Desk(one.rows, session=shipped)
    two.run(refilled(chunks, 200, shipped.manifest.window.seconds))
    assert two.findings == []
    two.run(chunks[200:])
    assert [event.event for event in [*one.events, *two.events]] == [e.event for e in uninterrupted.events]
    again = uninterrupted.findings[len(one.findings) :]
    assert [finding.window for finding in two.findings] == [finding.window for finding in again]
    assert [finding.anomalous for finding in two.findings] == [finding.anomalous for finding in again]
    assert [f.score for f in two.findings] == pytest.approx([f.score for f in again], rel=1e-5)


def test_a_state_older_than_what_is_done_leaves_no_window_out_and_changes_no_score(shipped: Session) -> None:
    chunks = disturbed_minute(shipped.manifest.leads)
    uninterrupted = Desk(session=shipped).run(chunks)
    # Eighteen seconds: without looking at the state, not even the signal of its next window would be there.
    one = Desk(session=shipped).run(chunks[:130])
    two = Desk(one.rows, session=shipped)
    two.run(refilled(chunks, 220, shipped.manifest.window.seconds, rows=one.rows))
    two.run(chunks[220:])
    assert one.events + two.events == uninterrupted.events
    again = uninterrupted.findings[len(one.findings) :]
    assert [finding.window for finding in two.findings] == [finding.window for finding in again]
    assert [f.score for f in two.findings] == pytest.approx([f.score for f in again], rel=1e-5)


def test_history_is_long_enough_and_not_longer() -> None:
    log = cut(ecg(40, FS))
    chunks = refilled(log, 70)
    assert chunks[-1].header.seq == 69
    span = (chunks[-1].end - chunks[0].header.n0) / FS
    needed = MANIFEST.window.seconds + SETTLING_S
    assert needed <= span < needed + 0.5


def test_what_no_longer_lies_in_the_stream_is_a_hole() -> None:
    chunks = cut(ecg(40, FS))
    one = Desk().run(chunks[:20])
    two = Desk(one.rows).run(chunks[60:])
    # From the tenth to the thirtieth second nobody scored.
    assert two.log() == [("not-scored", Presence.ON), ("not-scored", Presence.OFF)]
    assert two.events[0].onset == 2500
    reasons = [finding.reason for finding in two.findings]
    assert reasons[:4] == ["gap"] * 4
    assert set(reasons[5:]) == {None}


# --- many at once, and too many --------------------------------------------------------------------------


def ward_of(beds: int) -> list[SampleChunk]:
    """Return the chunks of some beds, interleaved, with repeats and contradictions among them."""
    feeds = [cut(noisy(14, (4, 9), seed=n), bed=f"bed-{n}", pace=1.0) for n in range(beds)]
    chunks = [chunk for together in zip(*feeds, strict=True) for chunk in together]
    wrong, _ = contradictions(feeds[0][9])[0]
    return [*chunks[:30], chunks[3], wrong, *chunks[30:]]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_chunks_taken_together_are_taken_as_one_by_one(sizes: list[int]) -> None:
    chunks = ward_of(3)
    one, many = Engine(MANIFEST, "fp32"), Engine(MANIFEST, "fp32")
    wanted: list[str] = []
    for chunk in chunks:
        try:
            wanted.append(outcome_of(one.accept(chunk, 5), one))
        except MalformedMessageError as error:
            wanted.append(str(error))
    found: list[str] = []
    at = 0
    while at < len(chunks):
        size = sizes[len(found) % len(sizes)]
        for outcome in many.accept_many(chunks[at : at + size], 5):
            malformed = isinstance(outcome, MalformedMessageError)
            found.append(str(outcome) if malformed else outcome_of(outcome, many))
        at += size
    assert found == wanted
    assert any("leads" in text or "fs" in text for text in found)


def outcome_of(accepted: Accepted, engine: Engine) -> str:
    windows = [(p.window.index, p.window.x.tobytes(), p.first_new, p.hops) for p in accepted.windows]
    return repr((windows, accepted.missing, accepted.dropped, [event.event for event in accepted.events]))


def overloaded(
    chunks: list[SampleChunk], load: Load, hop_s: float | None = None
) -> tuple[list[Finding], list[AlarmEvent]]:
    engine = Engine(MANIFEST, "fp32", hop_s=hop_s)
    findings, events = [], []
    for chunk in chunks:
        (accepted,) = engine.accept_many([chunk], 0, load)
        assert isinstance(accepted, Accepted)
        events += accepted.events
        for pending in accepted.windows:
            concluded = engine.conclude(pending, judge(SESSION, [pending.window])[0])
            assert concluded is not None
            findings.append(concluded[0])
            events += concluded[1]
    return findings, events


@pytest.mark.parametrize("every_nth", [2, 4])
def test_an_overloaded_worker_scores_fewer_windows_says_so_and_still_raises_the_alarm(every_nth: int) -> None:
    chunks = cut(noisy(24, (6, 16)), pace=1.0)
    clean = Desk().run(chunks)
    findings, events = overloaded(chunks, Load(every_nth))
    assert [f.window for f in findings] == [f.window for f in clean.findings if f.window % every_nth == 0]
    assert [(e.rule, e.presence) for e in events] == [
        ("overload", Presence.ON),
        ("anomaly", Presence.ON),
        ("anomaly", Presence.OFF),
    ]
    assert events[0].message == f"worker overloaded: one of {every_nth} windows is scored"
    assert (events[0].kind, events[0].priority) == ("technical", "low")
    # As soon as it would be raised otherwise, but for the windows that are not looked at.
    on = clean.events[0]
    assert on.since - every_nth * SECOND_NS / 2 <= events[1].since <= on.since + every_nth * SECOND_NS / 2
    assert on.onset - every_nth * 125 <= events[1].onset <= on.onset + every_nth * 125


def test_a_feed_that_does_not_come_in_real_time_is_never_thinned_out() -> None:
    chunks = cut(noisy(24, (6, 16)), pace=0.0)
    findings, events = overloaded(chunks, Load(4))
    clean = Desk().run(chunks)
    assert [(f.window, f.score) for f in findings] == [(f.window, f.score) for f in clean.findings]
    assert events == clean.events


@pytest.mark.parametrize("pace", [0.0, 1.0])
def test_a_longer_hop_leaves_windows_out_on_purpose_and_raises_the_same_alarm(pace: float) -> None:
    chunks = cut(noisy(24, (6, 16)), pace=pace)
    clean = Desk().run(chunks)
    findings, events = overloaded(chunks, Load(), hop_s=1.0)
    scores = {finding.window: finding.score for finding in clean.findings}
    assert [(f.window, f.score) for f in findings] == [(n, scores[n]) for n in sorted(scores) if n % 2 == 0]
    assert [(e.rule, e.presence) for e in events] == [("anomaly", Presence.ON), ("anomaly", Presence.OFF)]
    assert abs(events[0].since - clean.events[0].since) <= SECOND_NS
    # What is shed comes on top, and is told of as such.
    findings, events = overloaded(cut(noisy(24, (6, 16)), pace=1.0), Load(2), hop_s=1.0)
    assert [f.window for f in findings] == [n for n in sorted(scores) if n % 4 == 0]
    assert events[0].message == "worker overloaded: one of 2 windows is scored"


@pytest.mark.parametrize("hop_s", [0.0, -0.5, 0.25, 0.7, 2.5, float("nan"), float("inf")])
def test_a_hop_that_is_none_of_the_model_s_is_refused(hop_s: float) -> None:
    with pytest.raises(ValueError, match=r"must be a multiple of the model's 0\.5 s, 2 s at most"):
        Engine(MANIFEST, "fp32", hop_s=hop_s)


def test_a_watched_bed_without_explanations_says_so_until_it_has_them_again() -> None:
    chunks = cut(ecg(6, FS), pace=1.0)
    engine = Engine(MANIFEST, "fp32")
    log = []
    for number, chunk in enumerate(chunks):
        load = Load(1, frozenset({"bed-1"})) if 2 <= number < 6 else Load()
        (accepted,) = engine.accept_many([chunk], 0, load)
        assert isinstance(accepted, Accepted)
        log += [(number, event.rule, event.presence, event.message) for event in accepted.events]
    assert log == [
        (2, "overload", Presence.ON, "worker overloaded: no explanations"),
        (6, "overload", Presence.OFF, "over"),
    ]


def test_a_backend_that_was_not_the_chosen_one_is_told_by_every_bed() -> None:
    engine = Engine(MANIFEST, "fp32", fallback="openvino: not installed")
    events = [
        event
        for bed in ("bed-1", "bed-2")
        for chunk in cut(ecg(2, FS), bed=bed)
        for event in engine.accept(chunk, 0).events
    ]
    assert [(e.bed, e.rule, e.presence, e.priority) for e in events] == [
        ("bed-1", "fallback", Presence.ON, "info"),
        ("bed-2", "fallback", Presence.ON, "info"),
    ]
    assert events[0].message == "openvino: not installed"


# --- another model --------------------------------------------------------------------------------------


OTHER = small_manifest(threshold=3.9, alarm=(2, 4, 0)).model_copy(update={"name": "other"})


def choose(desk: Desk, model: str | None, name: str = "c1") -> Answer:
    command = Command(
        id=name, bed="bed-1", kind=CommandKind.SET_MODEL, value=model, who="nurse", at=0, expires=1
    )
    answer = desk.engine.obey(command)
    desk.publish("bed-1", answer.events)
    return answer


def two_models() -> Desk:
    desk = Desk()
    models = {one.name: Criteria.of(one, "fp32") for one in (MANIFEST, OTHER)}
    desk.engine = Engine(MANIFEST, "fp32", models=models)
    return desk


def test_from_a_choice_on_findings_and_alarms_are_by_that_models_rules() -> None:
    desk, chunks = two_models(), cut(noisy(40, (6.1, 40)))
    desk.run(chunks[:40])
    assert desk.log() == [("anomaly", Presence.ON)]
    choose(desk, "other")
    desk.run(chunks[40:60])
    # Nothing is over its threshold, and the alarm of the other one has ended.
    assert desk.log() == [("anomaly", Presence.ON), ("anomaly", Presence.OFF)]
    assert {f.threshold for f in desk.findings if f.model == "other"} == {3.9}
    assert not any(f.anomalous for f in desk.findings if f.model == "other")
    before = len(desk.findings)
    choose(desk, None, "c2")
    desk.run(chunks[60:62])
    assert len(desk.findings) == before + 2
    # Two windows over the threshold: those before the change do not make up the three.
    assert all(f.anomalous for f in desk.findings[before:])
    assert desk.log()[2:] == []
    desk.run(chunks[62:64])
    assert desk.log()[2:] == [("anomaly", Presence.ON)]
    first, second = (event for event in desk.events if event.presence is Presence.ON)
    assert first.alarm != second.alarm
    assert second.onset >= chunks[60].header.n0 - 125
    assert [f.window for f in desk.findings] == list(range(len(desk.findings)))


def test_a_choice_outlives_the_worker_and_a_new_feed() -> None:
    desk, chunks = two_models(), cut(noisy(20))
    desk.run(chunks[:20])
    choose(desk, "other")
    state = BedState.model_validate_json(desk.engine.state("bed-1").model_dump_json())
    later = two_models()
    later.engine.restore("bed-1", state)
    later.run(chunks[20:] + cut(noisy(10), session="another"))
    assert {finding.model for finding in later.findings} == {"other"}
    assert {finding.session for finding in later.findings} == {"s", "another"}
    assert later.engine.settings("bed-1", 5).chosen_model == "other"


def test_a_bed_that_comes_to_a_worker_with_another_model_of_its_own_begins_anew() -> None:
    desk, chunks = Desk(), cut(noisy(40, (6.1, 40)))
    desk.run(chunks[:40])
    state = desk.engine.state("bed-1").model_copy(deep=True)
    assert (state.model, list(state.open)) == ("stand-in", ["anomaly"])
    # A row of a version that knew but one model is taken as it is.
    old = state.model_copy(update={"model": ""}, deep=True)
    again = Desk()
    again.engine.restore("bed-1", old)
    again.run(chunks[40:44])
    assert again.engine.state("bed-1").model == "stand-in"
    assert "anomaly" in again.engine.state("bed-1").open
    state.stay.threshold, state.stay.session = 7.0, "s"
    later = Desk()
    later.engine = Engine(OTHER, "fp32")
    later.engine.restore("bed-1", state)
    later.run(chunks[40:44])
    ended = later.events[0]
    assert (ended.rule, ended.presence) == ("anomaly", Presence.OFF)
    assert ended.message == "other judges from now on, the model of another worker"
    assert {(f.model, f.threshold) for f in later.findings} == {("other", 3.9)}
    assert later.engine.settings("bed-1", 5).threshold_from == "model"
