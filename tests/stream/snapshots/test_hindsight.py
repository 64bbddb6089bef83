"""Making a snapshot: the samples as they were, the explanation as the analysis of the file has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.session import Session
from stream.alarms.state import DueSnapshot
from stream.contract import INVALID, SampleChunk, Validity
from stream.offline import analyse
from stream.overlay import Overlay, Traces
from stream.snapshots.hindsight import make_snapshot, reach_of, span_of
from stream.snapshots.store import VALIDITIES, Snapshot
from tests.stream.snapshots.test_store import raised
from tests.stream.synthetic import T0, StandIn, disturb, ecg, every, feed, small_manifest

FS = 250.0
MANIFEST = small_manifest()
# What no snapshot of 250 Hz may miss: windows of 2 s, and the filter's settling.
LEAD_IN = round(17 * FS)


def due(onset_s: float, raised_s: float) -> DueSnapshot:
    event = raised("abc").model_copy(
        update={
            "onset": round(onset_s * FS),
            "onset_t": T0 + round(onset_s * 1e9),
            "since": T0 + round(raised_s * 1e9),
        }
    )
    return DueSnapshot(raised=event)


def signal(seconds: float) -> np.ndarray:
    millivolts = ecg(seconds, FS)
    disturb(millivolts, round(40 * FS), round(46 * FS))
    return millivolts


def chunks(millivolts: np.ndarray, chunk_s: float = 0.2, **options: object) -> list[SampleChunk]:
    return feed(millivolts, FS, every(chunk_s, FS, len(millivolts)), **options)  # type: ignore[arg-type]


def make(one: DueSnapshot, sent: list[SampleChunk], session: object | None = None) -> Snapshot:
    return make_snapshot(one, sent, session or StandIn(MANIFEST), MANIFEST, 7)  # type: ignore[arg-type]


def analysed(sent: list[SampleChunk], until: int) -> tuple[Traces, dict[int, float]]:
    """Return what the analysis of a file that ends there says: arrays, and scores by the windows' starts."""
    cut = [c if c.end <= until else SampleChunk(c.header, c.samples[: until - c.header.n0]) for c in sent]
    cut = [chunk for chunk in cut if chunk.header.n0 < until]
    session: Session = StandIn(MANIFEST)  # type: ignore[assignment]
    overlay = Overlay(MANIFEST, cut[0].header.leads, FS, until / FS)
    analysis = analyse(overlay.heard(cut), session, record="file", on_window=overlay.add)
    return overlay.traces(), {round(w.start_s * FS): w.score for w in analysis.windows}


def assert_explained_as_in_a_file(snapshot: Snapshot, sent: list[SampleChunk]) -> None:
    header = snapshot.header
    traces, scores = analysed(sent, header.n0 + len(snapshot.arrays["samples"]))
    first = round((header.trace_t0 - T0) / 1e9 * 100.0 + MANIFEST.filter.delay_ms / 10)
    points = slice(first, first + snapshot.arrays["signal"].shape[1])
    assert points.stop == traces.signal.shape[1], "up to the last point that there is"
    pairs = {
        "signal": traces.signal, "reconstruction": traces.reconstruction, "error": traces.absolute_error,
    }  # fmt: skip
    for name, wanted in pairs.items():
        # In float16, of values of up to 4 mV.
        np.testing.assert_allclose(snapshot.arrays[name], wanted[:, points], rtol=1e-3, atol=1e-3)
    starts = snapshot.arrays["windows"][:, 0].tolist()
    assert len(starts) > 10
    got = dict(zip(starts, snapshot.arrays["window_score"].tolist(), strict=True))
    assert got == pytest.approx({start: scores[start] for start in starts}, rel=1e-5, abs=1e-5)


def test_it_holds_the_samples_and_what_an_analysis_says_of_them() -> None:
    sent = chunks(signal(70))
    one = due(40, 45)
    snapshot = make(one, sent)
    header, samples = snapshot.header, snapshot.arrays["samples"]
    assert (header.n0, len(samples)) == (round(30 * FS), round(25 * FS))
    assert (header.fs, header.leads, header.gain) == (FS, ("I", "II", "V1"), (1000.0,) * 3)
    assert (snapshot.onset_s, snapshot.raised_s) == (10.0, 15.0)
    assert header.remarks == ()
    assert header.threshold == MANIFEST.thresholds["fp32"].window
    whole = np.concatenate([chunk.samples for chunk in sent])
    np.testing.assert_array_equal(samples, whole[header.n0 : header.n0 + len(samples)])
    assert (snapshot.arrays["valid"] == VALIDITIES.index(Validity.OK)).all()
    assert_explained_as_in_a_file(snapshot, sent)
    quiet, loud = (snapshot.arrays["error"][:, at : at + 300].mean() for at in (400, 1100))
    assert loud > 3 * quiet


@settings(max_examples=6, deadline=None)
@given(st.sets(st.integers(1, 15_000), max_size=60))
def test_the_cutting_into_chunks_does_not_matter(cuts: set[int]) -> None:
    millivolts = signal(64)
    one = due(40, 45)
    usual = make(one, chunks(millivolts))
    other = make(one, feed(millivolts, FS, cuts))
    for name in usual.arrays:
        if name not in ("chunks", "valid"):
            np.testing.assert_array_equal(usual.arrays[name], other.arrays[name])
    assert usual.header.model_copy(update={"arrays": {}}) == other.header.model_copy(update={"arrays": {}})
    # Nothing outside of its reach counts.
    first, stop = reach_of(one.raised, FS, MANIFEST)
    there = [chunk for chunk in feed(millivolts, FS, cuts) if chunk.end > first and chunk.header.n0 < stop]
    assert make(one, there).encode() == other.encode()


def test_repeats_and_what_runs_back_change_nothing() -> None:
    sent = chunks(signal(60))
    twice = [chunk for pair in zip(sent, sent, strict=True) for chunk in pair]
    assert make(due(40, 45), [*twice[:200], *sent[90:]]).encode() == make(due(40, 45), sent).encode()


def test_gaps_stay_gaps_and_are_explained_as_in_a_file() -> None:
    millivolts = signal(60)
    millivolts[round(36 * FS) : round(36.5 * FS), 1] = np.nan
    sent = chunks(millivolts)
    holed = [*sent[:160], *sent[163:210], *sent[215:]]
    snapshot = make(due(40, 45), holed)
    samples = snapshot.arrays["samples"]
    gaps = [(sent[160].header.n0, sent[163].header.n0), (sent[210].header.n0, sent[215].header.n0)]
    n0 = snapshot.header.n0
    assert list(snapshot.gaps()) == [(start - n0, stop - n0) for start, stop in gaps]
    filled = np.concatenate([chunk.samples for chunk in sent])[n0 : n0 + len(samples)].copy()
    for start, stop in snapshot.gaps():
        filled[start:stop] = INVALID
    np.testing.assert_array_equal(samples, filled)
    # To an analysis a hole and samples that are invalid are the same.
    blank = [
        chunk if chunk in holed else SampleChunk(chunk.header, np.full_like(chunk.samples, INVALID))
        for chunk in sent
    ]
    assert_explained_as_in_a_file(snapshot, blank)


def test_what_the_source_said_of_its_leads_is_kept() -> None:
    sent = chunks(signal(60))
    off = (Validity.OK, Validity.OFF, Validity.QUESTIONABLE)
    sent[200] = replace(sent[200], header=sent[200].header.model_copy(update={"valid": off}))
    snapshot = make(due(40, 45), sent)
    said = {
        int(start): [VALIDITIES[code] for code in codes]
        for (start, _), codes in zip(snapshot.arrays["chunks"], snapshot.arrays["valid"], strict=True)
    }
    assert said.pop(sent[200].header.n0) == list(off)
    assert {tuple(flags) for flags in said.values()} == {(Validity.OK,) * 3}


def test_another_gain_is_brought_to_the_first() -> None:
    sent = chunks(signal(60))
    usual = make(due(40, 45), sent)
    half = [
        SampleChunk(
            chunk.header.model_copy(update={"gain": (500.0,) * 3}), (chunk.samples // 2).astype(np.int16)
        )
        for chunk in sent[200:]
    ]
    snapshot = make(due(40, 45), [*sent[:200], *half])
    assert snapshot.header.remarks == ("the source changed its gain: all samples are given in its first one",)
    assert np.abs(snapshot.arrays["samples"].astype(int) - usual.arrays["samples"]).max() <= 1


def test_a_long_one_is_cut_at_its_beginning_and_says_so() -> None:
    one = due(40, 110)
    assert span_of(one.raised, FS) == (60 * FS, 120 * FS, 30 * FS)
    snapshot = make(one, chunks(ecg(130, FS), 0.5))
    assert snapshot.seconds == 60.0
    assert snapshot.header.remarks == ("cut: 30.0 s at the beginning are left out, 60 s are kept",)


def test_an_alarm_of_the_first_seconds_begins_with_the_feed() -> None:
    sent = chunks(ecg(30, FS))
    snapshot = make(due(4, 8), sent)
    assert (snapshot.header.n0, snapshot.seconds, snapshot.header.remarks) == (0, 18.0, ())
    assert_explained_as_in_a_file(snapshot, sent)


@pytest.mark.parametrize(("last", "why"), [(True, "the feed ended"), (False, "no more came in time")])
def test_a_feed_that_ends_gives_what_there_is(last: bool, why: str) -> None:
    snapshot = make(due(40, 45), chunks(signal(48), last=last))
    assert snapshot.seconds == 18.0
    assert snapshot.header.remarks == (f"the last 7.0 s are missing: {why}",)


def test_samples_that_are_gone_are_said_to_be() -> None:
    sent = chunks(signal(60))
    late = make(due(40, 45), [chunk for chunk in sent if chunk.header.n0 >= 32 * FS])
    assert late.header.n0 == 32 * FS
    assert late.header.remarks == (
        "the first 2.0 s are missing: the stream holds them no more",
        "the filter had not settled in the first 15.0 s: what came before is gone",
    )
    nothing = make(due(40, 45), sent[:100])
    assert nothing.header.remarks == ("no samples: the stream holds this part of the feed no more",)
    assert (nothing.seconds, nothing.header.leads) == (0.0, ())
    assert make(due(40, 45), []).encode() == nothing.encode()


def test_without_the_model_there_are_the_samples() -> None:
    sent = chunks(signal(60))
    whole = make(due(40, 45), sent)
    bare = make_snapshot(due(40, 45), sent, None, MANIFEST, 7)
    np.testing.assert_array_equal(bare.arrays["samples"], whole.arrays["samples"])
    assert bare.arrays["reconstruction"].shape == (3, 0)
    assert bare.header.remarks == ("not explained: the model could not be run",)
    assert bare.header.trace_leads == ("I", "II", "V1")


def test_the_patients_own_threshold_is_the_one_that_counts() -> None:
    own = due(40, 45).model_copy(update={"threshold": 4.5, "admitted_t": 3})
    snapshot = make(own, chunks(signal(60)))
    assert (snapshot.header.threshold, snapshot.header.admitted_t) == (4.5, 3)


def test_leads_that_the_model_does_not_know_are_kept_and_not_explained() -> None:
    sent = chunks(signal(60), leads=("V1", "ART", "II"))
    snapshot = make(due(40, 45), sent)
    assert snapshot.header.leads == ("V1", "ART", "II")
    assert snapshot.header.trace_leads == ("II", "V1")
    unknown = make(due(40, 45), chunks(signal(60), leads=("a", "b", "c")))
    assert unknown.header.trace_leads == ()
    assert unknown.arrays["signal"].shape[0] == 0
    assert unknown.arrays["samples"].shape[1] == 3
