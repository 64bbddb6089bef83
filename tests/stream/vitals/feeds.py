"""Conditioned signal of simulated and of real patients, and what beats and rhythm make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.simulator import PatientSimulator
from ingest.wfdb_files import WfdbRecording
from models.manifest import FilterSpec
from stream.contract import INVALID
from stream.preprocess import Conditioner, Resampled
from stream.vitals.beats import Beat, BeatDetector, Beats
from stream.vitals.grid import BLOCK, FS
from stream.vitals.rhythm import Judgement, Limits, Rhythm, Rule

TWO = ("II", "V1")
Millivolts = npt.NDArray[np.float64]
Spans = list[tuple[float, float, float]]


def simulated(
    seed: int,
    timeline: str,
    seconds: float,
    leads: Sequence[str] = TWO,
    change: Callable[[Millivolts], None] | None = None,
) -> tuple[Resampled, npt.NDArray[np.float64]]:
    """Return a simulated patient and when the heart beats; `change` may alter samples in place (250 Hz)."""
    patient = PatientSimulator(seed, timeline, duration_s=seconds, leads=leads, fs=250.0)
    samples = patient.read(0, round(250 * seconds))
    millivolts = samples.T / 1000.0
    millivolts[samples.T == INVALID] = np.nan
    if change is not None:
        change(millivolts)
    return condition(millivolts, 250.0), np.array(patient.beat_times(seconds))


def condition(millivolts: Millivolts, fs: float) -> Resampled:
    conditioner = Conditioner(FilterSpec(), fs, FS, len(millivolts))
    return conditioner.push(np.ascontiguousarray(millivolts))


def recorded(path: Path, start_s: float, stop_s: float) -> Resampled:
    recording = WfdbRecording(path)
    samples = recording.read(round(start_s * recording.fs), round(stop_s * recording.fs))
    millivolts = samples.T / np.asarray(recording.gain)[:, np.newaxis]
    millivolts[samples.T == INVALID] = np.nan
    return condition(millivolts, recording.fs)


def detect(signal: Resampled, usable: Sequence[bool] | None = None) -> list[Beats]:
    leads, n = signal.values.shape
    detector = BeatDetector(leads, signal.first)
    mask = np.ones(leads, np.bool_) if usable is None else np.array(usable)
    blocks = []
    for at in range(0, n, BLOCK):
        piece = slice(at, at + BLOCK)
        blocks += detector.push(signal.first + at, signal.values[:, piece], signal.missing[:, piece], mask)
    return blocks


def beats_of(blocks: Sequence[Beats]) -> list[Beat]:
    return [beat for block in blocks for beat in block.found]


def judge(blocks: Sequence[Beats], limits: Limits | None = None) -> tuple[list[list[Judgement]], Rhythm]:
    rhythm = Rhythm(limits)
    return [rhythm.update(block) for block in blocks], rhythm


def present(judged: Sequence[Sequence[Judgement]], rule: Rule) -> Spans:
    """Return for each time that it is on, in seconds: its onset, when it was told, when it was last on."""
    spans: Spans = []
    for number, judgements in enumerate(judged):
        now = (number + 1) * BLOCK / FS
        for judgement in judgements:
            if judgement.rule is rule and judgement.present:
                if spans and spans[-1][2] == now - BLOCK / FS:
                    spans[-1] = (*spans[-1][:2], now)
                else:
                    spans.append((judgement.onset / FS, now, now))
    return spans


def conditions(judged: Sequence[Sequence[Judgement]]) -> set[Rule]:
    return {judgement.rule for judgements in judged for judgement in judgements if judgement.present}


def missed_and_extra(
    found_s: npt.NDArray[np.float64], there_s: npt.NDArray[np.float64], within_s: float = 0.06
) -> tuple[list[float], list[float]]:
    def far(these: npt.NDArray[np.float64], those: npt.NDArray[np.float64]) -> list[float]:
        return [float(at) for at in these if not len(those) or np.abs(those - at).min() > within_s]

    return far(there_s, found_s), far(found_s, there_s)
