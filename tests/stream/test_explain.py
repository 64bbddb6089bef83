"""Explanations: in millivolts, where the source had the signal, and silent where nothing counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.session import FloatArray
from stream.contract import Explanation, SampleChunk
from stream.engine import Engine, Pending
from stream.explain import explain
from stream.preprocess import Conditioner
from stream.verdict import judge
from tests.stream.synthetic import T0, Float64Array, StandIn, ecg, every, feed, small_manifest

FS = 500.0
MANIFEST = small_manifest()


class Perfect(StandIn):
    """Reconstructs everything as it is."""

    def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        return {"recon_mean": x.copy()}


def pendings(chunks: list[SampleChunk]) -> list[Pending]:
    engine = Engine(MANIFEST, "fp32")
    return [pending for chunk in chunks for pending in engine.accept(chunk, 0).windows]


def explained(x: Float64Array, model: StandIn, fs: float = FS, **kwargs: Any) -> list[Explanation]:
    chunks = feed(x, fs, every(0.5, fs, len(x)), **kwargs)
    windows = [pending for pending in pendings(chunks) if pending.window.reason is None]
    verdicts = judge(model, [pending.window for pending in windows])
    return [explain(MANIFEST, *pair) for pair in zip(windows, verdicts, strict=True)]


def test_what_the_model_expected_and_how_far_off_it_was_add_up_to_the_signal() -> None:
    x = ecg(8, FS)
    x[2000:2080, 1] = np.nan
    band_passed = Conditioner(MANIFEST.filter, FS, 100.0, 3).push(np.ascontiguousarray(x.T))
    found = explained(x, StandIn(MANIFEST))
    assert len(found) == 13
    for explanation in found:
        header, arrays = explanation.header, explanation.arrays
        assert header.leads == ("I", "II", "V1")
        assert header.shapes == {"reconstruction": (3, 200), "error": (3, 200)}
        at = slice(header.window * 50, header.window * 50 + 200)
        total = arrays["reconstruction"].astype(float) + arrays["error"].astype(float)
        absent = band_passed.missing[:, at] > 0
        np.testing.assert_array_equal(np.isnan(total), absent)
        # float16 resolves about a thousandth of a millivolt here.
        np.testing.assert_allclose(total[~absent], band_passed.values[:, at][~absent], atol=3e-3)
        assert not np.isnan(arrays["reconstruction"]).any()
        # The stand-in smooths, so there is something to see.
        assert np.nanmax(np.abs(arrays["error"])) > 0.01


def test_a_perfect_reconstruction_has_no_error() -> None:
    for explanation in explained(ecg(5, FS), Perfect(MANIFEST)):
        np.testing.assert_array_equal(explanation.arrays["error"], 0)


def test_leads_that_took_no_part_are_left_out() -> None:
    x = ecg(5, FS, 2)
    (first, *_) = explained(x, Perfect(MANIFEST), leads=("V1", "pleth"))
    assert first.header.leads == ("V1",)
    assert first.arrays["reconstruction"].shape == first.arrays["error"].shape == (1, 200)


@pytest.mark.parametrize("fs", [250.0, 360.0, 500.0, 1000.0])
def test_it_is_drawn_where_the_source_had_the_signal(fs: float) -> None:
    # One narrow peak at 4.3 s of the feed: it stands there in the reconstruction, too, filter or not.
    t = np.arange(round(8 * fs)) / fs
    x = np.repeat(2.0 * np.exp(-(((t - 4.3) / 0.02) ** 2))[:, np.newaxis], 3, axis=1)
    found = [
        e for e in explained(x, Perfect(MANIFEST), fs) if e.header.start / fs < 4 < 4.6 < e.header.end / fs
    ]
    assert len(found) >= 2
    for explanation in found:
        header, lead = explanation.header, explanation.arrays["reconstruction"][0].astype(float)
        peak = int(np.argmax(lead))
        near = np.clip(lead[peak - 3 : peak + 4], 0, None)
        centre = np.sum(near * np.arange(peak - 3, peak + 4)) / near.sum()
        at_s = (header.t_start - T0) / 1e9 + centre / header.fs
        # To half a point of the model's grid.
        assert at_s == pytest.approx(4.3, abs=0.005)


def test_it_names_its_window_and_travels() -> None:
    (first, *_) = explained(ecg(3, FS), StandIn(MANIFEST), bed="b7", session="q")
    header = first.header
    assert (header.bed, header.session, header.window) == ("b7", "q", 0)
    assert (header.start, header.end, header.fs) == (0, 1000, 100.0)
    back = Explanation.decode(first.encode())
    assert back.header == header
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
