"""What goes wrong with an electrode, an amplifier or a connection, put on a recording at a stated level."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.faults.noise import MUSCLE_HZ, WANDER_HZ, band_noise
from ingest.simulator.noise import MUSCLE_BAND_HZ
from stream.vitals.quality import Issue
from training.fitting.augment import bursts

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MOTION_HZ = (1.0, 10.0)
"""Skin that is stretched under an electrode: the band of P and T waves and of much of the QRS complex."""
RAIL_MV = 5.0
"""Where the amplifier ends, to either side (IEC 60601-2-27 asks for this input range)."""

# What does not last is done once in each so many seconds, and from the third of them to the eighth, so that a
# recording of 10 s has it in the middle.
_EVERY_S, _FROM_S, _TO_S = 10, 3, 8
# A burst of movement is where its envelope is above half of its height.
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Clean:
    """A recording to be disturbed.

    Attributes
    ----------
    millivolts : numpy.ndarray of float64, shape (n, leads)
    fs : float
        Hz.
    ecg_mv : numpy.ndarray of float64, shape (leads,)
        Standard deviation of the ECG, to which a signal-to-noise ratio refers.
    """

    millivolts: Float64Array
    fs: float
    ecg_mv: Float64Array

    def noise_mv(self, snr_db: float) -> Float64Array:
        """Return the standard deviation of noise at a signal-to-noise ratio, shape (leads,)."""
        return self.ecg_mv * 10 ** (-snr_db / 20)

    @property
    def time_s(self) -> Float64Array:
        return np.arange(len(self.millivolts)) / self.fs

    @property
    def middle(self) -> BoolArray:
        """Samples of the whole seconds in which there is what does not last, shape (n, 1)."""
        phase = self.time_s % _EVERY_S
        return ((phase >= _FROM_S) & (phase < _TO_S))[:, np.newaxis]


Disturbed = tuple[Float64Array, BoolArray]
"""Millivolts, and where they are disturbed; each of shape (n, leads)."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something that goes wrong, at several levels.

    Attributes
    ----------
    name : str
    issues : frozenset of Issue
        Each of them is right for it.
    unit : str
    levels : tuple of float
        From slight to severe.
    apply : callable
        Takes a `Clean`, a level and a generator.
    """

    name: str
    issues: frozenset[Issue]
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[Clean, float, np.random.Generator], Disturbed]


def _muscle(band_hz: tuple[float, float]) -> Callable[[Clean, float, np.random.Generator], Disturbed]:
    def muscle(clean: Clean, snr_db: float, rng: np.random.Generator) -> Disturbed:
        n, leads = clean.millivolts.shape
        noise = band_noise(n, leads, clean.fs, band_hz, rng)
        return _everywhere(clean, clean.noise_mv(snr_db) * noise)

    return muscle


def _motion(clean: Clean, snr_db: float, rng: np.random.Generator) -> Disturbed:
    # Once in ten seconds, for 1 to 4 s; the level is that at the height of it.
    n, leads = clean.millivolts.shape
    samples = round(_EVERY_S * clean.fs)
    pieces = bursts((math.ceil(n / samples), leads, samples), clean.fs, rng)
    envelope = pieces.transpose(0, 2, 1).reshape(-1, leads)[:n]
    noise = band_noise(n, leads, clean.fs, MOTION_HZ, rng)
    return clean.millivolts + clean.noise_mv(snr_db) * envelope * noise, envelope >= _HALF


def _mains(hz: float) -> Callable[[Clean, float, np.random.Generator], Disturbed]:
    def powerline(clean: Clean, amplitude_mv: float, rng: np.random.Generator) -> Disturbed:
        phase = rng.uniform(0, 2 * np.pi, clean.millivolts.shape[1])
        wave = np.sin(2 * np.pi * hz * clean.time_s[:, np.newaxis] + phase)
        return _everywhere(clean, amplitude_mv * wave)

    return powerline


def _wander(clean: Clean, deviation_mv: float, rng: np.random.Generator) -> Disturbed:
    n, leads = clean.millivolts.shape
    noise = band_noise(n, leads, clean.fs, WANDER_HZ, rng)
    return _everywhere(clean, deviation_mv * noise)


def _step(clean: Clean, step_mv: float, rng: np.random.Generator) -> Disturbed:
    # Up and down again, each somewhere in a second. The mean moves in that second and in the next.
    time_s, leads = clean.time_s[:, np.newaxis], clean.millivolts.shape[1]
    phase = time_s % _EVERY_S
    up, down = _FROM_S + rng.random(leads), _TO_S + rng.random(leads)
    moved = clean.millivolts + step_mv * ((phase >= up) & (phase < down))
    near = [(phase >= edge) & (phase < edge + 2) for edge in (_FROM_S, _TO_S)]
    return moved, np.broadcast_to(near[0] | near[1], moved.shape)


def _everywhere(clean: Clean, noise: Float64Array) -> Disturbed:
    return clean.millivolts + noise, np.ones(clean.millivolts.shape, np.bool_)


def _lost(clean: Clean, percent: float, leads: slice) -> Disturbed:
    # The end of each second of the stretch; every other lead, or all.
    inside = np.zeros(clean.millivolts.shape, np.bool_)
    inside[:, leads] = clean.middle
    gone = inside & ((clean.time_s % 1.0) >= 1 - percent / 100)[:, np.newaxis]
    return np.where(gone, np.nan, clean.millivolts), inside


def _off(clean: Clean, percent: float, rng: np.random.Generator) -> Disturbed:
    return _lost(clean, percent, slice(None, None, 2))


def _gap(clean: Clean, percent: float, rng: np.random.Generator) -> Disturbed:
    return _lost(clean, percent, slice(None))


def _flat(clean: Clean, deviation_uv: float, rng: np.random.Generator) -> Disturbed:
    front_end = deviation_uv / 1000 * rng.standard_normal(clean.millivolts.shape)
    return _in_the_middle(clean, front_end)


def _swings(clean: Clean, deviation_mv: float, rng: np.random.Generator) -> Disturbed:
    n, leads = clean.millivolts.shape
    noise = band_noise(n, leads, clean.fs, MOTION_HZ, rng)
    return _in_the_middle(clean, np.clip(clean.millivolts + deviation_mv * noise, -RAIL_MV, RAIL_MV))


def _at_a_rail(clean: Clean, headroom_mv: float, rng: np.random.Generator) -> Disturbed:
    # The electrode's offset leaves so little between the baseline and the rail.
    offset = RAIL_MV - headroom_mv - np.nan_to_num(np.median(clean.millivolts, axis=0))
    return _in_the_middle(clean, np.minimum(clean.millivolts + offset, RAIL_MV))


def _in_the_middle(clean: Clean, instead: Float64Array) -> Disturbed:
    inside = np.broadcast_to(clean.middle, instead.shape)
    return np.where(inside, instead, clean.millivolts), inside


_SNR_DB = (24.0, 18.0, 12.0, 6.0, 0.0, -6.0)
_AMPLITUDES_MV = (0.1, 0.25, 0.5, 1.0, 2.0)
_PERCENT = (5.0, 20.0, 30.0, 50.0, 100.0)

MUSCLE = Disturbance(
    "muscle noise, 20 to 150 Hz", frozenset({Issue.NOISE}), "dB", _SNR_DB, _muscle(MUSCLE_HZ)
)
LOW_MUSCLE = Disturbance(
    "muscle noise, 4 to 90 Hz", frozenset({Issue.NOISE}), "dB", _SNR_DB, _muscle(MUSCLE_BAND_HZ)
)
MOTION = Disturbance(
    "electrode motion, 1 to 10 Hz", frozenset({Issue.MOTION}), "dB", (*_SNR_DB, -12.0), _motion
)

DISTURBANCES = (
    MUSCLE,
    LOW_MUSCLE,
    MOTION,
    Disturbance("powerline, 50 Hz", frozenset({Issue.POWERLINE}), "mV", _AMPLITUDES_MV, _mains(50.0)),
    Disturbance("powerline, 60 Hz", frozenset({Issue.POWERLINE}), "mV", _AMPLITUDES_MV, _mains(60.0)),
    Disturbance("baseline wander", frozenset({Issue.BASELINE}), "mV", (0.25, 0.5, 1.0, 2.0, 4.0), _wander),
    Disturbance("baseline step", frozenset({Issue.BASELINE}), "mV", (0.5, 1.0, 2.0, 4.0), _step),
    Disturbance("lead off", frozenset({Issue.OFF}), "% of each second", _PERCENT, _off),
    Disturbance("gap in all leads", frozenset({Issue.GAP}), "% of each second", _PERCENT, _gap),
    Disturbance("flat, with noise", frozenset({Issue.FLAT}), "µV", (5.0, 2.0, 1.0, 0.0), _flat),
    Disturbance("swings from rail to rail", frozenset({Issue.SATURATED}), "mV", (2.0, 4.0, 8.0), _swings),
    Disturbance(
        "cut off at a rail above the baseline",
        frozenset({Issue.SATURATED, Issue.FLAT}),
        "mV",
        (0.5, 0.2, 0.0, -1.0),
        _at_a_rail,
    ),
)
"""Levels are signal-to-noise ratios; standard deviations (of wander, of what is left of a flat lead, of
swings); amplitudes of powerline; the height of a step; the share that is missing; or how far the rail is
above the baseline.
"""
