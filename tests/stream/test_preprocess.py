"""The conditioner: causal, settled, on its grid, and blind to how the feed is cut."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import signal

from models.manifest import FilterSpec
from stream.preprocess import BRIDGE_S, SETTLING_S, Conditioner, Resampled, condition, design, group_delay_ms

RATES = (100.0, 128.0, 250.0, 257.0, 360.0, 500.0, 999.56, 1000.0)
FS_OUT = 100.0
SPEC = FilterSpec()

Float64Array = npt.NDArray[np.float64]
rates = st.sampled_from(RATES)


def conditioner(fs: float, n_leads: int = 1, start: int = 0) -> Conditioner:
    return Conditioner(SPEC, fs, FS_OUT, n_leads, start)


def push_in_pieces(made: Conditioner, x: Float64Array, cuts: list[int]) -> Resampled:
    edges = [0, *sorted(min(cut, x.shape[1]) for cut in cuts), x.shape[1]]
    first = made.next_out
    pieces = []
    for begin, end in pairwise(edges):
        pieces.append(made.push(x[:, begin:end]))
        assert pieces[-1].first + pieces[-1].values.shape[1] == made.next_out
    assert [piece.first for piece in pieces] == [
        first + sum(piece.values.shape[1] for piece in pieces[:i]) for i in range(len(pieces))
    ]
    return Resampled(
        first,
        np.concatenate([piece.values for piece in pieces], axis=1),
        np.concatenate([piece.missing for piece in pieces], axis=1),
    )


def assert_same(one: Resampled, other: Resampled) -> None:
    assert one.first == other.first
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.missing, other.missing)


def noise(n_leads: int, n: int, seed: int) -> Float64Array:
    steps: Float64Array = np.random.default_rng(seed).normal(scale=0.1, size=(n_leads, n))
    return steps.cumsum(axis=1)


def tone(hz: float, fs: float, seconds: float) -> Float64Array:
    wave: Float64Array = np.sin(2 * np.pi * hz * np.arange(round(seconds * fs)) / fs)[np.newaxis]
    return wave


# A gap: in which lead, from where (share of the feed), and how long in seconds.
gaps = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 1), st.sampled_from([0.0, 0.004, 0.1, 0.199, 0.2, 0.201, 0.7])),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(
    fs=rates,
    n=st.integers(0, 1500),
    start=st.integers(0, 10_000),
    seed=st.integers(0, 99),
    gaps=gaps,
    cuts=st.lists(st.integers(0, 1500), max_size=40),
)
def test_cutting_the_feed_changes_nothing(
    fs: float, n: int, start: int, seed: int, gaps: list[tuple[int, float, float]], cuts: list[int]
) -> None:
    x = noise(3, n, seed)
    for lead, where, seconds in gaps:
        begin = int(where * n)
        x[lead, begin : begin + round(seconds * fs)] = np.nan
    whole = conditioner(fs, 3, start).push(x)
    assert_same(push_in_pieces(conditioner(fs, 3, start), x, cuts), whole)


@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("more", [0, 1])
def test_a_gap_of_just_the_limit_is_as_long_sample_by_sample(fs: float, more: int) -> None:
    # Lengths in seconds do not add up: 72 times 1/360 s is more than 0.2 s.
    x = noise(1, round(fs), 1) + 3.0
    begin, length = 100, int(Fraction(str(fs)) / 5) + more
    x[0, begin : begin + length] = np.nan
    whole = conditioner(fs).push(x)
    assert_same(push_in_pieces(conditioner(fs), x, list(range(x.shape[1]))), whole)


@settings(max_examples=40, deadline=None)
@given(fs=rates, seed=st.integers(0, 99), gaps=gaps)
def test_a_lead_does_not_depend_on_the_others(
    fs: float, seed: int, gaps: list[tuple[int, float, float]]
) -> None:
    x = noise(3, 800, seed)
    for lead, where, seconds in gaps:
        begin = int(where * 800)
        x[lead, begin : begin + round(seconds * fs)] = np.nan
    together = conditioner(fs, 3).push(x)
    for lead in range(3):
        alone = conditioner(fs).push(x[lead : lead + 1])
        np.testing.assert_array_equal(alone.values[0], together.values[lead])
        np.testing.assert_array_equal(alone.missing[0], together.missing[lead])


@settings(max_examples=60, deadline=None)
@given(fs=rates, start=st.integers(1, 6000), seed=st.integers(0, 99))
@example(fs=360.0, start=18, seed=0)
@example(fs=500.0, start=1, seed=0)
def test_starting_within_a_session_lies_on_the_same_grid(fs: float, start: int, seed: int) -> None:
    x = noise(2, round((SETTLING_S + 6) * fs) + start, seed) + 40.0
    whole = conditioner(fs, 2).push(x)
    later_one = conditioner(fs, 2, start)
    first = later_one.next_out
    later = later_one.push(x[:, start:])
    assert later.first == first
    # The first grid point that can be computed: between the first sample and the one after it, the cubic
    # has nothing to its left.
    at = Fraction(first) * Fraction(str(fs)) / 100
    assert at >= start + 1 or at == start
    before = at - Fraction(str(fs)) / 100
    assert before < start or (before.denominator > 1 and before < start + 1)
    assert first + later.values.shape[1] == whole.values.shape[1]
    settled = round(SETTLING_S * FS_OUT)
    ours = later.values[:, settled:]
    assert ours.shape[1] > 300
    wanted = whole.values[:, first + settled :]
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).std())
    np.testing.assert_array_equal(later.missing[:, settled:], 0.0)


@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("level", [0.0, 1.25, -300.0])
def test_starts_settled(fs: float, level: float) -> None:
    out = conditioner(fs).push(np.full((1, round(5 * fs)), level))
    assert out.values.shape[1] > 400
    assert np.abs(out.values).max() <= 1e-9 * max(1.0, abs(level))


@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("hz", [1.0, 3.0, 10.0, 20.0, 35.0])
def test_passes_the_ecg_band(fs: float, hz: float) -> None:
    out = conditioner(fs).push(tone(hz, fs, 40)).values[0][2000:]
    gain_db = 10 * np.log10(2 * np.mean(np.square(out, dtype=float)))
    assert abs(gain_db) < 1.0


@pytest.mark.parametrize("fs", [fs for fs in RATES if fs > 125])
def test_stops_hum_and_whatever_would_fold_into_the_band(fs: float) -> None:
    for hz in [hz for hz in (50.0, 60.0, 70.0, 90.0, 98.0, 110.0, 150.0, 190.0, 301.0) if hz < fs / 2]:
        out = conditioner(fs).push(tone(hz, fs, 40)).values[0][2000:]
        assert 20 * np.log10(np.abs(out).max()) < -29.9, hz


def test_a_source_too_slow_for_the_low_pass_keeps_the_high_pass() -> None:
    assert len(design(SPEC, 100.0)) == 1
    assert len(design(SPEC, 128.0)) > 1


@pytest.mark.parametrize("fs", RATES)
def test_delay_is_within_the_budget_and_as_told(fs: float) -> None:
    told_ms = group_delay_ms(SPEC, fs)
    look_ahead_ms = 0.0 if fs % FS_OUT == 0 else 2000 / fs
    assert 0 < told_ms + look_ahead_ms <= 60
    # The envelope of a burst at 10 Hz arrives that much later.
    t = np.arange(round(4 * fs)) / fs
    burst = np.exp(-(((t - 2) / 0.3) ** 2)) * np.sin(2 * np.pi * 10 * t)
    out = conditioner(fs).push(burst[np.newaxis]).values[0].astype(float)
    envelope = np.abs(signal.hilbert(out)) ** 2
    arrived = np.sum(envelope * np.arange(len(out)) / FS_OUT) / envelope.sum()
    assert (arrived - 2) * 1000 == pytest.approx(told_ms, abs=1.0)


@pytest.mark.parametrize("fs", RATES)
def test_resampling_keeps_amplitude_and_phase(fs: float) -> None:
    hz = 10.0
    out = conditioner(fs).push(tone(hz, fs, 30))
    _, response = signal.freqz_sos(design(SPEC, fs), worN=[hz], fs=fs)
    t = np.arange(1500, 2500) / FS_OUT
    wanted = np.abs(response[0]) * np.sin(2 * np.pi * hz * t + np.angle(response[0]))
    # 128 Hz is the coarsest grid to interpolate on.
    np.testing.assert_allclose(out.values[0, 1500:2500], wanted, atol=2e-3 if fs < 200 else 5e-4)


@settings(max_examples=60, deadline=None)
@given(fs=rates, pushed=st.lists(st.integers(0, 60), max_size=30))
def test_nothing_is_held_back_longer_than_the_cubic_needs(fs: float, pushed: list[int]) -> None:
    made = conditioner(fs)
    ahead = 0 if fs % FS_OUT == 0 else 2
    total = 0
    for n in pushed:
        made.push(np.zeros((1, n)))
        total += n
        due = Fraction(str(fs)) / 100 * made.next_out
        assert made.next_in == total
        # The next grid point needs a sample that has not come, and the one before does not.
        assert int(due) + ahead >= total
        if made.next_out:
            assert int(due - Fraction(str(fs)) / 100) + ahead < total


@pytest.mark.parametrize("fs", RATES)
def test_the_grid_does_not_drift(fs: float) -> None:
    ratio = Fraction(str(fs)) / 100
    for out in (1, 17, 800, 123_457, 10**9 + 7):
        exact = out * ratio
        sample = conditioner(fs).source_index(out)
        assert sample - 1 < exact <= sample
        begun = conditioner(fs, start=sample).next_out * ratio
        assert sample <= begun < sample + 1 + ratio


def test_missing_counts_from_the_last_valid_sample() -> None:
    fs = 500.0
    x = np.ones((1, 1000))
    x[0, 200:300] = np.nan
    missing = conditioner(fs).push(x).missing[0]
    at = 5 * np.arange(len(missing))
    wanted = np.where((at >= 200) & (at < 300), (at - 199) / fs, 0.0)
    np.testing.assert_allclose(missing, wanted, rtol=1e-6)


def test_before_the_first_valid_sample_it_has_been_missing_for_ever() -> None:
    x = np.full((2, 1000), np.nan)
    x[1, :] = 1.0
    x[0, 500:] = 7.0
    out = push_in_pieces(conditioner(500.0, 2), x, [100, 350])
    assert np.isinf(out.missing[0, :100]).all()
    assert (out.missing[0, 100:] == 0).all()
    assert (out.missing[1] == 0).all()
    # Nothing to see before, and settled from the first sample on.
    np.testing.assert_allclose(out.values[0], 0.0, atol=1e-9)


@pytest.mark.parametrize("fs", [250.0, 257.0, 360.0])
@pytest.mark.parametrize("shift", [-2, -1, 0, 1, 2, 3])
def test_a_point_between_samples_is_missing_if_any_that_made_it_is(fs: float, shift: int) -> None:
    x = np.ones((1, round(2 * fs)))
    # Around a place where the grid meets a sample.
    hole = round(fs) + shift
    x[0, hole] = np.nan
    out = conditioner(fs).push(x)
    at = np.arange(out.values.shape[1]) * fs / FS_OUT
    base = np.floor(at + 1e-9)
    exact = np.isclose(at, base)
    touched = np.where(exact, base == hole, (base - 1 <= hole) & (hole <= base + 2))
    np.testing.assert_array_equal(out.missing[0] > 0, touched)


@pytest.mark.parametrize("fs", RATES)
def test_the_filter_starts_anew_after_a_long_gap_only(fs: float) -> None:
    limit = int(Fraction(str(fs)) * Fraction(str(BRIDGE_S)))
    for length, anew in ((limit, False), (limit + 1, True)):
        x = np.zeros((1, round(4 * fs)))
        begin = round(2 * fs)
        x[0, begin : begin + length] = np.nan
        x[0, begin + length :] = 5.0
        out = conditioner(fs).push(x).values[0]
        behind = out[int((begin + length) * FS_OUT / fs) + 4 :]
        # A step of 5 mV passes the high-pass; a filter that starts at 5 mV sees none.
        assert (np.abs(behind).max() < 1e-6) == anew
        assert anew or behind.max() > 3.0


@settings(max_examples=80, deadline=None)
@given(
    fs=rates,
    feeds=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40), gaps), min_size=2, max_size=5),
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_feeds_taken_together_are_computed_as_if_alone(
    fs: float, feeds: list[tuple[int, int, Any]], lengths: list[int], seed: int
) -> None:
    # Each feed has taken something before: those that then stand alike go on together.
    alone = [conditioner(fs, n_leads) for n_leads, _, _ in feeds]
    together = [conditioner(fs, n_leads) for n_leads, _, _ in feeds]
    for (n_leads, before, _), one, other in zip(feeds, alone, together, strict=True):
        x = noise(n_leads, before, seed)
        assert_same(one.push(x), other.push(x))
    for step, n in enumerate(lengths):
        inputs = []
        for number, (n_leads, _, holes) in enumerate(feeds):
            x = noise(n_leads, n, seed + 7 * number + step)
            for lead, where, seconds in holes:
                begin = int(where * n)
                x[lead % n_leads, begin : begin + round(seconds * fs)] = np.nan
            inputs.append(x)
        alike: dict[Any, list[int]] = {}
        for number, feed in enumerate(together):
            alike.setdefault(feed.alike, []).append(number)
        for numbers in alike.values():
            found = condition(
                [together[number] for number in numbers], np.concatenate([inputs[n] for n in numbers])
            )
            for number, piece in zip(numbers, found, strict=True):
                assert_same(piece, alone[number].push(inputs[number]))
    for one, other in zip(alone, together, strict=True):
        assert (one.next_in, one.next_out) == (other.next_in, other.next_out)
