from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backends import open_session
from models.bundle import load_bundle
from models.manifest import AlarmRule, Thresholds, WindowSpec
from training.calibration.statistics import score_windows, thresholds
from training.calibration.stretches import StretchScores
from training.calibration.thresholds import (
    FALSE_ALARMS_PER_BED_HOUR,
    f1_optimal,
    false_alarm_rate,
    operating_points,
    quantile_interval,
    rate_interval,
    youden,
)
from training.dataset import grid_windows
from training.recordings import read_index, select

RULE = AlarmRule(k=17, n=24, clear=8)
WINDOW = WindowSpec(fs=100, samples=800, hop=50)
SCORES = st.lists(st.integers(-20, 20).map(lambda tenths: tenths / 10), min_size=1, max_size=30).map(np.array)


def stretch(level: float, patient: str, *, seconds: float = 300.0, source: str = "looped") -> StretchScores:
    """A stretch whose windows all score about `level`; it raises no alarm from `level` on."""
    n = round(seconds / 0.5)
    return StretchScores(np.arange(n), np.full(n, level), patient, source)


def points(normal: np.ndarray, **more) -> Thresholds:
    return operating_points(normal, np.arange(len(normal)), len(normal), rule=RULE, window=WINDOW, **more)


def by_brute_force(normal: np.ndarray, abnormal: np.ndarray, figure) -> float:
    levels = [-99.0, *normal, *abnormal]
    return max(figure((abnormal > level).sum(), (normal > level).sum()) for level in levels[1:])


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_no_threshold_beats_the_f1_optimal_one(normal: np.ndarray, abnormal: np.ndarray) -> None:
    def f1(true: int, false: int) -> float:
        return 2 * true / (len(abnormal) + true + false)

    chosen = f1_optimal(normal, abnormal)
    found = f1((abnormal > chosen).sum(), (normal > chosen).sum())
    assert found == pytest.approx(by_brute_force(normal, abnormal, f1))


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_no_threshold_beats_youdens(normal: np.ndarray, abnormal: np.ndarray) -> None:
    def j(true: int, false: int) -> float:
        return true / len(abnormal) - false / len(normal)

    chosen = youden(normal, abnormal)
    found = j((abnormal > chosen).sum(), (normal > chosen).sum())
    assert found == pytest.approx(by_brute_force(normal, abnormal, j))


def test_groups_that_do_not_overlap_are_parted_halfway() -> None:
    normal, abnormal = np.array([0.0, 1.0]), np.array([3.0, 4.0])
    assert f1_optimal(normal, abnormal) == youden(normal, abnormal) == 2.0


def test_a_rate_is_poisson_where_no_patient_has_two_events() -> None:
    # Exact limits of 3 events (Garwood): 0.619 and 8.767.
    low, high = rate_interval([1, 1, 1, 0, 0], 2.0)
    assert low == pytest.approx(0.6187 / 2, abs=1e-3)
    assert high == pytest.approx(8.7673 / 2, abs=1e-3)


def test_without_an_event_the_rule_of_three_holds() -> None:
    assert rate_interval([0] * 10, 6.0) == (0.0, pytest.approx(0.5, abs=0.01))


def test_events_of_one_patient_say_less_than_those_of_many() -> None:
    many, one = rate_interval([1] * 6, 6.0), rate_interval([6, 0, 0, 0, 0, 0], 6.0)
    assert one[0] < many[0] < 1.0 < many[1] < one[1]


def test_rate_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    # 40 patients of half an hour: one in ten raises alarms, one to three of them.
    misses = 0
    for _ in range(300):
        alarms = (rng.random(40) < 0.1) * rng.integers(1, 4, 40)
        low, high = rate_interval(alarms.tolist(), 20.0)
        misses += not low <= 40 * 0.1 * 2 / 20 <= high
    assert misses <= 22


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_quantile_intervals_hold_the_truth(share: float) -> None:
    rng = np.random.default_rng(1)
    found = [quantile_interval(rng.random(200), share) for _ in range(300)]
    assert sum(not low <= share <= high for low, high in found) <= 22
    assert all(low < high for low, high in found)


def test_the_end_of_an_interval_that_too_few_values_have_is_the_highest() -> None:
    assert quantile_interval(np.arange(56.0), 0.95)[1] == 55.0
    assert quantile_interval(np.arange(200.0), 0.95)[1] < 199.0


def test_every_method_is_stored_and_the_percentile_is_the_operating_point() -> None:
    rng = np.random.default_rng(2)
    normal, abnormal = rng.normal(0, 1, 200), rng.normal(2, 1, 100)
    found = points(normal, abnormal=abnormal)
    assert found.record == thresholds(normal, np.arange(200), 200).record
    assert set(found.record_methods) == {"p95", "pot", "f1", "youden"}
    assert found.record_methods["p95"] == found.record
    assert found.record_methods["youden"] < found.record < found.record_methods["pot"]
    assert found.record_interval is not None
    assert found.record_interval[0] < found.record < found.record_interval[1]
    assert found.records == 200
    assert found.record_percentile(found.record) == pytest.approx(95.0, abs=0.5)
    # Few normals have no tail, and abnormal recordings may be missing.
    assert set(points(normal[:30]).record_methods) == {"p95"}


def test_abnormal_recordings_move_no_operating_point() -> None:
    normal = np.random.default_rng(3).normal(0, 1, 100)
    alone, beside = points(normal), points(normal, abnormal=np.full(50, 9.0))
    assert (alone.record, alone.window) == (beside.record, beside.window)


def test_recordings_without_a_score_are_left_out() -> None:
    scores = np.linspace(0, 1, 100)
    found = operating_points(
        scores, np.arange(100), 105, rule=RULE, window=WINDOW, abnormal=np.array([np.nan])
    )
    assert found.records == 100
    assert found.record == points(scores).record
    assert "f1" not in found.record_methods
    with pytest.raises(ValueError, match="no validation normal has a score"):
        operating_points(np.empty(0), np.empty(0, np.intp), 3, rule=RULE, window=WINDOW)


def test_a_rule_over_too_few_windows_is_refused() -> None:
    rule = AlarmRule(k=3, n=4, clear=1)
    with pytest.raises(ValueError, match="4 windows span less than two window lengths"):
        operating_points(np.arange(30.0), np.arange(30), 30, rule=rule, window=WINDOW)


def test_without_stretches_the_alarm_threshold_is_a_percentile() -> None:
    found = points(np.linspace(0.0, 1.0, 201))
    assert found.window == pytest.approx(0.99)
    assert (found.tail, found.window_interval, found.false_alarms_per_bed_hour) == (None, None, {})


def test_the_alarm_threshold_keeps_false_alarms_rare() -> None:
    rng = np.random.default_rng(4)
    levels = rng.normal(0, 1, 1000)
    stretches = [stretch(level, str(i)) for i, level in enumerate(levels)]
    found = points(rng.normal(0, 1, 100), stretches=stretches)
    rate = found.false_alarms_per_bed_hour["all"]
    assert rate.rate <= FALSE_ALARMS_PER_BED_HOUR
    assert rate.alarms == np.count_nonzero(levels > found.window)
    # Of a normal distribution, what 0.79 % of stretches of 284 s exceed.
    assert found.window == pytest.approx(2.41, abs=0.25)
    assert found.window_interval is not None
    assert found.window_interval[0] < 2.41 < found.window_interval[1]
    assert rate.interval[0] < FALSE_ALARMS_PER_BED_HOUR < rate.interval[1]


def test_few_stretches_are_counted_and_no_tail_is_made_up() -> None:
    stretches = [stretch(level, str(level)) for level in (0.5, 3.0, 3.5)]
    found = points(np.linspace(-1, 1, 40), stretches=stretches)
    assert found.tail is None
    assert found.window_interval is None
    assert found.window == 3.5
    rate = found.false_alarms_per_bed_hour["all"]
    assert (rate.alarms, rate.patients, rate.interval[0]) == (0, 3, 0.0)
    assert rate.interval[1] == pytest.approx(3 / rate.hours, rel=0.01)


def test_the_alarm_threshold_is_never_below_the_screening_one() -> None:
    found = points(np.linspace(0, 1, 100), stretches=[stretch(-5.0, "a")])
    assert found.window == found.record


def test_rates_are_told_apart_by_where_stretches_come_from() -> None:
    stretches = [stretch(0.0, str(i)) for i in range(4)] + [
        stretch(0.1, "long", seconds=600, source="continuous") for _ in range(2)
    ]
    found = points(np.linspace(0, 1, 100), stretches=stretches).false_alarms_per_bed_hour
    assert set(found) == {"all", "looped", "continuous"}
    assert (found["continuous"].stretches, found["continuous"].patients) == (2, 1)
    assert found["all"].hours == pytest.approx(found["looped"].hours + found["continuous"].hours, abs=1e-3)


def test_stretches_too_short_for_an_alarm_do_not_count() -> None:
    found = points(np.linspace(0, 1, 100), stretches=[stretch(9.0, "a", seconds=8.0)])
    assert found.false_alarms_per_bed_hour == {}


def test_a_higher_threshold_has_no_more_patients_with_alarms() -> None:
    rng = np.random.default_rng(5)
    stretches = [
        StretchScores(np.arange(200), rng.normal(0, 1, 200).cumsum() / 5, str(i), "looped") for i in range(20)
    ]
    patients = []
    for threshold in (-1.0, 0.0, 1.0, 2.0, 9.0):
        patients.append(sum(one.alarms(RULE, threshold) > 0 for one in stretches))
        rate = false_alarm_rate(stretches, RULE, WINDOW, threshold)
        assert rate.alarms == sum(one.alarms(RULE, threshold) for one in stretches)
    assert patients == sorted(patients, reverse=True)
    assert patients[0] > patients[-1] == 0


def test_the_same_scores_give_the_same_thresholds() -> None:
    rng = np.random.default_rng(6)
    normal = rng.normal(0, 1, 80)
    stretches = [stretch(level, str(level)) for level in rng.normal(0, 1, 60)]
    assert points(normal, stretches=stretches) == points(normal, stretches=stretches)


@pytest.mark.data
def test_validation_normals_give_the_shipped_screening_threshold_again(data_dir: Path) -> None:
    session = open_session(load_bundle("cae-100hz"))
    manifest = session.manifest
    normals = select(read_index(data_dir / "index.csv"), split="val", label=0)
    windows = grid_windows(
        (entry.read() for entry in normals), manifest.leads, manifest.filter, manifest.window
    )
    scores = score_windows(session.run, windows, manifest.score).window
    found = operating_points(
        scores, windows.record, len(normals), rule=manifest.alarm, window=manifest.window
    )
    shipped = manifest.thresholds["fp32"]
    assert found.record == pytest.approx(shipped.record, abs=1e-3)
    np.testing.assert_allclose(found.quantiles, shipped.quantiles, atol=1e-3)
    assert found.record_methods["pot"] > found.record
