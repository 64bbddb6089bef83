from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb

from stream.leads import LEADS
from training.recordings import Signal

FS = 500


def made_up_signal(seed: int, *, abnormal: bool = False, seconds: float = 10.0) -> Signal:
    """Twelve leads of a heartbeat from a formula: a QRS and a T wave, upside down and wide if abnormal."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.9, 1.3)
    phase = (np.arange(int(seconds * FS)) / FS * rate + rng.random()) % 1.0
    qrs = np.exp(-(((phase - 0.3) / (0.05 if abnormal else 0.015)) ** 2))
    t = (-0.4 if abnormal else 0.3) * np.exp(-(((phase - 0.6) / 0.06) ** 2))
    size = 1.0 + 0.1 * rng.standard_normal(len(LEADS)) + 0.05 * np.arange(len(LEADS))
    noise = 0.02 * rng.standard_normal((len(phase), len(LEADS)))
    return Signal(FS, LEADS, np.outer(qrs + t, size) + noise)


@pytest.fixture
def made_up_index(tmp_path: Path) -> Callable[..., Path]:
    """Write WFDB records of made-up signals with an index of them."""

    def make(abnormal_of_val: int = 0) -> Path:
        rows = []
        plan = [("train", 0, 8), ("val", 0, 3), ("test", 0, 3), ("test", 1, 3), ("val", 1, abnormal_of_val)]
        for split, label, n in plan:
            for i in range(n):
                seed = len(rows)
                signal = made_up_signal(seed, abnormal=bool(label))
                wfdb.wrsamp(
                    f"r{seed}",
                    fs=FS,
                    units=["mV"] * len(LEADS),
                    sig_name=list(LEADS),
                    p_signal=signal.millivolts,
                    fmt=["16"] * len(LEADS),
                    write_dir=str(tmp_path),
                )
                rows.append(
                    {
                        "path": f"r{seed}.dat",
                        "label": label,
                        "split": split,
                        "dataset": f"source-{i % 2}",
                        "rhythm_only": int(label == 1 and i == 0),
                        "licence": "CC0-1.0",
                    }
                )
        index = tmp_path / "index.csv"
        with index.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return index

    return make
