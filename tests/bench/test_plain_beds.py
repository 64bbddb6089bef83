"""The baseline must do the same work, or the comparison says nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra torch")

from bench.plain_beds import Scored, ThesisBed, same_chain
from bench.plain_loop import Message, PlainBed
from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from models.architectures import VaeBilstmMhaConfig
from models.backends import open_session
from models.bundle import load_bundle
from models.manifest import ScoreSpec, WindowSpec
from models.networks.build import build
from stream.contract import AlarmEvent, Finding, SampleChunk, Vitals
from stream.offline import run

MODEL = "cae-100hz"


def patient() -> PatientSimulator:
    return PatientSimulator(3, "vt:180@8", duration_s=12.3)


def disturbed() -> list[SampleChunk]:
    # Noise in three leads until the windows are through it, then tachycardia, then noise in all of them.
    noise = np.random.default_rng(1).normal(0.0, 400.0, (14_000, 12)).astype(np.int16)
    noise[:1500] = noise[4000:10_000] = 0
    noise[1500:4000, 3:] = 0
    simulator = PatientSimulator(3, "sinus@0 vt:180@10 sinus@19", duration_s=28.0)
    return [
        replace(chunk, samples=chunk.samples + noise[chunk.header.n0 : chunk.end])
        for chunk in chunks_of(simulator, "b", "s")
    ]


def plainly(chunks: list[SampleChunk], *, watched: bool) -> list[Message]:
    bed: PlainBed | None = None
    told: list[Message] = []
    for chunk in chunks:
        header = json.loads(chunk.header.encode())
        bed = bed or PlainBed(same_chain(MODEL, watched=watched), header)
        told += bed.take(header, chunk.samples / np.asarray(header["gain"]), header["ingest_ns"])
    return told


def without_score(events: list[AlarmEvent]) -> dict[str, AlarmEvent]:
    # By name: blocks and windows of one chunk may come in either order.
    return {event.event: event.model_copy(update={"score": None}) for event in events}


def test_the_plain_loop_does_the_same_work() -> None:
    chunks = disturbed()
    expected = run(chunks, open_session(load_bundle(MODEL)))
    told = plainly(chunks, watched=True)
    assert [one for one in told if isinstance(one, Vitals)] == expected.vitals
    assert sum(len(one.beats) for one in expected.vitals) > 40
    findings = [one for one in told if isinstance(one, Finding)]
    assert len(findings) == len(expected.findings) == 41
    for found, wanted in zip(findings, expected.findings, strict=True):
        assert (found.window, found.start, found.end) == (wanted.window, wanted.start, wanted.end)
        assert (found.anomalous, found.reason, found.t_end) == (wanted.anomalous, wanted.reason, wanted.t_end)
        if wanted.score is not None:
            assert found.score == pytest.approx(wanted.score, rel=1e-4, abs=1e-4)
            assert found.percentile == pytest.approx(wanted.percentile, abs=0.01)
        assert found.lead_scores == pytest.approx(wanted.lead_scores, rel=1e-3, abs=1e-3)
    # Something was masked, and something could not be scored.
    assert {len(finding.lead_scores) for finding in findings} >= {0, 9, 12}
    events = [one for one in told if isinstance(one, AlarmEvent)]
    assert without_score(events) == without_score(expected.events)
    assert {"anomaly", "ventricular-tachycardia"} <= {event.rule for event in events}


def test_without_quality_and_beats_it_scores_all_leads_of_a_clean_signal_alike() -> None:
    chunks = list(chunks_of(patient(), "b", "s"))
    expected = run(chunks, open_session(load_bundle(MODEL)))
    told = [one for one in plainly(chunks, watched=False) if isinstance(one, Finding)]
    scores = [finding.score for finding in expected.findings]
    assert len(scores) == 9
    assert [finding.score for finding in told] == pytest.approx(scores, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("piece", [100, 60, 700])
def test_the_path_of_the_thesis_scores_every_second_once(piece: int) -> None:
    window = WindowSpec(fs=500.0, samples=500, hop=250)
    network = build(
        VaeBilstmMhaConfig(samples=500, patch=50, encoder=(4, 4), decoder=(4, 4), density=False)
    ).eval()
    nothing, one = (0.0,) * 12, (1.0,) * 12
    spec = ScoreSpec(
        kind="attention_elbo",
        lead_mean=(nothing,) * 12,
        lead_std=(one,) * 12,
        count_mean=nothing,
        count_std=one,
    )
    bed = ThesisBed(network, window, spec, 500.0)
    samples = patient().read(0, 2100) / 1000.0
    found: list[Scored] = []
    for at in range(0, len(samples), piece):
        assert not bed.push(samples[at : at + piece])
        found += bed.judge()
    assert [(scored.window, scored.start, scored.end) for scored in found] == [
        (number, number * 250, number * 250 + 500) for number in range(7)
    ]
    assert all(np.isfinite(scored.score) for scored in found)
