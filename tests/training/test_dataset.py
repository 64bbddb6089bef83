from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.manifest import FilterSpec, WindowSpec
from stream.leads import LEADS
from stream.preprocess import BRIDGE_S
from stream.windows import BedWindow, Piece, normalise
from tests.training.conftest import made_up_signal
from training.dataset import Crops, CropSource, WindowSet, grid_windows, normalise_windows
from training.recordings import Signal

FILTER = FilterSpec()
SPEC = WindowSpec(fs=100, samples=800, hop=50)


def some_leads(signal: Signal, leads: tuple[str, ...]) -> Signal:
    columns = [signal.leads.index(lead) for lead in leads]
    return Signal(signal.fs, leads, signal.millivolts[:, columns])


def test_windows_are_those_of_serving() -> None:
    signal = made_up_signal(0)
    windows = grid_windows([signal, made_up_signal(1)], LEADS, FILTER, SPEC)
    assert windows.record.tolist() == [0] * 5 + [1] * 5
    bed = BedWindow(signal.leads, signal.fs, LEADS, FILTER, SPEC)
    served = []
    for at in range(0, len(signal.millivolts), 100):
        served += list(bed.push(at, signal.millivolts[at : at + 100]))
    for i, window in enumerate(served):
        np.testing.assert_array_equal(windows.x[i], window.x)
        np.testing.assert_array_equal(windows.mask[i], window.mask)
        np.testing.assert_array_equal(windows.counted[i], window.counted)


def test_masking_leads_is_the_same_as_not_having_them() -> None:
    signal = made_up_signal(2)
    present = ("II", "V2")
    fewer = grid_windows([some_leads(signal, present)], LEADS, FILTER, SPEC)
    kept = np.array([lead in present for lead in LEADS])
    masked = grid_windows([signal], LEADS, FILTER, SPEC).keep_leads(kept)
    np.testing.assert_array_equal(masked.x, fewer.x)
    np.testing.assert_array_equal(masked.mask, fewer.mask)
    np.testing.assert_array_equal(masked.counted, fewer.counted)


def test_windows_that_cannot_be_scored_are_left_out() -> None:
    signal = made_up_signal(3)
    silent = Signal(signal.fs, signal.leads, np.zeros_like(signal.millivolts))
    unknown = Signal(signal.fs, tuple(f"x{i}" for i in range(12)), signal.millivolts)
    windows = grid_windows([silent, signal, unknown], LEADS, FILTER, SPEC)
    assert set(windows.record.tolist()) == {1}
    assert len(grid_windows([silent], LEADS, FILTER, SPEC)) == 0


def test_crops_on_the_grid_are_grid_windows() -> None:
    # Exactly one window long: there is only one place to cut it.
    signal = made_up_signal(4, seconds=8.0)
    grid = grid_windows([signal], LEADS, FILTER, SPEC)
    crops = CropSource([signal], LEADS, FILTER, SPEC).draw(2, np.random.default_rng(0))
    assert (len(grid), len(crops)) == (1, 2)
    np.testing.assert_array_equal(crops.x[1], grid.x[0])


def test_crops_come_from_anywhere_and_repeat_with_the_seed() -> None:
    signals = [made_up_signal(5), made_up_signal(6, seconds=7.0), some_leads(made_up_signal(7), ("II",))]
    source = CropSource(signals, LEADS, FILTER, SPEC)
    assert len(source) == 2
    assert source.usable.tolist() == [0, 2]  # one is shorter than a window
    crops = source.draw(20, np.random.default_rng(1))
    assert np.bincount(crops.record).tolist() == [20, 0, 20]
    assert crops.mask[crops.record == 2].sum() == 20
    assert len(np.unique(crops.x[crops.record == 0, 0, 0])) > 10
    np.testing.assert_array_equal(crops.x, source.draw(20, np.random.default_rng(1)).x)


def gappy(seed: int) -> Signal:
    """A recording with a short gap, a long one, a flat lead and a lead that is not there."""
    signal = made_up_signal(seed)
    millivolts = signal.millivolts.copy()
    millivolts[1000:1050, 2] = np.nan
    millivolts[3000:3300, 5] = np.nan
    millivolts[:, 7] = 0.5
    return some_leads(Signal(signal.fs, signal.leads, millivolts), LEADS[1:])


def assert_equal(found: WindowSet, expected: WindowSet) -> None:
    for name in ("x", "mask", "counted", "record"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("fs", [100, 75, 500])
def test_the_grid_of_a_crop_source_is_that_of_serving(fs: float) -> None:
    spec = WindowSpec(fs=fs, samples=int(4 * fs), hop=int(fs / 2))
    signals = [gappy(0), made_up_signal(1, seconds=3.0), made_up_signal(2, seconds=7.3), gappy(3)]
    source = CropSource(signals, LEADS, FILTER, spec)
    expected = grid_windows(signals, LEADS, FILTER, spec)
    assert_equal(source.grid(), expected)
    assert_equal(source.grid([3, 1]), expected.select(expected.record == 3))
    assert set(expected.mask.sum(axis=1).tolist()) == {9.0, 10.0, 12.0}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_many_windows_are_normalised_as_serving_does_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = WindowSpec(fs=10, samples=20, hop=5)
    shape = (6, 3, spec.samples)
    values = (10.0 ** rng.integers(-4, 2) * rng.standard_normal(shape)).astype(np.float32)
    state = np.where(rng.random(shape) < rng.choice([0.0, 0.02, 0.3]), rng.integers(0, 3, shape), 0)
    missing = np.choose(state, [0.0, BRIDGE_S / 2, BRIDGE_S * 2]).astype(np.float32)
    x, mask, counted = normalise_windows(values, state.astype(np.uint8), spec)
    if not state.any():
        for found, expected in zip(normalise_windows(values, None, spec), (x, mask, counted), strict=True):
            np.testing.assert_array_equal(found, expected)
    for at in range(len(values)):
        (window,) = normalise([Piece(0, values[at], missing[at])], np.arange(3), 3, spec)
        np.testing.assert_array_equal(x[at], window.x)
        np.testing.assert_array_equal(mask[at], window.mask)
        np.testing.assert_array_equal(counted[at], window.counted)


def test_stretched_crops_have_another_heart_rate_and_stay_in_their_recording() -> None:
    signals = [made_up_signal(8), made_up_signal(9, seconds=8.5)]
    source = CropSource(signals, LEADS, FILTER, SPEC)
    crops = source.plan(200, np.random.default_rng(0), rate_warp=0.25)
    longest, shortest = crops.length[crops.record == 0].max(), crops.length.min()
    assert 640 <= shortest < 660
    assert 980 < longest <= 1000
    assert crops.length[crops.record == 1].max() == 850
    assert (crops.start + crops.length <= np.where(crops.record == 0, 1000, 850)).all()
    factor = crops.length[crops.record == 0] / SPEC.samples
    assert abs(np.log(factor).mean()) < 0.03
    slow, fast = (
        source.cut(Crops(*(np.array([value]) for value in (0, 0, length)))) for length in (640, 1000)
    )
    assert (slow.x.std(), fast.x.std()) == pytest.approx((1.0, 1.0), abs=1e-3)

    def beats(windows: WindowSet) -> int:
        lead = windows.x[0, 0]
        return int(((lead[1:] > 2.5) & (lead[:-1] <= 2.5)).sum())

    assert beats(fast) > beats(slow) >= 5


def test_an_epoch_may_take_some_recordings_only() -> None:
    source = CropSource([made_up_signal(seed) for seed in range(4)], LEADS, FILTER, SPEC)
    crops = source.plan(3, np.random.default_rng(0), records=np.array([1, 3]))
    assert crops.record.tolist() == [1, 1, 1, 3, 3, 3]
    assert crops.take(np.array([5, 0])).record.tolist() == [3, 1]


def test_a_crop_without_a_usable_lead_is_masked_everywhere() -> None:
    signal = made_up_signal(3)
    silent = Signal(signal.fs, signal.leads, np.zeros_like(signal.millivolts))
    source = CropSource([silent, signal], LEADS, FILTER, SPEC)
    crops = source.plan(2, np.random.default_rng(0))
    assert source.cut(crops).mask.sum(axis=1).tolist() == [0, 0, 12, 12]
    assert source.draw(2, np.random.default_rng(0)).record.tolist() == [1, 1]
