"""The baseline must do the same work, or the comparison says nothing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra torch")

from bench.plain_beds import Scored, ThesisBed, same_chain
from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from models.architectures import VaeBilstmMhaConfig
from models.backends import open_session
from models.bundle import load_bundle
from models.manifest import ScoreSpec, WindowSpec
from models.networks.build import build
from stream.contract import SampleChunk
from stream.offline import analyse

MODEL = "cae-100hz"


def patient() -> PatientSimulator:
    return PatientSimulator(3, "vt:180@8", duration_s=12.3)


def millivolts(chunk: SampleChunk) -> np.ndarray:
    return chunk.samples / np.asarray(chunk.header.gain)


def test_the_plain_loop_finds_the_same_windows_with_the_same_scores() -> None:
    expected: dict[int, tuple[int, int, float]] = {}
    analyse(
        chunks_of(patient(), "b", "s"),
        open_session(load_bundle(MODEL)),
        record="r",
        on_window=lambda pending, verdict, finding: expected.update(
            {finding.window: (finding.start, finding.end, finding.score)}
        ),
    )
    bed = same_chain(MODEL).open_bed(500.0)
    found = {
        scored.window: (scored.start, scored.end, scored.score)
        for chunk in chunks_of(patient(), "b", "s")
        for scored in bed.push(millivolts(chunk))
    }
    assert len(expected) == 9
    assert found.keys() == expected.keys()
    for window, (start, end, score) in expected.items():
        assert found[window] == (start, end, pytest.approx(score, rel=1e-4, abs=1e-4))


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
        found += bed.push(samples[at : at + piece])
    assert [(scored.window, scored.start, scored.end) for scored in found] == [
        (number, number * 250, number * 250 + 500) for number in range(7)
    ]
    assert all(np.isfinite(scored.score) for scored in found)
