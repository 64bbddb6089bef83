"""How reports draw what a model says beside its reconstruction: the band of its spread, and attention.

Attention is drawn as bars on the ECG paper, one below each lead and one below all, in the shades of
`monitor.shades`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap, to_hex

from monitor.colours import ATTENTION
from monitor.shades import BAND_SDS
from stream.describe import maps_not_shown
from stream.offline import Analysis
from stream.overlay import Traces

Float32Array = npt.NDArray[np.float32]

_RAMP = LinearSegmentedColormap.from_list("attention", ATTENTION)


def band(traces: Traces) -> tuple[Float32Array, Float32Array] | None:
    """Return the lower and the upper edge of what the model expects, millivolts.

    Parameters
    ----------
    traces : Traces

    Returns
    -------
    tuple of two numpy.ndarray of float32, shape (leads, n), or None
        `BAND_SDS` standard deviations below and above the reconstruction; None: the model expects no spread.
    """
    if traces.spread is None:
        return None
    half = np.float32(BAND_SDS) * traces.spread
    return traces.reconstruction - half, traces.reconstruction + half


def shades(n: int) -> list[str]:
    """Return evenly spaced colours from the lightest to the darkest shade, ``#rrggbb``."""
    return [to_hex(_RAMP(at)) for at in np.linspace(0.0, 1.0, n)]


def attention_words(traces: Traces) -> str:
    """Return what the bars say, as a sentence; empty if there are none."""
    what = []
    if traces.lead_attention is not None:
        what.append("at each lead over time (bars below the leads)")
    if traces.temporal_attention is not None:
        what.append("at each moment (bar below all leads)")
    if not what:
        return ""
    return f"Attention: how much the model looked {' and '.join(what)}. Mark: an even share."


def hidden_words(analysis: Analysis) -> str:
    """Return which maps are not drawn and why, as a sentence; empty if all are."""
    hidden = maps_not_shown(analysis)
    return f"Not drawn: {hidden}." if hidden else ""
