"""Fibrillation of the atria and of the ventricles: activity without beats, as a dipole."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

# Fibrillatory waves: 4 to 9 Hz, largest in V1, then II. The saw tooth with a slowly changing rate follows
# Stridh M, Sornmo L. Spatiotemporal QRST cancellation techniques for analysis of atrial fibrillation.
# IEEE Trans Biomed Eng 2001;48:105-111.
_ATRIAL_HZ = (5.0, 7.5)
_ATRIAL_MV = (0.045, 0.085)
_ATRIAL_AXIS = np.array([-0.10, 0.60, -0.80])
_HARMONICS = 3

# Ventricular fibrillation: a wandering rate and axis, as several wavelets give.
_VENTRICULAR_HZ = (3.2, 7.0)
_WAVELETS = 6
# So that their sum has the amplitude asked for: they add like noise, and a lead sees one axis of three.
_PER_WAVELET = math.sqrt(3 / _WAVELETS)


class Fibrillation:
    """How one patient's heart fibrillates: functions of time, so that any block can be computed alone.

    Parameters
    ----------
    rng : numpy.random.Generator
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._atrial_hz = rng.uniform(*_ATRIAL_HZ)
        self._atrial_mv = rng.uniform(*_ATRIAL_MV)
        self._hz = rng.uniform(*_VENTRICULAR_HZ, _WAVELETS)
        self._phase = rng.uniform(0, 2 * math.pi, _WAVELETS + 2)
        axes = rng.normal(0, 1, (_WAVELETS, 3))
        self._axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)

    def atrial(self, time_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the dipole of fibrillating atria, mV, shape (n, 3)."""
        slow = np.sin(2 * math.pi * 0.11 * time_s + self._phase[-1])
        cycle = 2 * math.pi * self._atrial_hz * time_s + 2.5 * slow + self._phase[-2]
        cycle += 0.6 * np.sin(2 * math.pi * 0.73 * time_s)
        wave = sum(np.sin(k * cycle) / k for k in range(1, _HARMONICS + 1))
        return np.outer(self._atrial_mv * (1 + 0.3 * slow) * wave, _ATRIAL_AXIS)

    def ventricular(self, time_s: npt.NDArray[np.float64], millivolts: float) -> npt.NDArray[np.float64]:
        """Return the dipole of fibrillating ventricles of about the given amplitude, mV, shape (n, 3)."""
        column = time_s[:, np.newaxis]
        phase = self._phase[:_WAVELETS]
        # Each wavelet comes and goes over seconds, and none keeps its rate.
        envelope = 0.55 + 0.45 * np.sin(2 * math.pi * (0.13 + 0.021 * self._hz) * column + 3 * phase)
        cycle = 2 * math.pi * self._hz * column + 3.0 * np.sin(2 * math.pi * 0.31 * column + 2 * phase)
        result: npt.NDArray[np.float64] = (
            _PER_WAVELET * millivolts * (envelope * np.sin(cycle + phase)) @ self._axes
        )
        return result
