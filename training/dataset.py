"""Windows from recordings, by the code that serves: what the model is trained and judged on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.manifest import FilterSpec, WindowSpec
from stream.preprocess import Conditioner, Resampled
from stream.windows import BedWindow, Window, normalise
from training.recordings import Signal

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


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
    record: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.x)

    def select(self, chosen: BoolArray) -> WindowSet:
        """Return the windows chosen by a boolean array of shape (windows,)."""
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


class CropSource:
    """Conditioned recordings from which windows are cut at any place, not only on the grid.

    Parameters
    ----------
    signals : iterable of Signal
        Those shorter than a window are left out.
    leads : sequence of str
        The model's.
    filter_spec : FilterSpec
    spec : WindowSpec
    """

    def __init__(
        self, signals: Iterable[Signal], leads: Sequence[str], filter_spec: FilterSpec, spec: WindowSpec
    ) -> None:
        self._n_leads, self._spec = len(leads), spec
        self._pieces: list[tuple[Resampled, npt.NDArray[np.intp]]] = []
        for signal in signals:
            known = [
                (signal.leads.index(lead), row) for row, lead in enumerate(leads) if lead in signal.leads
            ]
            columns, rows = np.array(known, np.intp).reshape(-1, 2).T
            conditioner = Conditioner(filter_spec, signal.fs, spec.fs, len(columns))
            piece = conditioner.push(np.ascontiguousarray(signal.millivolts[:, columns].T))
            if piece.values.shape[1] >= spec.samples:
                self._pieces.append((piece, rows))

    def __len__(self) -> int:
        return len(self._pieces)

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
        windows: list[Window] = []
        record: list[int] = []
        length = self._spec.samples
        for number, (piece, rows) in enumerate(self._pieces):
            for at in rng.integers(0, piece.values.shape[1] - length + 1, per_record).tolist():
                cut = Resampled(at, piece.values[:, at : at + length], piece.missing[:, at : at + length])
                window = normalise(cut, rows, self._n_leads, self._spec)
                if window.reason is None:
                    windows.append(window)
                    record.append(number)
        return _stack(windows, record, self._n_leads, length)
