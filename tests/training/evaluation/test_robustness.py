from __future__ import annotations

import numpy as np
import pytest

from stream.leads import LEADS
from tests.training.conftest import made_up_signal
from tests.training.evaluation.conftest import stand_in
from training.evaluation.robustness import LEAD_SETS, at_rate, changes, with_leads, with_noise
from training.recordings import Signal

MANIFEST = stand_in().manifest


def test_leads_are_taken_away_in_the_model_s_order() -> None:
    signal = made_up_signal(0)
    found = with_leads(signal, ("II", "V1"))
    assert found is not None
    assert found.leads == ("II", "V1")
    np.testing.assert_array_equal(found.millivolts, signal.millivolts[:, [1, 6]])


def test_leads_that_a_recording_lacks_cannot_be_asked_for() -> None:
    signal = made_up_signal(0)
    few = Signal(signal.fs, ("II", "V1"), signal.millivolts[:, :2])
    assert with_leads(few, ("I", "II")) is None
    # A recording of a pack has all columns; those of leads that it lacks are empty.
    packed = Signal(signal.fs, LEADS, np.where(np.arange(12) < 2, signal.millivolts, np.nan))
    assert with_leads(packed, ("I", "II")) is not None
    assert with_leads(packed, ("II", "V1")) is None


@pytest.mark.parametrize("snr_db", [24, 0])
def test_noise_has_the_power_that_its_ratio_says(snr_db: float) -> None:
    # A pure tone in the middle of the pass band: the filter leaves its variance as it is.
    t = np.arange(10_000) / 500
    tone = np.outer(np.sin(2 * np.pi * 8 * t), np.array([1.0, 0.2]))
    offset = tone + np.array([3.0, -40.0])
    noisy = with_noise(Signal(500.0, ("II", "V1"), offset), snr_db, MANIFEST)
    noise = noisy.millivolts - offset
    ratio = 10 * np.log10(tone.var(axis=0) / noise.var(axis=0))
    np.testing.assert_allclose(ratio, snr_db, atol=0.3)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.3


def test_noise_is_a_third_each_white_muscle_and_wander() -> None:
    signal = made_up_signal(0, seconds=60.0)
    noise = with_noise(signal, 0, MANIFEST).millivolts - signal.millivolts
    power = (np.abs(np.fft.rfft(noise, axis=0)) ** 2).sum(axis=1)
    hz = np.fft.rfftfreq(len(noise), 1 / signal.fs)

    def share(low: float, high: float) -> float:
        return float(power[(hz >= low) & (hz < high)].sum() / power.sum())

    # Of the white third, 19.5 of 150 Hz lie between wander and muscle.
    assert share(0.03, 0.55) == pytest.approx(1 / 3, abs=0.02)
    assert share(0.55, 19.0) == pytest.approx(18.5 / 150 / 3, abs=0.02)
    # Bursts smear the edges of the band a little.
    assert share(152.0, 250.0) < 1e-4


def test_the_same_recording_gets_the_same_noise_scaled() -> None:
    signal = made_up_signal(1)
    loud, again, quiet = (
        with_noise(signal, snr, MANIFEST).millivolts - signal.millivolts for snr in (0, 0, 20)
    )
    np.testing.assert_array_equal(loud, again)
    np.testing.assert_allclose(quiet, loud / 10, atol=1e-12)
    other = with_noise(made_up_signal(2), 0, MANIFEST).millivolts - made_up_signal(2).millivolts
    assert abs(np.corrcoef(loud[:, 0], other[:, 0])[0, 1]) < 0.5


def test_noise_leaves_missing_samples_missing_and_flat_leads_flat() -> None:
    millivolts = made_up_signal(3).millivolts
    millivolts[1000:1500, 0] = np.nan
    millivolts[:, 1] = 1.0
    noisy = with_noise(Signal(500.0, LEADS, millivolts), 6, MANIFEST).millivolts
    np.testing.assert_array_equal(np.isnan(noisy), np.isnan(millivolts))
    np.testing.assert_allclose(noisy[:, 1], 1.0, atol=1e-6)


@pytest.mark.parametrize("fs", [250.0, 360.0])
def test_another_rate_samples_the_same_signal(fs: float) -> None:
    def wave(at: float) -> np.ndarray:
        t = np.arange(round(10 * at)) / at
        return np.stack([np.sin(2 * np.pi * 7 * t) + 0.3 * np.cos(2 * np.pi * 31 * t) - 5], axis=1)

    found = at_rate(Signal(500.0, ("II",), wave(500.0)), fs)
    assert found.fs == fs
    assert len(found.millivolts) == round(10 * fs)
    error = np.abs(found.millivolts - wave(fs))
    assert error[round(0.2 * fs) : -round(0.2 * fs)].max() < 0.01
    # An electrode's offset makes no step at the ends.
    assert error.max() < 0.3


def test_missing_samples_stay_missing_at_another_rate() -> None:
    millivolts = made_up_signal(4).millivolts[:, :2]
    millivolts[:100, 0] = np.nan
    millivolts[2000:3000, 1] = np.nan
    found = at_rate(Signal(500.0, ("I", "II"), millivolts), 250.0).millivolts
    missing = np.isnan(found)
    assert (missing[:50, 0].all(), missing[50:, 0].any()) == (True, False)
    assert (missing[1000:1500, 1].all(), missing[:999, 1].any(), missing[1501:, 1].any()) == (
        True,
        False,
        False,
    )


def test_a_recording_at_the_rate_already_is_left_as_it_is() -> None:
    signal = Signal(360.0, ("II",), np.zeros((3600, 1)))
    assert at_rate(signal, 360.0) is signal


def test_every_change_can_be_made_to_a_recording_of_twelve_leads() -> None:
    names = [change.name for change in changes(MANIFEST)]
    assert names == [
        *LEAD_SETS,
        "noise 24 dB",
        "noise 12 dB",
        "noise 6 dB",
        "noise 0 dB",
        "250 Hz",
        "360 Hz",
    ]
    assert all(change.apply(made_up_signal(5)) is not None for change in changes(MANIFEST))
