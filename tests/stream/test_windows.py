"""Windows: on the session's grid, blind to chunking, and masked where the signal is not to be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.manifest import FilterSpec, WindowSpec
from stream.preprocess import BRIDGE_S, SETTLING_S, Conditioner
from stream.windows import BedWindow, Push, Window, push_together
from tests.stream.synthetic import ecg

Float64Array = npt.NDArray[np.float64]

MODEL_LEADS = ("I", "II", "III", "V1")
FEED_LEADS = ("V1", "pleth", "II")
ROWS = [3, 1]
"""Rows of the model that V1 and II are."""
FILTER = FilterSpec()
SPEC = WindowSpec(fs=100, samples=200, hop=50)
RATES = (100.0, 257.0, 360.0, 500.0, 999.56)


def bed_window(fs: float, *, leads: tuple[str, ...] = FEED_LEADS, start: int = 0) -> BedWindow:
    return BedWindow(leads, fs, MODEL_LEADS, FILTER, SPEC, start)


def whole(fs: float, x: Float64Array, leads: tuple[str, ...] = FEED_LEADS) -> list[Window]:
    return list(bed_window(fs, leads=leads).push(0, x))


def assert_same(ours: Iterable[Window], wanted: Iterable[Window]) -> None:
    for one, other in zip(ours, wanted, strict=True):
        assert (one.index, one.start, one.end, one.reason) == (
            other.index,
            other.start,
            other.end,
            other.reason,
        )
        for name in ("x", "mask", "counted", "mean", "scale"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@settings(max_examples=80, deadline=None)
@given(
    fs=st.sampled_from(RATES),
    seed=st.integers(0, 99),
    cuts=st.lists(st.floats(0, 1), max_size=30),
    lost=st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from([0.01, 0.15, 0.2, 0.3, 1.0, 1.99, 2.0, 2.01, 3.3, 6.0])),
        max_size=3,
    ),
)
def test_the_same_windows_in_any_chunking_and_with_holes_for_lost_chunks(
    fs: float, seed: int, cuts: list[float], lost: list[tuple[float, float]]
) -> None:
    x = ecg(14, fs, seed=seed)
    n = len(x)
    edges = {0, n, *(int(cut * n) for cut in cuts)}
    stretches = []
    for where, seconds in lost:
        begin = int(where * n)
        end = min(n, begin + round(seconds * fs))
        x[begin:end] = np.nan
        edges |= {begin, end}
        stretches.append((begin, end))
    wanted = whole(fs, x)
    bed = bed_window(fs)
    ours: list[Window] = []
    holes: list[tuple[int, int]] = []
    for begin, end in pairwise(sorted(edges)):
        if any(low <= begin and end <= high for low, high in stretches):
            holes.append((begin, end))
        else:
            ours += bed.push(begin, x[begin:end])
    ours += bed.push(n, x[n:])
    # A window that lies wholly in a long hole is left out; nothing else is.
    came = {window.index for window in ours}
    for window in wanted:
        if window.index not in came:
            assert window.reason == "gap"
            assert np.isnan(x[window.start : window.end]).all()
            assert max(end - begin for begin, end in _joined(holes)) > 2 * bed.end_of(0)
    assert_same(ours, [window for window in wanted if window.index in came])


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(stretches):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


@pytest.mark.parametrize("fs", RATES)
def test_windows_lie_on_the_grid_of_the_session(fs: float) -> None:
    windows = whole(fs, ecg(10, fs))
    assert [window.index for window in windows] == list(range(len(windows)))
    assert len(windows) >= (10 - 2) / 0.5
    for window in windows:
        assert window.start == pytest.approx(window.index * 0.5 * fs, abs=1)
        assert window.end == pytest.approx((window.index * 0.5 + 2) * fs, abs=1)
        assert window.end == bed_window(fs).end_of(window.index)


@settings(max_examples=20, deadline=None)
@given(fs=st.sampled_from(RATES), begin_s=st.floats(0.001, 4))
def test_a_feed_taken_up_later_has_the_same_windows(fs: float, begin_s: float) -> None:
    x = ecg(SETTLING_S + 9, fs)
    start = round(begin_s * fs)
    later = list(bed_window(fs, start=start).push(start, x[start:]))
    assert 0 <= later[0].start - start <= 0.5 * fs + 3
    settled = [window for window in later if window.start >= start + SETTLING_S * fs]
    assert len(settled) >= 4
    same = {window.index: window for window in whole(fs, x)}
    for window in settled:
        wanted = same[window.index]
        assert (window.start, window.end, window.reason) == (wanted.start, wanted.end, None)
        np.testing.assert_array_equal(window.mask, wanted.mask)
        np.testing.assert_allclose(window.x, wanted.x, rtol=1e-5, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    begin=st.integers(0, 3000),
    length=st.one_of(st.integers(1, 110), st.sampled_from([99, 100, 101, 400, 1000, 1500])),
)
def test_a_gap_counts_nowhere_and_masks_the_lead_where_it_is_long(begin: int, length: int) -> None:
    fs, step = 500.0, 5
    x = ecg(7, fs)
    x[begin : begin + length, 2] = np.nan
    windows = whole(fs, x)
    assert len(windows) == 11
    for window in windows:
        points = window.index * 50 * step + step * np.arange(200)
        absent = (points >= begin) & (points < begin + length)
        # How long the gap has lasted at each point, as a monitor that cannot look ahead knows it. At the
        # very start of a feed nothing has ever been there.
        lasted = (points - begin + 1) / fs if begin else np.full(len(points), np.inf)
        long = bool((lasted[absent] > BRIDGE_S).any())
        assert window.mask[1] == (not long)
        np.testing.assert_array_equal(window.counted[1], ~absent & (not long))
        assert (window.x[1][~window.counted[1]] == 0).all()
        # The other lead goes on.
        assert window.mask[3] == 1
        assert window.counted[3].all()
        assert window.reason is None


def test_a_long_gap_masks_also_windows_that_hold_only_its_last_point() -> None:
    x = ecg(8, 500.0)
    # Window 4 begins at sample 1000, window 5 at 1250.
    x[898:1001, 2] = np.nan
    windows = whole(500.0, x)
    assert [bool(window.mask[1]) for window in windows[:7]] == [True, False, False, False, False, True, True]


def test_a_window_is_normalised_over_what_counts_in_it() -> None:
    x = ecg(9, 500.0)
    x[1200:1280, 2] = np.nan
    x[3000:3090] = np.nan
    conditioner = Conditioner(FILTER, 500.0, 100.0, 2)
    signal = conditioner.push(np.ascontiguousarray(x[:, [0, 2]].T)).values
    windows = whole(500.0, x)
    assert not all(window.counted[ROWS].all() for window in windows)
    for window in windows:
        for row, lead in zip(ROWS, signal, strict=True):
            counted = window.counted[row]
            assert counted.sum() > 100
            assert window.x[row][counted].mean() == pytest.approx(0, abs=1e-5)
            assert window.x[row][counted].std() == pytest.approx(1, abs=1e-5)
            back = window.x[row] * window.scale[row] + window.mean[row]
            piece = lead[window.index * 50 : window.index * 50 + 200]
            np.testing.assert_allclose(back[counted], piece[counted], atol=1e-5)
        np.testing.assert_array_equal(window.mask, [0, 1, 0, 1])
        absent = [0, 2]
        assert not window.x[absent].any()
        assert not window.counted[absent].any()


@pytest.mark.parametrize(
    ("leads", "level", "reason"),
    [
        (("pleth", "resp"), 1.0, "no known lead"),
        (("I", "II"), 1.0, "flat"),
        (("I", "II"), np.nan, "gap"),
    ],
)
def test_a_window_without_a_good_lead_says_why(leads: tuple[str, ...], level: float, reason: str) -> None:
    windows = whole(500.0, np.full((2500, 2), level), leads=leads)
    assert [window.index for window in windows] == list(range(7))
    for window in windows:
        assert window.reason == reason
        assert not window.mask.any()
        assert not window.counted.any()
        assert not window.x.any()


def test_a_window_of_noise_in_every_lead_says_so() -> None:
    windows = whole(500.0, ecg(10, 500.0) + np.random.default_rng(0).normal(0, 1, (5000, 3)))
    # Those that reach into two seconds that are over with them: one poor second alone masks nothing.
    poor = [window for window in windows if window.index % 2]
    assert len(poor) >= 8
    assert {window.reason for window in poor} == {"poor signal"}
    assert not any(window.mask.any() for window in poor)


def test_a_flat_lead_is_masked_alone() -> None:
    x = ecg(4, 500.0)
    x[:, 0] = 2.0
    assert all(window.mask.tolist() == [0, 1, 0, 0] for window in whole(500.0, x))


def test_a_lead_that_turns_flat_beside_a_gap_names_the_gap() -> None:
    x = np.full((2500, 2), 1.0)
    x[:, 0] = np.nan
    assert {window.reason for window in whole(500.0, x, leads=("I", "II"))} == {"gap"}


def test_samples_that_came_before_are_dropped() -> None:
    x = ecg(6, 360.0)
    bed = bed_window(360.0)
    ours = [
        *bed.push(0, x[:1000]),
        *bed.push(900, x[900:1500]),
        *bed.push(200, x[200:400]),
        *bed.push(1500, x[1500:]),
    ]
    assert bed.next_in == len(x)
    assert_same(ours, whole(360.0, x))


@pytest.mark.parametrize("fs", RATES)
def test_after_hours_without_a_sample_the_grid_is_where_it_was(fs: float) -> None:
    begin = round(7 * 3600 * fs) + 123
    bed = bed_window(fs)
    list(bed.push(0, ecg(3, fs)))
    windows = list(bed.push(begin, ecg(5, fs)))
    # First those that still hold something of what was before.
    before = [window for window in windows if window.start < 3 * fs]
    assert [window.index for window in before] == [3, 4, 5]
    windows = [window for window in windows if window.end > begin]
    good = [window for window in windows if window.reason is None]
    # Those that reach into the hole say so, all of them; then those behind it come as if it began there.
    assert [window.index for window in windows] == list(range(windows[0].index, windows[-1].index + 1))
    assert windows[0].start <= begin - 2 * fs + 0.5 * fs
    assert {window.reason for window in windows if window.start < begin} == {"gap"}
    assert_same(good, bed_window(fs, start=begin).push(begin, ecg(5, fs)))
    for window in windows:
        assert window.start == pytest.approx(window.index * 0.5 * fs, abs=1)


@settings(max_examples=40, deadline=None)
@given(
    feeds=st.lists(
        st.tuples(
            st.sampled_from(RATES),
            st.sampled_from([FEED_LEADS, ("II", "I"), ("pleth",)]),
            st.integers(0, 99),
            st.sampled_from([1, 1, 2, 4]),
        ),
        min_size=1,
        max_size=6,
    ),
    lost=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=4),
    chunk_s=st.sampled_from([0.2, 0.5, 1.7]),
)
def test_beds_pushed_together_get_the_windows_that_each_would_get_alone(
    feeds: list[tuple[float, tuple[str, ...], int, int]], lost: list[tuple[int, int]], chunk_s: float
) -> None:
    signals = [ecg(6, fs, len(leads), seed=seed) for fs, leads, seed, _ in feeds]
    alone = [bed_window(fs, leads=leads) for fs, leads, _, _ in feeds]
    together = [bed_window(fs, leads=leads) for fs, leads, _, _ in feeds]
    for step in range(int(6 / chunk_s)):
        pushes, wanted = [], []
        for number, ((fs, _, _, every), x) in enumerate(zip(feeds, signals, strict=True)):
            if (number, step) in lost:
                continue
            n0, stop = round(step * chunk_s * fs), round((step + 1) * chunk_s * fs)
            pushes.append(Push(together[number], n0, x[n0:stop], every))
            windows = alone[number].push(n0, x[n0:stop])
            wanted.append([window for window in windows if window.index % every == 0])
        for ours, theirs in zip(push_together(pushes), wanted, strict=True):
            assert_same(ours, theirs)


def test_of_a_long_chunk_the_noise_at_its_beginning_is_not_forgotten() -> None:
    fs = 500.0
    x = ecg(20, fs)
    x[round(2 * fs) : round(5 * fs), 2] += np.random.default_rng(0).normal(0, 1, round(3 * fs))
    bed = bed_window(fs)
    chunks = [window for at in range(0, len(x), 100) for window in bed.push(at, x[at : at + 100])]
    at_once = whole(fs, x)
    assert any(window.mask.tolist() == [0, 0, 0, 1] for window in chunks)
    assert_same(at_once, chunks)
