"""Running the model on windows and turning what it returns into verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.scoring import score
from models.session import FloatArray, Session
from stream.windows import Window


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
    """

    score: float
    lead_scores: dict[str, float]
    reconstruction: FloatArray


def judge(session: Session, windows: Sequence[Window]) -> list[Verdict]:
    """Run the model on a batch of windows.

    Blocks while the model runs: call it outside of the event loop.

    Parameters
    ----------
    session : Session
    windows : sequence of Window
        Windows that can be scored (no `reason`), of any beds.

    Returns
    -------
    list of Verdict
        In the order of `windows`.
    """
    if not windows:
        return []
    x = np.stack([window.x for window in windows])
    mask = np.stack([window.mask for window in windows])
    counted = np.stack([window.counted for window in windows])
    reconstruction = session.run(x, mask)["recon_mean"]
    scores = score(x, reconstruction, counted, mask, session.manifest.score)
    leads = session.manifest.leads
    return [
        Verdict(
            score=float(scores.window[row]),
            lead_scores={
                lead: float(scores.lead[row, column])
                for column, lead in enumerate(leads)
                if not np.isnan(scores.lead[row, column])
            },
            reconstruction=reconstruction[row],
        )
        for row in range(len(windows))
    ]
