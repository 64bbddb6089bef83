"""Running the model on windows and turning what it returns into verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.scoring import score
from models.session import FloatArray, Session
from stream.windows import Window

# What a session may return beside the reconstruction: field of a verdict, name of the output.
_BESIDES = {
    "log_variance": "recon_logvar",
    "temporal_attention": "temporal_attention",
    "lead_attention": "lead_attention",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model says of one window.

    Attributes
    ----------
    score : float
        See `models.scoring`; the higher, the less usual.
    lead_scores : dict of str to float
        The leads that took part.
    reconstruction : numpy.ndarray of float32, shape (leads, samples)
        In the normalised units of ``Window.x``.
    log_variance : numpy.ndarray of float32, shape (leads, samples), or None
        Natural logarithm of the variance that the model expects of each point, in the same units squared.
    temporal_attention : numpy.ndarray of float32, shape (steps,), or None
        Attention that each step of the window receives; sums to 1.
    lead_attention : numpy.ndarray of float32, shape (leads, steps), or None
        Weight of each lead at each step; sums to 1 over the leads that took part.

    Notes
    -----
    All arrays are views of what the model returned for the whole batch; those that are None it does not have.
    """

    score: float
    lead_scores: dict[str, float]
    reconstruction: FloatArray
    log_variance: FloatArray | None = None
    temporal_attention: FloatArray | None = None
    lead_attention: FloatArray | None = None

    @property
    def spread(self) -> FloatArray | None:
        """Standard deviation that the model expects of each point, in the units of `reconstruction`.

        Computed when it is asked for: of most windows nobody asks.
        """
        return None if self.log_variance is None else np.exp(self.log_variance / 2)


def judge(session: Session, windows: Sequence[Window]) -> list[Verdict | None]:
    """Run the model on a batch of windows.

    Blocks while the model runs: call it outside of the event loop.

    Parameters
    ----------
    session : Session
    windows : sequence of Window
        Of any beds.

    Returns
    -------
    list of (Verdict or None)
        In the order of `windows`; None for one that cannot be scored (it has a `reason`).
    """
    verdicts: list[Verdict | None] = [None] * len(windows)
    places = [place for place, window in enumerate(windows) if window.reason is None]
    if not places:
        return verdicts
    x = np.stack([windows[place].x for place in places])
    mask = np.stack([windows[place].mask for place in places])
    counted = np.stack([windows[place].counted for place in places])
    outputs = session.run(x, mask)
    scores = score(x, outputs, counted, mask, session.manifest.score)
    leads = session.manifest.leads
    also = {field: outputs[name] for field, name in _BESIDES.items() if name in outputs}
    of_windows, of_leads = scores.window.tolist(), scores.lead.tolist()
    for row, place in enumerate(places):
        verdicts[place] = Verdict(
            score=of_windows[row],
            # NaN, which is not itself, where a lead took no part.
            lead_scores={lead: s for lead, s in zip(leads, of_leads[row], strict=True) if s == s},
            reconstruction=outputs["recon_mean"][row],
            **{field: output[row] for field, output in also.items()},
        )
    return verdicts
