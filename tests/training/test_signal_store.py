from __future__ import annotations

import errno
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from training.signal_store import SignalStore


def some(number: int) -> np.ndarray:
    shape = (1 + number % 3, 50 + number)
    return np.random.default_rng(number).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("limit", [0, 4000, 1 << 20])
def test_signals_come_back_whether_they_fit_in_memory_or_not(tmp_path: Path, limit: int) -> None:
    store = SignalStore(tmp_path, memory_limit=limit)
    for number in range(30):
        store.append(some(number))
        # Also while it still grows.
        np.testing.assert_array_equal(store[number // 2], some(number // 2))
    assert len(store) == 30
    for number in range(30):
        np.testing.assert_array_equal(store[number], some(number))
    # Its file has no name that could be left behind.
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    # A limit on the size of files fails as a full disk does: in the middle of a write.
    store = SignalStore(tmp_path, memory_limit=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(OSError, match="too large") as caught:
            store.append(np.zeros((12, 1000), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path)
