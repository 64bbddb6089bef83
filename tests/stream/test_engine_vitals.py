"""Vitals in the engine: what becomes of beats, rhythm and signal quality, and of an operator's commands."""

from __future__ import annotations

from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest

from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from stream.alarms.baseline import personal_threshold
from stream.alarms.operator import Answer, RefusedError
from stream.contract import AlarmEvent, Command, CommandKind, Presence, SampleChunk, Validity, Vitals
from stream.engine import Engine
from stream.verdict import judge
from tests.stream.synthetic import StandIn, disturb, ecg, every, feed, small_manifest

SECOND_NS = 1_000_000_000
_numbers = count()
SESSION = StandIn(small_manifest(threshold=3.0))


class Bed:
    """One bed's chunks through an engine, one after the other."""

    def __init__(self) -> None:
        self.engine = Engine(SESSION.manifest, SESSION.precision)
        self.events: list[AlarmEvent] = []
        self.vitals: list[Vitals] = []
        self.scores: list[float] = []

    def take(self, chunks: list[SampleChunk]) -> Bed:
        for chunk in chunks:
            accepted = self.engine.accept(chunk, chunk.time_of(chunk.end))
            self.events += accepted.events
            self.vitals += accepted.vitals
            for pending in accepted.windows:
                verdict = judge(SESSION, [pending.window])[0]
                concluded = self.engine.conclude(pending, verdict)
                assert concluded is not None
                self.events += concluded[1]
                if concluded[0].score is not None:
                    self.scores.append(concluded[0].score)
        return self

    def ask(self, kind: CommandKind, value: Any = None) -> list[AlarmEvent]:
        return self.answer(kind, value).events

    def answer(self, kind: CommandKind, value: Any = None) -> Answer:
        command = Command(
            id=f"command-{next(_numbers)}", bed="b", kind=kind, value=value, who="nurse", at=0, expires=1
        )
        return self.engine.obey(command)

    def told(self, rule: str) -> list[tuple[float, Presence]]:
        first = self.vitals[0].t_end - SECOND_NS
        return [
            (round((event.since - first) / 1e9, 1), event.presence)
            for event in self.events
            if event.rule == rule
        ]


def patient(timeline: str, seconds: float, *, session: str = "s", last: bool = False) -> list[SampleChunk]:
    chunks = list(chunks_of(PatientSimulator(1, timeline, fs=250.0, duration_s=seconds), "b", session))
    return chunks if last else [chunk for chunk in chunks if not chunk.header.last]


def test_heart_rate_beats_and_quality_come_each_second() -> None:
    bed = Bed().take(patient("sinus:75@0", 30.0))
    assert [second.end - second.start for second in bed.vitals] == [250] * 29
    assert all(one.end == other.start for one, other in pairwise(bed.vitals))
    for second in bed.vitals[10:]:
        assert second.heart_rate == pytest.approx(75, abs=5)
        assert min(second.quality.values()) > 0.8
        assert second.issues == {}
    beats = [beat for second in bed.vitals for beat in second.beats]
    assert beats == sorted(set(beats))
    assert len(beats) == pytest.approx(75 * 28 / 60, abs=4)
    assert bed.events == []


@pytest.mark.parametrize(
    ("timeline", "rule"),
    [
        ("sinus:75@0 asystole@15", "asystole"),
        ("sinus:75@0 vf@15", "ventricular-fibrillation"),
        ("sinus:75@0 vt:180@15", "ventricular-tachycardia"),
        ("sinus:75@0 sinus:30@15", "extreme-bradycardia"),
        ("sinus:75@0 sinus:165@15", "extreme-tachycardia"),
    ],
)
def test_what_can_kill_is_told_within_ten_seconds(timeline: str, rule: str) -> None:
    bed = Bed().take(patient(timeline, 32.0))
    raised = next(event for event in bed.events if event.rule == rule and event.presence is Presence.ON)
    at_s = (raised.since - bed.vitals[0].t_end) / 1e9 + 1
    assert raised.since - raised.onset_t <= 10 * SECOND_NS
    # A bradycardia is five beats of it long.
    assert 15 < at_s < (25 if rule != "extreme-bradycardia" else 27)
    assert raised.priority == "high"


def flat_from(chunks: list[SampleChunk], second: float) -> list[SampleChunk]:
    return [
        SampleChunk(chunk.header, np.zeros_like(chunk.samples))
        if chunk.header.n0 >= second * chunk.header.fs
        else chunk
        for chunk in chunks
    ]


def test_a_dead_flat_line_where_there_were_beats_is_an_asystole() -> None:
    bed = Bed().take(flat_from(patient("sinus:75@0", 40.0), 15))
    ((on, presence),) = bed.told("asystole")
    assert presence is Presence.ON
    assert 18 < on < 25
    # Nor is it hidden that a cable may have come off.
    assert [presence for _, presence in bed.told("lead-off")] == [Presence.ON]


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_device_clock_that_jumps_changes_nothing_but_the_times(jump_s: int) -> None:
    def watched(jump_s: int) -> Bed:
        chunks = patient("sinus:75@0 vt:180@20", 110.0)
        for number, chunk in enumerate(chunks):
            t0 = chunk.header.t0 + (jump_s * SECOND_NS if number >= 110 else 0)
            header = chunk.header.model_copy(update={"t0": t0, "pace": 1.0})
            chunks[number] = SampleChunk(header, chunk.samples)
        bed = Bed().take(chunks[:100])
        # The pause begins before the jump and has to end a minute later, not an hour.
        bed.events += bed.ask(CommandKind.PAUSE, 60)
        return bed.take(chunks[100:])

    jumped, steady = watched(jump_s), watched(0)

    def told(bed: Bed) -> list[tuple[str, Presence, int, int]]:
        return [
            (event.rule, event.presence, event.onset, event.escalation)
            for event in bed.events
            if event.rule != "clock-skew"
        ]

    assert told(jumped) == told(steady)
    assert [presence for _, presence in steady.told("paused")] == [Presence.ON, Presence.OFF]
    assert any(event.rule == "ventricular-tachycardia" for event in steady.events)
    # And somebody is told.
    assert [event.presence for event in jumped.events if event.rule == "clock-skew"] == [Presence.ON]


def test_a_device_without_a_patient_is_no_asystole() -> None:
    assert Bed().take(flat_from(patient("sinus:75@0", 30.0), 0)).told("asystole") == []


def test_a_lead_that_is_off_is_told_and_a_gap_is_not() -> None:
    chunks = patient("sinus:75@0", 30.0)
    flags = [Validity.OK] * len(chunks[0].header.leads)
    flags[1] = Validity.OFF
    spoilt = [
        SampleChunk(chunk.header.model_copy(update={"valid": tuple(flags)}), chunk.samples)
        if 50 <= number < 100
        else chunk
        for number, chunk in enumerate(chunks)
    ]
    bed = Bed().take(spoilt)
    (on, _), (off, _) = bed.told("lead-off")
    assert 12 <= on <= 14.5
    assert 22 <= off <= 24.5
    assert next(event for event in bed.events if event.rule == "lead-off").message == "lead II off"
    gap = [chunk for number, chunk in enumerate(chunks) if not 50 <= number < 100]
    assert Bed().take(gap).told("lead-off") == []


def test_limits_of_a_patient_count_at_once_and_go_with_them() -> None:
    bed = Bed().take(patient("sinus:120@0", 30.0))
    assert bed.events == []
    bed.ask(CommandKind.SET_LIMITS, {"tachycardia_bpm": 100})
    with pytest.raises(RefusedError, match="nonsense"):
        bed.ask(CommandKind.SET_LIMITS, {"nonsense": 1})
    chunks = patient("sinus:120@0", 60.0)
    bed.take(chunks[150:225])
    assert [presence for _, presence in bed.told("extreme-tachycardia")] == [Presence.ON]
    (ended,) = (event for event in bed.ask(CommandKind.DISCHARGE) if event.rule == "extreme-tachycardia")
    assert ended.presence is Presence.OFF
    bed.take(chunks[225:])
    assert [presence for _, presence in bed.told("extreme-tachycardia")] == [Presence.ON]


def test_a_baseline_is_of_the_newest_scores_and_of_one_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.engine._SCORES_S", 20.0)
    monkeypatch.setattr("stream.alarms.operator.BASELINE_S", 15.0)
    manifest = small_manifest(threshold=-6.0)
    spec, thresholds = manifest.window, manifest.thresholds["fp32"]
    newest = round(20 * spec.fs / spec.hop)
    # The newest are high, those before are not.
    millivolts = ecg(60.0, 250.0)
    disturb(millivolts, 35 * 250, 60 * 250)
    bed = Bed()
    bed.engine = Engine(manifest, "fp32")
    bed.take(feed(millivolts, 250.0, every(0.5, 250.0, len(millivolts)), bed="b"))
    assert len(bed.scores) > 2 * newest
    usual = personal_threshold(bed.scores[-newest:], thresholds)
    assert usual != personal_threshold(bed.scores, thresholds)
    assert bed.answer(CommandKind.CONFIRM_BASELINE).after == usual
    bed.ask(CommandKind.DISCHARGE)
    with pytest.raises(RefusedError, match="needs 15 s of scored signal; there are 0 s"):
        bed.ask(CommandKind.CONFIRM_BASELINE)


def test_another_device_asks_who_the_patient_is() -> None:
    bed = Bed().take(patient("sinus:75@0", 20.0))
    bed.ask(CommandKind.SET_LIMITS, {"tachycardia_bpm": 100})
    bed.take(patient("sinus:120@0", 30.0, session="t"))
    # Until somebody says so, the limits of before do not count.
    assert [(e.rule, e.presence) for e in bed.events] == [("confirm-patient", Presence.ON)]
    (confirmed,) = bed.ask(CommandKind.ADMIT, "same")
    assert (confirmed.rule, confirmed.presence) == ("confirm-patient", Presence.OFF)
    bed.take(patient("sinus:120@0", 50.0, session="t")[150:])
    assert [presence for _, presence in bed.told("extreme-tachycardia")] == [Presence.ON]


def test_nothing_of_one_patient_is_held_against_the_next() -> None:
    sensitive = Engine(small_manifest(threshold=-11.0, alarm=(3, 5, 1)), "fp32")
    bed = Bed()
    bed.engine = sensitive
    chunks = patient("sinus:75@0", 30.0)
    bed.take(chunks[:20])
    assert [event.presence for event in bed.events if event.rule == "anomaly"] == [Presence.ON]
    assert [e.presence for e in bed.ask(CommandKind.DISCHARGE) if e.rule == "anomaly"] == [Presence.OFF]
    discharged = chunks[19].end
    bed.take(chunks[20:])
    again = [event for event in bed.events if event.rule == "anomaly"][1:]
    assert [event.presence for event in again] == [Presence.ON]
    assert again[0].onset >= discharged


def test_a_restarted_engine_tells_no_second_twice() -> None:
    chunks = patient("sinus:75@0 vt:180@20", 40.0)
    whole = Bed().take(chunks)
    one = Bed().take(chunks[:120])
    two = Bed()
    two.engine.restore("b", one.engine.state("b").model_copy(deep=True))
    two.take(chunks[5:])
    seconds = [second.start for second in one.vitals + two.vitals]
    assert seconds == [second.start for second in whole.vitals]
    assert [
        (e.event, e.presence) for e in one.events + two.events if e.rule == "ventricular-tachycardia"
    ] == [(e.event, e.presence) for e in whole.events if e.rule == "ventricular-tachycardia"]
    rates = [np.nan if v.heart_rate is None else v.heart_rate for v in whole.vitals[35:]]
    again = [np.nan if v.heart_rate is None else v.heart_rate for v in (one.vitals + two.vitals)[35:]]
    np.testing.assert_allclose(again, rates, rtol=0.1)


def test_a_discharge_that_is_delivered_again_takes_nothing_from_the_next_patient() -> None:
    bed = Bed()
    chunks = patient("sinus:75@0", 30.0)
    bed.take(chunks[:50])
    discharge = Command(id="d", bed="b", kind=CommandKind.DISCHARGE, who="nurse", at=0, expires=1)
    bed.engine.obey(discharge)
    bed.take(chunks[50:100])
    before = bed.engine.state("b").model_copy(deep=True)
    assert before.history
    assert bed.engine.obey(discharge).message == "done already"
    assert bed.engine.state("b") == before
