"""Windows and seconds of a recording, as rows of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.results import SecondResult, SecondRows, WindowResult, WindowRows

LEADS = ("I", "II", "V1")
numbers = st.floats(allow_nan=False, width=64)
windows = st.lists(
    st.builds(
        WindowResult,
        numbers,
        numbers,
        numbers,
        st.booleans(),
        st.dictionaries(st.sampled_from(LEADS), numbers),
    )
)
seconds = st.lists(
    st.builds(
        SecondResult,
        numbers,
        numbers,
        st.none() | numbers,
        st.dictionaries(st.sampled_from(LEADS), st.just(("noise",))),
    )
)


def rows_of(some: list[WindowResult]) -> WindowRows:
    rows = WindowRows(LEADS)
    for one in some:
        rows.append(one.start_s, one.end_s, one.score, one.anomalous, one.lead_scores)
    return rows


@given(windows)
def test_windows_come_out_as_they_went_in(some: list[WindowResult]) -> None:
    rows = rows_of(some)
    assert len(rows) == len(some)
    assert list(rows) == some
    assert rows == some
    assert rows.scores.tolist() == [one.score for one in some]
    assert rows[1:] == some[1:]
    assert rows[::-2] == some[::-2]


@given(seconds)
def test_seconds_come_out_as_they_went_in(some: list[SecondResult]) -> None:
    rows = SecondRows()
    for one in some:
        rows.append(one.start_s, one.end_s, one.heart_rate_bpm, one.issues)
    assert list(rows) == some


def test_rows_are_a_sequence() -> None:
    window = WindowResult(0.0, 8.0, 1.5, True, {"II": 1.5})
    rows = rows_of([window, WindowResult(1.0, 9.0, 0.5, False, {})])
    assert rows[-2] == window
    assert not WindowRows(LEADS)
    assert rows != [window]
    assert rows != "ab"
    assert rows != 2
    with pytest.raises(IndexError):
        rows[2]
