from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream.leads import LEADS
from tests.stream.synthetic import StandIn, small_manifest
from training.evaluation.scored import Scored, Skipped
from training.recordings import Entry


def entry(
    name: str = "r",
    label: int | None = 0,
    *,
    dataset: str = "a",
    rhythm_only: bool = False,
    patient: str = "",
    codes: Sequence[str] = (),
) -> Entry:
    return Entry(Path(f"/{name}.dat"), dataset, label, rhythm_only, "test", patient, "", tuple(codes))


def scored(
    entries: Sequence[Entry],
    scores: Sequence[float],
    *,
    skipped: Sequence[Skipped] = (),
    **changed: Sequence[float],
) -> Scored:
    """Return scores as if they had been measured; a recording's only window has its score."""
    score = np.array(scores, np.float64)
    quantiles = np.array(stand_in().manifest.thresholds["fp32"].quantiles)
    return Scored(
        tuple(entries),
        score,
        (score[:, np.newaxis] > quantiles).astype(np.float64),
        {name: np.array(values, np.float64) for name, values in changed.items()},
        tuple(skipped),
    )


def stand_in(*, threshold: float = 0.5, max_batch: int = 8) -> StandIn:
    """Return a session for twelve leads and windows of 2 s."""
    return StandIn(small_manifest(LEADS, threshold=threshold, max_batch=max_batch))
