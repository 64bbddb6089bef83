"""One bed's samples become windows for the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.manifest import FilterSpec, WindowSpec
from stream.preprocess import BRIDGE_S, Conditioner, Float64Array, Resampled

Float32Array = npt.NDArray[np.float32]


@dataclass(slots=True)
class Window:
    """One window of one feed, ready for the model.

    Attributes
    ----------
    index : int
        Number on the session's grid; it starts at grid sample ``index * hop``.
    start, end : int
        Source samples that it covers, end exclusive.
    x : numpy.ndarray of float32, shape (leads, samples)
        Normalised, leads in the model's order, zero where masked.
    mask : numpy.ndarray of float32, shape (leads,)
        1 for each lead that is present and good.
    counted : numpy.ndarray of bool, shape (leads, samples)
        Points that count in the score: not masked, not bridged.
    mean, scale : numpy.ndarray of float32, shape (leads,)
        Undo the normalisation: ``millivolts = x * scale + mean``.
    reason : str or None
        Why the window cannot be scored, if it cannot.
    """

    index: int
    start: int
    end: int
    x: Float32Array
    mask: Float32Array
    counted: npt.NDArray[np.bool_]
    mean: Float32Array
    scale: Float32Array
    reason: str | None = field(default=None)


class _Ring:
    # The newest samples of a few leads, contiguous: written into a buffer of twice the capacity, whose
    # second half moves to the front when it is full, so that a view never wraps and a copy is rare.

    def __init__(self, leads: int, capacity: int, first: int) -> None:
        self._values = np.empty((leads, 2 * capacity), np.float32)
        self._missing = np.empty((leads, 2 * capacity), np.float32)
        self._capacity = capacity
        self._used = 0
        self.stop = first

    def append(self, values: Float32Array, missing: Float32Array) -> None:
        n = values.shape[1]
        if self._used + n > 2 * self._capacity:
            keep = min(self._used, self._capacity)
            for buffer in (self._values, self._missing):
                buffer[:, :keep] = buffer[:, self._used - keep : self._used].copy()
            self._used = keep
        self._values[:, self._used : self._used + n] = values
        self._missing[:, self._used : self._used + n] = missing
        self._used += n
        self.stop += n

    def last(self, n: int) -> tuple[Float32Array, Float32Array]:
        window = slice(self._used - n, self._used)
        return self._values[:, window], self._missing[:, window]


class BedWindow:
    """Conditioner, ring and window grid of one session of one bed.

    Parameters
    ----------
    leads : sequence of str
        The feed's leads, canonical.
    fs : float
        The feed's sampling frequency, Hz.
    model_leads : sequence of str
    filter_spec : FilterSpec
    spec : WindowSpec
    start : int
        Index of the first sample that will come.
    """

    def __init__(
        self,
        leads: Sequence[str],
        fs: float,
        model_leads: Sequence[str],
        filter_spec: FilterSpec,
        spec: WindowSpec,
        start: int = 0,
    ) -> None:
        self.fs = fs
        self._spec = spec
        self._filter = filter_spec
        self._n_model = len(model_leads)
        # Columns of the feed that the model knows, and the rows that they are in the model.
        known = [(leads.index(lead), row) for row, lead in enumerate(model_leads) if lead in leads]
        self._columns = np.array([column for column, _ in known], dtype=np.intp)
        self._rows = np.array([row for _, row in known], dtype=np.intp)
        self._restart(start)
        # A window in source samples; a hop more, for what the conditioner looks ahead.
        self._span = self._conditioner.source_index(spec.samples + spec.hop)

    def _restart(self, start: int) -> None:
        self._conditioner = Conditioner(self._filter, self.fs, self._spec.fs, len(self._columns), start)
        first = self._conditioner.next_out
        self._ring = _Ring(len(self._columns), self._spec.samples, first)
        self._next_window = -(-first // self._spec.hop)

    @property
    def next_in(self) -> int:
        """Index of the sample that is expected next."""
        return self._conditioner.next_in

    def end_of(self, window: int) -> int:
        """Return the source sample after the last one of a window of the grid."""
        return self._conditioner.source_index(window * self._spec.hop + self._spec.samples)

    def push(self, n0: int, millivolts: Float64Array) -> Iterator[Window]:
        """Take samples from index `n0` on and yield the windows that they complete, in order.

        Samples that came before are dropped; a hole before `n0` counts as missing samples. Of a long hole,
        only the windows that also hold something of what is before or behind it come out.

        Parameters
        ----------
        n0 : int
        millivolts : numpy.ndarray of float64, shape (n, leads of the feed)
            NaN where there is no valid sample.
        """
        hole = n0 - self.next_in
        if hole > 2 * self._span:
            yield from self._take(self._nothing(self._span))
            self._restart(n0 - self._span)
            hole = self._span
        if hole > 0:
            yield from self._take(self._nothing(hole))
        elif hole < 0:
            millivolts = millivolts[-hole:]
        yield from self._take(np.ascontiguousarray(millivolts[:, self._columns].T))

    def _nothing(self, n: int) -> Float64Array:
        return np.full((len(self._columns), n), np.nan)

    def _take(self, x: Float64Array) -> Iterator[Window]:
        # In pieces no longer than a hop, so that the ring always ends where a window does.
        resampled = self._conditioner.push(x)
        at, total = 0, resampled.values.shape[1]
        while at < total:
            window_stop = self._next_window * self._spec.hop + self._spec.samples
            take = min(total - at, window_stop - self._ring.stop)
            self._ring.append(resampled.values[:, at : at + take], resampled.missing[:, at : at + take])
            at += take
            if self._ring.stop == window_stop:
                yield self._window()
                self._next_window += 1

    def _window(self) -> Window:
        spec, index = self._spec, self._next_window
        values, missing = self._ring.last(spec.samples)
        start = self._conditioner.source_index(index * spec.hop)
        window = normalise(Resampled(index * spec.hop, values, missing), self._rows, self._n_model, spec)
        window.index, window.start, window.end = index, start, self.end_of(index)
        return window


def normalise(piece: Resampled, rows: npt.NDArray[np.intp], n_leads: int, spec: WindowSpec) -> Window:
    """Return the model's view of one window of conditioned signal.

    Each lead is standardised over its valid samples in the window itself. A lead is masked if it has no
    amplitude, or a gap that by the end of the window has lasted longer than `stream.preprocess.BRIDGE_S`,
    also if it began before the window. Whether a gap at the very end will last, nobody knows yet: its
    points do not count, and the next window is masked if it did.

    Parameters
    ----------
    piece : Resampled
        Exactly one window, of the leads in `rows`.
    rows : numpy.ndarray of int
        For each lead of `piece`, its place in the model's order.
    n_leads : int
        Leads of the model.
    spec : WindowSpec

    Returns
    -------
    Window
        Without its place (`index`, `start` and `end` are 0).
    """
    values, missing = piece.values.astype(np.float64), piece.missing
    present = missing == 0.0
    gap = missing.max(axis=1, initial=0.0) > BRIDGE_S
    count = np.maximum(present.sum(axis=1), 1)
    mean = (values * present).sum(axis=1) / count
    centred = (values - mean[:, np.newaxis]) * present
    scale = np.sqrt((centred**2).sum(axis=1) / count)
    flat = scale < spec.floor_mv
    good = ~(gap | flat)
    x = np.zeros((n_leads, spec.samples), np.float32)
    counted = np.zeros((n_leads, spec.samples), np.bool_)
    mask = np.zeros(n_leads, np.float32)
    means, scales = np.zeros(n_leads, np.float32), np.ones(n_leads, np.float32)
    rows_good = rows[good]
    # A bridged point goes in as the lead's mean: it neither counts nor carries the held value.
    x[rows_good] = centred[good] / scale[good, np.newaxis]
    counted[rows_good] = present[good]
    mask[rows_good] = 1.0
    means[rows_good], scales[rows_good] = mean[good], scale[good]
    reason = None
    if not good.any():
        reason = "no known lead" if not len(rows) else "gap" if gap.any() else "flat"
    return Window(0, 0, 0, x, mask, counted, means, scales, reason)
