"""The measurement of replay: it counts what it should, on a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.replaying import measure_analysis, measure_jitter
from tests.ingest.wfdb_writing import write_record

FS = 250


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    second = np.exp(-0.5 * ((np.arange(FS) - 100) / 4) ** 2) * 1000
    beats = np.tile(np.rint(second).astype(np.int64), 20)
    return write_record(
        tmp_path_factory.mktemp("record"), np.stack([beats] * 2, axis=1), fs=FS, leads=("II", "V1")
    )


@pytest.mark.slow
def test_chunks_are_compared_with_when_they_were_due(record: Path) -> None:
    jitter = measure_jitter(record, 2, 2.0)
    # Two beds, five chunks a second, without the warm-up.
    assert jitter["chunks"] == pytest.approx(20, abs=3)
    for late in (jitter["sent_late"], jitter["there_late"]):
        assert -1 <= late["p50_ms"] <= late["p99_ms"] <= late["max_ms"]
    assert 0 <= jitter["sent_late"]["p50_ms"] < 100


@pytest.mark.slow
def test_a_repeated_record_is_analysed_whole(record: Path, tmp_path: Path) -> None:
    analysis = measure_analysis(record, 0.1, tmp_path)
    assert analysis["windows"] == pytest.approx(2 * 360, abs=20)
    assert (analysis["leads"], analysis["fs"]) == (2, FS)
    assert analysis["times_real_time"] == pytest.approx(360 / analysis["took_s"], rel=0.1)
    assert 50 < analysis["rss_mb"]["settled"] <= analysis["rss_mb"]["max"]
