"""Looping: no jump, no beat that the recording does not have, and always the same samples."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.looping import LoopedRecording
from ingest.recordings import open_recording
from ingest.seams import find_beats
from ingest.simulator import PatientSimulator
from ingest.source import ArrayRecording, IngestError, Recording
from stream.contract import INVALID


def valid(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    return np.where(samples == INVALID, np.nan, samples)


def intervals_s(samples: npt.NDArray[np.int16], fs: float) -> npt.NDArray[np.float64]:
    values = np.nan_to_num(valid(samples))
    return np.diff(find_beats(values / np.maximum(values.std(axis=0), 1e-9), fs)) / fs


def jump(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    steps: npt.NDArray[np.float64] = np.nanmax(np.abs(np.diff(valid(samples), axis=0)), axis=0)
    return steps


def around_seam(loop: LoopedRecording, seconds: float, turn: int = 0) -> npt.NDArray[np.int16]:
    # The part is taken from sample 0, so the loop leaves for the first time at `leave`.
    seam, reach = loop.leave + turn * (loop.leave - loop.join), round(seconds * loop.fs)
    return loop.read(seam - reach, seam + reach)


def taken(recording: Recording, seconds: float | None = None) -> npt.NDArray[np.int16]:
    n = recording.n_samples if seconds is None else round(seconds * recording.fs)
    assert n is not None
    return recording.read(0, n)


def in_memory(samples: npt.NDArray[np.int16], fs: float = 250.0) -> ArrayRecording:
    leads = ["I", "II", "V1"][: samples.shape[1]]
    return ArrayRecording(samples, name="r", fs=fs, leads=leads, gain=[1000.0] * len(leads))


@pytest.mark.parametrize("turn", [0, 1, 5])
def test_the_seam_of_a_real_ecg_has_no_jump_and_no_false_interval(dicom_ecg: Path, turn: int) -> None:
    recording = open_recording(dicom_ecg)
    original = taken(recording)
    loop = LoopedRecording(recording)
    seam = around_seam(loop, 2.5, turn)
    assert (jump(seam) <= jump(original)).all()
    rr = intervals_s(original, recording.fs)
    over_seam = intervals_s(seam, recording.fs)
    assert len(over_seam) >= 3
    assert (over_seam >= rr.min() - 0.01).all()
    assert (over_seam <= rr.max() + 0.01).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rate", [45, 72, 130])
def test_beats_keep_their_rhythm_over_any_seam(seed: int, rate: int) -> None:
    recording = PatientSimulator(seed, f"sinus:{rate}@0", duration_s=14.0)
    loop = LoopedRecording(recording)
    rr = intervals_s(taken(recording), recording.fs)
    over_seam = intervals_s(around_seam(loop, 3.0), recording.fs)
    assert over_seam.min() > 0.9 * rr.min()
    assert over_seam.max() < 1.1 * rr.max()
    assert (jump(around_seam(loop, 3.0)) <= jump(taken(recording)) * 1.05 + 1).all()


@pytest.mark.parametrize(
    "timeline", ["asystole@0", "vf@0", "leadoff:I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6@0"]
)
def test_without_beats_it_joins_what_looks_alike(timeline: str) -> None:
    recording = PatientSimulator(3, timeline, duration_s=12.0)
    loop = LoopedRecording(recording)
    assert 0 < loop.join < loop.leave <= 6000
    seam = around_seam(loop, 2.0)
    if (seam != INVALID).any():
        assert (jump(seam) <= jump(taken(recording)) * 1.2 + 1).all()


def test_a_step_of_the_baseline_between_the_ends_is_taken_out() -> None:
    patient = taken(PatientSimulator(4, "sinus:70@0", duration_s=12.0, leads=["I", "II", "V1"]))
    drifting = patient + np.linspace(0, 3000, len(patient))[:, None].astype(np.int16)
    loop = LoopedRecording(in_memory(drifting, 500.0))
    assert (jump(around_seam(loop, 2.0)) <= jump(drifting) + 3000 / 250).all()


def recorded(seed: int = 0) -> ArrayRecording:
    return in_memory(taken(PatientSimulator(seed, duration_s=9.0, fs=250.0, leads=["I", "II"])))


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 20_000), cuts=st.lists(st.integers(0, 3000), min_size=1, max_size=4))
def test_a_sample_is_the_same_however_it_is_read(start: int, cuts: list[int]) -> None:
    loop = LoopedRecording(recorded())
    ends = [start, *(start + int(step) for step in np.cumsum(cuts))]
    pieces = [loop.read(a, b) for a, b in pairwise(ends)]
    np.testing.assert_array_equal(np.concatenate(pieces), loop.read(start, ends[-1]))


def test_the_part_is_played_once_unaltered_up_to_the_fade() -> None:
    recording = recorded()
    loop = LoopedRecording(recording, 1.0, 8.0)
    unaltered = loop.leave - 250 - 30
    np.testing.assert_array_equal(loop.read(0, unaltered), recording.read(250, 250 + unaltered))
    assert 250 <= loop.join < loop.leave <= 2000


def test_later_turns_repeat_with_the_period() -> None:
    loop = LoopedRecording(recorded())
    period = loop.leave - loop.join
    np.testing.assert_array_equal(
        loop.read(loop.leave, loop.leave + period),
        loop.read(loop.leave + 7 * period, loop.leave + 8 * period),
    )


def test_a_gap_at_the_seam_is_bridged_by_the_other_side() -> None:
    samples = taken(recorded()).copy()
    loop = LoopedRecording(in_memory(samples))
    samples[loop.leave - 20 : loop.leave - 10, 0] = INVALID
    other = LoopedRecording(in_memory(samples))
    if (other.join, other.leave) == (loop.join, loop.leave):
        assert (other.read(other.leave - 40, other.leave + 40) != INVALID).all()


def test_it_has_no_end_and_keeps_the_rest() -> None:
    recording = recorded()
    loop = LoopedRecording(recording)
    assert loop.n_samples is None
    assert (loop.fs, loop.leads, loop.gain, loop.name) == (250.0, recording.leads, recording.gain, "r")
    assert loop.read(10**7, 10**7 + 5).shape == (5, 2)


@pytest.mark.parametrize("seconds", [0.1, 2.9])
def test_a_recording_too_short_to_loop_is_refused(seconds: float) -> None:
    short = in_memory(np.zeros((round(seconds * 250), 1), np.int16))
    with pytest.raises(IngestError, match="shorter than 3 s"):
        LoopedRecording(short)


def test_the_shortest_recording_loops() -> None:
    loop = LoopedRecording(in_memory(taken(recorded())[:750]))
    assert loop.read(0, 5000).shape == (5000, 2)


def test_a_source_without_end_is_refused() -> None:
    with pytest.raises(IngestError, match="no end"):
        LoopedRecording(PatientSimulator(1))


class Counting(Recording):
    """A long recording that remembers how much is read at once."""

    def __init__(self) -> None:
        super().__init__(name="day", fs=128.0, leads=["I", "II"], gain=[200.0] * 2, n_samples=24 * 3600 * 128)
        self.largest = 0

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        self.largest = max(self.largest, stop - start)
        samples: Any = np.arange(start, stop)[:, None] % (97, 89)
        return samples.astype(np.int16)


def test_a_day_is_opened_and_looped_without_being_read() -> None:
    day = Counting()
    loop = LoopedRecording(day)
    loop.read(loop.leave - 640, loop.leave + 640)
    assert day.largest <= 1280
    assert loop.leave - loop.join > 0.99 * 24 * 3600 * 128


@pytest.mark.data
def test_real_records_loop_without_a_jump(data_dir: Path) -> None:
    with (data_dir / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] in ("ptb-xl", "ptb", "cpsc2018")]
    false = 0
    for row in rows[::25]:
        recording = open_recording(data_dir / row["path"])
        loop = LoopedRecording(recording)
        original, seam = taken(recording), around_seam(loop, 2.5)
        assert (jump(seam) <= jump(original) * 1.05 + 1).all(), row["path"]
        rr, over_seam = intervals_s(original, recording.fs), intervals_s(seam, recording.fs)
        if len(rr) and len(over_seam):
            false += bool(over_seam.min() < 0.9 * rr.min() or over_seam.max() > 1.1 * rr.max())
    assert false <= 1
