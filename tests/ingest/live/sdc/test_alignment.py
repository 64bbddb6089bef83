"""Leads that come apart are put together: each sample once, in its place."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.live.sdc.alignment import Alignment, Stretch
from stream.contract import Validity

FS = 250.0
T_NS = 1_796_000_000_000_000_000
STEP_NS = 4_000_000


def count(begin: int, end: int) -> np.ndarray:
    return np.arange(begin, end, dtype=float)


def taken(alignment: Alignment) -> list[Stretch]:
    stretches = []
    while (stretch := alignment.take()) is not None:
        stretches.append(stretch)
    return stretches


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 1), st.integers(-1, 1)), min_size=1, max_size=30)
)
def test_any_reports_of_two_leads_become_whole_stretches(reports: list[tuple[int, int, int]]) -> None:
    # One lead is behind the other by a report at most; stamps are off by up to a millisecond.
    alignment, at, out = Alignment(2, FS), 0, []
    for size, first, off_ms in reports:
        for lead in (first, 1 - first):
            t_ns = T_NS + at * STEP_NS + off_ms * 1_000_000
            alignment.add(lead, t_ns, count(at, at + size), Validity.OK)
            out += taken(alignment)
        at += size
    millivolts = np.concatenate([stretch.millivolts for stretch in out])
    np.testing.assert_array_equal(millivolts, np.column_stack([count(0, at)] * 2))
    begins = np.cumsum([0, *[len(s.millivolts) for s in out]])[:-1]
    told = [s.t_ns - T_NS for s in out]
    np.testing.assert_allclose(told, begins * STEP_NS, atol=2_000_000)


def test_reports_that_end_a_sample_apart_lose_nothing() -> None:
    alignment = Alignment(2, FS)
    alignment.add(0, T_NS, count(0, 25), Validity.OK)
    alignment.add(1, T_NS + 1_000_000, count(0, 24), Validity.QUESTIONABLE)
    (first,) = taken(alignment)
    assert first.millivolts.shape == (24, 2)
    assert first.valid == (Validity.OK, Validity.QUESTIONABLE)
    alignment.add(1, T_NS + 1_000_000 + 24 * STEP_NS, count(24, 50), Validity.OK)
    alignment.add(0, T_NS + 25 * STEP_NS, count(25, 50), Validity.OK)
    (second,) = taken(alignment)
    np.testing.assert_array_equal(second.millivolts, np.column_stack([count(24, 50)] * 2))
    assert second.valid == (Validity.OK, Validity.OK)


def test_a_lead_that_does_not_come_or_is_invalid_is_off() -> None:
    alignment = Alignment(3, FS)
    out = []
    for report in range(4):
        t_ns = T_NS + 25 * report * STEP_NS
        alignment.add(0, t_ns, count(25 * report, 25 * report + 25), Validity.SATURATED)
        alignment.add(1, t_ns, count(25 * report, 25 * report + 25), Validity.OFF)
        out += taken(alignment)
    millivolts = np.concatenate([stretch.millivolts for stretch in out])
    assert len(millivolts) >= 50
    np.testing.assert_array_equal(millivolts[:, 0], count(0, len(millivolts)))
    assert np.isnan(millivolts[:, 1:]).all()
    assert out[0].valid == (Validity.SATURATED, Validity.OFF, Validity.OFF)


def test_a_hole_in_one_lead_keeps_the_others_in_their_place() -> None:
    alignment = Alignment(2, FS)
    alignment.add(0, T_NS, count(0, 25), Validity.OK)
    alignment.add(0, T_NS + 25 * STEP_NS, count(25, 50), Validity.OK)
    # Lead 1 misses its first report, and comes with what follows.
    alignment.add(1, T_NS + 25 * STEP_NS, count(25, 50), Validity.OK)
    (stretch,) = taken(alignment)
    np.testing.assert_array_equal(stretch.millivolts[:, 0], count(0, 50))
    assert np.isnan(stretch.millivolts[:25, 1]).all()
    np.testing.assert_array_equal(stretch.millivolts[25:, 1], count(25, 50))


def test_a_clock_that_was_set_begins_anew_and_what_came_before_is_dropped() -> None:
    alignment = Alignment(1, FS)
    alignment.add(0, T_NS, count(0, 25), Validity.OK)
    alignment.add(0, T_NS + 3600 * 10**9, count(25, 50), Validity.OK)
    (stretch,) = taken(alignment)
    assert stretch.t_ns == T_NS + 3600 * 10**9
    assert len(stretch.millivolts) == 25
    alignment = Alignment(2, FS)
    alignment.add(0, T_NS, count(0, 40), Validity.OK)
    alignment.add(0, T_NS + 20 * STEP_NS, count(20, 60), Validity.OK)
    alignment.add(1, T_NS, count(0, 60), Validity.OK)
    (stretch,) = taken(alignment)
    np.testing.assert_array_equal(stretch.millivolts, np.column_stack([count(0, 60)] * 2))
