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
    for row, place in enumerate(places):
        verdicts[place] = Verdict(
            score=float(scores.window[row]),
            lead_scores={
                lead: float(scores.lead[row, column])
                for column, lead in enumerate(leads)
                if not np.isnan(scores.lead[row, column])
            },
            reconstruction=outputs["recon_mean"][row],
        )
    return verdicts
