"""Scores of an index of recordings, by the functions that serve them one by one: windows, model, score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.source import IngestError
from models.session import Session
from stream.verdict import judge
from stream.windows import BedWindow, Window
from training.recordings import Entry, Signal

BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is done to every recording before it is scored once more.

    Attributes
    ----------
    name : str
    kind : str
        What is changed, by which rows of a table belong together: ``"leads"``, ``"noise"``, ``"rate"``.
    apply : callable
        Takes a `Signal` and returns the changed one, or None for a recording of which it cannot be asked.
    """

    name: str
    kind: str
    apply: Callable[[Signal], Signal | None]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A labelled recording without a score.

    Attributes
    ----------
    entry : Entry
    why : str
    """

    entry: Entry
    why: str


@dataclass(frozen=True, slots=True)
class Scored:
    """Labelled recordings with their scores.

    Attributes
    ----------
    entries : tuple of Entry
    score : numpy.ndarray of float64, shape (recordings,)
        Mean over the recording's windows, as ``bedside analyze`` gives it.
    above : numpy.ndarray of float64, shape (recordings, quantiles)
        Share of the recording's windows that score higher than each stored quantile of validation normals.
    changed : dict of str to numpy.ndarray of float64, shape (recordings,)
        Scores of the changed recordings, by name of the change; NaN where there is none.
    skipped : tuple of Skipped
    """

    entries: tuple[Entry, ...]
    score: Float64Array
    above: Float64Array
    changed: dict[str, Float64Array]
    skipped: tuple[Skipped, ...]

    @property
    def abnormal(self) -> BoolArray:
        """Which recordings are labelled abnormal."""
        return np.array([entry.label == 1 for entry in self.entries], np.bool_)

    @property
    def rhythm_only(self) -> BoolArray:
        """Which abnormal recordings have a finding of rhythm and no other."""
        return np.array([entry.label == 1 and entry.rhythm_only for entry in self.entries], np.bool_)

    @property
    def datasets(self) -> npt.NDArray[np.str_]:
        """Data set of each recording."""
        return np.array([entry.dataset for entry in self.entries], np.str_)

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Patient of each recording; one whose patient is unknown stands for itself."""
        return np.array([entry.person for entry in self.entries], np.str_)


def score_recordings(
    entries: Sequence[Entry],
    session: Session,
    changes: Sequence[Change] = (),
    *,
    on_done: Callable[[float], None] | None = None,
) -> Scored:
    """Read and score recordings, one at a time, in the memory of one.

    Parameters
    ----------
    entries : sequence of Entry
        All labelled.
    session : Session
    changes : sequence of Change
        Each is scored beside the recording as it is.
    on_done : callable, optional
        Called with the number of recordings that are done.

    Returns
    -------
    Scored
        In the order of `entries`. A recording that cannot be read, or has no window that can be scored, is
        among the skipped.
    """
    gathered = _Gathered(session, len(entries), 1 + len(changes))
    skipped: list[Skipped] = []
    for number, entry in enumerate(entries):
        why = _score(gathered, number, entry, changes)
        if why is not None:
            skipped.append(Skipped(entry, why))
        if on_done is not None:
            on_done(number + 1)
    scores, above = gathered.finished()
    has = ~np.isnan(scores[0])
    return Scored(
        entries=tuple(entry for entry, scored in zip(entries, has, strict=True) if scored),
        score=scores[0, has],
        above=above[has],
        changed={change.name: scores[row, has] for row, change in enumerate(changes, 1)},
        skipped=tuple(skipped),
    )


def _score(gathered: _Gathered, number: int, entry: Entry, changes: Sequence[Change]) -> str | None:
    # Why the recording has no score, if it has none.
    try:
        signal = entry.read()
    except (IngestError, OSError) as error:
        return str(error).removeprefix(f"{entry.path}: ")
    why = gathered.take(number, 0, signal)
    if why is None:
        for row, change in enumerate(changes, 1):
            changed = change.apply(signal)
            if changed is not None:
                gathered.take(number, row, changed)
    return why


class _Gathered:
    # Windows of successive recordings fill one batch of the model; their scores are summed up per recording.

    def __init__(self, session: Session, recordings: int, rows: int) -> None:
        self._session = session
        self._quantiles = np.array(session.manifest.thresholds[session.precision].quantiles)
        self._total = np.zeros((rows, recordings))
        self._count = np.zeros((rows, recordings))
        self._above = np.zeros((recordings, len(self._quantiles)))
        self._waiting: list[tuple[int, int, Window]] = []

    def take(self, number: int, row: int, signal: Signal) -> str | None:
        # Why there is nothing to score, if there is nothing.
        manifest = self._session.manifest
        try:
            bed = BedWindow(signal.leads, signal.fs, manifest.leads, manifest.filter, manifest.window)
        except ValueError:
            return f"{signal.fs:g} Hz is too slow for the model's filter"
        reasons: dict[str, int] = {}
        usable = 0
        for window in bed.push(0, signal.millivolts):
            if window.reason is not None:
                reasons[window.reason] = reasons.get(window.reason, 0) + 1
                continue
            usable += 1
            self._waiting.append((row, number, window))
            if len(self._waiting) >= manifest.max_batch:
                self._settle()
        if usable:
            return None
        if reasons:
            return "no window can be scored: " + ", ".join(f"{why} ({n})" for why, n in reasons.items())
        seconds = len(signal.millivolts) / signal.fs
        return f"{seconds:.1f} s is shorter than one window of the model ({manifest.window.seconds:g} s)"

    def _settle(self) -> None:
        verdicts = judge(self._session, [window for _, _, window in self._waiting], explained=())
        for (row, number, _), verdict in zip(self._waiting, verdicts, strict=True):
            # Windows with a reason, which have no verdict, were left out before.
            if verdict is None:
                continue
            self._total[row, number] += verdict.score
            self._count[row, number] += 1
            if row == 0:
                self._above[number] += verdict.score > self._quantiles
        self._waiting.clear()

    def finished(self) -> tuple[Float64Array, Float64Array]:
        # Mean scores, shape (rows, recordings), NaN where there is none; shares above each quantile.
        self._settle()
        with np.errstate(invalid="ignore"):
            return self._total / self._count, self._above / self._count[0, :, np.newaxis]
