"""The arrays of a recording: in millivolts, at the source's time, merged over windows as documented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.backends import open_session
from models.session import FloatArray, Session
from stream.contract import Finding, SampleChunk
from stream.engine import Pending
from stream.offline import Analysis, analyse
from stream.overlay import Overlay, TooLongError, Traces, save_arrays
from stream.verdict import Verdict
from tests.stream.attentive import INFORMATIVE, STEPS, attentive_bundle, checked
from tests.stream.synthetic import Float64Array, StandIn, ecg, every, feed, small_manifest

FS = 360.0


def overlaid(
    x: Float64Array, session: Session, chunks: list[SampleChunk] | None = None, leads: tuple[str, ...] = ()
) -> tuple[Analysis, Traces, list[tuple[Pending, Verdict | None, Finding]]]:
    leads = leads or ("I", "II", "V1")
    chunks = chunks or feed(x, FS, every(0.2, FS, len(x)), leads=leads, last=True)
    overlay = Overlay(session.manifest, leads, FS, len(x) / FS)
    seen: list[tuple[Pending, Verdict | None, Finding]] = []

    def on_window(pending: Pending, verdict: Verdict | None, finding: Finding) -> None:
        seen.append((pending, verdict, finding))
        overlay.add(pending, verdict, finding)

    analysis = analyse(overlay.heard(chunks), session, record="100", on_window=on_window)
    return analysis, overlay.traces(), seen


def recording(seconds: float = 20.0) -> Float64Array:
    x = ecg(seconds, FS)
    x[round(8 * FS) : round(8.1 * FS), 0] = np.nan
    x[round(12 * FS) : round(13 * FS), 1] = np.nan
    return x


def test_signal_is_what_the_windows_held_and_the_rest_is_the_mean_over_them() -> None:
    session = StandIn(small_manifest())
    _, traces, seen = overlaid(recording(), session)
    n, hop = len(traces.t_s), session.manifest.window.hop
    sums = np.zeros((4, 3, n))
    count = np.zeros((3, n))
    for pending, verdict, _ in seen:
        window = pending.window
        if verdict is None:
            continue
        for row in np.flatnonzero(window.mask):
            place = np.s_[row, window.index * hop : window.index * hop + 200]
            millivolts = window.x[row] * window.scale[row] + window.mean[row]
            expected = verdict.reconstruction[row] * window.scale[row] + window.mean[row]
            held = window.counted[row]
            at = traces.signal[place]
            assert np.isnan(at[~held]).all()
            np.testing.assert_allclose(at[held], millivolts[held], atol=1e-5)
            sums[0][place] += expected
            sums[1][place] += np.abs(millivolts - expected)
            sums[2][place] += (window.x[row] - verdict.reconstruction[row]) ** 2
            count[place] += 1
    assert count.max() == 4
    with np.errstate(invalid="ignore"):
        mean = sums / count
    np.testing.assert_allclose(traces.reconstruction, mean[0], atol=1e-5)
    valid = ~np.isnan(traces.signal)
    np.testing.assert_allclose(traces.absolute_error[valid], mean[1][valid], atol=1e-5)
    np.testing.assert_allclose(traces.squared_error[valid], mean[2][valid], atol=1e-4)
    assert np.isnan(traces.absolute_error[~valid]).all()


def test_the_signal_is_there_where_no_window_was_scored() -> None:
    x = recording(1.5)
    analysis, traces, _ = overlaid(x, StandIn(small_manifest()))
    assert analysis.windows == []
    assert np.isfinite(traces.signal).mean() > 0.99
    assert np.isnan(traces.reconstruction).all()


def test_r_peaks_are_where_the_source_has_them() -> None:
    # 10 beats at known places, on a rate that shares no grid with the model's.
    peaks = 0.7 + 0.93 * np.arange(20)
    t = np.arange(round(20 * FS)) / FS
    x = np.exp(-(((t[:, np.newaxis] - peaks) / 0.012) ** 2)).sum(axis=1)
    _, traces, _ = overlaid(np.stack([x] * 3, axis=1), StandIn(small_manifest()))
    for peak in peaks:
        near = np.abs(traces.t_s - peak) < 0.2
        at = traces.t_s[near][np.argmax(traces.signal[1, near])]
        assert at == pytest.approx(peak, abs=0.011)


def test_a_part_of_a_session_counts_from_its_own_first_sample() -> None:
    x = recording(12.0)
    chunks = feed(x, FS, every(0.5, FS, len(x)), last=True)
    _, whole, _ = overlaid(x, StandIn(small_manifest()), chunks)
    _, part, _ = overlaid(x, StandIn(small_manifest()), chunks[3:])
    assert part.t_s[0] == pytest.approx(whole.t_s[0], abs=0.01)
    # The filter has to settle first.
    late = whole.signal[1, -200:]
    np.testing.assert_allclose(part.signal[1, -200:], late, atol=0.02)


def test_leads_come_in_the_models_order_and_unknown_ones_not_at_all(tmp_path: Path) -> None:
    session = StandIn(small_manifest())
    x = recording(6.0)
    analysis, traces, _ = overlaid(x, session, leads=("V1", "ECG A", "I"))
    assert traces.leads == ("I", "V1")
    file = tmp_path / "arrays"
    save_arrays(file, traces, analysis, session.manifest)
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["leads"].tolist() == ["I", "II", "V1"]
        for name in ("signal_mv", "reconstruction_mv", "absolute_error_mv", "squared_error"):
            assert arrays[name].shape == (3, len(arrays["t_s"]))
            assert np.isnan(arrays[name][1]).all()
        np.testing.assert_array_equal(arrays["signal_mv"][[0, 2]], traces.signal)
        assert arrays["window_score"].tolist() == [window.score for window in analysis.windows]
        assert arrays["window_lead_scores"].shape == (len(analysis.windows), 3)
        assert float(arrays["fs"]) == 100.0
        assert float(arrays["source_fs"]) == FS
        assert str(arrays["record"]) == "100"


def test_no_known_lead_and_no_window_are_empty_arrays(tmp_path: Path) -> None:
    session = StandIn(small_manifest())
    analysis, traces, _ = overlaid(recording(6.0), session, leads=("a", "b", "c"))
    save_arrays(tmp_path / "x.npz", traces, analysis, session.manifest)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert arrays["window_lead_scores"].shape == (0, 3)
        assert np.isnan(arrays["signal_mv"]).all()
        assert np.isnan(arrays["record_score"])


# ---- spread and attention --------------------------------------------------------------------------------


def test_spread_and_attention_are_means_over_the_windows(tmp_path: Path) -> None:
    session = open_session(attentive_bundle(tmp_path / "attentive"))
    _, traces, seen = overlaid(recording(), session)
    n, hop = len(traces.t_s), session.manifest.window.hop
    spread, of_leads, in_time = np.zeros((3, n)), np.zeros((3, n)), np.zeros(n)
    count, moments = np.zeros((3, n)), np.zeros(n)
    for pending, verdict, _ in seen:
        if verdict is None:
            continue
        window = pending.window
        assert verdict.log_variance is not None
        assert verdict.lead_attention is not None
        assert verdict.temporal_attention is not None
        rows = np.flatnonzero(window.mask)
        for sample in range(200):
            at, step = window.index * hop + sample, sample // (200 // STEPS)
            spread[rows, at] += np.exp(verdict.log_variance[rows, sample] / 2) * window.scale[rows]
            of_leads[rows, at] += verdict.lead_attention[rows, step] * len(rows)
            in_time[at] += verdict.temporal_attention[step] * STEPS
            count[rows, at] += 1
            moments[at] += 1
    # A lead was off for a while: it has fewer windows than the moment.
    assert (count.min(axis=0) < moments).any()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(traces.spread, spread / count, rtol=1e-4)
        np.testing.assert_allclose(traces.lead_attention, of_leads / count, rtol=1e-4)
        np.testing.assert_allclose(traces.temporal_attention, in_time / moments, rtol=1e-4)
    assert np.nanmax(traces.temporal_attention) > 1.2


def test_an_even_attention_is_one_whatever_the_leads() -> None:
    class Even(StandIn):
        def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
            shares = mask / mask.sum(axis=1, keepdims=True)
            return super().run(x, mask) | {
                "temporal_attention": np.full((len(x), 25), 1 / 25, np.float32),
                "lead_attention": np.repeat(shares[:, :, np.newaxis], 25, axis=2),
            }

    session = Even(small_manifest().model_copy(update={"explanations": INFORMATIVE}))
    for leads in (("I", "II", "V1"), ("V1", "x", "I"), ("a", "II", "b")):
        _, traces, _ = overlaid(recording(), session, leads=leads)
        assert traces.lead_attention is not None
        assert traces.lead_attention.shape == traces.signal.shape
        assert traces.temporal_attention is not None
        for attention in (traces.lead_attention, traces.temporal_attention):
            np.testing.assert_allclose(attention[np.isfinite(attention)], 1.0, rtol=1e-5)
        assert traces.spread is None


def test_what_says_nothing_is_not_kept(tmp_path: Path) -> None:
    checks = {"temporal_attention": checked(), "lead_attention": checked(localisation=-0.1)}
    session = open_session(attentive_bundle(tmp_path / "attentive", checks))
    analysis, traces, _ = overlaid(recording(), session)
    assert traces.lead_attention is None
    save_arrays(tmp_path / "x.npz", traces, analysis, session.manifest)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert "lead_attention" not in arrays
        np.testing.assert_array_equal(arrays["temporal_attention"], traces.temporal_attention)


def test_arrays_have_a_row_for_each_lead_and_only_what_the_model_says(tmp_path: Path) -> None:
    session = open_session(attentive_bundle(tmp_path / "attentive"))
    analysis, traces, _ = overlaid(recording(6.0), session, leads=("V1", "ECG A", "I"))
    save_arrays(tmp_path / "x.npz", traces, analysis, session.manifest)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        n = len(arrays["t_s"])
        for name, rows in (("spread_mv", traces.spread), ("lead_attention", traces.lead_attention)):
            assert arrays[name].shape == (3, n)
            assert np.isnan(arrays[name][1]).all()
            np.testing.assert_array_equal(arrays[name][[0, 2]], rows)
        assert arrays["temporal_attention"].shape == (n,)
        names = set(arrays.files)
    analysis, traces, _ = overlaid(recording(6.0), StandIn(small_manifest()))
    save_arrays(tmp_path / "y.npz", traces, analysis, small_manifest())
    with np.load(tmp_path / "y.npz", allow_pickle=False) as arrays:
        assert names - set(arrays.files) == {"spread_mv", "lead_attention", "temporal_attention"}


def test_a_recording_that_does_not_fit_is_refused_before_it_is_read() -> None:
    manifest = small_manifest()
    with pytest.raises(TooLongError, match=r"200\.0 h of 3 leads: .* 55\.2 h at most"):
        Overlay(manifest, ("I", "II", "V1"), 250.0, 200 * 3600.0)
