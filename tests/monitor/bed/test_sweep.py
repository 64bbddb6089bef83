from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.bed.layout import Layout, lead_order
from monitor.bed.sweep import Columns, Patch, Sweep
from monitor.bed.trace import MONITOR_BAND
from monitor.live.ward import Feed, Ward
from stream.leads import LEADS
from tests.monitor.messages import T0, S, chunk, explanation

LAYOUT = Layout.fit(2, 1000, 500)


def feed_of(ward: Ward) -> Feed:
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    return feed


def apply(columns: Columns, patch: Patch) -> None:
    for (lead, where), values in patch:
        assert len(columns["ys"][lead][where]) == len(values)
        columns["ys"][lead][where] = values


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(st.integers(0, 700), min_size=1, max_size=25), fs=st.sampled_from((128.0, 257.0, 500.0))
)
def test_patches_lead_to_the_same_picture_as_drawing_it_anew(steps: list[int], fs: float) -> None:
    ward, n = Ward(), round(fs / 5)
    for seq in range(60):
        ward.take_chunk(chunk(seq, fs=fs, n=n), T0)
    feed = feed_of(ward)
    sweep = Sweep(feed, LAYOUT, MONITOR_BAND, 10.0)
    sweep.follow(feed)
    position = 50 * n
    seq = 60
    sweep.explain(explanation(np.ones((2, 800))), 0.0)
    trace, expected = sweep.columns(position)
    for step in steps:
        position += step
        while seq * n < position + n:
            ward.take_chunk(chunk(seq, fs=fs, n=n), T0)
            seq += 1
        assert sweep.follow(feed)
        update = sweep.step(position)
        if update is None:
            trace, expected = sweep.columns(position)
            continue
        apply(trace, update.trace)
        apply(expected, update.expected)
        anew_trace, anew_expected = sweep.columns(position)
        for old, new in ((trace, anew_trace), (expected, anew_expected)):
            np.testing.assert_allclose(np.array(old["ys"]), np.array(new["ys"]), atol=0.006)


def test_an_even_step_is_small_and_a_gap_runs_in_front() -> None:
    ward = Ward()
    for seq in range(100):
        ward.take_chunk(chunk(seq), T0)
    feed = feed_of(ward)
    sweep = Sweep(feed, LAYOUT, MONITOR_BAND, 10.0)
    sweep.follow(feed)
    (columns, _) = sweep.columns(9000)
    update = sweep.step(9020)
    assert update is not None
    assert sum(len(values) for _, values in update.trace) == 2 * 2 * 10
    assert update.expected == []
    picture = columns["ys"][0]
    empty = np.isnan(picture)
    # 0.3 s of ten, in one piece.
    assert empty.sum() == pytest.approx(0.3 * 250, abs=2)
    assert np.diff(np.flatnonzero(empty)).max() == 1


def test_a_jump_over_the_whole_sweep_asks_for_the_full_picture() -> None:
    ward = Ward()
    for seq in range(140):
        ward.take_chunk(chunk(seq), T0)
    feed = feed_of(ward)
    sweep = Sweep(feed, LAYOUT, MONITOR_BAND, 10.0)
    sweep.follow(feed)
    sweep.columns(5000)
    assert sweep.step(13_000) is None


def test_another_feed_or_too_long_an_absence_ends_a_sweep() -> None:
    ward = Ward()
    ward.take_chunk(chunk(0), T0)
    sweep = Sweep(feed_of(ward), LAYOUT, MONITOR_BAND, 10.0)
    assert sweep.follow(feed_of(ward))
    ward.take_chunk(chunk(500, n0=50_000), T0)
    assert not sweep.follow(feed_of(ward))
    ward.take_chunk(chunk(0, session="s2"), T0 + S)
    assert not sweep.follow(feed_of(ward))


def test_leads_stand_in_the_usual_order_and_unknown_ones_follow() -> None:
    names = ("X", "V1", "aVR", "MLII", "I")
    assert [names[column] for column in lead_order(names)] == ["I", "aVR", "V1", "X", "MLII"]


@pytest.mark.parametrize(
    ("n", "columns", "rows"), [(1, 1, 1), (3, 1, 3), (12, 2, 6), (15, 2, 8), (64, 4, 16)]
)
def test_leads_share_the_paper(n: int, columns: int, rows: int) -> None:
    layout = Layout.fit(n, 1100, 520)
    assert (layout.columns, layout.rows) == (columns, rows)
    for place in range(n):
        assert 0 <= layout.left(place) < layout.width_s
        assert 0 < layout.baseline(place) < layout.label_height(place) < layout.height_mm


def test_the_squares_of_the_paper_are_square() -> None:
    layout = Layout.fit(len(LEADS), 1100, 520)
    assert layout.width_px / (layout.width_s * 25) == pytest.approx(layout.height_px / layout.height_mm)
    assert layout.usual_size == 10.0


def test_a_page_without_a_size_yet_has_a_layout() -> None:
    layout = Layout.fit(12, 0.0, 0.0)
    assert layout.height_mm > 0
