"""A recording through the pipeline: the same result however it is cut and batched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backends import open_session
from models.session import Session
from stream.contract import AlarmEvent, Finding, SampleChunk, Stamps, Validity, Vitals
from stream.describe import described
from stream.engine import Pending
from stream.offline import Analysis, Outcome, analyse, joined, run
from stream.verdict import Verdict
from tests.stream.attentive import attentive_bundle, checked
from tests.stream.synthetic import Float64Array, StandIn, disturb, ecg, every, feed, small_manifest

FS = 360.0


def session(max_batch: int = 8) -> StandIn:
    return StandIn(small_manifest(max_batch=max_batch))


def recording(seconds: float = 40, fs: float = FS, n_leads: int = 3) -> Float64Array:
    """Return a recording that is unusual from 10 s to 15 s and has a long gap from 22 s to 34 s."""
    x = ecg(seconds, fs, n_leads)
    disturb(x, round(10 * fs), round(15 * fs), fs=fs)
    x[round(22 * fs) : round(34 * fs)] = np.nan
    return x


def without_times(finding: Finding) -> dict[str, Any]:
    # Device times come from the chunk that completed the window: rounded to the nanosecond once or twice.
    times = {"t_start", "t_end", "stamps", "score", "percentile", "lead_scores"}
    return finding.model_dump(exclude=times)


def by_rule(events: list[AlarmEvent]) -> list[AlarmEvent]:
    return sorted(events, key=lambda event: event.rule)


def by_windows(outcome: Outcome) -> list[str]:
    return [event.rule for event in outcome.events if event.rule in ("anomaly", "not-scored")]


def same_vitals(ours: list[Vitals], wanted: list[Vitals]) -> bool:
    times = {"t_end", "ingest_ns"}
    return [v.model_dump(exclude=times) for v in ours] == [v.model_dump(exclude=times) for v in wanted]


def assert_same(ours: Outcome, wanted: Outcome) -> None:
    assert [without_times(f) for f in ours.findings] == [without_times(f) for f in wanted.findings]
    for one, other in zip(ours.findings, wanted.findings, strict=True):
        assert abs(one.t_start - other.t_start) <= 2
        assert abs(one.t_end - other.t_end) <= 2
        assert (one.score is None) == (other.score is None)
        if other.score is not None:
            assert one.score == pytest.approx(other.score, rel=1e-5)
            assert one.lead_scores == pytest.approx(other.lead_scores, rel=1e-5)
    assert same_vitals(ours.vitals, wanted.vitals)
    # Each rule in its own order: windows are judged later than the signal, and how much later depends.
    for event, same in zip(by_rule(ours.events), by_rule(wanted.events), strict=True):
        assert (event.event, event.alarm, event.rule, event.presence, event.onset) == (
            same.event,
            same.alarm,
            same.rule,
            same.presence,
            same.onset,
        )
        assert abs(event.since - same.since) <= 2
        assert abs(event.onset_t - same.onset_t) <= 2


@settings(max_examples=25, deadline=None)
@given(
    fs=st.sampled_from([250.0, 360.0, 999.56]),
    cuts=st.lists(st.integers(1, 30_000), max_size=60),
    max_batch=st.sampled_from([1, 2, 7, 1000]),
)
def test_any_chunking_and_batching_gives_the_same(fs: float, cuts: list[int], max_batch: int) -> None:
    x = recording(fs=fs)
    wanted = run(feed(x, fs, every(0.2, fs, len(x)), last=True), session())
    assert by_windows(wanted) == ["anomaly", "anomaly", "not-scored", "not-scored"]
    cuts = [cut for cut in cuts if cut < len(x)]
    ours = session(max_batch)
    assert_same(run(feed(x, fs, cuts, last=True), ours), wanted)
    # No batch is larger than what the windows of one chunk add to a full one.
    assert sum(ours.batches) == sum(finding.score is not None for finding in wanted.findings)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 10_000), max_size=60),
    changes=st.lists(st.sampled_from([Validity.OK, Validity.OFF]), min_size=61, max_size=61),
    lost=st.sets(st.integers(0, 60), max_size=3),
)
def test_joined_chunks_give_the_same(cuts: list[int], changes: list[Validity], lost: set[int]) -> None:
    x = recording()
    chunks = [
        SampleChunk(
            chunk.header.model_copy(update={"valid": (valid, *chunk.header.valid[1:])}), chunk.samples
        )
        for chunk, valid in zip(
            feed(x, FS, [cut for cut in cuts if cut < len(x)], last=True), changes, strict=False
        )
    ]
    # Not the last one, which ends the feed.
    chunks = [chunk for place, chunk in enumerate(chunks) if place not in lost or place == len(chunks) - 1]
    whole = list(joined(chunks))
    assert [chunk.header.seq for chunk in whole] == list(range(len(whole)))
    assert sum(len(chunk.samples) for chunk in whole) == sum(len(chunk.samples) for chunk in chunks)
    assert_same(run(whole, session()), run(chunks, session()))


def test_chunks_of_a_day_are_joined_to_ten_seconds() -> None:
    x = recording(60)
    assert [len(chunk.samples) / FS for chunk in joined(feed(x, FS, every(0.5, FS, len(x)), last=True))] == [
        10
    ] * 6


@pytest.mark.parametrize("chunk_s", [0.05, 0.5, 3.0])
def test_the_shipped_model_in_any_chunking(chunk_s: float, shipped: Session) -> None:
    leads = shipped.manifest.leads
    x = ecg(40, 500.0, len(leads), seed=2)
    disturb(x, 8_000, 17_000, fs=500.0)
    wanted = run(feed(x, 500.0, every(0.2, 500.0, len(x)), leads=leads, last=True), shipped)
    assert by_windows(wanted) == ["anomaly", "anomaly"]
    assert len(wanted.findings) == 65
    assert_same(run(feed(x, 500.0, every(chunk_s, 500.0, len(x)), leads=leads, last=True), shipped), wanted)


def test_each_window_is_shown_once_in_order_with_its_verdict() -> None:
    seen: list[tuple[Pending, Verdict | None, Finding]] = []
    x = recording()
    outcome = run(feed(x, FS, every(0.5, FS, len(x))), session(), on_window=lambda *what: seen.append(what))
    assert [finding for _, _, finding in seen] == outcome.findings
    for pending, verdict, finding in seen:
        assert pending.window.index == finding.window
        assert (verdict is None) == (finding.score is None)
        assert verdict is None or verdict.score == finding.score


def test_many_beds_and_sessions_in_one_go() -> None:
    one, two = recording(20), recording(12)
    first = feed(one, FS, every(0.5, FS, len(one)), bed="a", session="s1")
    then = feed(two, FS, every(0.5, FS, len(two)), bed="a", session="s2", last=True)
    beside = feed(two, FS, every(0.5, FS, len(two)), bed="b", last=True)
    mixed = [chunk for pair in zip([*first, *then], [*beside, *[None] * 40], strict=True) for chunk in pair]
    wanted = [run([*first, *then], session(1)), run(beside, session(1))]
    for max_batch in (1, 1000):
        outcome = run([chunk for chunk in mixed if chunk is not None], session(max_batch))
        for bed, alone in zip("ab", wanted, strict=True):
            ours = Outcome(
                [finding for finding in outcome.findings if finding.bed == bed],
                [event for event in outcome.events if event.bed == bed],
                [vitals for vitals in outcome.vitals if vitals.bed == bed],
            )
            assert_same(ours, alone)
    # The windows of the first session were judged although the second began at once.
    assert sum(finding.session == "s1" for finding in wanted[0].findings) == 37


# --- the summary -----------------------------------------------------------------------------------------


def analysed(chunks: list[SampleChunk]) -> Analysis:
    return analyse(chunks, session(), record="100")


def test_an_analysis_sums_the_recording_up() -> None:
    x = recording()
    chunks = feed(x, FS, every(0.2, FS, len(x)), last=True)
    outcome, result = run(chunks, session()), analysed(chunks)
    scored = [finding for finding in outcome.findings if finding.score is not None]
    assert (result.record, result.model, result.fs, result.duration_s) == ("100", "stand-in", FS, 40.0)
    assert result.leads == ("I", "II", "V1")
    assert result.record_score == pytest.approx(np.mean([finding.score for finding in scored]))
    assert (result.threshold, result.window_threshold) == (-3.0, -3.0)
    assert result.anomalous is False
    assert [window.score for window in result.windows] == [finding.score for finding in scored]
    assert [window.anomalous for window in result.windows] == [finding.anomalous for finding in scored]
    for window, finding in zip(result.windows, scored, strict=True):
        assert window.start_s == pytest.approx(finding.window * 0.5)
        assert window.end_s == pytest.approx(finding.window * 0.5 + 2)
        assert window.lead_scores == finding.lead_scores
    assert len(scored) + sum(result.not_scored.values()) == len(outcome.findings) == 77
    assert set(result.not_scored) == {"gap"}
    anomaly, technical = (a for a in result.alarms if a.code in ("ECG_ANOMALY", "NOT_SCORED"))
    assert (anomaly.kind, anomaly.code, anomaly.priority) == ("physiological", "ECG_ANOMALY", "medium")
    assert (technical.kind, technical.code, technical.score) == ("technical", "NOT_SCORED", None)
    assert anomaly.alarm in {event.alarm for event in outcome.events}
    assert anomaly.onset_s == pytest.approx(10.0)
    assert anomaly.raised_s == pytest.approx(11.5)
    assert anomaly.end_s == pytest.approx(18.5)
    assert anomaly.score == outcome.events[0].score
    assert technical.onset_s == pytest.approx(22.0, abs=0.5)
    assert technical.raised_s == pytest.approx(technical.onset_s + 10.5, abs=0.01)
    assert technical.end_s == pytest.approx(36.0, abs=0.51)


def test_an_unusual_recording_is_called_so() -> None:
    x = ecg(10, FS)
    disturb(x, 0, len(x), fs=FS)
    result = analysed(feed(x, FS, every(0.5, FS, len(x))))
    assert result.anomalous is True
    # Not marked as the end of the feed: the alarm lasts.
    assert [alarm.end_s for alarm in result.alarms] == [None]


def test_times_count_from_the_first_sample_of_a_part() -> None:
    x = recording()
    part = feed(x, FS, every(0.5, FS, len(x)), last=True)[13:]
    result = analysed(part)
    assert result.duration_s == 33.5
    assert result.windows[0].start_s == pytest.approx(0.0, abs=0.5)
    assert result.alarms[0].onset_s == pytest.approx(3.5)
    assert result.alarms[0].raised_s == pytest.approx(5.0)


@pytest.mark.parametrize("seconds", [0.1, 1.99])
def test_a_recording_shorter_than_a_window_has_no_score(seconds: float) -> None:
    x = ecg(seconds, FS)
    result = analysed(feed(x, FS, [], last=True))
    assert (result.record_score, result.anomalous) == (None, None)
    assert (result.windows, result.alarms, result.not_scored) == ([], [], {})
    assert result.duration_s == pytest.approx(seconds, abs=0.003)


def test_a_recording_with_nothing_in_it_is_not_scored_and_says_why() -> None:
    x = np.full((round(30 * FS), 3), np.nan)
    result = analysed(feed(x, FS, every(0.5, FS, len(x)), last=True))
    assert (result.record_score, result.anomalous, result.windows) == (None, None, [])
    assert result.not_scored == {"gap": 57}
    (alarm,) = result.alarms
    assert (alarm.code, alarm.onset_s, alarm.end_s) == ("NOT_SCORED", 0.0, 30.0)


def test_no_chunks_are_an_error() -> None:
    with pytest.raises(ValueError, match="100: no samples"):
        analysed([])


def test_the_summary_survives_json() -> None:
    x = recording()
    result = analysed(feed(x, FS, every(0.5, FS, len(x))))
    assert Analysis.model_validate_json(result.model_dump_json()) == result


def test_offline_stamps_are_device_time() -> None:
    chunks = feed(ecg(3, FS), FS, every(0.5, FS, 1080))
    (first, *_) = run(chunks, session()).findings
    assert first.stamps == Stamps(
        ingest_ns=chunks[3].header.ingest_ns, dequeued_ns=chunks[3].header.ingest_ns, ready_ns=0
    )


def test_the_summary_says_what_is_shown_and_why_the_rest_is_not(tmp_path: Path) -> None:
    checks = {"lead_attention": checked(deletion=-0.1), "temporal_attention": checked()}
    attentive = open_session(attentive_bundle(tmp_path / "attentive", checks))
    x = recording(20)
    found = analyse(feed(x, FS, every(0.5, FS, len(x))), attentive, record="100")
    assert found.model_dump()["explanations"] == {
        "spread": {"shown": True, "why_not": None},
        "temporal_attention": {"shown": True, "why_not": None},
        "lead_attention": {"shown": False, "why_not": "no information (deletion test)"},
    }
    assert "\n  not shown: lead attention, no information (deletion test)\n" in described(found)
    # Of a model without all that, nothing; nor where no window was scored.
    for chunks, model in ((feed(x, FS, []), session()), (feed(x[:300], FS, []), attentive)):
        silent = analyse(chunks, model, record="100")
        assert silent.explanations == {}
        assert "not shown" not in described(silent)
