"""What fewer leads, noise and another sampling frequency do to the same recordings."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from ingest.faults.noise import MUSCLE_HZ, WANDER_HZ, band_noise, unit_variance
from models.manifest import FilterSpec, Manifest
from stream.leads import LEADS
from stream.preprocess import Conditioner
from training.evaluation.scored import Change
from training.recordings import Signal

Float64Array = npt.NDArray[np.float64]

LEAD_SETS: dict[str, tuple[str, ...]] = {
    "12 leads": LEADS,
    "8 leads": ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
    "3 leads": ("I", "II", "V2"),
    "1 lead": ("II",),
}
"""Eight hold all that twelve do, the other four being sums of I and II; three are a monitor's with one chest
electrode; II is what a monitor with three electrodes shows."""

SNR_DB = (24, 12, 6, 0)
RATES_HZ = (250.0, 360.0)
"""Bedside monitors and event recorders; Holter recordings such as MIT-BIH's."""

# Diagnostic bandwidth of an electrocardiograph (IEC 60601-2-25): what an amplifier lets pass, whatever the
# sampling frequency of the recording.
_BAND_HZ = (0.05, 150.0)
# Muscles tense and relax over seconds.
_BURST_HZ = (0.0, 1.0)
# The slowest wander needs a whole period to be drawn from.
_LEAST_S = 20.0
_SEED = 20_250_101
# Ratios of sampling frequencies are small fractions; this is far beyond any in use.
_MAX_DENOMINATOR = 1000


def changes(manifest: Manifest) -> tuple[Change, ...]:
    """Return every change whose effect is measured, for a model."""
    return (
        *(Change(name, "leads", partial(with_leads, leads=leads)) for name, leads in LEAD_SETS.items()),
        *(
            Change(f"noise {snr} dB", "noise", partial(with_noise, snr_db=snr, manifest=manifest))
            for snr in SNR_DB
        ),
        *(Change(f"{fs:g} Hz", "rate", partial(at_rate, fs=fs)) for fs in RATES_HZ),
    )


def with_leads(signal: Signal, leads: Sequence[str]) -> Signal | None:
    """Return a recording with some of its leads, None if it lacks one of them."""
    if not set(leads) <= set(signal.leads):
        return None
    chosen = signal.millivolts[:, [signal.leads.index(lead) for lead in leads]]
    # A recording of a pack has a column for every lead; one it lacks is empty.
    if np.isnan(chosen).all(axis=0).any():
        return None
    return Signal(signal.fs, tuple(leads), chosen)


def with_noise(signal: Signal, snr_db: float, manifest: Manifest) -> Signal:
    """Add noise to every lead, independently.

    A third of the noise's power each is white, of muscle (20 to 150 Hz, in bursts) and baseline wander (0.05
    to 0.5 Hz), all within 0.05 to 150 Hz. The signal-to-noise ratio of a lead is its variance behind the
    model's band-pass, so that drift and hum of the recording do not pass for signal, over the variance of
    the noise as it is added, before any filter: what an electrode would pick up.

    Parameters
    ----------
    signal : Signal
    snr_db : float
    manifest : Manifest
        Of the model, whose band-pass says what is signal.

    Returns
    -------
    Signal
        The same for the same recording: the noise is seeded by its samples. Another ratio scales it.
    """
    seed = zlib.crc32(np.ascontiguousarray(signal.millivolts).tobytes())
    noise = _noise(*signal.millivolts.shape, signal.fs, seed)
    scale = np.sqrt(ecg_power(signal, manifest.filter, manifest.window.fs) / 10 ** (snr_db / 10))
    return Signal(signal.fs, signal.leads, signal.millivolts + scale * noise)


def ecg_power(signal: Signal, filter_spec: FilterSpec, fs: float) -> Float64Array:
    """Return the variance of each lead behind a model's band-pass, mV^2.

    Parameters
    ----------
    signal : Signal
    filter_spec : FilterSpec
    fs : float
        Sampling frequency of the model, Hz.

    Returns
    -------
    numpy.ndarray of float64, shape (leads,)
    """
    conditioner = Conditioner(filter_spec, signal.fs, fs, len(signal.leads))
    piece = conditioner.push(np.ascontiguousarray(signal.millivolts.T))
    there = piece.missing == 0
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    values = np.where(there, piece.values, 0.0).astype(np.float64)
    mean = values.sum(axis=1, keepdims=True) / count
    power: Float64Array = (np.where(there, values - mean, 0.0) ** 2).sum(axis=1) / count[:, 0]
    return power


# A recording is asked for at several ratios, one after another.
@lru_cache(maxsize=1)
def _noise(n: int, leads: int, fs: float, seed: int) -> Float64Array:
    # Unit variance over the recording, per lead.
    rng = np.random.default_rng([_SEED, seed])
    length = max(n, round(_LEAST_S * fs))
    white = band_noise(length, leads, fs, _BAND_HZ, rng)
    muscle = unit_variance(
        band_noise(length, leads, fs, MUSCLE_HZ, rng) * np.abs(band_noise(length, leads, fs, _BURST_HZ, rng))
    )
    wander = band_noise(length, leads, fs, WANDER_HZ, rng)
    return unit_variance((white + muscle + wander)[:n])


def at_rate(signal: Signal, fs: float) -> Signal:
    """Return a recording as a device with another sampling frequency would have stored it.

    Polyphase resampling with a linear-phase anti-alias filter (`scipy.signal.resample_poly`), over the
    recording as a whole. Missing samples are held for the filter and missing again afterwards.

    Parameters
    ----------
    signal : Signal
    fs : float
        Hz.

    Returns
    -------
    Signal
    """
    ratio = Fraction(fs / signal.fs).limit_denominator(_MAX_DENOMINATOR)
    if ratio == 1:
        return signal
    missing = np.isnan(signal.millivolts)
    # "line" takes the electrode offset off before the filter and puts it back: no step at the ends.
    held = _hold(signal.millivolts, missing)
    resampled = resample_poly(held, ratio.numerator, ratio.denominator, axis=0, padtype="line")
    if missing.any():
        nearest = np.round(np.arange(len(resampled)) * float(1 / ratio)).astype(np.intp)
        resampled[missing[np.minimum(nearest, len(missing) - 1)]] = np.nan
    return Signal(float(signal.fs * ratio), signal.leads, resampled)


def _hold(millivolts: Float64Array, missing: npt.NDArray[np.bool_]) -> Float64Array:
    rows = np.where(missing, 0, np.arange(len(millivolts))[:, np.newaxis])
    return np.nan_to_num(np.take_along_axis(millivolts, np.maximum.accumulate(rows, axis=0), axis=0))
