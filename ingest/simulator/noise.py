"""What electrodes pick up besides the heart beat: muscles, breath, mains, movement, and fibrillation.

Noise arises at the nine electrodes and reaches the leads through their definitions, so that the
limb leads keep Einthoven's law (I + III = II), as in a real recorder.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfilt

from ingest.simulator.rhythm import Respiration

# Leads I, II, V1 to V6 from the electrodes RA, LA, LL, V1 to V6.
_LEADS_FROM_ELECTRODES = np.zeros((8, 9))
_LEADS_FROM_ELECTRODES[0, [0, 1]] = -1, 1
_LEADS_FROM_ELECTRODES[1, [0, 2]] = -1, 1
_LEADS_FROM_ELECTRODES[2:, :3] = -1 / 3
_LEADS_FROM_ELECTRODES[2:, 3:] = np.eye(6)

_ELECTRODES = 9

# Millivolts (standard deviation, or amplitude) of a patient lying still: what is left above 40 Hz in the
# normal records of PTB-XL is 2 uV, below that muscles and electrodes add about 8 uV.
_MUSCLE_MV = (0.004, 0.009)
_MAINS_MV = (0.0, 0.003)
_WANDER_MV = (0.015, 0.045)
_DRIFT_MV = (0.02, 0.05)

MUSCLE_BAND_HZ = (4.0, 90.0)
"""Muscle noise reaches the passband of the recorder; most of its power lies low at the skin."""
_DRIFT_HZ = 0.15
# Movement bends the baseline and hides P and T waves: the band of the ECG itself.
_MOTION_BAND_HZ = (0.4, 4.0)


class _Band:
    # White noise of unit variance in a band, continued from block to block.

    def __init__(self, low_hz: float | None, high_hz: float, fs: float) -> None:
        edges = min(high_hz, 0.45 * fs)
        if low_hz is None:
            self._sos = butter(2, edges, "lowpass", fs=fs, output="sos")
        else:
            self._sos = butter(2, (low_hz, edges), "bandpass", fs=fs, output="sos")
        # Ten time constants of the lower edge hold all of the impulse response.
        impulse = np.zeros(round(10 * fs / (low_hz or high_hz)))
        impulse[0] = 1.0
        self._sos[0, :3] /= np.linalg.norm(sosfilt(self._sos, impulse))
        self._state = np.zeros((len(self._sos), 2, _ELECTRODES))

    def __call__(self, rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
        white = rng.standard_normal((n, _ELECTRODES))
        noise, self._state = sosfilt(self._sos, white, axis=0, zi=self._state)
        result: npt.NDArray[np.float64] = noise
        return result


class ElectrodeNoise:
    """The noise of one patient's electrodes, block after block.

    Parameters
    ----------
    rng : numpy.random.Generator
        For what stays the same: how much of each noise at which electrode.
    respiration : Respiration
    fs : float
        Hz.
    mains_hz : float
    """

    def __init__(
        self, rng: np.random.Generator, respiration: Respiration, fs: float, mains_hz: float = 50.0
    ) -> None:
        self._respiration = respiration
        self._muscle = rng.uniform(*_MUSCLE_MV) * rng.uniform(0.6, 1.4, _ELECTRODES)
        self._mains = rng.uniform(*_MAINS_MV) * rng.normal(0, 1, _ELECTRODES)
        self._wander = rng.uniform(*_WANDER_MV) * rng.normal(0, 1, _ELECTRODES)
        self._drift = rng.uniform(*_DRIFT_MV) * rng.uniform(0.5, 1.5, _ELECTRODES)
        self._motion = rng.uniform(0.3, 1.0, _ELECTRODES)
        self._mains_hz = mains_hz
        self._muscle_band = _Band(*MUSCLE_BAND_HZ, fs)
        self._drift_band = _Band(None, _DRIFT_HZ, fs)
        self._motion_band = _Band(*_MOTION_BAND_HZ, fs)

    def block(
        self,
        rng: np.random.Generator,
        time_s: npt.NDArray[np.float64],
        motion_mv: npt.NDArray[np.float64] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Return the noise of the next block.

        Parameters
        ----------
        rng : numpy.random.Generator
            Of this block.
        time_s : numpy.ndarray of float, shape (n,)
        motion_mv : numpy.ndarray of float, shape (n,), optional
            Amplitude of a motion artefact.

        Returns
        -------
        numpy.ndarray of float, shape (n, 8)
            Millivolts in the leads I, II, V1 to V6.
        """
        n = len(time_s)
        electrodes = self._muscle * self._muscle_band(rng, n)
        electrodes += self._drift * self._drift_band(rng, n)
        electrodes += np.outer(self._respiration(time_s), self._wander)
        electrodes += np.outer(np.sin(2 * math.pi * self._mains_hz * time_s), self._mains)
        if motion_mv is not None:
            electrodes += motion_mv[:, np.newaxis] * self._motion * self._motion_band(rng, n)
        result: npt.NDArray[np.float64] = electrodes @ _LEADS_FROM_ELECTRODES.T
        return result
