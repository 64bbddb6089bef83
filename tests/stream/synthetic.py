"""Small models and feeds for the tests of this folder: everything follows from its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from models.manifest import AlarmRule, FilterSpec, Golden, Manifest, ScoreSpec, Thresholds, WindowSpec
from models.session import FloatArray
from stream.contract import ChunkHeader, SampleChunk, Validity, to_lsb

Float64Array = npt.NDArray[np.float64]

T0 = 1_700_000_000_000_000_000
"""Device time of sample 0 of every feed made here."""


def small_manifest(
    leads: Sequence[str] = ("I", "II", "V1"),
    *,
    samples: int = 200,
    hop: int = 50,
    alarm: tuple[int, int, int] = (3, 5, 1),
    threshold: float = -3.0,
    max_batch: int = 8,
) -> Manifest:
    """Return a manifest with windows of `samples` at 100 Hz and the mean log error as the score."""
    n = len(leads)
    zeros, ones = ((0.0,) * n,) * n, ((1.0,) * n,) * n
    k, of, clear = alarm
    return Manifest(
        name="stand-in",
        architecture="none",
        description="",
        created="2025-01-01",
        leads=tuple(leads),
        filter=FilterSpec(delay_ms=10.5),
        window=WindowSpec(fs=100.0, samples=samples, hop=hop),
        score=ScoreSpec(lead_mean=zeros, lead_std=ones, count_mean=zeros[0], count_std=ones[0]),
        thresholds={
            "fp32": Thresholds(record=threshold, window=threshold, quantiles=(-12.0, threshold, 4.0))
        },
        alarm=AlarmRule(k=k, n=of, clear=clear),
        golden={"fp32": Golden(file="golden-fp32.npz", rtol=1e-4, atol=1e-4)},
        max_batch=max_batch,
        parameters=0,
        hyperparameters={},
        metrics={},
        data={},
        sha256={},
    )


class StandIn:
    """A session whose network is a moving average: what is smooth is usual, what is noisy is not.

    Nothing but element-wise arithmetic, so that a window's reconstruction has the same bits in every batch.
    """

    backend = "stand-in"
    precision = "fp32"
    max_batch = 64

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.batches: list[int] = []
        shape = (self.max_batch, len(manifest.leads), manifest.window.samples)
        self._x, self._mask = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)

    def inputs(self, n: int) -> tuple[FloatArray, FloatArray]:
        return self._x[:n], self._mask[:n]

    def run_filled(self, n: int) -> dict[str, FloatArray]:
        return self.run(*self.inputs(n))

    def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        self.batches.append(len(x))
        smooth = x.copy()
        smooth[..., 1:-1] = (x[..., :-2] + x[..., 1:-1] + x[..., 2:]) / np.float32(3)
        return {"recon_mean": smooth * mask[..., np.newaxis]}


def ecg(seconds: float, fs: float, n_leads: int = 3, *, seed: int = 0) -> Float64Array:
    """Return something that beats, wanders and carries electrode offsets, in mV, shape (n, leads)."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * fs)) / fs
    rate_hz = random.uniform(0.9, 1.4)
    phase = (t * rate_hz) % 1.0
    leads = []
    for _ in range(n_leads):
        qrs, t_wave = random.uniform(0.5, 1.5), random.uniform(0.1, 0.4)
        beat = qrs * np.exp(-(((phase - 0.3) / 0.03) ** 2)) + t_wave * np.exp(-(((phase - 0.6) / 0.07) ** 2))
        wander = 0.2 * np.sin(2 * np.pi * 0.25 * t + random.uniform(0, 6))
        leads.append(beat + wander + random.uniform(-5, 5))
    return np.stack(leads, axis=1)


def disturb(millivolts: Float64Array, begin: int, end: int, *, fs: float = 250.0, seed: int = 0) -> None:
    """Add, in place, what `StandIn` cannot reconstruct: a tone within the pass band, and no poor signal."""
    n, leads = millivolts[begin:end].shape
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, leads)
    millivolts[begin:end] += np.sin(2 * np.pi * 18 / fs * np.arange(n)[:, np.newaxis] + phase)


def feed(
    millivolts: Float64Array,
    fs: float,
    cuts: Iterable[int],
    *,
    leads: Sequence[str] = ("I", "II", "V1"),
    bed: str = "bed-1",
    session: str = "s",
    pace: float = 0.0,
    last: bool = False,
    valid: Sequence[Validity] | None = None,
) -> list[SampleChunk]:
    """Cut a signal (shape (n, leads), NaN where missing) at some of its samples into a session's chunks."""
    edges = sorted({0, len(millivolts), *cuts})
    samples = to_lsb(millivolts)
    chunks = []
    for seq, (begin, end) in enumerate(pairwise(edges)):
        header = ChunkHeader(
            bed=bed,
            session=session,
            seq=seq,
            t0=T0 + round(begin * 1e9 / fs),
            ingest_ns=T0 + round(end * 1e9 / fs),
            n0=begin,
            fs=fs,
            leads=tuple(leads),
            gain=(1000.0,) * len(leads),
            valid=tuple(valid or (Validity.OK,) * len(leads)),
            pace=pace,
            last=last and end == len(millivolts),
        )
        chunks.append(SampleChunk(header, samples[begin:end]))
    return chunks


def every(seconds: float, fs: float, n: int) -> range:
    """Return cuts for chunks of equal length."""
    return range(0, n, max(1, round(seconds * fs)))
