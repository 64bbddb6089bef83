"""What a plain loop does with the samples of a bed: SciPy filters and eager PyTorch, one window at a time.

``same``
    The same bundle, window, hop, preprocessing and score, signal quality with the leads that it masks, beats
    and rhythm. Written as a competent programmer would: filter state carried from chunk to chunk, a ring for
    each bed, and for quality, beats and alarms the classes and functions of `stream`, called for each bed.
``model``
    The same without signal quality, beats and rhythm.
``thesis``
    The model and the scoring path of the reference thesis on a live feed: at each hop the last ten seconds
    are filtered forwards and backwards (Butterworth 0.5 to 40 Hz, notch), standardised over those ten
    seconds, and the newest second goes through VAE-BiLSTM-MHA at 500 Hz in full size; its score is the
    attention-weighted ELBO with weights 0.4 and 0.6. Random weights: the time is the same. Unlike there,
    latents are their means, not drawn.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter
from scipy import signal

from models.architectures import NetworkConfig
from models.bundle import load_bundle
from models.manifest import AlarmRule, FilterSpec, Manifest, ScoreSpec, WindowSpec
from models.networks.build import build
from models.scoring import lead_errors, score
from stream.preprocess import Resampled
from stream.vitals.bed import BedVitals, Block
from stream.vitals.quality import QualityMeter, SecondQuality
from stream.vitals.rhythm import Limits
from training.config import load_config

THESIS = "thesis-vae-bilstm-mha"
"""The thesis's training configuration."""

# The thesis prepares recordings of this length as a whole.
_RECORD_S = 10.0
_THESIS_BAND_HZ, _THESIS_ORDER = (0.5, 40.0), 4
_NOTCH_HZ, _NOTCH_Q = 50.0, 30.0
# Runs by which the number of threads is chosen: the thesis's network takes a good part of a second.
_TIMED = 3

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scored:
    """A window that a bed's newest samples completed.

    Attributes
    ----------
    window : int
        Its number.
    start, end : int
        Samples of the feed that it covers, end exclusive.
    score : float or None
        None where the signal of all leads is too poor.
    leads : list of float
        Score of each lead, NaN for one that is masked; may be empty.
    """

    window: int
    start: int
    end: int
    score: float | None
    leads: list[float] = field(default_factory=list)


class Bed(Protocol):
    """One bed of a plain loop."""

    def push(self, samples: npt.NDArray[np.float64]) -> list[Block]:
        """Take the next samples, millivolts, shape (n, leads); return the blocks of vitals they complete."""
        ...

    def judge(self) -> Iterator[Scored]:
        """Score the windows that they complete, one after the other."""
        ...

    def source_index(self, grid: int) -> int:
        """Return the sample of the feed at a sample of the grid of vitals."""
        ...


class SameBed:
    """The chain of a bundle, one window at a time.

    Parameters
    ----------
    manifest : Manifest
    network : torch.nn.Module
    fs : float
        Of the feed, Hz: a multiple of the model's, as the loads of the benchmarks are. Its leads are the
        model's.
    watched : bool
        Whether signal quality, beats and rhythm are looked at.
    """

    def __init__(self, manifest: Manifest, network: torch.nn.Module, fs: float, *, watched: bool) -> None:
        self._spec, self._score = manifest.window, manifest.score
        self._network = network
        self._step = round(fs / manifest.window.fs)
        self._sos = _band_pass(manifest.filter, fs)
        leads = len(manifest.leads)
        self._state = np.zeros((len(self._sos), leads, 2))
        self._settled = signal.sosfilt_zi(self._sos)[:, np.newaxis, :]
        self._ring = np.zeros((leads, manifest.window.samples))
        self._new = np.zeros((leads, 0))
        self._seen = self._kept = 0
        self._watched = watched
        self._meter = QualityMeter(leads, fs)
        # Of the seconds that a window may reach into.
        self._seconds: deque[SecondQuality] = deque(maxlen=int(manifest.window.seconds) + 2)
        self._vitals = BedVitals(leads, Limits(), self.source_index)

    def push(self, samples: npt.NDArray[np.float64]) -> list[Block]:
        """Take the next samples, millivolts, shape (n, leads); return the blocks of vitals they complete."""
        seconds = self._meter.push(self._seen, samples) if self._watched else []
        self._seconds += seconds
        x = samples.T
        if not self._seen:
            self._state = self._settled * x[np.newaxis, :, :1]
        filtered, self._state = signal.sosfilt(self._sos, x, axis=1, zi=self._state)
        new = self._new = filtered[:, (-self._seen) % self._step :: self._step]
        first = -(-self._seen // self._step)
        self._seen += x.shape[1]
        if not self._watched:
            return []
        self._vitals.rate(seconds)
        self._vitals.hear(Resampled(first, new.astype(np.float32), np.zeros(new.shape, np.float32)))
        return self._vitals.advance()

    def judge(self) -> Iterator[Scored]:
        """Score the windows that they complete, one after the other."""
        spec, new = self._spec, self._new
        at = 0
        while at < new.shape[1]:
            # Up to the next end of a window.
            past = self._kept - spec.samples
            left = spec.hop - past % spec.hop if past >= 0 else -past
            piece = new[:, at : at + left]
            self._ring = np.concatenate([self._ring[:, piece.shape[1] :], piece], axis=1)
            self._kept += piece.shape[1]
            at += piece.shape[1]
            past = self._kept - spec.samples
            if past >= 0 and past % spec.hop == 0:
                start, end = past * self._step, (past + spec.samples) * self._step
                yield Scored(past // spec.hop, start, end, *self._score_of(self._poor(start, end)))

    def source_index(self, grid: int) -> int:
        """Return the sample of the feed at a sample of the grid of vitals."""
        return grid * self._step

    def _poor(self, start: int, end: int) -> npt.NDArray[np.bool_]:
        # Leads with more than one noisy second in the window.
        poor = np.zeros(len(self._ring), np.intp)
        for second in self._seconds:
            if second.end > start and second.end <= end - self._step + 1:
                poor += second.noisy
        return poor > 1

    def _score_of(self, poor: npt.NDArray[np.bool_]) -> tuple[float | None, list[float]]:
        mean = self._ring.mean(axis=1, keepdims=True)
        scale = self._ring.std(axis=1, keepdims=True)
        good = (scale[:, 0] >= self._spec.floor_mv) & ~poor
        if not good.any():
            return None, []
        x = np.where(good[:, np.newaxis], (self._ring - mean) / np.where(scale > 0, scale, 1.0), 0.0)
        x = x[np.newaxis].astype(np.float32)
        mask = good[np.newaxis].astype(np.float32)
        counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
        scores = score(x, _run(self._network, x, mask), counted, mask, self._score)
        return float(scores.window[0]), scores.lead[0].tolist()


class ThesisBed:
    """The scoring path of the thesis on a live feed.

    Parameters
    ----------
    network : torch.nn.Module
    window : WindowSpec
    spec : ScoreSpec
        Of the kind ``attention_elbo``.
    fs : float
        Of the feed, Hz: the window's.
    """

    def __init__(self, network: torch.nn.Module, window: WindowSpec, spec: ScoreSpec, fs: float) -> None:
        self._network, self._window, self._spec = network, window, spec
        self._band = signal.butter(_THESIS_ORDER, _THESIS_BAND_HZ, "bandpass", fs=fs, output="sos")
        self._notch = signal.tf2sos(*signal.iirnotch(_NOTCH_HZ, _NOTCH_Q, fs=fs))
        self._record = round(_RECORD_S * fs)
        self._buffer: npt.NDArray[np.float64] | None = None
        self._seen = self._new = 0

    def push(self, samples: npt.NDArray[np.float64]) -> list[Block]:
        """Take the next samples, millivolts, shape (n, leads); there are no blocks of vitals."""
        before = samples[:0] if self._buffer is None else self._buffer
        self._buffer = np.concatenate([before, samples])[-self._record :]
        self._new = len(samples)
        self._seen += self._new
        return []

    def source_index(self, grid: int) -> int:
        """Return the sample itself: there is no other grid."""
        return grid

    def judge(self) -> Iterator[Scored]:
        """Score the windows that they complete, one after the other."""
        size, hop = self._window.samples, self._window.hop
        last = (self._seen - size) // hop
        done = (self._seen - self._new - size) // hop
        for window in range(max(0, done + 1), last + 1):
            end = window * hop + size
            yield Scored(window, end - size, end, self._score_of(self._seen - end))

    def _score_of(self, after: int) -> float:
        # `after`: samples that came with the same chunk, behind the window's end.
        assert self._buffer is not None
        record = self._buffer[: len(self._buffer) - after].T
        filtered = signal.sosfiltfilt(self._notch, signal.sosfiltfilt(self._band, record, axis=1), axis=1)
        standardised = (filtered - filtered.mean(axis=1, keepdims=True)) / (
            filtered.std(axis=1, keepdims=True) + 1e-8
        )
        x = np.ascontiguousarray(standardised[np.newaxis, :, -self._window.samples :], np.float32)
        mask = np.ones(x.shape[:2], np.float32)
        outputs = _run(self._network, x, mask)
        counted = np.ones(x.shape, np.bool_)
        return float(np.mean(lead_errors(x, outputs, counted, mask, self._spec)))


def _band_pass(spec: FilterSpec, fs: float) -> npt.NDArray[np.float64]:
    high = signal.butter(2, spec.highpass_hz, "highpass", fs=fs, output="sos")
    low = signal.cheby2(spec.order, spec.stop_db, spec.stop_hz, fs=fs, output="sos")
    return np.concatenate([high, low])


def _run(network: torch.nn.Module, x: Float32Array, mask: Float32Array) -> dict[str, Float32Array]:
    with torch.inference_mode():
        outputs = network(torch.from_numpy(x), torch.from_numpy(mask))
    return {name: value.numpy() for name, value in outputs.items()}


@dataclass(frozen=True, slots=True)
class Chain:
    """What a plain loop runs: how to open a bed, and what its scores mean."""

    name: str
    open_bed: Callable[[float], Bed]
    """From the feed's rate, Hz."""
    leads: tuple[str, ...]
    """In the order of a feed."""
    threshold: float
    alarm: AlarmRule
    percentile: Callable[[float], float | None] = lambda score: None
    """Of validation normals, from a score."""


def same_chain(model: str, *, watched: bool = True) -> Chain:
    """Return the chain of a bundle, with signal quality, beats and rhythm or without."""
    bundle = load_bundle(model)
    manifest = bundle.manifest
    config = TypeAdapter(NetworkConfig).validate_python(manifest.hyperparameters["network"])
    network = build(config).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in bundle.weights().items()})
    _choose_threads(network, manifest.window, len(manifest.leads))
    thresholds = manifest.thresholds["fp32"]
    return Chain(
        manifest.name,
        lambda fs: SameBed(manifest, network, fs, watched=watched),
        manifest.leads,
        thresholds.window,
        manifest.alarm,
        thresholds.percentile,
    )


def thesis_chain() -> Chain:
    """Return the chain of the thesis, with random weights."""
    config = load_config(THESIS)
    torch.manual_seed(0)
    network = build(config.network).eval()
    leads = config.network.leads
    nothing, one = (0.0,) * leads, (1.0,) * leads
    spec = ScoreSpec(
        **config.score.model_dump(include={"kind", "alpha", "beta"}),
        lead_mean=(nothing,) * leads,
        lead_std=(one,) * leads,
        count_mean=nothing,
        count_std=one,
    )
    _choose_threads(network, config.window, leads)
    return Chain(config.name, lambda fs: ThesisBed(network, config.window, spec, fs), (), 0.0, config.alarm)


def _choose_threads(network: torch.nn.Module, window: WindowSpec, leads: int) -> None:
    # One thread, or as many as torch would take: whichever makes a window faster on this machine.
    x, mask = np.zeros((1, leads, window.samples), np.float32), np.ones((1, leads), np.float32)

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        times = []
        for _ in range(_TIMED):
            began_s = time.perf_counter()
            _run(network, x, mask)
            times.append(time.perf_counter() - began_s)
        return min(times)

    torch.set_num_threads(min((1, os.cpu_count() or 1), key=seconds))
