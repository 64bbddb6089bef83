"""Running the model on windows and turning what it returns into verdicts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from models.scoring import score
from models.session import FloatArray, Session
from stream.windows import Window

# Field of a verdict, name of the output.
_ARRAYS = {
    "reconstruction": "recon_mean",
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
    reconstruction : numpy.ndarray of float32, shape (leads, samples), or None
        In the normalised units of ``Window.x``.
    log_variance : numpy.ndarray of float32, shape (leads, samples), or None
        Natural logarithm of the variance that the model expects of each point, in the same units squared.
    temporal_attention : numpy.ndarray of float32, shape (steps,), or None
        Attention that each step of the window receives; sums to 1.
    lead_attention : numpy.ndarray of float32, shape (leads, steps), or None
        Weight of each lead at each step; sums to 1 over the leads that took part.

    Notes
    -----
    Arrays are None if the model does not have them, or if nobody asked for them.
    """

    score: float
    lead_scores: dict[str, float]
    reconstruction: FloatArray | None = None
    log_variance: FloatArray | None = None
    temporal_attention: FloatArray | None = None
    lead_attention: FloatArray | None = None

    @property
    def spread(self) -> FloatArray | None:
        """Standard deviation that the model expects of each point, in the units of `reconstruction`.

        Computed when it is asked for: of most windows nobody asks.
        """
        return None if self.log_variance is None else np.exp(self.log_variance / 2)


def judge(
    session: Session, windows: Sequence[Window], explained: Collection[int] | None = None
) -> list[Verdict | None]:
    """Run the model on a batch of windows.

    Blocks while the model runs: call it outside of the event loop.

    Parameters
    ----------
    session : Session
    windows : sequence of Window
        Of any beds.
    explained : collection of int, optional
        Places in `windows` of those whose verdicts get the arrays, too. Default all. What nobody looks at is
        not copied out of the session's memory.

    Returns
    -------
    list of (Verdict or None)
        In the order of `windows`; None for one that cannot be scored (it has a `reason`).
    """
    verdicts: list[Verdict | None] = [None] * len(windows)
    places = [place for place, window in enumerate(windows) if window.reason is None]
    for at in range(0, len(places), session.max_batch):
        some = places[at : at + session.max_batch]
        x, mask = session.inputs(len(some))
        np.stack([windows[place].x for place in some], out=x)
        np.stack([windows[place].mask for place in some], out=mask)
        counted = np.stack([windows[place].counted for place in some])
        outputs = session.run_filled(len(some))
        scores = score(x, outputs, counted, mask, session.manifest.score)
        arrays = {field: outputs[name] for field, name in _ARRAYS.items() if name in outputs}
        of_windows, of_leads = scores.window.tolist(), scores.lead.tolist()
        for row, place in enumerate(some):
            shown = explained is None or place in explained
            verdicts[place] = Verdict(
                score=of_windows[row],
                # NaN, which is not itself, where a lead took no part.
                lead_scores={
                    lead: value
                    for lead, value in zip(session.manifest.leads, of_leads[row], strict=True)
                    if value == value
                },
                # Copies: the next run overwrites the session's memory.
                **({field: array[row].copy() for field, array in arrays.items()} if shown else {}),
            )
    return verdicts
