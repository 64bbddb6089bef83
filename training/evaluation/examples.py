"""The recordings that a model misjudges most, with what it expected of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.chunks import chunks_of
from ingest.source import ArrayRecording, IngestError
from models.session import Session
from stream.contract import to_lsb
from stream.offline import analyse
from stream.overlay import Overlay, TooLongError, Traces
from stream.stretches import Stretch, most_anomalous
from training.evaluation.scored import Scored
from training.recordings import Entry

EXAMPLES = 4
SECONDS = 10.0
"""What is drawn: a resting ECG as a whole, of a longer recording the part whose windows score highest."""

# 1 LSB is a microvolt, finer than the sources' own.
_GAIN = 1000.0


@dataclass(frozen=True, slots=True)
class Example:
    """One recording.

    Attributes
    ----------
    entry : Entry
    score : float
    traces : Traces
    part : Stretch
        To draw.
    """

    entry: Entry
    score: float
    traces: Traces
    part: Stretch


def highest_normals(scored: Scored, session: Session) -> list[Example]:
    """Return the normal recordings with the highest scores, the worst first."""
    places = np.flatnonzero(~scored.abnormal)
    return _examples(scored, places[np.argsort(-scored.score[places], kind="stable")], session)


def lowest_abnormals(scored: Scored, session: Session) -> list[Example]:
    """Return the abnormal recordings with the lowest scores, the worst first; rhythm-only ones left out."""
    places = np.flatnonzero(scored.abnormal & ~scored.rhythm_only)
    return _examples(scored, places[np.argsort(scored.score[places], kind="stable")], session)


def _examples(scored: Scored, places: npt.NDArray[np.intp], session: Session) -> list[Example]:
    found: list[Example] = []
    for place in places:
        if len(found) == EXAMPLES:
            break
        # One of many hours, or one that has gone since it was scored, does not cost the page.
        with suppress(TooLongError, IngestError):
            found.append(_example(scored.entries[place], float(scored.score[place]), session))
    return found


def _example(entry: Entry, score: float, session: Session) -> Example:
    signal = entry.read()
    recording = ArrayRecording(
        to_lsb(signal.millivolts),
        name=entry.record,
        fs=signal.fs,
        leads=signal.leads,
        gain=(_GAIN,) * len(signal.leads),
    )
    seconds = len(signal.millivolts) / signal.fs
    overlay = Overlay(session.manifest, signal.leads, signal.fs, seconds)
    analysis = analyse(
        overlay.heard(chunks_of(recording, recording.bed, recording.bed)),
        session,
        record=entry.record,
        on_window=overlay.add,
    )
    return Example(entry, score, overlay.traces(), most_anomalous(analysis, SECONDS)[0])
