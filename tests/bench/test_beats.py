from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.beats import TOLERANCE_S, Reference, main, match, measure_record
from bench.rhythms import count_events, rhythm_spans, ventricular_runs
from stream.vitals.rhythm import Limits

rising = st.lists(st.integers(0, 2000), unique=True, max_size=40).map(
    lambda numbers: np.array(sorted(numbers)) / 100
)


@settings(deadline=None)
@given(reference=rising, found=rising)
def test_pairs_are_one_to_one_and_near(reference: np.ndarray, found: np.ndarray) -> None:
    pairs = match(reference, found)
    assert len({beat for beat, _ in pairs}) == len({at for _, at in pairs}) == len(pairs)
    assert all(abs(reference[beat] - found[at]) <= TOLERANCE_S for beat, at in pairs)


@settings(deadline=None)
@given(reference=rising)
def test_what_is_there_is_found_in_itself(reference: np.ndarray) -> None:
    assert match(reference, reference) == [(n, n) for n in range(len(reference))]


def test_the_nearer_of_two_is_taken() -> None:
    assert match(np.array([1.0]), np.array([0.9, 1.05])) == [(0, 1)]
    assert match(np.array([0.9, 1.05]), np.array([1.0])) == [(1, 0)]
    assert match(np.array([1.0]), np.array([1.2])) == []


def reference_of(symbols: str, interval_s: float, rhythms: tuple[tuple[float, str], ...] = ()) -> Reference:
    return Reference(np.arange(len(symbols)) * interval_s, tuple(symbols), (), rhythms)


def test_a_ventricular_run_has_number_and_rate() -> None:
    limits = Limits()
    assert ventricular_runs(reference_of("NNVVVVVN", 0.5), limits) == [(1.0, 3.0)]
    assert ventricular_runs(reference_of("NNVVVVVEE", 0.5), limits) == [(1.0, 4.0)]
    assert ventricular_runs(reference_of("NNVVVVN", 0.5), limits) == []
    assert ventricular_runs(reference_of("NNVVVVVN", 0.7), limits) == []


def test_a_rhythm_lasts_until_the_next() -> None:
    reference = reference_of("", 1.0, ((0.0, "N"), (5.0, "AFIB"), (8.0, "AFL"), (12.0, "N")))
    assert rhythm_spans(reference, ["AFIB", "AFL"], 20.0) == [(5.0, 12.0)]
    assert rhythm_spans(reference, ["N"], 20.0) == [(0.0, 5.0), (12.0, 20.0)]


def test_events_and_false_alarms_are_counted() -> None:
    counts = count_events(
        [(10.0, 12.0), (50.0, 80.0)], [(100.0, 110.0)], [(13.0, 14.0), (40.0, 41.0), (105.0, 120.0)]
    )
    assert counts == {"events": 2, "found": 1, "delays_s": [3.0], "alarms": 3, "false": 1}


@pytest.mark.data
def test_a_record_is_measured(data_dir: Path) -> None:
    row = measure_record(data_dir / "mitdb" / "100", "Bedside")
    assert (row["tp"], row["fp"], row["fn"]) == (2272, 0, 1)
    assert row["rms_error_ms"] < 10
    assert row["delay_max_s"] <= 1.5


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 1
    assert "no record with annotations" in result.output
