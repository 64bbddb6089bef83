"""The arrays of a recording: in millivolts, at the source's time, merged over windows as documented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.session import Session
from stream.contract import Finding, SampleChunk
from stream.engine import Pending
from stream.offline import Analysis, analyse
from stream.overlay import Overlay, TooLongError, Traces, save_arrays
from stream.verdict import Verdict
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


def test_a_recording_that_does_not_fit_is_refused_before_it_is_read() -> None:
    manifest = small_manifest()
    with pytest.raises(TooLongError, match=r"200\.0 h of 3 leads: .* 55\.2 h at most"):
        Overlay(manifest, ("I", "II", "V1"), 250.0, 200 * 3600.0)
