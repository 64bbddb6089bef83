"""Chunks that wait for those behind them: everything comes out as without, and with the same chunk."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.contract import SampleChunk, Validity, to_millivolts
from stream.holding import Holding
from stream.vitals.bed import BedVitals, Block
from stream.vitals.rhythm import Limits
from stream.windows import BedWindow, Push, Window, push_together
from tests.stream.synthetic import ecg, every, feed, small_manifest
from tests.stream.test_windows import assert_same

LEADS = ("I", "II", "V1")
MANIFEST = small_manifest(LEADS)


def bed(fs: float) -> tuple[BedWindow, BedVitals]:
    windows = BedWindow(LEADS, fs, LEADS, MANIFEST.filter, MANIFEST.window)
    windows.listener = vitals = BedVitals(len(LEADS), Limits(), windows.source_index)
    return windows, vitals


def push(windows: BedWindow, chunk: SampleChunk) -> list[Window]:
    (millivolts,) = to_millivolts([chunk])
    return push_together([Push(windows, chunk.header.n0, millivolts, valid=chunk.header.valid)])[0]


def assert_same_blocks(ours: list[Block], wanted: list[Block]) -> None:
    assert [(b.end, b.beats, b.judgements) for b in ours] == [(b.end, b.beats, b.judgements) for b in wanted]
    for one, other in zip(ours, wanted, strict=True):
        assert (one.quality is None) == (other.quality is None)
        if one.quality is not None and other.quality is not None:
            assert (one.quality.end, one.quality.issues) == (other.quality.end, other.quality.issues)
            np.testing.assert_array_equal(one.quality.index, other.quality.index)


@settings(max_examples=60, deadline=None)
@given(fs=st.sampled_from([128.0, 250.0, 257.0, 500.0]), seed=st.integers(0, 10_000))
def test_everything_comes_out_as_without_and_with_the_same_chunk(fs: float, seed: int) -> None:
    choose = random.Random(seed)
    x = ecg(9, fs, seed=seed)
    cuts, at = [], 0
    while at < len(x):
        at += choose.choice([1, round(0.05 * fs), round(0.2 * fs), round(0.2 * fs), round(0.7 * fs)])
        cuts.append(at)
    chunks = [chunk for chunk in feed(x, fs, cuts, last=True) if choose.random() > 0.03]
    for place, chunk in enumerate(chunks):
        # Another gain, or a lead that the source says is off or saturated.
        other = choose.random()
        fields = {"gain": (500.0,) * 3} if other < 0.05 else {}
        if other > 0.9:
            flag = choose.choice([Validity.OFF, Validity.SATURATED])
            fields = {"valid": (flag, Validity.OK, Validity.OK)}
        chunks[place] = replace(chunk, header=chunk.header.model_copy(update=fields))
    (plain, plain_vitals), (waiting, vitals) = bed(fs), bed(fs)
    held = Holding(waiting)
    for chunk in chunks:
        wanted, wanted_blocks = push(plain, chunk), plain_vitals.advance()
        stretch = held.add(chunk)
        windows = [] if stretch is None else push(waiting, stretch)
        assert_same(windows, wanted)
        assert_same_blocks(vitals.advance(), wanted_blocks)
        assert held.next_in == plain.next_in


def test_chunks_that_complete_nothing_wait() -> None:
    windows, _ = bed(500.0)
    held = Holding(windows)
    (*chunks, last) = feed(ecg(2.02, 500.0), 500.0, every(0.2, 500.0, 1010), last=True)
    came, stretches = [], []
    for chunk in chunks:
        stretch = held.add(chunk)
        came.append(stretch is not None)
        if stretch is not None:
            push(windows, stretch)
            stretches.append(stretch)
    # Half a second ends with the third chunk, a second with the fifth.
    assert came == [False, False, True, False, True] * 2
    assert [(stretch.header.n0, stretch.end) for stretch in stretches] == [
        (0, 300),
        (300, 500),
        (500, 800),
        (800, 1000),
    ]
    np.testing.assert_array_equal(
        np.concatenate([stretch.samples for stretch in stretches]),
        np.concatenate([chunk.samples for chunk in chunks]),
    )
    assert held.add(last) is last, "nothing is kept when the session ends"
