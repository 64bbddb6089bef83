"""Signal quality: each issue on its own, any cutting, any company."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunks import chunks_of
from ingest.recordings import open_recording
from ingest.simulator import PatientSimulator
from stream.contract import Validity, to_millivolts
from stream.vitals.quality import Issue, QualityMeter, SecondQuality, measure_together
from tests.stream.synthetic import Float64Array

FS = 250.0


def patient(seconds: float = 12.0, fs: float = FS, timeline: str = "sinus:75@0") -> Float64Array:
    """Return a simulated patient's leads, in mV."""
    simulator = PatientSimulator(3, timeline, fs=fs, duration_s=seconds)
    return np.concatenate(to_millivolts(list(chunks_of(simulator, "b", "s"))))[:, :6]


def rated(x: Float64Array, fs: float = FS, valid: tuple[Validity, ...] | None = None) -> list[SecondQuality]:
    return QualityMeter(x.shape[1], fs).push(0, x, valid)


def assert_alike(ours: list[SecondQuality], wanted: list[SecondQuality]) -> None:
    assert len(ours) == len(wanted)
    for one, other in zip(ours, wanted, strict=True):
        assert (one.second, one.start, one.end, one.issues) == (
            other.second,
            other.start,
            other.end,
            other.issues,
        )
        for field in ("index", "usable", "noisy"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("timeline", ["sinus:75@0", "vt:180@0", "vf@0", "af:110@0"])
@pytest.mark.parametrize("fs", [125.0, 250.0, 360.0, 500.0, 1000.0])
def test_a_good_signal_is_good_whatever_the_heart_does(timeline: str, fs: float) -> None:
    for second in rated(patient(8.0, fs, timeline), fs):
        assert second.usable.all()
        assert not second.noisy.any()
        assert second.issues == (frozenset(),) * 6


def noise(x: Float64Array) -> None:
    x[:, 2] += np.random.default_rng(0).normal(scale=0.5, size=len(x))


def mains(x: Float64Array) -> None:
    x[:, 2] += 1.5 * np.sin(2 * np.pi * 50 * np.arange(len(x)) / FS)


def motion(x: Float64Array) -> None:
    # Of the ECG's own frequencies, beginning after some seconds.
    time_s = np.arange(len(x)) / FS
    swings = np.sin(2 * np.pi * 4 * time_s) + np.sin(2 * np.pi * 6.3 * time_s)
    x[:, 2] += np.where(time_s >= 6, 1.0 * swings, 0.0)


def wander(x: Float64Array) -> None:
    x[:, 2] += 4 * np.sin(2 * np.pi * 0.2 * np.arange(len(x)) / FS)


def flat(x: Float64Array) -> None:
    x[:, 2] = 0.3


def off(x: Float64Array) -> None:
    x[:, 2] = np.nan


def saturated(x: Float64Array) -> None:
    x[:, 2] = np.clip(x[:, 2] * 20, -5, 5)


@pytest.mark.parametrize(
    ("spoil", "issue"),
    [
        (noise, Issue.NOISE),
        (mains, Issue.POWERLINE),
        (wander, Issue.BASELINE),
        (flat, Issue.FLAT),
        (off, Issue.OFF),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_wrong_with_a_lead_is_named_and_the_others_are_left_alone(
    spoil: Callable[[Float64Array], None], issue: Issue
) -> None:
    x = patient()
    spoil(x)
    seconds = rated(x)[3:]
    assert sum(issue in second.issues[2] for second in seconds) >= 0.6 * len(seconds)
    for second in seconds:
        others = [lead for lead in range(6) if lead != 2]
        assert second.usable[others].all()
        assert not any(second.issues[lead] for lead in others)
        assert second.issues_of("abcdef").keys() <= {"c"}
    assert not any(second.usable[2] for second in seconds[2:]) or issue is Issue.BASELINE


def test_a_plateau_at_the_rails_is_saturation_and_a_tall_complex_is_none() -> None:
    x = patient()
    x[:, 1] *= 3
    clipped = x.copy()
    clipped[:, 2] = np.where(np.arange(len(x)) % 250 < 100, 5.0, clipped[:, 2])
    for second, spoilt in zip(rated(x), rated(clipped), strict=True):
        assert Issue.SATURATED not in second.issues[1]
        assert Issue.SATURATED in spoilt.issues[2]


@pytest.mark.parametrize(
    ("flag", "issue"), [(Validity.OFF, Issue.OFF), (Validity.SATURATED, Issue.SATURATED)]
)
def test_what_the_source_says_counts(flag: Validity, issue: Issue) -> None:
    valid = (Validity.OK, flag, *(Validity.OK,) * 4)
    for second in rated(patient(), valid=valid):
        assert issue in second.issues[1]
        assert not second.usable[1]


def test_a_gap_in_all_leads_is_no_lead_off() -> None:
    x = patient()
    x[1000:2000] = np.nan
    issues = [second.issues for second in rated(x)]
    assert issues[5] == (frozenset({Issue.GAP}),) * 6
    assert issues[3] == issues[9] == (frozenset(),) * 6


def test_a_lead_that_comes_back_has_to_be_good_for_two_seconds() -> None:
    x = patient()
    x[1000:2000, 2] = np.nan
    usable = [bool(second.usable[2]) for second in rated(x)]
    assert usable == [True] * 4 + [False] * 5 + [True] * 3


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 4319), max_size=30),
    fs=st.sampled_from([360.0, 359.7]),
    hole=st.integers(0, 1500),
)
def test_the_same_however_the_feed_is_cut(cuts: list[int], fs: float, hole: int) -> None:
    x = patient(12.0, 360.0)
    x[1500:2100, 1] = np.nan
    wanted = QualityMeter(6, fs).push(hole, x)
    meter, edges = QualityMeter(6, fs), sorted({0, *cuts, len(x)})
    ours: list[SecondQuality] = []
    for begin, end in pairwise(edges):
        ours += meter.push(hole + begin, x[begin:end])
    assert_alike(ours, wanted)


def test_together_as_alone_to_the_last_bit() -> None:
    feeds = [patient(6.0) * scale for scale in (1.0, 0.1, 3.0)]
    feeds[1][300:700, 4] = np.nan
    alone = [rated(x) for x in feeds]
    meters = [QualityMeter(6, FS) for _ in feeds]
    together: list[list[SecondQuality]] = [[], [], []]
    for at in range(0, 1500, 125):
        pushes = [(m, at, x[at : at + 125], None) for m, x in zip(meters, feeds, strict=True)]
        for seconds, new in zip(together, measure_together(pushes), strict=True):
            seconds += new
    for ours, wanted in zip(together, alone, strict=True):
        assert_alike(ours, wanted)


def test_a_long_hole_is_not_filled() -> None:
    meter = QualityMeter(6, FS)
    meter.push(0, patient(2.0))
    (second,) = meter.push(10**9, patient(1.5))
    assert second.start == 10**9
    assert second.usable.all()


def test_clean_recordings_are_usable_nearly_always(data_dir: Path) -> None:
    usable = []
    for name in ("00001", "00009", "00017"):
        recording = open_recording(data_dir / "ptb-xl" / "records500" / "00000" / f"{name}_hr")
        x = np.concatenate(to_millivolts(list(chunks_of(recording, "b", "s"))))
        usable += [second.usable.mean() for second in rated(x, recording.fs)]
    assert np.mean(usable) > 0.99


def test_an_electrode_that_moves_is_told_from_the_lead_s_own_past_and_from_the_others() -> None:
    x = patient(60.0)
    motion(x)
    seconds = rated(x)
    moved = [second.second for second in seconds if Issue.MOTION in second.issues[2]]
    # Not before there is a past, and not for ever: then it is what the lead does.
    assert moved[:30] == list(range(6, 36))
    assert moved[-1] < 45
    # It is not looked at for beats; the model still is to see it.
    assert not any(second.usable[2] or second.noisy[2] for second in seconds[6:36])
    assert {lead for second in seconds for lead in range(6) if second.issues[lead]} == {2}
    # Too few to compare with.
    assert not any(any(second.issues) for second in rated(x[:, :3]))


@pytest.mark.parametrize("rhythm", ["vt:180", "vf", "asystole", "af:130", "sinus:150"])
@pytest.mark.parametrize("leads", [[0, 5], [0, 1, 5], [0, 1, 2, 3, 4, 5]])
def test_a_heart_that_changes_its_rhythm_is_no_motion(rhythm: str, leads: list[int]) -> None:
    for second in rated(patient(24.0, timeline=f"sinus:75@0 {rhythm}@10 sinus:75@17")[:, leads]):
        assert not any(Issue.MOTION in issues for issues in second.issues)
