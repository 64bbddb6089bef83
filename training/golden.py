"""A synthetic input on which every session of a model proves itself; never a recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

# Centre in cycles, width in cycles and size of the bumps that stand for P, Q, R, S and T. Only the
# shape has to be of the right kind; it is not a model of the heart.
_WAVES = (
    (0.20, 0.030, 0.15),
    (0.37, 0.010, -0.12),
    (0.40, 0.012, 1.00),
    (0.43, 0.011, -0.25),
    (0.62, 0.055, 0.30),
)
_RATES_HZ = (1.1, 0.9, 1.4, 1.7)
_LEADS_PRESENT = (None, ("I", "II", "V2"), ("II",), ("I", "II", "III", "aVR", "aVL", "aVF"))


def golden_input(leads: Sequence[str], samples: int, fs: float) -> tuple[FloatArray, FloatArray]:
    """Return windows of a made-up heartbeat, each with other leads present.

    Parameters
    ----------
    leads : sequence of str
    samples : int
    fs : float
        Hz.

    Returns
    -------
    x : numpy.ndarray of float32, shape (windows, leads, samples)
        Standardised per lead, zero where masked.
    mask : numpy.ndarray of float32, shape (windows, leads)
    """
    time = np.arange(samples) / fs
    x = np.zeros((len(_RATES_HZ), len(leads), samples))
    mask = np.zeros((len(_RATES_HZ), len(leads)), np.float32)
    for window, (rate, present) in enumerate(zip(_RATES_HZ, _LEADS_PRESENT, strict=True)):
        phase = (time * rate) % 1.0
        for row, lead in enumerate(leads):
            if present is not None and lead not in present:
                continue
            waves = sum(
                size * np.cos(0.7 * row + 0.4 * number) * np.exp(-(((phase - centre) / width) ** 2))
                for number, (centre, width, size) in enumerate(_WAVES)
            )
            wander = 0.05 * np.sin(2 * np.pi * (0.3 + 0.05 * row) * time)
            values = waves + wander
            x[window, row] = (values - values.mean()) / values.std()
            mask[window, row] = 1.0
    return x.astype(np.float32), mask
