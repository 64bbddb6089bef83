"""The simulated patient: plausible to a cardiologist, the same for a seed, and cheap."""

from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.simulator import PatientSimulator
from ingest.source import IngestError
from stream.contract import INVALID
from stream.leads import LEADS

FS = 500
SEEDS = range(40)

Beat = npt.NDArray[np.float64]


def average_beat(seed: int, timeline: str = "", seconds: float = 30.0) -> Beat:
    """Return the median beat in mV, 300 ms before to 600 ms after the R peak, on the PQ level."""
    patient = PatientSimulator(seed, timeline)
    samples = patient.read(0, round((seconds + 2) * FS)) / 1000
    at = [round(beat * FS) for beat in patient.beat_times(seconds) if beat > 1]
    beats = np.array([samples[beat - 150 : beat + 300] for beat in at])
    beats -= np.median(beats[:, 114:124], axis=1, keepdims=True)
    median: Beat = np.median(beats, axis=0)
    return median


def lead(beat: Beat, name: str) -> Beat:
    return beat[:, LEADS.index(name)]


@pytest.fixture(scope="module")
def beats() -> list[Beat]:
    return [average_beat(seed) for seed in SEEDS]


QRS, P, T = slice(125, 180), slice(50, 112), slice(200, 300)


def test_limb_leads_obey_einthoven_and_goldberger() -> None:
    samples = PatientSimulator(5).read(0, 2000).astype(float)
    i, ii, iii, avr, avl, avf = samples[:, :6].T
    for difference in (ii - i - iii, avr + (i + ii) / 2, avl - i + ii / 2, avf - ii + i / 2):
        assert np.abs(difference).max() <= 1.5


def test_r_waves_grow_and_s_waves_shrink_across_the_chest(beats: list[Beat]) -> None:
    for beat in beats:
        r = [lead(beat, f"V{k}")[QRS].max() for k in range(1, 7)]
        s = [lead(beat, f"V{k}")[QRS].min() for k in range(1, 7)]
        assert r[0] < r[1] < r[2] < r[3]
        assert r[4] > 3 * r[0]
        assert s[1] < s[3] < s[5]
        # V1 is mostly negative, V5 and V6 mostly positive.
        assert -s[0] > r[0]
        assert r[4] > -s[4]
        assert r[5] > -s[5]


def test_avr_is_negative_throughout(beats: list[Beat]) -> None:
    for beat in beats:
        avr = lead(beat, "aVR")
        assert avr[P].mean() < 0
        assert avr[QRS].min() < -2.5 * avr[QRS].max()
        assert avr[T].mean() < 0


def test_amplitudes_are_those_of_healthy_adults(beats: list[Beat]) -> None:
    ranges = {"I": (0.1, 1.3), "II": (0.2, 1.8), "V1": (0.05, 0.5), "V5": (0.6, 2.4), "V6": (0.4, 1.9)}
    for beat in beats:
        for name, (low, high) in ranges.items():
            assert low < lead(beat, name)[QRS].max() < high, name
        assert 0.04 < lead(beat, "II")[P].max() < 0.25
        assert 0.05 < lead(beat, "II")[T].max() < 0.6
        assert 0.15 < lead(beat, "V3")[T].max() < 1.2


def extent_ms(curve: Beat, share: float) -> float:
    above = np.flatnonzero(np.abs(curve) > share * np.abs(curve).max())
    return float(above[-1] - above[0]) * 1000 / FS


def test_the_qrs_complex_lasts_about_90_ms_at_any_rate() -> None:
    for seed in range(6):
        for rate in (50, 75, 140):
            beat = average_beat(seed, f"sinus:{rate}@0")
            energy = np.sqrt(np.square(np.diff(beat[115:195], axis=0)).sum(axis=1))
            # By the same measure, half of the normal records of PTB-XL lie between 80 and 90 ms.
            assert 68 <= extent_ms(energy, 0.05) <= 105


@pytest.mark.parametrize(("rate", "qt_ms"), [(50, 418), (67, 380), (90, 344), (110, 322)])
def test_qt_follows_the_rate_by_fridericia(rate: int, qt_ms: float) -> None:
    measured = []
    for seed in range(8):
        beat = lead(average_beat(seed, f"sinus:{rate}@0"), "V5")
        t_wave = beat[190:]
        peak = int(np.argmax(t_wave[:130]))
        # The end of the T wave by its tangent's usual stand-in: a tenth of its height.
        end = peak + int(np.argmax(t_wave[peak:] < 0.1 * t_wave[peak]))
        measured.append((190 + end - 131) * 1000 / FS)
    assert np.median(measured) == pytest.approx(qt_ms, rel=0.08)


def test_beds_differ() -> None:
    beats = [average_beat(seed)[QRS] for seed in range(8)]
    for number, one in enumerate(beats):
        for other in beats[:number]:
            assert np.sqrt(np.mean(np.square(one - other))) > 0.02
    rates = [PatientSimulator(seed).resting_rate for seed in SEEDS]
    assert 56 <= min(rates) < 62
    assert 78 < max(rates) <= 90


def rr(timeline: str, seed: int = 1, seconds: float = 120.0) -> npt.NDArray[np.float64]:
    return np.diff(PatientSimulator(seed, timeline).beat_times(seconds))


@pytest.mark.parametrize("rate", [40, 72, 110, 180])
def test_sinus_rhythm_has_its_rate_and_varies_as_a_heart_does(rate: int) -> None:
    intervals = rr(f"sinus:{rate}@0")
    assert intervals.mean() == pytest.approx(60 / rate, rel=0.03)
    assert 0.008 < intervals.std() / intervals.mean() < 0.06


def test_atrial_fibrillation_is_irregular_and_without_p_waves() -> None:
    intervals = rr("af:100@0")
    assert intervals.mean() == pytest.approx(0.6, rel=0.08)
    assert intervals.std() / intervals.mean() > 0.15
    # No interval says anything about the next.
    assert abs(np.corrcoef(intervals[:-1], intervals[1:])[0, 1]) < 0.25
    sinus, fibrillating = average_beat(1, "sinus:90@0"), average_beat(1, "af:90@0", 60.0)
    assert np.ptp(lead(fibrillating, "II")[60:110]) < 0.5 * np.ptp(lead(sinus, "II")[60:110])


def test_ventricular_tachycardia_is_fast_regular_and_wide() -> None:
    intervals = rr("vt:180@0")
    assert intervals.mean() == pytest.approx(1 / 3, rel=0.02)
    assert intervals.std() / intervals.mean() < 0.03
    for seed in range(4):
        premature = np.abs(average_beat(seed, "vt:100@0")[100:200]).sum(axis=1)
        normal = np.abs(average_beat(seed, "sinus:100@0")[115:200]).sum(axis=1)
        assert extent_ms(premature, 0.3) > 2 * extent_ms(normal, 0.3)


def test_premature_beats_are_early_and_followed_by_a_pause() -> None:
    intervals = rr("sinus:60@0 pvc:6@0", seconds=600.0)
    early = np.flatnonzero(intervals < 0.75)
    assert 30 < len(early) < 100
    pairs = intervals[early[early < len(intervals) - 1]] + intervals[early[early < len(intervals) - 1] + 1]
    np.testing.assert_allclose(pairs, 2.0, rtol=0.1)


def test_asystole_has_no_beats_and_nearly_no_signal() -> None:
    patient = PatientSimulator(2, "sinus:70@0 asystole@10 sinus:70@20")
    times = np.array(patient.beat_times(40))
    assert not ((times > 10.3) & (times < 20)).any()
    assert (times > 20).sum() > 20
    samples = patient.read(round(11.5 * FS), round(19.5 * FS)) / 1000
    assert np.abs(np.diff(samples, axis=0)).max() < 0.06
    assert np.ptp(samples, axis=0).max() < 0.8


def test_ventricular_fibrillation_is_chaotic_at_its_rate_and_amplitude() -> None:
    patient = PatientSimulator(2, "vf:0.5@0")
    assert not patient.beat_times(60)
    samples = patient.read(FS, 21 * FS) / 1000
    spectrum = np.abs(np.fft.rfft(samples - samples.mean(axis=0), axis=0)) ** 2
    power = spectrum.sum(axis=1)
    hz = np.fft.rfftfreq(len(samples), 1 / FS)
    assert power[(hz > 2.5) & (hz < 9)].sum() > 0.8 * power[hz > 0.6].sum()
    assert 0.2 < samples.std(axis=0).max() < 1.5


@pytest.mark.parametrize(
    ("where", "name", "reciprocal"),
    [("anterior", "V3", None), ("inferior", "II", "aVL"), ("lateral", "V6", None)],
)
def test_st_elevation_reaches_its_value_in_its_territory(
    where: str, name: str, reciprocal: str | None
) -> None:
    normal, elevated = average_beat(3, "sinus:60@0"), average_beat(3, f"sinus:60@0 st:0.3:{where}@0")
    difference = elevated - normal
    assert 0.15 < lead(difference, name)[195:230].mean() < 0.4
    assert np.abs(lead(difference, name)[:150]).max() < 0.05
    if reciprocal is not None:
        assert lead(difference, reciprocal)[195:230].mean() < -0.05


def test_a_lead_that_is_off_has_no_valid_sample_for_just_that_time() -> None:
    samples = PatientSimulator(1, "leadoff:V1,II@2+3").read(0, 10 * FS)
    off = samples == INVALID
    for name in LEADS:
        expected = np.zeros(10 * FS, bool)
        expected[2 * FS : 5 * FS] = name in ("V1", "II")
        np.testing.assert_array_equal(off[:, LEADS.index(name)], expected)


def test_motion_disturbs_only_while_it_lasts() -> None:
    quiet = PatientSimulator(1, "sinus:70@0").read(0, 20 * FS).astype(float)
    moving = PatientSimulator(1, "sinus:70@0 motion:1@8+4").read(0, 20 * FS).astype(float)
    difference = np.abs(moving - quiet).max(axis=1)
    assert difference[: 8 * FS].max() <= 1
    assert difference[8 * FS : 12 * FS].max() > 500
    assert difference[13 * FS :].max() <= 1


def test_a_change_of_rhythm_leaves_no_double_beat() -> None:
    for seed in range(20):
        times = PatientSimulator(
            seed, "sinus:72@0 vt:180@7.3 af@15 sinus:60@22 asystole@30 vt@35"
        ).beat_times(45)
        assert min(b - a for a, b in pairwise(times)) > 0.2


TIMELINE = "sinus:72@0 pvc:12@3 af@20 vt@30 leadoff:V2@12+3 motion@16+5"


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 9000), min_size=1, max_size=6))
def test_samples_do_not_depend_on_how_they_are_read(cuts: list[int]) -> None:
    patient, other = PatientSimulator(11, TIMELINE), PatientSimulator(11, TIMELINE)
    ends = [0, *(int(end) for end in np.cumsum(cuts))]
    pieces = [patient.read(a, b) for a, b in pairwise(ends)]
    np.testing.assert_array_equal(np.concatenate(pieces), other.read(0, ends[-1]))


def test_reading_far_back_gives_the_same_again() -> None:
    patient = PatientSimulator(11, TIMELINE)
    first = patient.read(1000, 3000).copy()
    patient.read(20_000, 30_000)
    np.testing.assert_array_equal(patient.read(1000, 3000), first)


def test_the_seed_decides() -> None:
    one, same, other = (PatientSimulator(seed).read(0, 1000) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_leads_rate_and_duration_can_be_chosen() -> None:
    patient = PatientSimulator(1, duration_s=3.0, leads=["V5", "II"], fs=250.0, name="bed-7")
    assert (patient.leads, patient.fs, patient.n_samples, patient.name) == (("V5", "II"), 250.0, 750, "bed-7")
    assert patient.read(0, 10_000).shape == (750, 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"leads": ["V7"]}, "no such lead: V7"),
        ({"fs": 50.0}, "100 to 2000 Hz"),
        ({"timeline": "x@0"}, "no such kind"),
    ],
)
def test_what_cannot_be_simulated_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(IngestError, match=says):
        PatientSimulator(1, **options)  # type: ignore[arg-type]


def test_memory_does_not_grow() -> None:
    patient = PatientSimulator(1, "af@0")
    patient.read(0, 100 * FS)
    tracemalloc.start()
    try:
        for k in range(100, 700, 10):
            patient.read(k * FS, (k + 10) * FS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000


def test_64_beds_cost_less_than_a_tenth_of_a_core() -> None:
    patient = PatientSimulator(1, "sinus:80@0 pvc@0")
    patient.read(0, 10 * FS)
    cost = []
    for k in range(10, 50, 10):
        began = time.process_time()
        patient.read(k * FS, (k + 10) * FS)
        cost.append((time.process_time() - began) / 10)
    # Measured 0.6 ms a second and bed; the least of four, for the machine may be busy.
    assert min(cost) * 64 < 0.1
