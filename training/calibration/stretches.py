"""Long stretches of normal ECG, on which false alarms are counted.

An alarm takes a quarter of a minute of unusual windows, so recordings of ten seconds raise none. They are
played over and over, joined beat to beat as ``bedside replay --loop`` does; a recording that lasts, and the
parts of an annotated one in which every beat is normal, are taken as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import wfdb

from ingest.looping import LoopedRecording
from ingest.recordings import open_recording
from ingest.source import ArrayRecording, IngestError, Recording, fitting_gain
from ingest.wfdb_files import record_path
from models.manifest import AlarmRule, FilterSpec, ScoreSpec, WindowSpec
from models.scoring import score
from models.session import Session
from stream.alarms.conditions import ANOMALY
from stream.alarms.evidence import judge_window
from stream.alarms.state import BedState, Moment
from stream.contract import INVALID, to_lsb
from stream.windows import BedWindow, Window
from training.calibration.statistics import Run
from training.recordings import Entry

Float64Array = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

STRETCH_S = 300.0
"""Length of a stretch, about, seconds: dozens of turns of a loop, so that its seams are put to the test too.
A longer one would claim hours of bed time that hold nothing but the same ten seconds."""
SHORTEST_S = 60.0
"""Of what is not looped, seconds: a third of a minute passes before the alarm rule has seen its windows."""

MOST_NORMALS = 800
"""Normals that stretches are taken of, at most. Half as many loops are 32 hours, after which, without an
alarm, even the upper end of the interval of their rate is below one in ten hours."""

# What annotations may say of a part that is normal: normal beats. Changes of signal quality and artefacts do
# not end it, for it is noise in a normal ECG that false alarms come from.
_NORMAL = frozenset('N~|"')
_RHYTHM, _NORMAL_RHYTHM = "+", "(N"
# Where WFDB keeps reference annotations.
_REFERENCE = ".atr"
# Signals of a pack are floats in millivolts.
_GAIN = 1000.0
# Read at once: 10 s of 12 leads at 500 Hz are half a megabyte as floats.
_PIECE_S = 10.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a normal recording, or all of it over and over.

    Attributes
    ----------
    recording : Recording
    start_s, stop_s : float
        Seconds.
    patient : str
    source : str
        ``"looped"``, or ``"continuous"`` for one that lasts.
    """

    recording: Recording
    start_s: float
    stop_s: float
    patient: str
    source: str


@dataclass(frozen=True, slots=True)
class StretchScores:
    """The windows of a stretch that were scored.

    Attributes
    ----------
    window : numpy.ndarray of int, shape (windows,)
        Number of each on the grid of its stretch.
    score : numpy.ndarray of float64, shape (windows,)
    patient, source : str
        As in `Stretch`.
    """

    window: IndexArray
    score: Float64Array
    patient: str = ""
    source: str = ""

    def watched(self, rule: AlarmRule) -> int:
        """Return the number of windows at which the rule can raise an alarm: it takes `k` of them."""
        return max(0, len(self.window) - rule.k + 1)

    def alarm_level(self, rule: AlarmRule) -> float:
        """Return the lowest threshold at which no alarm is raised, minus infinity if none ever is.

        The highest, over the stretch, of the `k`-th highest score among `n` windows: the rule has been met
        where as many of them are over the threshold.
        """
        if not len(self.window):
            return -np.inf
        on_grid = np.full(int(self.window[-1] - self.window[0]) + rule.n, -np.inf)
        on_grid[self.window - self.window[0] + rule.n - 1] = self.score
        last = np.lib.stride_tricks.sliding_window_view(on_grid, rule.n)
        return float(np.partition(last, rule.n - rule.k, axis=1)[:, rule.n - rule.k].max())

    def alarms(self, rule: AlarmRule, threshold: float) -> int:
        """Return how many alarms are raised, by the code that raises them when serving."""
        state = BedState(session="stretch")
        raised = 0
        for number, value in zip(self.window.tolist(), self.score.tolist(), strict=True):
            # One window a second: places and times do not matter here, only their order.
            events = judge_window(
                state,
                rule,
                Moment("stretch", number, 0, 1.0, 0),
                window=number,
                first_new=number,
                over=value > threshold,
                score=value,
            )
            raised += sum(e.rule == ANOMALY.rule and not e.number for e in events)
        return raised


@dataclass(frozen=True, slots=True)
class Scorer:
    """A model and all that serving does around it: a recording in, window scores out.

    Attributes
    ----------
    run : callable
    spec : ScoreSpec
    leads : tuple of str
        The model's.
    filter : FilterSpec
    window : WindowSpec
    batch : int
        Windows that the model gets at once.
    """

    run: Run
    spec: ScoreSpec
    leads: tuple[str, ...]
    filter: FilterSpec
    window: WindowSpec
    batch: int = 32

    @classmethod
    def of(cls, session: Session) -> Scorer:
        """Return that of a bundle's model."""
        model = session.manifest
        return cls(session.run, model.score, model.leads, model.filter, model.window, model.max_batch)

    def score(self, stretch: Stretch) -> StretchScores:
        """Score every window of a stretch, in constant memory.

        Parameters
        ----------
        stretch : Stretch

        Returns
        -------
        StretchScores

        Raises
        ------
        IngestError
            If the recording cannot be read, or its rate is too low for the model's filter.
        """
        recording = stretch.recording
        try:
            bed = BedWindow(recording.leads, recording.fs, self.leads, self.filter, self.window)
        except ValueError as error:
            raise IngestError(
                recording.name, f"{recording.fs:g} Hz is too slow for the model's filter"
            ) from error
        numbers: list[int] = []
        scores: list[Float64Array] = []
        for windows in _batches(_windows(stretch, bed), self.batch):
            x, mask, counted = (
                np.stack([getattr(window, part) for window in windows]) for part in ("x", "mask", "counted")
            )
            scores.append(score(x, self.run(x, mask), counted, mask, self.spec).window)
            numbers += [window.index for window in windows]
        return StretchScores(
            np.array(numbers, np.intp),
            np.concatenate([*scores, np.empty(0)]),
            stretch.patient,
            stretch.source,
        )


def stretches_of(entry: Entry) -> list[Stretch]:
    """Return the stretches of normal ECG that a row of an index stands for.

    Parameters
    ----------
    entry : Entry

    Returns
    -------
    list of Stretch
        Of a recording labelled normal: all of it in parts of `STRETCH_S` if it lasts `SHORTEST_S`, else a
        loop. Of one without a label that has reference annotations (``.atr``): every part of at least
        `SHORTEST_S` in which all beats and the rhythm are normal. Of others none.

    Raises
    ------
    IngestError
        If the recording cannot be read or is too short to be looped.
    """
    if entry.label == 0:
        recording = recording_of(entry)
        seconds = recording.duration_s or 0.0
        if seconds >= SHORTEST_S:
            return _parts(recording, [(0.0, seconds)], entry.person)
        # Every turn reads it again: better from memory.
        held = ArrayRecording(
            recording.read(0, sys.maxsize),
            name=recording.name,
            fs=recording.fs,
            leads=recording.leads,
            gain=recording.gain,
        )
        return [Stretch(LoopedRecording(held), 0.0, STRETCH_S, entry.person, "looped")]
    annotations = annotations_of(entry)
    if annotations is None:
        return []
    recording = open_recording(entry.path)
    return _parts(recording, normal_spans(annotations, recording.fs), entry.person)


def with_stretches(normals: Sequence[Entry], entries: Iterable[Entry]) -> list[Entry]:
    """Choose the recordings to take stretches of.

    Parameters
    ----------
    normals : sequence of Entry
        Validation normals; at most `MOST_NORMALS` of them are taken, evenly spaced.
    entries : iterable of Entry
        The whole index: of those without a label, but never of split ``test``, the ones with reference
        annotations are taken.
    """
    step = max(1, -(-len(normals) // MOST_NORMALS))
    annotated = [entry for entry in entries if entry.split != "test" and annotations_of(entry) is not None]
    return [*normals[::step], *annotated]


def score_stretches(
    scorer: Scorer, entries: Sequence[Entry], *, on_done: Callable[[float], None] | None = None
) -> tuple[list[StretchScores], list[str]]:
    """Score the stretches of recordings, one at a time.

    Parameters
    ----------
    scorer : Scorer
    entries : sequence of Entry
        Normals, and annotated ones.
    on_done : callable, optional
        Called with the number of recordings that are done.

    Returns
    -------
    scores : list of StretchScores
    left_out : list of str
        Which recordings could not be used, and why.
    """
    scores: list[StretchScores] = []
    left_out: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            scores += [scorer.score(stretch) for stretch in stretches_of(entry)]
        except (IngestError, OSError) as error:
            left_out.append(" ".join(str(error).split()))
        if on_done is not None:
            on_done(number)
    return scores, left_out


def recording_of(entry: Entry) -> Recording:
    """Open the recording of an entry, to be read in pieces; of a pack in memory.

    Raises
    ------
    IngestError
        If there is none or it cannot be read.
    """
    if entry.piece is None:
        return open_recording(entry.path)
    signal = entry.read()
    peak = float(np.nanmax(np.abs(signal.millivolts), initial=0.0))
    gain = fitting_gain(_GAIN, peak)
    samples = to_lsb(signal.millivolts, gain)
    return ArrayRecording(
        samples, name=entry.record, fs=signal.fs, leads=signal.leads, gain=[gain] * len(signal.leads)
    )


def annotations_of(entry: Entry) -> Path | None:
    """Return where the reference annotations of a recording without a label are; None if it has none."""
    record = record_path(entry.path) if entry.label is None and entry.piece is None else None
    if record is None:
        return None
    file = record.with_name(record.name + _REFERENCE)
    return file if file.is_file() else None


def normal_spans(annotations: Path, fs: float) -> list[tuple[float, float]]:
    """Return the parts of an annotated recording in which all beats and the rhythm are normal.

    Parameters
    ----------
    annotations : pathlib.Path
        WFDB reference annotations with beat and rhythm labels, as those of MIT-BIH.
    fs : float
        Sampling frequency of the recording, Hz.

    Returns
    -------
    list of (float, float)
        Seconds of the first and of the last normal beat of each part.

    Raises
    ------
    IngestError
        If they cannot be read.
    """
    try:
        notes = wfdb.rdann(str(annotations.with_suffix("")), annotations.suffix[1:])
    except (OSError, ValueError, IndexError) as error:
        raise IngestError(annotations, f"these annotations cannot be read ({error})") from error
    rhythm = ""
    labelled: list[tuple[bool, float]] = []
    for sample, symbol, note in zip(notes.sample, notes.symbol, notes.aux_note, strict=True):
        if symbol == _RHYTHM:
            rhythm = note.rstrip("\x00")
        normal = rhythm == _NORMAL_RHYTHM and (symbol == _RHYTHM or symbol in _NORMAL)
        labelled.append((normal, sample / fs))
    runs = ([at for _, at in run] for normal, run in groupby(labelled, key=lambda item: item[0]) if normal)
    return [(run[0], run[-1]) for run in runs]


def _parts(recording: Recording, spans: Sequence[tuple[float, float]], patient: str) -> list[Stretch]:
    parts = []
    for begin, end in spans:
        if end - begin >= SHORTEST_S:
            edges = np.linspace(begin, end, max(1, round((end - begin) / STRETCH_S)) + 1).tolist()
            parts += [Stretch(recording, *edge, patient, "continuous") for edge in pairwise(edges)]
    return parts


def _windows(stretch: Stretch, bed: BedWindow) -> Iterator[Window]:
    recording = stretch.recording
    first, end = round(stretch.start_s * recording.fs), round(stretch.stop_s * recording.fs)
    step = round(_PIECE_S * recording.fs)
    for at in range(first, end, step):
        samples = recording.read(at, min(at + step, end))
        millivolts = samples / np.asarray(recording.gain)
        millivolts[samples == INVALID] = np.nan
        for window in bed.push(at - first, millivolts):
            if window.reason is None:
                yield window


def _batches(windows: Iterator[Window], size: int) -> Iterator[list[Window]]:
    batch: list[Window] = []
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
