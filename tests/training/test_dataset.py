from __future__ import annotations

import numpy as np

from models.manifest import FilterSpec, WindowSpec
from stream.leads import LEADS
from stream.windows import BedWindow
from tests.training.conftest import made_up_signal
from training.dataset import CropSource, grid_windows
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
    assert len(source) == 2  # one is shorter than a window
    crops = source.draw(20, np.random.default_rng(1))
    assert np.bincount(crops.record).tolist() == [20, 20]
    assert crops.mask[crops.record == 1].sum() == 20
    assert len(np.unique(crops.x[crops.record == 0, 0, 0])) > 10
    np.testing.assert_array_equal(crops.x, source.draw(20, np.random.default_rng(1)).x)
