"""The live page draws from an explanation what it knows, whatever else a model says."""

from __future__ import annotations

import numpy as np

from monitor.bed.trace import Grid, Overlay
from monitor.live.ward import Ward
from stream.contract import Explanation
from tests.monitor.messages import chunk, explanation


def with_more_arrays(plain: Explanation) -> Explanation:
    """Return the explanation as it comes from the wire of a model with spread, attention and more."""
    leads, samples = plain.arrays["reconstruction"].shape
    arrays = plain.arrays | {
        "spread": np.ones((leads, samples), np.float16),
        "temporal_attention": np.full(25, 0.04, np.float16),
        "lead_attention": np.full((leads, 25), 0.5, np.float16),
        "not_yet_invented": np.zeros((2, 3, 4), np.float16),
    }
    shapes = {name: array.shape for name, array in arrays.items()}
    header = plain.header.model_copy(update={"shapes": shapes})
    return Explanation.decode(Explanation(header, arrays).encode())


def test_more_arrays_change_nothing_in_what_is_drawn() -> None:
    plain = explanation(np.random.default_rng(0).normal(size=(2, 400)))
    drawn = []
    for one in (plain, with_more_arrays(plain)):
        overlay = Overlay(Grid(100.0, 10.0), ("I", "II"), 0)
        overlay.add(one, 0.0)
        drawn.append(overlay.read(0, 390))
    assert np.isfinite(drawn[0]).all()
    np.testing.assert_array_equal(*drawn)


def test_a_ward_keeps_them_as_others() -> None:
    ward = Ward()
    ward.take_chunk(chunk(0), 0)
    ward.take_explanation(with_more_arrays(explanation(np.zeros((2, 400)))))
    assert len(ward.beds["bed-1"].explanations) == 1
