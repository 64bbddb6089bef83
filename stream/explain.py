"""The arrays that show why a window got its score."""

from __future__ import annotations

import numpy as np

from models.manifest import Manifest
from stream.contract import Explanation, ExplanationHeader
from stream.engine import Pending
from stream.verdict import Verdict


def explain(manifest: Manifest, pending: Pending, verdict: Verdict) -> Explanation:
    """Return a window's reconstruction and error in millivolts, placed where the source had the signal.

    Parameters
    ----------
    manifest : Manifest
    pending : Pending
    verdict : Verdict
        Of that window.

    Returns
    -------
    Explanation
    """
    window = pending.window
    present = window.mask != 0
    scale, mean = window.scale[present, np.newaxis], window.mean[present, np.newaxis]
    reconstruction = verdict.reconstruction[present] * scale + mean
    error = np.where(window.counted[present], (window.x[present] * scale + mean) - reconstruction, np.nan)
    arrays = {"reconstruction": reconstruction.astype(np.float16), "error": error.astype(np.float16)}
    header = ExplanationHeader(
        bed=pending.moment.bed,
        session=pending.session,
        window=window.index,
        start=window.start,
        end=window.end,
        t_start=pending.t_start - round(manifest.filter.delay_ms * 1e6),
        fs=manifest.window.fs,
        leads=tuple(lead for lead, here in zip(manifest.leads, present, strict=True) if here),
        shapes={name: array.shape for name, array in arrays.items()},
    )
    return Explanation(header, arrays)
