"""A score threshold for one patient, from what an operator has confirmed to be their usual ECG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.manifest import Thresholds

BASELINE_S = 300.0
"""Scored signal that a baseline needs: some minutes of breathing and turning, and 600 windows."""

# No baseline lifts the threshold by more than this, in standard deviations of normals: ventricular
# tachycardia in simulated patients scores higher still.
_MOST = 6.0


def personal_threshold(scores: Sequence[float], thresholds: Thresholds) -> float:
    """Return the alarm threshold that stands to a patient's usual scores as the model's to those of normals.

    Parameters
    ----------
    scores : sequence of float
        Window scores of the patient's usual ECG.
    thresholds : Thresholds
        The model's.

    Returns
    -------
    float
        ``m + (T - M) * max(1, s / S)``, where T is the model's threshold, M and m are the medians of normals
        and of the patient, S and s the distances from there to the 90th percentiles; not below the 95th
        percentile of normals, and not more than 6 above T.
    """
    normals = np.interp([50, 90, 95], np.linspace(0, 100, len(thresholds.quantiles)), thresholds.quantiles)
    median, high, floor = (float(value) for value in normals)
    own_median, own_high = (float(value) for value in np.percentile(scores, [50, 90]))
    wider = max(1.0, (own_high - own_median) / max(high - median, 1e-9))
    own = own_median + (thresholds.window - median) * wider
    return float(np.clip(own, min(floor, thresholds.window), thresholds.window + _MOST))
