"""The arrays that show why a window got its score, and which of them may be shown.

An attention looks as if it explained a score whether it does or not: it is shown only of a model whose
manifest says that it passed its tests. The error is always shown, for it is a part of the score.
"""

from __future__ import annotations

import numpy as np

from models.manifest import Manifest
from models.session import FloatArray
from stream.contract import Explanation, ExplanationHeader
from stream.engine import Pending
from stream.verdict import Verdict

_ATTENTIONS = ("temporal_attention", "lead_attention")


def attentions(manifest: Manifest, verdict: Verdict) -> dict[str, FloatArray]:
    """Return the attention maps of a window that carry information.

    Parameters
    ----------
    manifest : Manifest
        Of the model that judged.
    verdict : Verdict

    Returns
    -------
    dict of str to numpy.ndarray of float32
        ``temporal_attention``, shape (steps,), and ``lead_attention``, shape (leads, steps), as in `Verdict`;
        without those that the model does not have or that its manifest does not call informative.
    """
    said = {name: getattr(verdict, name) for name in _ATTENTIONS}
    return {
        name: values
        for name, values in said.items()
        if values is not None and _why_hidden(manifest, name) is None
    }


def maps_of(manifest: Manifest, verdict: Verdict) -> dict[str, str | None]:
    """Return what the model says beside its reconstruction, each with the reason if it is not shown.

    Parameters
    ----------
    manifest : Manifest
    verdict : Verdict
        Of any window: all have the same.

    Returns
    -------
    dict of str to (str or None)
        Of ``spread``, ``temporal_attention`` and ``lead_attention`` those that there are; None: shown.
    """
    maps: dict[str, str | None] = {} if verdict.log_variance is None else {"spread": None}
    for name in _ATTENTIONS:
        if getattr(verdict, name) is not None:
            maps[name] = _why_hidden(manifest, name)
    return maps


def hidden_maps(manifest: Manifest) -> dict[str, str]:
    """Return the attention maps of a model that are not shown though they were tested, with the reasons."""
    whys = {name: _why_hidden(manifest, name) for name in _ATTENTIONS if name in manifest.explanations}
    return {name: why for name, why in whys.items() if why is not None}


def _why_hidden(manifest: Manifest, name: str) -> str | None:
    check = manifest.explanations.get(name)
    if check is None:
        return "not tested"
    if check.informative:
        return None
    failed = [
        test
        for test, interval in (("localisation", check.localisation_interval), ("deletion", check.interval))
        if interval[0] <= 0
    ]
    if not failed:
        return "no information"
    return f"no information ({' and '.join(failed)} test{'s' * (len(failed) > 1)})"


def explain(manifest: Manifest, pending: Pending, verdict: Verdict) -> Explanation:
    """Return a window's reconstruction and error in millivolts, placed where the source had the signal.

    Of a model that expects a spread, and of one whose attention carries information, these too (see
    `stream.contract.Explanation` and docs/wire.md).

    Parameters
    ----------
    manifest : Manifest
    pending : Pending
    verdict : Verdict
        Of that window, with its arrays.

    Returns
    -------
    Explanation
    """
    assert verdict.reconstruction is not None
    window = pending.window
    present = window.mask != 0
    scale, mean = window.scale[present, np.newaxis], window.mean[present, np.newaxis]
    reconstruction = verdict.reconstruction[present] * scale + mean
    error = np.where(window.counted[present], (window.x[present] * scale + mean) - reconstruction, np.nan)
    found = {"reconstruction": reconstruction, "error": error}
    if (spread := verdict.spread) is not None:
        found["spread"] = spread[present] * scale
    for name, attention in attentions(manifest, verdict).items():
        found[name] = attention[present] if name == "lead_attention" else attention
    arrays = {name: array.astype(np.float16) for name, array in found.items()}
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
