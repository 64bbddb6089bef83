from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.live import ward as ward_module
from monitor.live.ward import FORGET_S, HISTORY_S, RING_S, Ward
from monitor.summary import ward_trouble
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority, Validity, to_lsb
from tests.monitor.messages import T0, S, alarm, chunk, explanation, finding, vitals


def ward_with(*sequence: int, **fields: object) -> Ward:
    ward = Ward()
    for seq in sequence:
        ward.take_chunk(chunk(seq, **fields), T0 + (seq + 1) * S // 5)
    return ward


def test_samples_are_kept_in_millivolts_with_gaps() -> None:
    ward = ward_with(0, 1, 3)
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    rows = feed.ring.read(0, 400)
    assert not np.isnan(rows[:200]).any()
    assert np.isnan(rows[200:300]).all()
    assert not np.isnan(rows[300:]).any()
    assert np.nanmax(rows[:, 0]) == pytest.approx(1.0, abs=0.02)
    assert feed.missing == 100


def test_repeats_and_late_chunks_change_nothing() -> None:
    ward = ward_with(0, 1, 2)
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    before = feed.ring.read(0, 300)
    ward.take_chunk(chunk(1, millivolts=np.zeros((100, 2))), T0 + 10 * S)
    np.testing.assert_array_equal(feed.ring.read(0, 300), before)
    assert feed.heard_ns == T0 + 3 * S // 5


def test_a_lead_that_is_off_has_no_samples() -> None:
    ward = ward_with(0, valid={"II": Validity.OFF})
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    rows = feed.ring.read(0, 100)
    assert not np.isnan(rows[:, 0]).any()
    assert np.isnan(rows[:, 1]).all()


@pytest.mark.parametrize("n_leads", [1, 12, 64])
def test_memory_of_a_bed_is_bounded(n_leads: int) -> None:
    leads = tuple(f"L{i}" for i in range(n_leads))
    ward = Ward()
    for seq in range(400):
        ward.take_chunk(chunk(seq, n=500, fs=1000.0, leads=leads), T0 + seq * S // 2)
        ward.take_finding(finding(seq, score=1.0))
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    assert feed.ring.nbytes <= min(RING_S * 1000 * n_leads, 1_000_000) * 4
    assert len(ward.beds["bed-1"].scores) <= HISTORY_S * 2 + 2


def test_scores_older_than_the_history_go() -> None:
    ward = Ward()
    for window in range(3000):
        ward.take_finding(finding(window))
    scores = ward.beds["bed-1"].scores
    assert scores[-1].t_end - scores[0].t_end == HISTORY_S * S


def test_findings_come_once_and_in_order() -> None:
    ward = Ward()
    for window in (0, 1, 1, 0, 3, 2, 4):
        ward.take_finding(finding(window, score=float(window)))
    bed = ward.beds["bed-1"]
    assert [point.score for point in bed.scores] == [0.0, 1.0, 3.0, 4.0]
    assert bed.findings == 4


def test_a_recording_that_begins_again_begins_a_new_chart() -> None:
    ward = Ward()
    for window in range(10):
        ward.take_finding(finding(window))
    ward.take_finding(finding(0, session="s2"))
    assert len(ward.beds["bed-1"].scores) == 1


def test_a_window_without_a_score_is_a_gap_in_the_chart() -> None:
    ward = Ward()
    ward.take_finding(finding(0, score=None, reason="flat"))
    point = ward.beds["bed-1"].scores[0]
    assert np.isnan(point.score)
    assert point.reason == "flat"


@given(st.data())
def test_open_alarms_do_not_depend_on_repeats_or_order(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6), label="transitions per alarm")
    ends = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)), label="ended")
    events: list[AlarmEvent] = []
    expected = {}
    for which, (length, ended) in enumerate(zip(lengths, ends, strict=True)):
        chain = [alarm(f"a{which}", number) for number in range(length)]
        if ended:
            chain[-1] = alarm(f"a{which}", length - 1, presence=Presence.OFF)
        else:
            expected[f"a{which}"] = chain[-1].event
        events += chain
    delivered = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events)))))
    ward = Ward()
    for event in delivered:
        ward.take_alarm(event)
    bed = ward.beds.get("bed-1")
    assert {name: event.event for name, event in (bed.alarms if bed else {}).items()} == expected


def test_alarms_are_sorted_by_urgency() -> None:
    ward = Ward()
    ward.take_alarm(alarm("low", priority=Priority.LOW))
    ward.take_alarm(alarm("technical", kind=AlarmKind.TECHNICAL))
    ward.take_alarm(alarm("later", onset_t=T0 + S))
    ward.take_alarm(alarm("first"))
    ward.take_alarm(alarm("high", priority=Priority.HIGH, onset_t=T0 + 9 * S))
    ward.take_alarm(alarm("seen", priority=Priority.MEDIUM, presence=Presence.ACKNOWLEDGED))
    order = [event.alarm for event in ward.beds["bed-1"].open_alarms()]
    assert order == ["high", "first", "later", "technical", "seen", "low"]


def test_memory_of_alarms_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward_module, "_EVENTS_REMEMBERED", 50)
    ward = Ward()
    for number in range(500):
        ward.take_alarm(alarm(f"a{number}"))
    assert len(ward.beds["bed-1"].alarms) == ward_module._ALARMS_A_BED
    assert len(ward._seen) == len(ward._transitions) == 50


def test_a_new_feed_ends_the_alarms_of_the_one_before() -> None:
    ward = ward_with(0, 1)
    ward.take_alarm(alarm("old", session="s1", ingest_ns=T0 + S))
    ward.take_alarm(alarm("new", session="s2", ingest_ns=T0 + 3 * S))
    ward.take_chunk(chunk(0, session="s2", ingest_ns=T0 + 2 * S), T0 + 2 * S)
    assert list(ward.beds["bed-1"].alarms) == ["new"]
    # The worker's own end of it, and anything else of that feed, comes too late to matter.
    ward.take_alarm(alarm("older", session="s1", ingest_ns=T0))
    ward.take_chunk(chunk(2), T0 + 3 * S)
    bed = ward.beds["bed-1"]
    assert list(bed.alarms) == ["new"]
    assert bed.feed is not None
    assert bed.feed.session == "s2"


def test_alarms_read_on_start_survive_the_samples_before_them() -> None:
    ward = Ward()
    ward.take_alarm(alarm("open", session="s2", ingest_ns=T0 + 20 * S))
    ward.take_alarm(alarm("left behind", session="s0", ingest_ns=T0 - 20 * S))
    ward.take_chunk(chunk(0, session="s1", ingest_ns=T0), T0, live=False)
    ward.take_chunk(chunk(0, session="s2", ingest_ns=T0 + 10 * S), T0, live=False)
    assert list(ward.beds["bed-1"].alarms) == ["open"]


def test_silence_and_lag_are_measured_against_when_a_chunk_is_due() -> None:
    ward = ward_with(0)
    bed, heard = ward.beds["bed-1"], T0 + S // 5
    assert bed.feed is not None
    assert not bed.is_silent(heard + 2 * S)
    assert bed.is_silent(heard + 3 * S)
    assert bed.feed.lag_s(heard + S // 5) == 0.0
    assert bed.feed.lag_s(heard + 3 * S // 10) == pytest.approx(0.1)
    assert bed.device_time(heard + S) == T0 + S // 5 + S


def test_a_feed_that_ended_on_purpose_is_not_silent() -> None:
    ward = Ward()
    ward.take_chunk(chunk(0, last=True), T0)
    assert not ward.beds["bed-1"].is_silent(T0 + 100 * S)


def test_signal_that_no_worker_speaks_of_is_noticed() -> None:
    ward = Ward()
    for seq in range(50):
        ward.take_chunk(chunk(seq), T0 + seq * S // 5)
    bed = ward.beds["bed-1"]
    assert not bed.is_unscored()
    ward.take_chunk(chunk(50), T0 + 10 * S)
    assert bed.is_unscored()
    ward.take_finding(finding(4))
    assert not bed.is_unscored()
    for seq in range(51, 76):
        ward.take_chunk(chunk(seq), T0 + seq * S // 5)
    assert bed.is_unscored()
    assert bed.unscored_s() == pytest.approx(5.2)


def test_beds_that_are_gone_are_forgotten_unless_they_have_an_alarm() -> None:
    ward = ward_with(0)
    ward.take_chunk(chunk(0, bed="bed-2"), T0)
    ward.take_alarm(alarm(bed="bed-2", ingest_ns=T0 + S), T0)
    late = T0 + round((FORGET_S + 1) * S)
    ward.forget_silent(T0 + 100 * S)
    assert set(ward.beds) == {"bed-1", "bed-2"}
    ward.forget_silent(late)
    assert set(ward.beds) == {"bed-2"}
    ward.take_alarm(alarm(number=1, bed="bed-2", presence=Presence.OFF), late)
    ward.forget_silent(late + round((FORGET_S + 1) * S))
    assert not ward.beds


def test_the_number_of_beds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward_module, "_BEDS", 3)
    ward = Ward()
    for number in range(5):
        ward.take_chunk(chunk(0, bed=f"bed-{number}"), T0)
    assert len(ward.beds) == 3
    assert ward.left_out == 2


def test_explanations_of_other_feeds_and_of_the_future_are_left_out() -> None:
    ward = ward_with(0, 1)
    arrays = np.zeros((2, 100))
    ward.take_explanation(explanation(arrays))
    ward.take_explanation(explanation(arrays, session="s0"))
    ward.take_explanation(explanation(arrays, bed="bed-9"))
    ward.take_explanation(explanation(arrays, t_start=T0 + 60 * S))
    ward.take_explanation(explanation(arrays, fs=0.0))
    assert ward.beds["bed-1"].explained == 1
    assert "bed-9" not in ward.beds
    for _ in range(100):
        ward.take_explanation(explanation(arrays))
    assert len(ward.beds["bed-1"].explanations) == ward_module._EXPLANATIONS


def test_revision_rises_with_what_a_nurse_must_see_at_once() -> None:
    ward = Ward()
    seen = ward.revision
    for take in (
        lambda: ward.take_chunk(chunk(0), T0),
        lambda: ward.take_alarm(alarm()),
        lambda: ward.take_alarm(alarm(number=1, presence=Presence.OFF)),
    ):
        take()
        assert ward.revision > seen
        seen = ward.revision
    ward.take_chunk(chunk(1), T0)
    ward.take_alarm(alarm())
    assert ward.revision == seen


def test_a_chunk_that_contradicts_its_session_is_left_out() -> None:
    ward = ward_with(0)
    ward.take_chunk(chunk(1, leads=("I",)), T0)
    ward.take_chunk(chunk(1, fs=250.0), T0)
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    assert feed.ring.stop == 100


STRANGERS: list[dict[str, object]] = [{"leads": ("V1",)}, {"fs": 250.0}, {"n0": 0}]


@pytest.mark.parametrize("strange", STRANGERS)
def test_a_feed_goes_on_behind_a_chunk_that_contradicts_it(strange: dict[str, object]) -> None:
    ward = ward_with(*range(10))
    # Of the right session, and far ahead.
    ward.take_chunk(chunk(1_000_000, **strange), T0 + 3 * S)  # type: ignore[arg-type]
    ward.take_chunk(chunk(10), T0 + 3 * S)
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    assert (feed.ring.first, feed.ring.stop, feed.missing) == (0, 1100, 0)


@pytest.mark.parametrize("strange", STRANGERS)
def test_a_feed_that_began_with_a_chunk_that_contradicts_it_begins_anew(strange: dict[str, object]) -> None:
    ward = Ward()
    ward.take_chunk(chunk(1_000_000, **strange), T0)  # type: ignore[arg-type]
    for seq in range(10, 20):
        ward.take_chunk(chunk(seq), T0 + seq * S)
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    assert (feed.leads, feed.fs, feed.ring.stop, feed.missing) == (("I", "II"), 500.0, 2000, 0)
    assert not ward.beds["bed-1"].former


def test_a_feed_that_is_sent_again_does_not_begin_anew() -> None:
    ward = ward_with(*range(20))
    for seq in [*range(10, 20), *range(20)]:
        ward.take_chunk(chunk(seq), T0 + 20 * S)
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    assert (feed.ring.first, feed.ring.stop) == (0, 2000)


def test_an_invalid_sample_is_a_gap() -> None:
    millivolts = np.zeros((100, 2))
    millivolts[10:20, 1] = np.nan
    assert (to_lsb(millivolts)[10:20, 1] == -32768).all()
    ward = ward_with(0, millivolts=millivolts)
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    assert np.isnan(feed.ring.read(0, 100)[:, 1]).sum() == 10


def test_the_heart_rate_is_that_of_the_feed_that_is_heard() -> None:
    ward = Ward()
    ward.take_vitals(vitals(3, rate=75.0))
    bed = ward.beds["bed-1"]
    assert bed.heart_rate(T0) is None
    ward.take_chunk(chunk(0), T0)
    assert bed.heart_rate(T0 + S) == 75.0
    # A late one changes nothing, and of a silent feed nobody can tell.
    ward.take_vitals(vitals(2, rate=40.0))
    assert bed.heart_rate(T0 + S) == 75.0
    assert bed.heart_rate(T0 + 10 * S) is None
    ward.take_vitals(vitals(4, rate=None))
    assert bed.heart_rate(T0 + S) is None
    ward.take_chunk(chunk(0, session="s2"), T0 + S)
    ward.take_vitals(vitals(9, rate=80.0))
    assert bed.heart_rate(T0 + S) is None


def test_an_alarm_about_the_deployment_is_no_bed() -> None:
    ward = Ward()
    raised = alarm("a", 0).model_copy(update={"bed": "*", "message": "no worker is left"})
    ward.take_alarm(raised)
    assert ward.beds == {}
    assert ward_trouble(ward, T0, None) == "no worker is left"
    ward.take_alarm(raised.model_copy(update={"event": "a-1", "presence": Presence.OFF}))
    assert ward_trouble(ward, T0, None) == ""
