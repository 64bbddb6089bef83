"""Arrays in .npy files: every shape and type that is clear, and an error for what is not."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ingest.npy_files import NpyRecording
from ingest.source import IngestError
from stream.contract import INVALID
from stream.leads import LEADS


def saved(folder: Path, array: np.ndarray, **options: object) -> Path:
    np.save(folder / "x.npy", array, **options)
    return folder / "x.npy"


def millivolts(n: int = 500, leads: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.5, (n, leads))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("leads_first", [False, True])
def test_floats_are_millivolts(tmp_path: Path, dtype: str, leads_first: bool) -> None:
    array = millivolts().astype(dtype)
    recording = NpyRecording(saved(tmp_path, array.T if leads_first else array), fs=500)
    assert (recording.leads, recording.fs, recording.n_samples) == (LEADS, 500.0, 500)
    samples = recording.read(100, 200)
    assert samples.dtype == np.int16
    np.testing.assert_allclose(samples / 1000, array[100:200].astype(float), atol=5.01e-4)


@pytest.mark.parametrize("dtype", ["<i2", ">i2"])
def test_int16_is_lsb_as_it_is(tmp_path: Path, dtype: str) -> None:
    array = np.random.default_rng(0).integers(-32768, 32768, (300, 12)).astype(dtype)
    recording = NpyRecording(saved(tmp_path, array), fs=500)
    assert recording.gain == (1000.0,) * 12
    np.testing.assert_array_equal(recording.read(0, 300), array)


def test_other_leads_are_named(tmp_path: Path) -> None:
    recording = NpyRecording(saved(tmp_path, millivolts(leads=2)), fs=250, leads=["MLII", "V5"])
    assert recording.leads == ("II", "V5")


def test_one_lead_may_be_a_plain_row(tmp_path: Path) -> None:
    recording = NpyRecording(saved(tmp_path, millivolts(leads=1)[:, 0]), fs=250, leads=["II"])
    assert recording.read(0, 10).shape == (10, 1)


def test_nan_and_infinity_are_missing_and_too_large_saturates(tmp_path: Path) -> None:
    array = millivolts()
    array[3, 0], array[4, 0], array[5, 0] = np.nan, np.inf, 50.0
    samples = NpyRecording(saved(tmp_path, array), fs=500).read(3, 6)
    np.testing.assert_array_equal(samples[:, 0], [INVALID, INVALID, 32767])


@pytest.mark.parametrize("fs", [0.0, -500.0, float("nan"), float("inf")])
def test_a_rate_that_cannot_be_is_refused(tmp_path: Path, fs: float) -> None:
    with pytest.raises(IngestError, match="greater than 0 Hz"):
        NpyRecording(saved(tmp_path, millivolts()), fs=fs)


def test_the_rate_is_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"x\.npy: .*give it with --fs"):
        NpyRecording(saved(tmp_path, millivolts()))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((12, 12)), "cannot tell leads from samples"),
        (np.zeros((500, 3)), "no axis of 12 leads; name the leads"),
        (np.zeros(500), "expected .samples, leads."),
        (np.zeros((2, 500, 12)), "expected .samples, leads."),
        (np.zeros((500, 12), np.int64), "int64: expected floats"),
        (np.zeros((500, 12), complex), "complex128: expected floats"),
        (np.zeros((500, 12), bool), "bool: expected floats"),
        (np.full((500, 12), np.nan), "no valid sample"),
        (np.full((500, 12), INVALID, np.int16), "no valid sample"),
        (np.full((500, 12), 450.0), "microvolts"),
    ],
)
def test_an_array_that_is_not_clear_is_refused(tmp_path: Path, array: np.ndarray, says: str) -> None:
    with pytest.raises(IngestError, match=says):
        NpyRecording(saved(tmp_path, array), fs=500)


def test_named_leads_must_fit_an_axis(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="no axis of 3 leads"):
        NpyRecording(saved(tmp_path, millivolts()), fs=500, leads=["I", "II", "III"])


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "exploded",)  # type: ignore[return-value]

    with pytest.raises(IngestError, match="no array of numbers"):
        NpyRecording(saved(tmp_path, np.array([Bomb()], object), allow_pickle=True), fs=500)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "content", [b"", b"no array", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00v\x00{'descr'"]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(IngestError, match=r"x\.npy: no array"):
        NpyRecording(tmp_path / "x.npy", fs=500)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, millivolts())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(IngestError, match="no array"):
        NpyRecording(path, fs=500)


def test_an_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=millivolts())
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(IngestError, match="several arrays"):
        NpyRecording(tmp_path / "x.npy", fs=500)


def test_a_large_file_is_not_loaded(tmp_path: Path) -> None:
    # 96 MB, all of it a hole but for the header and one valid sample.
    array = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float64, shape=(1_000_000, 12))
    array[999_999] = 0.5
    array.flush()
    tracemalloc.start()
    try:
        recording = NpyRecording(tmp_path / "x.npy", fs=500)
        assert recording.read(999_990, 1_000_000)[-1, 0] == 500
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
