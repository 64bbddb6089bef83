"""Windows from recordings, by the code that serves: what the model is trained and judged on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.manifest import FilterSpec, WindowSpec
from stream.preprocess import BRIDGE_S, Conditioner
from stream.windows import BedWindow, Window
from training.fitting.augment import stretch
from training.recordings import Signal
from training.signal_store import SignalStore

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
StateArray = npt.NDArray[np.uint8]
IndexArray = npt.NDArray[np.intp]

# What is known of a sample: the source had it; it is bridged; it lies in a gap too long to bridge, or in a
# lead that the recording does not have. Higher is worse.
_PRESENT, _BRIDGED, _ABSENT = 0, 1, 2

# Windows that are normalised at once: their float64 intermediates (10 MB for 12 leads of 800 samples) stay
# in the processor's cache.
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class WindowSet:
    """Windows of many recordings.

    Attributes
    ----------
    x : numpy.ndarray of float32, shape (windows, leads, samples)
        Normalised, zero where masked.
    mask : numpy.ndarray of float32, shape (windows, leads)
    counted : numpy.ndarray of bool, shape (windows, leads, samples)
    record : numpy.ndarray of int, shape (windows,)
        Number of the recording that each window comes from.
    """

    x: FloatArray
    mask: FloatArray
    counted: BoolArray
    record: IndexArray

    def __len__(self) -> int:
        return len(self.x)

    def select(self, chosen: BoolArray | IndexArray) -> WindowSet:
        """Return the windows chosen by a boolean array of shape (windows,), or by their places."""
        return WindowSet(self.x[chosen], self.mask[chosen], self.counted[chosen], self.record[chosen])

    def keep_leads(self, kept: BoolArray) -> WindowSet:
        """Return the same windows with some leads masked.

        Leads are conditioned and normalised one by one, so this is what a feed without them gives.

        Parameters
        ----------
        kept : numpy.ndarray of bool, shape (leads,) or (windows, leads)
        """
        mask = self.mask * kept
        present = mask[:, :, np.newaxis] != 0
        return WindowSet(self.x * present, mask, self.counted & present, self.record)


def _stack(windows: Sequence[Window], record: Sequence[int], n_leads: int, samples: int) -> WindowSet:
    shape = (len(windows), n_leads, samples)
    x, counted = np.empty(shape, np.float32), np.empty(shape, np.bool_)
    mask = np.empty(shape[:2], np.float32)
    for at, window in enumerate(windows):
        x[at], counted[at], mask[at] = window.x, window.counted, window.mask
    return WindowSet(x, mask, counted, np.asarray(record, np.intp))


def grid_windows(
    signals: Iterable[Signal], leads: Sequence[str], filter_spec: FilterSpec, spec: WindowSpec
) -> WindowSet:
    """Return every window that serving would score, recording by recording.

    Parameters
    ----------
    signals : iterable of Signal
    leads : sequence of str
        The model's.
    filter_spec : FilterSpec
    spec : WindowSpec

    Returns
    -------
    WindowSet
        Without the windows that serving would refuse to score.
    """
    windows: list[Window] = []
    record: list[int] = []
    for number, signal in enumerate(signals):
        bed = BedWindow(signal.leads, signal.fs, leads, filter_spec, spec)
        scored = [window for window in bed.push(0, signal.millivolts) if window.reason is None]
        windows += scored
        record += [number] * len(scored)
    return _stack(windows, record, len(leads), spec.samples)


class Crops(NamedTuple):
    """Places to cut windows at.

    Attributes
    ----------
    record, start, length : numpy.ndarray of int, shape (windows,)
        Number of the recording, first sample, and samples at the model's rate; a crop that is longer or
        shorter than a window is stretched to it.
    """

    record: IndexArray
    start: IndexArray
    length: IndexArray

    def take(self, chosen: IndexArray) -> Crops:
        """Return some of them."""
        return Crops(self.record[chosen], self.start[chosen], self.length[chosen])


class CropSource:
    """Conditioned recordings from which windows are cut: at any place, or on the grid of serving.

    Recordings are numbered as they came. Their signals are held as float32 at the model's rate, and in a
    file when they are many (see `training.signal_store.SignalStore`); windows exist while they are used.

    Parameters
    ----------
    signals : iterable of Signal
        Those shorter than a window give none. Only one of them is in memory at a time.
    leads : sequence of str
        The model's.
    filter_spec : FilterSpec
    spec : WindowSpec
    folder : pathlib.Path, optional
        Where the file of signals goes; default the folder of temporary files.
    """

    def __init__(
        self,
        signals: Iterable[Signal],
        leads: Sequence[str],
        filter_spec: FilterSpec,
        spec: WindowSpec,
        *,
        folder: Path | None = None,
    ) -> None:
        self._n_leads, self._spec = len(leads), spec
        self._store = SignalStore(folder)
        self._rows: list[IndexArray] = []
        lengths: list[int] = []
        # Only of the recordings with something missing, few of all.
        self._states: dict[int, StateArray] = {}
        for number, signal in enumerate(signals):
            known = [
                (signal.leads.index(lead), row) for row, lead in enumerate(leads) if lead in signal.leads
            ]
            columns, rows = np.array(known, np.intp).reshape(-1, 2).T
            conditioner = Conditioner(filter_spec, signal.fs, spec.fs, len(columns))
            piece = conditioner.push(np.ascontiguousarray(signal.millivolts[:, columns].T))
            self._store.append(piece.values)
            lengths.append(piece.values.shape[1])
            self._rows.append(rows)
            if piece.missing.any():
                self._states[number] = np.where(
                    piece.missing > BRIDGE_S, _ABSENT, np.where(piece.missing > 0, _BRIDGED, _PRESENT)
                ).astype(np.uint8)
        self._lengths = np.array(lengths, np.intp)

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def usable(self) -> IndexArray:
        """Numbers of the recordings that are at least a window long."""
        return np.flatnonzero(self._lengths >= self._spec.samples)

    def plan(
        self,
        per_record: int,
        rng: np.random.Generator,
        *,
        records: IndexArray | None = None,
        rate_warp: float = 0.0,
    ) -> Crops:
        """Choose random places.

        Parameters
        ----------
        per_record : int
            Windows of each recording.
        rng : numpy.random.Generator
        records : numpy.ndarray of int, optional
            Numbers of the recordings to take; default all usable ones.
        rate_warp : float
            Crops are up to ``1 + rate_warp`` times as long as a window, or as short as that fraction of
            it, evenly on a logarithmic scale, as far as the recording reaches.

        Returns
        -------
        Crops
            Recording by recording.
        """
        chosen = self.usable if records is None else np.intersect1d(records, self.usable)
        record = np.repeat(chosen, per_record)
        samples, available = self._spec.samples, self._lengths[record]
        length = np.full(len(record), samples, np.intp)
        if rate_warp:
            reach = np.log1p(rate_warp)
            factor = np.exp(rng.uniform(-reach, reach, len(record)))
            length = np.minimum(np.rint(samples * factor).astype(np.intp), available)
        return Crops(record, rng.integers(0, available - length + 1), length)

    def cut(self, crops: Crops) -> WindowSet:
        """Cut windows, normalised as serving normalises them.

        Returns
        -------
        WindowSet
            One for each crop, in their order; without a usable lead, its mask is zero everywhere.
        """
        shape = (len(crops.record), self._n_leads, self._spec.samples)
        windows = WindowSet(
            np.empty(shape, np.float32), np.empty(shape[:2], np.float32), np.empty(shape, np.bool_), crops[0]
        )
        for at in range(0, shape[0], _CHUNK):
            chunk = slice(at, at + _CHUNK)
            values, state = self._gather(Crops(*(part[chunk] for part in crops)))
            windows.x[chunk], windows.mask[chunk], windows.counted[chunk] = normalise_windows(
                values, state, self._spec
            )
        return windows

    def draw(self, per_record: int, rng: np.random.Generator) -> WindowSet:
        """Cut windows at random places.

        Parameters
        ----------
        per_record : int
            Windows of each recording.
        rng : numpy.random.Generator

        Returns
        -------
        WindowSet
            Without windows that have no usable lead.
        """
        return _scorable(self.cut(self.plan(per_record, rng)))

    def grid(self, records: Iterable[int] | None = None) -> WindowSet:
        """Return the windows that serving would score, as `grid_windows` does, of some recordings or all."""
        spec = self._spec
        numbers = np.array(sorted(range(len(self._lengths)) if records is None else records), np.intp)
        counts = np.maximum((self._lengths[numbers] - spec.samples) // spec.hop + 1, 0)
        record = np.repeat(numbers, counts)
        nth = np.arange(len(record)) - np.repeat(np.cumsum(counts) - counts, counts)
        return _scorable(self.cut(Crops(record, nth * spec.hop, np.full(len(record), spec.samples))))

    def _gather(self, crops: Crops) -> tuple[FloatArray, StateArray | None]:
        # Millivolts and states of the crops, stretched to a window; no states where nothing is missing.
        samples = self._spec.samples
        values = np.zeros((len(crops.record), self._n_leads, samples), np.float32)
        complete = not any(
            number in self._states or len(self._rows[number]) < self._n_leads
            for number in np.unique(crops.record).tolist()
        )
        states = None if complete else np.full(values.shape, _ABSENT, np.uint8)
        for at, (number, start, length) in enumerate(zip(*(part.tolist() for part in crops), strict=True)):
            piece = self._store[number][:, start : start + length]
            state = self._states.get(number)
            cut = np.zeros(piece.shape, np.uint8) if state is None else state[:, start : start + length]
            if length != samples:
                piece, cut = stretch(piece, cut, samples)
            if complete:
                values[at] = piece
                continue
            values[at, self._rows[number]] = piece
            if states is not None:
                states[at, self._rows[number]] = cut
        return values, states


def normalise_windows(
    values: FloatArray, state: StateArray | None, spec: WindowSpec
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return what `stream.windows.normalise` makes of each window, to the last bit, many at once.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (windows, leads, samples)
        Millivolts.
    state : numpy.ndarray of uint8, same shape, or None
        0 where the source had a sample, 1 where it is bridged, 2 where it is not there; None if none
        is missing.
    spec : WindowSpec

    Returns
    -------
    x : numpy.ndarray of float32, shape (windows, leads, samples)
    mask : numpy.ndarray of float32, shape (windows, leads)
    counted : numpy.ndarray of bool, shape (windows, leads, samples)
    """
    wide = values.astype(np.float64)
    if state is None:
        count: npt.NDArray[np.intp] | int = values.shape[-1]
        centred = wide - (wide.sum(axis=-1) / count)[:, :, np.newaxis]
        good = np.ones(values.shape[:2], np.bool_)
    else:
        present = state == _PRESENT
        count = np.maximum(present.sum(axis=-1), 1)
        mean = (wide * present).sum(axis=-1) / count
        centred = (wide - mean[:, :, np.newaxis]) * present
        good = (state != _ABSENT).all(axis=-1)
    scale = np.sqrt((centred**2).sum(axis=-1) / count)
    good &= scale >= spec.floor_mv
    kept = good[:, :, np.newaxis]
    divisor = np.where(good, scale, 1.0)[:, :, np.newaxis]
    x = (centred / divisor).astype(np.float32)
    if not good.all():
        x *= kept
    counted = np.broadcast_to(kept, x.shape).copy() if state is None else present & kept
    return x, good.astype(np.float32), counted


def _scorable(windows: WindowSet) -> WindowSet:
    usable = np.flatnonzero(windows.mask.any(axis=1))
    return windows if len(usable) == len(windows) else windows.select(usable)
