"""Recordings of an index, read once and held as a model sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from ingest.source import IngestError
from models.manifest import ScoreSpec
from stream.leads import LEADS
from training.calibration.statistics import Run, score_windows
from training.config import TrainConfig
from training.dataset import CropSource, WindowSet
from training.recordings import Entry, Signal

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]
Float64Array = npt.NDArray[np.float64]

# Recordings whose windows are in memory at once: 128 of 10 s are 640 windows, 30 MB.
_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Source:
    """Recordings that could be read.

    Attributes
    ----------
    entries : tuple of Entry
    signals : CropSource
        Numbered as `entries`.
    left_out : tuple of str
        A line for each recording that could not be read or is shorter than a window: which, and why.
    """

    entries: tuple[Entry, ...]
    signals: CropSource
    left_out: tuple[str, ...]


def read_source(
    entries: Sequence[Entry],
    config: TrainConfig,
    *,
    what: str,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """Read recordings and condition them for a model.

    Parameters
    ----------
    entries : sequence of Entry
    config : TrainConfig
    what : str
        Name of the progress bar.
    folder : pathlib.Path, optional
        For signals that do not fit in memory (see `training.signal_store.SignalStore`).
    progress : rich.progress.Progress, optional

    Returns
    -------
    Source
        A recording that cannot be read is left out, and named.

    Raises
    ------
    OSError
        If signals do not fit in memory and the disk is full.
    """
    read: list[Entry] = []
    left_out: list[str] = []

    def signals() -> Iterator[Signal]:
        for entry in entries if progress is None else progress.track(entries, description=what):
            try:
                signal = entry.read()
            except (IngestError, OSError) as error:
                left_out.append(" ".join(str(error).split()))
                continue
            read.append(entry)
            yield signal

    source = CropSource(signals(), LEADS, config.filter, config.window, folder=folder)
    short = set(range(len(read))).difference(source.usable.tolist())
    why = f"shorter than a window ({config.window.seconds:g} s)"
    left_out += [f"{read[number].path}, record {read[number].record}: {why}" for number in sorted(short)]
    return Source(tuple(read), source, tuple(left_out))


def some_windows(source: Source, most: int, records: IndexArray | None = None) -> WindowSet:
    """Return the windows that serving would score, of no more than `most` recordings, evenly spaced.

    Parameters
    ----------
    source : Source
    most : int
    records : numpy.ndarray of int, optional
        Numbers of the recordings to choose from; default all.
    """
    usable = source.signals.usable if records is None else np.intersect1d(records, source.signals.usable)
    if len(usable) > most:
        usable = usable[np.linspace(0, len(usable) - 1, most).astype(np.intp)]
    return source.signals.grid(usable.tolist())


def score_source(
    run: Run,
    source: Source,
    spec: ScoreSpec,
    kept: BoolArray | None = None,
    *,
    records: IndexArray | None = None,
    what: str = "",
    progress: Progress | None = None,
) -> tuple[Float64Array, IndexArray]:
    """Score every window that serving would score, in the memory of a few.

    Parameters
    ----------
    run : callable
    source : Source
    spec : ScoreSpec
    kept : numpy.ndarray of bool, shape (leads,), optional
        Leads to use; default all that a recording has.
    records : numpy.ndarray of int, optional
        Numbers of the recordings to score; default all.
    what : str
        Name of the progress bar.
    progress : rich.progress.Progress, optional

    Returns
    -------
    scores : numpy.ndarray of float64, shape (windows,)
        Without windows that have none of the leads.
    record : numpy.ndarray of int, shape (windows,)
        Number of the recording of each.
    """
    numbers = np.arange(len(source.entries)) if records is None else records
    starts = range(0, len(numbers), _AT_ONCE)
    scores, record = [np.empty(0)], [np.empty(0, np.intp)]
    for at in starts if progress is None else progress.track(starts, description=what):
        windows = source.signals.grid(numbers[at : at + _AT_ONCE].tolist())
        if not len(windows):
            continue
        given = windows if kept is None else windows.keep_leads(kept)
        found = score_windows(run, given, spec).window
        scored = ~np.isnan(found)
        scores.append(found[scored])
        record.append(windows.record[scored])
    return np.concatenate(scores), np.concatenate(record)
