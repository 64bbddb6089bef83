"""The index of recordings to train on and evaluate with, and the signals it names."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.recordings import open_recording
from stream.contract import INVALID
from stream.leads import LEADS
from training.pack import Slice, read_slice

_BOOLEANS = {"": False, "0": False, "1": True}


class IndexFileError(ValueError):
    """An index that cannot be used; the text is one line: which, where, and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of an index.

    Attributes
    ----------
    path : pathlib.Path
        Of the signal file or the record; several rows share that of a pack.
    dataset : str
        Source of the recording, by which results are reported.
    label : int or None
        0 normal, 1 abnormal, None where nobody said.
    rhythm_only : bool
        The only finding is one of rhythm: the shape of the waves is normal.
    split : str
        ``"train"``, ``"val"``, ``"test"``, or empty.
    patient : str
        Empty where unknown.
    licence : str
    codes : tuple of str
        Diagnoses as the source gives them; in the index separated by ``|``.
    record : str
        What people call the recording; the stem of `path` if not given.
    piece : Slice or None
        Where it lies in the pack at `path`; None for a recording with a file of its own.
    """

    path: Path
    dataset: str
    label: int | None
    rhythm_only: bool
    split: str
    patient: str
    licence: str
    codes: tuple[str, ...] = ()
    record: str = ""
    piece: Slice | None = None

    def __post_init__(self) -> None:
        if not self.record:
            object.__setattr__(self, "record", self.path.stem)

    @property
    def person(self) -> str:
        """Whose recording it is, unique across data sets: an unknown patient's stands for itself."""
        # Not `path` alone: all recordings of a pack have the same.
        return f"{self.dataset}/{self.patient}" if self.patient else f"{self.path}#{self.record}"

    def read(self) -> Signal:
        """Read the recording, from its own file or from a pack.

        Raises
        ------
        IngestError
            If there is none or it cannot be read.
        """
        if self.piece is None:
            return read_signal(self.path)
        return Signal(self.piece.fs, LEADS, read_slice(self.path, self.piece))


@dataclass(frozen=True, slots=True)
class Signal:
    """A whole recording.

    Attributes
    ----------
    fs : float
        Hz.
    leads : tuple of str
        Canonical names.
    millivolts : numpy.ndarray of float64, shape (n, leads)
        NaN where there is no valid sample.
    """

    fs: float
    leads: tuple[str, ...]
    millivolts: npt.NDArray[np.float64]


def read_index(index: Path) -> list[Entry]:
    """Read an index of recordings.

    Parameters
    ----------
    index : pathlib.Path
        CSV with a header; columns ``path`` and ``label``, and optionally ``rhythm_only``, ``dataset`` (or
        ``group``), ``split``, ``patient_id``, ``licence``, ``codes`` and ``record``; others are ignored.
        Relative paths are relative to the index. A row with ``offset`` and ``samples`` is a recording of a
        pack: ``path`` is the array, and ``fs`` the rate in Hz (see `training.pack`).

    Returns
    -------
    list of Entry
        In the order of the file.

    Raises
    ------
    IndexFileError
        If the file cannot be read, a column is missing or a value is not one of those allowed.
    """
    try:
        with index.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            if missing:
                raise IndexFileError(f"{index}: no column {', '.join(sorted(missing))}")
            return [_entry(index, number, row) for number, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IndexFileError(f"{index}: cannot be read ({error})") from error


def _entry(index: Path, line: int, row: dict[str, str | None]) -> Entry:
    def value(*names: str) -> str:
        return next((text.strip() for name in names if (text := row.get(name))), "")

    label, rhythm_only = value("label"), value("rhythm_only")
    if label not in ("", "0", "1"):
        raise IndexFileError(f"{index}, line {line}: label is {label!r}; it must be 0, 1 or empty")
    if rhythm_only not in _BOOLEANS:
        raise IndexFileError(
            f"{index}, line {line}: rhythm_only is {rhythm_only!r}; it must be 0, 1 or empty"
        )
    if not value("path"):
        raise IndexFileError(f"{index}, line {line}: path is empty")
    return Entry(
        path=index.parent / value("path"),
        dataset=value("dataset", "group"),
        label=int(label) if label else None,
        rhythm_only=_BOOLEANS[rhythm_only],
        split=value("split"),
        patient=value("patient_id"),
        licence=value("licence"),
        codes=tuple(code for code in value("codes").split("|") if code),
        record=value("record"),
        piece=_piece(index, line, value("offset"), value("samples"), value("fs")),
    )


def _piece(index: Path, line: int, offset: str, samples: str, fs: str) -> Slice | None:
    # A rate alone is no pack: indices of ordinary recordings state it too.
    if not (offset or samples):
        return None
    try:
        piece = Slice(int(offset), int(samples), float(fs))
        if piece.offset >= 0 and piece.samples >= 1 and 0 < piece.fs < math.inf:
            return piece
    except ValueError:
        pass
    raise IndexFileError(
        f"{index}, line {line}: no place in a pack: offset {offset!r}, samples {samples!r}, fs {fs!r}"
    )


def select(
    entries: Iterable[Entry], *, split: str, label: int | None = None, rhythm_only: bool | None = None
) -> list[Entry]:
    """Return the labelled entries of a split, of one label if given, with or without rhythm-only ones."""
    return [
        entry
        for entry in entries
        if entry.split == split
        and entry.label is not None
        and label in (None, entry.label)
        and rhythm_only in (None, entry.rhythm_only)
    ]


def read_signal(path: Path) -> Signal:
    """Read a whole recording, of any format that `ingest` reads.

    Raises
    ------
    IngestError
        If there is none or it cannot be read.
    """
    recording = open_recording(path)
    samples = recording.read(0, sys.maxsize)
    millivolts = samples / np.asarray(recording.gain)
    millivolts[samples == INVALID] = np.nan
    return Signal(recording.fs, recording.leads, millivolts)
