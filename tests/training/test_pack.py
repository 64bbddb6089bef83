from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ingest.source import IngestError
from stream.contract import INVALID
from training.pack import Slice, read_slice


def pack(folder: Path, samples: int = 10) -> Path:
    path = folder / "signals.npy"
    np.save(path, np.arange(samples * 12, dtype=np.int16).reshape(samples, 12))
    return path


def test_a_slice_is_the_rows_of_one_recording_in_millivolts(tmp_path: Path) -> None:
    millivolts = read_slice(pack(tmp_path), Slice(offset=2, samples=3, fs=500.0))
    np.testing.assert_allclose(millivolts, np.arange(24, 60).reshape(3, 12) / 1000)


def test_missing_samples_are_nan(tmp_path: Path) -> None:
    path = tmp_path / "signals.npy"
    samples = np.zeros((4, 12), np.int16)
    samples[1, 3] = INVALID
    np.save(path, samples)
    np.testing.assert_array_equal(np.isnan(read_slice(path, Slice(0, 4, 500.0))), samples == INVALID)


def test_a_pack_written_anew_is_read_anew(tmp_path: Path) -> None:
    assert read_slice(pack(tmp_path), Slice(0, 1, 500.0))[0, 1] == 0.001
    np.save(tmp_path / "signals.npy", np.full((5, 12), 7, np.int16))
    assert read_slice(tmp_path / "signals.npy", Slice(0, 1, 500.0))[0, 1] == 0.007


def test_a_pack_that_ends_too_early_says_so(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"ends after 10 samples; its index names samples up to 11"):
        read_slice(pack(tmp_path), Slice(8, 3, 500.0))


@pytest.mark.parametrize("array", [np.zeros((3, 12)), np.zeros((3, 8), np.int16), np.zeros(12, np.int16)])
def test_another_array_is_no_pack(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "signals.npy", array)
    with pytest.raises(IngestError, match="the pack cannot be read"):
        read_slice(tmp_path / "signals.npy", Slice(0, 1, 500.0))


def test_a_missing_and_a_broken_pack_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="No such file"):
        read_slice(tmp_path / "signals.npy", Slice(0, 1, 500.0))
    (tmp_path / "signals.npy").write_bytes(b"rubbish")
    with pytest.raises(IngestError, match="the pack cannot be read"):
        read_slice(tmp_path / "signals.npy", Slice(0, 1, 500.0))


def test_a_recording_costs_its_own_memory_and_not_that_of_the_pack(tmp_path: Path) -> None:
    # 6 GB on paper; the file is sparse, and the reader is not given as much memory.
    path, rows = tmp_path / "signals.npy", 250_000_000
    with path.open("wb") as file:
        header = {"descr": "<i2", "fortran_order": False, "shape": (rows, 12)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + rows * 24)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from training.pack import Slice, read_slice\n"
        f"before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"for at in (0, {rows // 2}, {rows - 5000}):\n"
        "    assert read_slice(Path(sys.argv[1]), Slice(at, 5000, 500.0)).shape == (5000, 12)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 20_000  # kB
