from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.backends import load_session
from models.bundle import load_bundle
from training.tolerance import measured_tolerance, rounded_up


@pytest.mark.parametrize(("value", "rounded"), [(0.01234, 0.013), (0.013, 0.013), (7.01, 7.1), (0.0, 0.0)])
def test_tolerances_are_rounded_up_to_two_digits(value: float, rounded: float) -> None:
    assert rounded_up(value) == rounded


def test_the_worst_error_counts_three_times() -> None:
    bundle = load_bundle("cae-100hz")
    golden = bundle.golden("fp32")
    off = {name: value.copy() for name, value in golden.outputs.items()}
    off["distance"][2] += 0.5
    scores = golden.scores - np.array([0.0, 0.0, 0.0, 0.1])
    session = load_session(bundle, "onnxruntime", "fp32")
    found = measured_tolerance(
        [session], replace(golden, outputs=off, scores=scores), bundle.manifest.score, "g.npz"
    )
    assert found.output_atol["distance"] == pytest.approx(1.5, rel=0.1)
    assert found.output_atol["recon_mean"] < 1e-3
    assert found.score_atol == pytest.approx(0.3, rel=0.1)
    assert found.file == "g.npz"
