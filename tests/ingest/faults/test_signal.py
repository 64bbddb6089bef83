"""Faults of the signal: what they do, to which samples, and to no others."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from ingest.faults.noise import BANDS_HZ, ecg_deviation, endless_noise
from ingest.faults.script import parse_script
from ingest.faults.signal import FaultyRecording
from ingest.simulator import PatientSimulator
from ingest.source import ArrayRecording, Recording
from stream.contract import INVALID, Validity

FS = 250.0
LEADS = ("I", "II", "V1")


@pytest.fixture(scope="module")
def clean() -> ArrayRecording:
    patient = PatientSimulator(1, fs=FS, duration_s=60.0)
    columns = [patient.leads.index(lead) for lead in LEADS]
    samples = patient.read(0, 15_000)[:, columns]
    return ArrayRecording(samples, name="r", fs=FS, leads=LEADS, gain=[patient.gain[c] for c in columns])


def faulty(clean: Recording, faults: str, *, seed: int = 0, start_s: float = 0.0) -> Recording:
    script = parse_script(f"faults: [{faults}]".encode())
    return FaultyRecording(clean, script.of("b"), seed=seed, bed="b", start_s=start_s)


def whole(recording: Recording) -> Any:
    return recording.read(0, 15_000)


@pytest.mark.parametrize("start_s", [0.0, 4.0])
@pytest.mark.parametrize(
    "fault",
    [
        "{fault: lead-off, leads: [V1], at: 10, for: 5}",
        "{fault: saturation, leads: [V1], at: 10, for: 5, millivolts: -4}",
        "{fault: noise, snr_db: 0, leads: [V1], at: 10, for: 5}",
        "{fault: gap, at: 10, for: 5}",
    ],
)
def test_nothing_else_is_touched(clean: ArrayRecording, fault: str, start_s: float) -> None:
    before, after = whole(clean), whole(faulty(clean, fault, start_s=start_s))
    columns = [0, 1, 2] if "gap" in fault else [2]
    a, b = round((10 + start_s) * FS), round((15 + start_s) * FS)
    changed = before != after
    assert changed[a:b, columns].mean() > 0.9
    changed[a:b, columns] = False
    assert not changed.any()
    part = after[a:b, columns]
    if "lead-off" in fault or "gap" in fault:
        assert (part == INVALID).all()
    if "saturation" in fault:
        assert (part == round(-4 * clean.gain[2])).all()


def test_a_lead_that_is_off_says_so(clean: ArrayRecording) -> None:
    recording = faulty(clean, "{fault: lead-off, leads: [II], at: 10, for: 5}")
    assert recording.flags(2500, 2550, recording.read(2500, 2550)) == ("ok", Validity.OFF, "ok")
    assert recording.flags(2450, 2500, recording.read(2450, 2500)) == ("ok", "ok", "ok")


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 15_000), max_size=8), seed=st.integers(0, 3))
def test_a_sample_is_the_same_however_it_is_read(clean: ArrayRecording, cuts: list[int], seed: int) -> None:
    recording = faulty(
        clean,
        "{fault: noise, kind: wander, snr_db: 3, at: 3.3},"
        "{fault: saturation, at: 1, for: 0.7, every: 2.9, probability: 0.5},"
        "{fault: lead-off, leads: [I], at: 20, for: 3, every: 7, probability: 0.5}",
        seed=seed,
    )
    at = [0, *sorted(cuts), 15_000]
    pieces = [recording.read(a, b) for a, b in itertools.pairwise(at)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole(recording))


def test_another_seed_is_another_noise(clean: ArrayRecording) -> None:
    noise = "{fault: noise, snr_db: 0}"
    assert (whole(faulty(clean, noise)) == whole(faulty(clean, noise))).all()
    assert (whole(faulty(clean, noise)) != whole(faulty(clean, noise, seed=1))).mean() > 0.9


@pytest.mark.parametrize("kind", ["white", "muscle", "wander"])
@pytest.mark.parametrize("snr_db", [-6.0, 12.0])
def test_noise_has_the_power_and_the_band_that_were_asked_for(
    clean: ArrayRecording, kind: str, snr_db: float
) -> None:
    added = whole(faulty(clean, f"{{fault: noise, kind: {kind}, snr_db: {snr_db}}}")) - whole(clean).astype(
        float
    )
    ecg = ecg_deviation(whole(clean)[:2500].astype(float), FS)
    measured_db = 20 * np.log10(ecg / added.std(axis=0))
    # A minute holds 27 periods of wander.
    assert measured_db == pytest.approx(snr_db, abs=2.0 if kind == "wander" else 0.3)
    hz, power = welch(added, FS, nperseg=5000, axis=0, detrend=False)
    low, high = BANDS_HZ[kind]
    inside = (hz >= low - 0.1) & (hz <= high + 0.1)
    assert power[inside].sum() / power.sum() > 0.97
    # Independent in each lead.
    assert np.abs(np.corrcoef(added.T) - np.eye(3)).max() < (0.4 if kind == "wander" else 0.05)


def test_endless_noise_neither_jumps_nor_swells() -> None:
    noise = endless_noise(0, 300 * 250, 4, 250.0, BANDS_HZ["wander"], key=1)
    # At most 0.5 Hz: no step between two samples is more than a few of its largest slopes.
    assert np.abs(np.diff(noise, axis=0)).max() < 0.05
    seconds = noise.reshape(10, -1, 4).std(axis=1)
    assert seconds.min() > 0.6
    assert seconds.max() < 1.4
