"""Cutting: nothing lost, nothing moved, no drift, whatever the rate and the length of a chunk."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunks import Cutter, chunks_of
from ingest.source import ArrayRecording, IngestError, Recording
from stream.contract import INVALID, SampleChunk, Validity

RATES = [62.4725, 100.0, 125.0, 128.0, 249.89, 250.0, 257.0, 360.0, 499.907, 500.0, 999.56, 1000.0]


def recording(n: int, fs: float = 500.0, leads: int = 2, **fields: Any) -> ArrayRecording:
    samples = np.random.default_rng(0).integers(-2000, 2000, (n, leads)).astype(np.int16)
    names = ["I", "II", "V1"][:leads]
    return ArrayRecording(samples, name="r", fs=fs, leads=names, gain=[1000.0] * leads, **fields)


def joined(chunks: list[SampleChunk]) -> npt.NDArray[np.int16]:
    return np.concatenate([chunk.samples for chunk in chunks])


@settings(max_examples=60, deadline=None)
@given(
    fs=st.sampled_from(RATES),
    n=st.integers(1, 20_000),
    chunk_s=st.sampled_from([0.05, 0.1, 0.2, 0.333, 0.5]),
    start=st.floats(0, 20),
    length=st.none() | st.floats(0.01, 30),
)
def test_chunks_are_the_part_asked_for_without_loss(
    fs: float, n: int, chunk_s: float, start: float, length: float | None
) -> None:
    source = recording(n, fs)
    stop = None if length is None else start + length
    first, end = round(start * fs), n if stop is None else min(n, round(stop * fs))
    if end <= first:
        with pytest.raises(IngestError, match="nothing to send"):
            next(chunks_of(source, "b", "s", start=start, stop=stop, chunk_s=chunk_s))
        return
    chunks = list(chunks_of(source, "b", "s", start=start, stop=stop, chunk_s=chunk_s))
    np.testing.assert_array_equal(joined(chunks), source.read(first, end))
    assert [chunk.header.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.header.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    position = 0
    for chunk in chunks:
        assert chunk.header.n0 == position
        position = chunk.end
    assert all(abs(len(chunk.samples) - fs * chunk_s) < 1 for chunk in chunks[:-1])
    assert chunks[-1].end == end - first


@given(fs=st.sampled_from(RATES), chunk_s=st.sampled_from([0.05, 0.2, 0.5]), seq=st.integers(0, 10**8))
def test_boundaries_and_times_do_not_drift(fs: float, chunk_s: float, seq: int) -> None:
    base = 1_700_000_000_123_456_789
    cutter = Cutter(recording(10_000, fs), "b", "s", chunk_s=chunk_s, base_time_ns=base)
    first = cutter.first_sample(seq)
    exact = Fraction(str(fs)) * Fraction(str(chunk_s)) * seq
    assert abs(first - exact) <= Fraction(1, 2)
    assert abs(cutter.time_of(first) - base - first * 10**9 / Fraction(str(fs))) <= Fraction(1, 2)


def test_a_rate_of_whole_chunks_has_chunks_of_one_length() -> None:
    chunks = list(chunks_of(recording(3600, 360.0), "b", "s"))
    assert {len(chunk.samples) for chunk in chunks} == {72}
    assert [chunk.header.t0 for chunk in chunks] == [k * 200_000_000 for k in range(50)]


def test_the_header_says_what_the_recording_is() -> None:
    source = recording(1000)
    chunk = next(chunks_of(source, "bed 3", "s-1", base_time_ns=7))
    header = chunk.header
    assert (header.bed, header.session, header.fs) == ("bed 3", "s-1", 500.0)
    assert (header.leads, header.gain, header.pace) == (source.leads, source.gain, 0.0)
    assert (header.t0, header.ingest_ns) == (7, 200_000_007)
    assert SampleChunk.decode(chunk.encode()).header == header


def test_device_time_is_the_recording_s_own_at_the_part_s_beginning() -> None:
    from datetime import UTC, datetime

    source = recording(1000, start_time=datetime(2020, 1, 1, tzinfo=UTC))
    chunk = next(chunks_of(source, "b", "s", start=1.0))
    assert chunk.header.t0 == 1_577_836_801_000_000_000
    assert chunk.header.n0 == 0


def test_a_lead_without_a_valid_sample_is_off_in_that_chunk_only() -> None:
    source = recording(500, leads=3)
    samples = source.read(0, 500)
    samples[100:200, 1] = INVALID
    samples[250:260, 2] = INVALID
    valid = [chunk.header.valid for chunk in chunks_of(source, "b", "s")]
    ok, off = Validity.OK, Validity.OFF
    assert valid == [(ok, ok, ok), (ok, off, ok), (ok, ok, ok), (ok, ok, ok), (ok, ok, ok)]


class EndsUnannounced(Recording):
    def __init__(self, n: int) -> None:
        super().__init__(name="live", fs=100.0, leads=["II"], gain=[1000.0])
        self._n = n

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        return np.zeros((max(0, min(stop, self._n) - start), 1), np.int16)


@pytest.mark.parametrize("n", [5, 20, 999, 1000, 1001, 2000])
def test_a_source_that_ends_unannounced_has_a_last_chunk(n: int) -> None:
    chunks = list(chunks_of(EndsUnannounced(n), "b", "s"))
    assert len(joined(chunks)) == n
    assert [chunk.header.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


@pytest.mark.parametrize(
    "options",
    [{"chunk_s": 0.04}, {"chunk_s": 0.6}, {"start": -1.0}, {"start": 2.0, "stop": 2.0}],
)
def test_what_cannot_be_cut_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"chunk of|no part"):
        next(chunks_of(recording(5000), "b", "s", **options))


def test_a_rate_below_one_sample_a_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one sample"):
        next(chunks_of(recording(100, 2.0), "b", "s"))


class Endless(Recording):
    def __init__(self) -> None:
        super().__init__(name="endless", fs=500.0, leads=["I", "II"], gain=[1000.0] * 2)

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        return np.zeros((stop - start, 2), np.int16)


def test_memory_does_not_grow_with_what_has_been_cut() -> None:
    chunks = chunks_of(Endless(), "b", "s")
    for _ in range(100):
        next(chunks)
    tracemalloc.start()
    try:
        for _ in range(5000):
            next(chunks)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two pieces of a minute; what has been cut is 2 MB.
    assert peak < 600_000
