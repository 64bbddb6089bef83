from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from ingest.simulator import PatientSimulator
from models.manifest import FilterSpec
from stream.contract import INVALID
from stream.preprocess import Conditioner
from stream.vitals.grid import FS
from stream.vitals.pulse import find_pulses
from stream.vitals.quality import QualityMeter
from stream.vitals.rhythm import Rule
from stream.vitals.verify import LeadsApart, Outcome, Trace, pulse_trace, verify

SOURCE_HZ = 250.0
ALARM_S = 36
LEADS = ("II", "V1")

VERIFIED = [rule for rule in Rule if rule is not Rule.ATRIAL_FIBRILLATION]


def patient(timeline: str) -> npt.NDArray[np.float64]:
    simulator = PatientSimulator(5, timeline, fs=SOURCE_HZ, leads=LEADS)
    lsb = simulator.read(0, round(ALARM_S * SOURCE_HZ))
    return np.where(lsb == INVALID, np.nan, lsb / 1000.0)


def traces(millivolts: npt.NDArray[np.float64], step_s: float = 1.0) -> list[Trace]:
    conditioner = Conditioner(FilterSpec(), SOURCE_HZ, FS, len(LEADS))
    meter = QualityMeter(len(LEADS), SOURCE_HZ)
    apart = LeadsApart(LEADS, conditioner.source_index)
    edges = np.append(np.arange(0, len(millivolts), round(step_s * SOURCE_HZ)), len(millivolts))
    for start, stop in pairwise(edges.tolist()):
        apart.rate(meter.push(start, millivolts[start:stop]))
        apart.hear(conditioner.push(np.ascontiguousarray(millivolts[start:stop].T)))
    return apart.traces(ALARM_S * FS)


def pulses(rate_bpm: float, *, until_s: float = 60.0, noise: float = 0.02) -> Trace:
    # A minute of a pressure of 80 to 120 with a dicrotic wave.
    t = np.arange(0, 60.0, 1 / SOURCE_HZ)
    phase = t % (60 / rate_bpm)
    wave = np.exp(-(((phase - 0.15) / 0.07) ** 2)) + 0.35 * np.exp(-(((phase - 0.42) / 0.08) ** 2))
    wave = np.where(t < until_s, wave, 0.0) + np.random.default_rng(2).normal(0, noise, len(t))
    return pulse_trace("ABP", find_pulses(80 + 40 * wave, SOURCE_HZ), 60.0)


TRUE = {
    Rule.ASYSTOLE: "sinus:75@0 asystole@30.5",
    Rule.BRADYCARDIA: "sinus:72@0 sinus:30@24",
    Rule.TACHYCARDIA: "sinus:90@0 sinus:165@25",
    Rule.VENTRICULAR_TACHYCARDIA: "sinus:75@0 vt:160@32",
    Rule.VENTRICULAR_FIBRILLATION: "sinus:75@0 vf:0.6@29",
}


@pytest.mark.parametrize("rule", VERIFIED)
def test_a_true_alarm_is_confirmed(rule: Rule) -> None:
    assert verify(rule, traces(patient(TRUE[rule]))).outcome is Outcome.CONFIRMED


def test_a_normal_rhythm_refutes() -> None:
    shown = traces(patient("sinus:75@0"))
    for rule in VERIFIED:
        found = verify(rule, shown)
        assert (found.outcome, found.witness) == (Outcome.REFUTED, "all leads")
    assert verify(Rule.ATRIAL_FIBRILLATION, shown).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize("bad", LEADS)
def test_one_good_lead_refutes_what_the_other_pretends(bad: str) -> None:
    millivolts = patient("sinus:75@0")
    t = np.arange(len(millivolts)) / SOURCE_HZ
    # What a loose electrode shows: a slow swing of its own.
    swing = np.where(t > 24, 1.5 * np.sin(2 * np.pi * 3.1 * t + np.sin(2 * np.pi * 0.3 * t)), 0.0)
    millivolts[:, LEADS.index(bad)] += swing
    shown = traces(millivolts)
    for rule in VERIFIED:
        found = verify(rule, shown)
        assert found.outcome is Outcome.REFUTED
        assert found.witness != bad


def test_noise_and_nothing_refute_nothing() -> None:
    noise = np.random.default_rng(3).normal(0, 0.4, (round(ALARM_S * SOURCE_HZ), len(LEADS)))
    # White noise, and what is left of it below 15 Hz, which looks more like beats.
    slow = np.stack([np.convolve(lead, np.ones(16) / 4, "same") for lead in noise.T], axis=1)
    for millivolts in (noise, slow, np.full_like(noise, np.nan)):
        shown = traces(millivolts)
        for rule in VERIFIED:
            assert verify(rule, shown).outcome is not Outcome.REFUTED


def test_a_short_run_in_the_last_seconds_is_enough() -> None:
    run = patient("sinus:75@0 vt:150@30 sinus:75@33")
    assert verify(Rule.VENTRICULAR_TACHYCARDIA, traces(run)).outcome is not Outcome.REFUTED


def test_what_the_leads_show_does_not_depend_on_the_cut() -> None:
    millivolts = patient("sinus:75@0 pvc:20@10 leadoff:II@20+5")
    for one, other in zip(traces(millivolts), traces(millivolts, 0.137), strict=True):
        assert one.present == other.present
        assert one.poor_s == other.poor_s
        for field in ("at_s", "known", "ventricular"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("rate", [50, 72, 110])
def test_every_pulse_is_found_once(rate: int) -> None:
    trace = pulses(rate)
    assert trace.regular
    assert trace.known.all()
    np.testing.assert_allclose(np.diff(trace.at_s), 60 / rate, atol=0.05)


def test_a_steady_pulse_refutes_what_dead_leads_pretend() -> None:
    off = traces(np.full((round(ALARM_S * SOURCE_HZ), len(LEADS)), np.nan))
    for rule in VERIFIED:
        assert verify(rule, off).outcome is Outcome.UNDECIDED
        found = verify(rule, [*off, pulses(72)])
        assert (found.outcome, found.witness, found.by_pulse) == (Outcome.REFUTED, "ABP", True)


def test_ventricular_beats_in_a_clear_lead_outweigh_a_pulse_but_a_dead_lead_does_not() -> None:
    run = traces(patient(TRUE[Rule.VENTRICULAR_TACHYCARDIA]))
    assert verify(Rule.VENTRICULAR_TACHYCARDIA, [*run, pulses(72)]).outcome is Outcome.CONFIRMED
    pause = traces(patient(TRUE[Rule.ASYSTOLE]))
    assert verify(Rule.ASYSTOLE, [*pause, pulses(72)]).outcome is Outcome.REFUTED


def test_a_pulse_that_stops_or_is_slow_or_fast_refutes_nothing_of_the_kind() -> None:
    assert verify(Rule.ASYSTOLE, [pulses(72, until_s=55)]).outcome is Outcome.UNDECIDED
    assert verify(Rule.VENTRICULAR_FIBRILLATION, [pulses(72, until_s=55)]).outcome is Outcome.UNDECIDED
    assert verify(Rule.BRADYCARDIA, [pulses(36)]).outcome is Outcome.UNDECIDED
    assert verify(Rule.TACHYCARDIA, [pulses(145)]).outcome is Outcome.UNDECIDED
    assert verify(Rule.VENTRICULAR_TACHYCARDIA, [pulses(130)]).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize("kind", ["noise", "flat", "missing"])
def test_what_is_no_pulse_refutes_nothing(kind: str) -> None:
    x = np.random.default_rng(4).normal(0, 1, round(60 * SOURCE_HZ))
    if kind != "noise":
        x[:] = 80.0 if kind == "flat" else np.nan
    trace = pulse_trace("PLETH", find_pulses(x, SOURCE_HZ), 60.0)
    for rule in VERIFIED:
        assert verify(rule, [trace]).outcome is Outcome.UNDECIDED
