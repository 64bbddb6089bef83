"""The contract of recordings, and the choice of a gain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.source import MAX_LSB, ArrayRecording, IngestError, fitting_gain

SAMPLES = np.arange(20, dtype=np.int16).reshape(10, 2)


def recording(**changes: object) -> ArrayRecording:
    fields = {"name": "r", "fs": 100.0, "leads": ["I", "II"], "gain": [1000.0, 500.0]} | changes
    return ArrayRecording(SAMPLES, **fields)


@pytest.mark.parametrize(
    ("start", "stop", "rows"),
    [(0, 10, 10), (3, 7, 4), (0, 99, 10), (9, 11, 1), (10, 20, 0), (99, 100, 0), (4, 4, 0)],
)
def test_a_read_ends_with_the_recording(start: int, stop: int, rows: int) -> None:
    samples = recording().read(start, stop)
    assert samples.shape == (rows, 2)
    np.testing.assert_array_equal(samples, SAMPLES[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 3)])
def test_a_range_that_cannot_be_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="cannot read the samples"):
        recording().read(start, stop)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fs": 0.0}, "0.0 Hz cannot be"),
        ({"fs": float("nan")}, "nan Hz cannot be"),
        ({"fs": -5.0}, "-5.0 Hz cannot be"),
        ({"leads": [], "gain": []}, "no ECG channel"),
        ({"leads": ["I", "I"]}, "stands twice"),
        ({"gain": [1000.0]}, "do not fit 2 leads"),
        ({"gain": [1000.0, 0.0]}, "do not fit"),
        ({"leads": [f"x{i}" for i in range(65)], "gain": [1.0] * 65}, "at most 64"),
    ],
)
def test_a_recording_that_cannot_be_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(IngestError, match=says):
        recording(**changes)


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(IngestError, match="no samples"):
        ArrayRecording(SAMPLES[:0], name="r", fs=100.0, leads=["I", "II"], gain=[1.0, 1.0])


@pytest.mark.parametrize(
    ("start", "nanoseconds"),
    [
        (None, 0),
        (datetime(1969, 1, 1), 0),
        (datetime(1970, 1, 1, 0, 0, 1), 10**9),
        (datetime(2020, 1, 1, 0, 0, 0, 7, tzinfo=UTC), 1_577_836_800_000_007_000),
        (datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 1_577_836_800_000_000_000),
        (datetime(2190, 5, 4, 3, 2, 1, 999_999), 6_953_223_721_999_999_000),
    ],
)
def test_the_start_is_exact_and_never_before_the_epoch(start: datetime | None, nanoseconds: int) -> None:
    assert recording(start_time=start).start_ns == nanoseconds


def test_duration_is_in_seconds() -> None:
    assert recording().duration_s == pytest.approx(0.1)


@given(gain=st.floats(0.01, 1e9), peak=st.floats(1e-6, 1e6))
def test_the_gain_is_the_source_s_unless_the_signal_does_not_fit(gain: float, peak: float) -> None:
    chosen = fitting_gain(gain, peak)
    assert chosen <= gain
    if gain * peak <= MAX_LSB:
        assert chosen == gain
    else:
        # It fits, or the resolution would be coarser than 5 uV.
        assert chosen * peak <= MAX_LSB * 1.000001 or chosen == min(gain, 200.0)


def test_a_gain_computed_from_a_peak_is_kept() -> None:
    for gain in np.random.default_rng(0).uniform(100, 20_000, 1000):
        assert fitting_gain(gain, MAX_LSB / gain) == gain


def test_an_error_is_one_line() -> None:
    assert str(IngestError("file", "several\n  lines")) == "file: several lines"
