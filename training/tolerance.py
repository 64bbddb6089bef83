"""By how much a session in a lower precision may miss the golden numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from models.bundle import GoldenData
from models.manifest import Golden, ScoreSpec
from models.scoring import score
from models.session import Session

# A golden number may be off by this many times what it is off by here: other processors and GPUs round
# elsewhere, and add in another order.
_MARGIN = 3.0
# Where nothing is off, rounding of float32 is allowed all the same.
_LEAST_ATOL, _RTOL = 1e-5, 1e-4


def measured_tolerance(sessions: Iterable[Session], golden: GoldenData, spec: ScoreSpec, file: str) -> Golden:
    """Measure how far sessions are off, all golden windows at once and one by one.

    Parameters
    ----------
    sessions : iterable of Session
        All of one precision; the worst of them counts.
    golden : GoldenData
        Outputs in float32, and scores by `spec`.
    spec : ScoreSpec
    file : str
        Where `golden` is.

    Returns
    -------
    Golden
        With a tolerance for each output and for the score: three times the largest error, rounded up.
    """
    off: dict[str, float] = dict.fromkeys([*golden.outputs, "score"], 0.0)
    for session in sessions:
        for size in (len(golden.x), 1):
            for at in range(0, len(golden.x), size):
                for name, error in _errors(session, golden, slice(at, at + size), spec).items():
                    off[name] = max(off[name], error)
    allowed = {name: max(rounded_up(_MARGIN * error), _LEAST_ATOL) for name, error in off.items()}
    return Golden(
        file=file,
        rtol=_RTOL,
        atol=_LEAST_ATOL,
        score_atol=allowed.pop("score"),
        output_atol=allowed,
    )


def rounded_up(value: float) -> float:
    """Round up to two digits: more would look as if they meant something."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{np.ceil(value / unit) * unit:.2g}")


def _errors(session: Session, golden: GoldenData, piece: slice, spec: ScoreSpec) -> dict[str, float]:
    x, mask = golden.x[piece], golden.mask[piece]
    found = session.run(x, mask)
    counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
    scores = score(x, found, counted, mask, spec).window
    errors = {name: np.abs(found[name] - wanted[piece]).max() for name, wanted in golden.outputs.items()}
    return {**errors, "score": np.abs(scores - golden.scores[piece]).max()}
