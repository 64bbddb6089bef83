"""One bed's samples become windows for the model."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.manifest import FilterSpec, WindowSpec
from stream.contract import Validity
from stream.preprocess import BRIDGE_S, Conditioner, Float64Array, Resampled, condition
from stream.vitals.grid import BLOCK
from stream.vitals.memory import Arrays
from stream.vitals.quality import QualityMeter, SecondQuality, measure_together

Float32Array = npt.NDArray[np.float32]

LONGEST_HOP_S = 2.0
"""Beyond it the alarm rule, which counts windows of some ten seconds, would see but a few of them."""

# Windows of 12 leads and 800 samples in so many float64 arrays still fit a core's second cache.
_TOGETHER = 8
# A lead with more poor seconds than this in a window is masked: one is a touch, which the rule outlasts.
_POOR_S = 1


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


@dataclass(frozen=True, slots=True)
class Piece:
    """One window of conditioned signal.

    Attributes
    ----------
    first : int
        Grid index of its first sample.
    values, missing : numpy.ndarray of float32, shape (leads, samples)
        As in `stream.preprocess.Resampled`; `missing` is None where nothing is.
    """

    first: int
    values: Float32Array
    missing: Float32Array | None
    poor: npt.NDArray[np.bool_] | None = None
    """Shape (leads,): whose signal is too poor to be judged; None: nobody's."""


class _Ring:
    # The newest samples of a few leads, contiguous: written into a buffer of twice the capacity, whose
    # second half moves to the front of a new one when it is full, so that a view never wraps, a copy is rare,
    # and what a view has shown it goes on to show.

    def __init__(self, leads: int, capacity: int, first: int) -> None:
        self._buffer = np.empty((2, leads, 2 * capacity), np.float32)
        self._capacity = capacity
        self._used = 0
        # Grid index after the last point at which a sample was missing.
        self._whole_from = first
        self.stop = first

    def append(self, values: Float32Array, missing: Float32Array) -> None:
        n = values.shape[1]
        if self._used + n > 2 * self._capacity:
            keep = min(self._used, self._capacity)
            full, self._buffer = self._buffer, np.empty_like(self._buffer)
            self._buffer[:, :, :keep] = full[:, :, self._used - keep : self._used]
            self._used = keep
        self._buffer[0, :, self._used : self._used + n] = values
        self._buffer[1, :, self._used : self._used + n] = missing
        self._used += n
        self.stop += n
        if missing.any():
            self._whole_from = self.stop

    def last(self, n: int) -> Piece:
        window = slice(self._used - n, self._used)
        first = self.stop - n
        missing = None if first >= self._whole_from else self._buffer[1, :, window]
        return Piece(first, self._buffer[0, :, window], missing)


class Listener(Protocol):
    """What may hear the signal that windows are made of."""

    def hear(self, stretch: Resampled) -> None:
        """Take a stretch of conditioned signal, of all leads of the feed."""

    def rate(self, seconds: Sequence[SecondQuality]) -> None:
        """Take the quality of the next seconds, all leads, before the signal that completes them."""


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
        # Leads of the feed that the model knows, and the rows that they are in the model.
        known = [(leads.index(lead), row) for row, lead in enumerate(model_leads) if lead in leads]
        self._n_feed = len(leads)
        columns = [column for column, _ in known]
        # A slice where they are all leads of the feed, in its order: no copy then.
        self._columns: slice | npt.NDArray[np.intp] = (
            slice(None) if columns == list(range(len(leads))) else np.array(columns, dtype=np.intp)
        )
        self._rows = np.array([row for _, row in known], dtype=np.intp)
        self.listener: Listener | None = None
        """Hears what the windows are made of."""
        self._meter = QualityMeter(len(leads), fs, start)
        # Quality of the seconds that the next window may reach into.
        self._seconds: deque[SecondQuality] = deque()
        # Source sample after the last second in which a lead was noisy.
        self._noisy_to = start
        self._restart(start)
        # A window in source samples; a hop more, for what the conditioner looks ahead.
        self._span = self._conditioner.source_index(spec.samples + spec.hop)

    def _restart(self, start: int) -> None:
        self._conditioner = Conditioner(self._filter, self.fs, self._spec.fs, self._n_feed, start)
        first = self._conditioner.next_out
        self._ring = _Ring(len(self._rows), self._spec.samples, first)
        self._next_window = -(-first // self._spec.hop)

    @property
    def next_in(self) -> int:
        """Index of the sample that is expected next."""
        return self._conditioner.next_in

    def source_index(self, grid: int) -> int:
        """Return the source sample at or after a sample of the model's grid."""
        return self._conditioner.source_index(grid)

    def end_of(self, window: int) -> int:
        """Return the source sample after the last one of a window of the grid."""
        return self._conditioner.source_index(window * self._spec.hop + self._spec.samples)

    def first_from(self, sample: int) -> int:
        """Return the number of the first window of the grid that begins at or after a source sample."""
        return -(-self._conditioner.first_out_from(sample) // self._spec.hop)

    def remember(self) -> Arrays | None:
        """Return what is known of the signal's quality; see `stream.vitals.quality.QualityMeter.remember`."""
        return self._meter.remember()

    def recall(self, state: Arrays) -> None:
        """Take what another worker knew of the signal's quality, once the signal has come up to there."""
        self._meter.recall(state)

    def completes(self, end: int) -> bool:
        """Say whether the samples before source sample `end` complete anything that comes out of here.

        That is a window, a block of what a listener hears, or a second of signal quality. Until then samples
        may as well wait for those behind them: what comes out does not depend on how they are cut.
        """
        conditioner = self._conditioner
        before, then = conditioner.next_out, conditioner.out_before(end)
        return (
            then >= self._next_window * self._spec.hop + self._spec.samples
            or then // BLOCK > before // BLOCK
            or end >= self._meter.second_end
        )

    def push(
        self, n0: int, millivolts: Float64Array, valid: Sequence[Validity] | None = None
    ) -> Iterator[Window]:
        """Take samples from index `n0` on and yield the windows that they complete, in order.

        Samples that came before are dropped; a hole before `n0` counts as missing samples. Of a long hole,
        only the windows that also hold something of what is before or behind it come out.

        Parameters
        ----------
        n0 : int
        millivolts : numpy.ndarray of float64, shape (n, leads)
            NaN where there is no valid sample.
        valid : sequence of Validity, optional
            What the source says of each lead.
        """
        self._rate(self._meter.push(n0, millivolts, valid))
        for piece in self._fill(n0):
            yield self._window(piece)
        x = millivolts[max(0, self.next_in - n0) :].T
        for piece in self._cut(self._conditioner.push(np.ascontiguousarray(x))):
            yield self._window(piece)

    def _rate(self, seconds: Sequence[SecondQuality]) -> None:
        self._seconds += seconds
        for second in seconds:
            if second.noisy.any():
                self._noisy_to = second.end
        if self.listener is not None:
            self.listener.rate(seconds)

    def _poor(self, first: int) -> npt.NDArray[np.bool_] | None:
        # Leads with too many poor seconds in the window that begins at a grid sample. Of a second that the
        # window's last sample does not complete nothing is known yet, however the feed is cut.
        begin = self._conditioner.source_index(first)
        while self._seconds and self._seconds[0].end <= begin:
            self._seconds.popleft()
        if self._noisy_to <= begin:
            return None
        end = self._conditioner.source_index(first + self._spec.samples - 1)
        poor = np.zeros(self._n_feed, np.intp)
        for second in self._seconds:
            if second.end <= end + 1:
                poor += second.noisy
        return (poor > _POOR_S)[self._columns]

    def _fill(self, n0: int) -> Iterator[Piece]:
        # Up to `n0`, with nothing.
        hole = n0 - self.next_in
        if hole > 2 * self._span:
            yield from self._cut(self._conditioner.push(self._nothing(self._span)))
            self._restart(n0 - self._span)
            hole = self._span
        if hole > 0:
            yield from self._cut(self._conditioner.push(self._nothing(hole)))

    def _nothing(self, n: int) -> Float64Array:
        return np.full((self._n_feed, n), np.nan)

    def _cut(self, resampled: Resampled) -> Iterator[Piece]:
        # Into windows. In pieces no longer than a hop, so that the ring always ends where a window does.
        if self.listener is not None:
            self.listener.hear(resampled)
        values, missing = resampled.values[self._columns], resampled.missing[self._columns]
        spec, at, total = self._spec, 0, values.shape[1]
        while at < total:
            window_stop = self._next_window * spec.hop + spec.samples
            take = min(total - at, window_stop - self._ring.stop)
            self._ring.append(values[:, at : at + take], missing[:, at : at + take])
            at += take
            if self._ring.stop == window_stop:
                piece = self._ring.last(spec.samples)
                poor = self._poor(piece.first)
                yield piece if poor is None else replace(piece, poor=poor)
                self._next_window += 1

    def _window(self, piece: Piece) -> Window:
        (window,) = normalise([piece], self._rows, self._n_model, self._spec)
        self._place(window, piece)
        return window

    def _place(self, window: Window, piece: Piece) -> None:
        window.index = piece.first // self._spec.hop
        window.start = self._conditioner.source_index(piece.first)
        window.end = self.end_of(window.index)


def windows_per_hop(window: WindowSpec, hop_s: float) -> int:
    """Return of how many windows one is judged if a bed is judged every `hop_s` seconds.

    Raises
    ------
    ValueError
        If that is no multiple of the model's own hop, or more than `LONGEST_HOP_S`.
    """
    own_s = window.hop / window.fs
    every = round(hop_s / own_s) if 0 < hop_s <= LONGEST_HOP_S else 0
    if every < 1 or abs(every * own_s - hop_s) > 1e-6:
        raise ValueError(
            f"a hop of {hop_s:g} s: it must be a multiple of the model's {own_s:g} s,"
            f" {LONGEST_HOP_S:g} s at most"
        )
    return every


@dataclass(frozen=True, slots=True)
class Push:
    """Samples on their way into the window of their bed.

    Attributes
    ----------
    bed : BedWindow
    n0 : int
        Index of the first sample.
    millivolts : numpy.ndarray of float64, shape (n, leads)
        NaN where there is no valid sample.
    every : int
        Only windows with a number divisible by this are wanted.
    valid : sequence of Validity, optional
        What the source says of each lead.
    """

    bed: BedWindow
    n0: int
    millivolts: Float64Array
    every: int = 1
    valid: Sequence[Validity] | None = None

    def wanted(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Return those of the windows that are wanted."""
        hop = self.bed._spec.hop
        return [piece for piece in pieces if piece.first // hop % self.every == 0]


def push_together(pushes: Sequence[Push]) -> list[list[Window]]:
    """Push samples of many beds at once.

    Parameters
    ----------
    pushes : sequence of Push
        Of different beds, all windows of the same model.

    Returns
    -------
    list of list of Window
        For each push what `BedWindow.push` yields of the windows that are wanted, to the last bit.
    """
    pieces: list[list[Piece]] = [[] for _ in pushes]
    alike: defaultdict[Hashable, list[int]] = defaultdict(list)
    inputs: list[Float64Array] = []
    rated = measure_together([(push.bed._meter, push.n0, push.millivolts, push.valid) for push in pushes])
    for push, seconds in zip(pushes, rated, strict=True):
        push.bed._rate(seconds)
    for place, push in enumerate(pushes):
        bed = push.bed
        pieces[place] += push.wanted(bed._fill(push.n0))
        inputs.append(push.millivolts[max(0, bed.next_in - push.n0) :].T)
        alike[bed._conditioner.alike, inputs[-1].shape[1]].append(place)
    for places in alike.values():
        conditioners = [pushes[place].bed._conditioner for place in places]
        resampled = condition(conditioners, np.concatenate([inputs[place] for place in places]))
        for place, stretch in zip(places, resampled, strict=True):
            pieces[place] += pushes[place].wanted(pushes[place].bed._cut(stretch))
    return _normalised(pushes, pieces)


def _normalised(pushes: Sequence[Push], pieces: list[list[Piece]]) -> list[list[Window]]:
    windows: list[list[Window]] = [[] for _ in pushes]
    alike: defaultdict[Hashable, list[tuple[int, Piece]]] = defaultdict(list)
    for place, push in enumerate(pushes):
        for piece in pieces[place]:
            alike[push.bed._rows.tobytes(), piece.missing is None].append((place, piece))
    for found in alike.values():
        for at in range(0, len(found), _TOGETHER):
            some = found[at : at + _TOGETHER]
            bed = pushes[some[0][0]].bed
            made = normalise([piece for _, piece in some], bed._rows, bed._n_model, bed._spec)
            for (place, piece), window in zip(some, made, strict=True):
                pushes[place].bed._place(window, piece)
                windows[place].append(window)
    for of_bed in windows:
        # Those with gaps came after those without.
        of_bed.sort(key=lambda window: window.index)
    return windows


def normalise(
    pieces: Sequence[Piece], rows: npt.NDArray[np.intp], n_leads: int, spec: WindowSpec
) -> list[Window]:
    """Return the model's view of windows of conditioned signal.

    Each lead is standardised over its valid samples in the window itself. A lead is masked if it has no
    amplitude, if its signal is too poor, or if it has a gap that by the end of the window has lasted longer
    than `stream.preprocess.BRIDGE_S`, also if it began before the window. Whether a gap at the very end will
    last, nobody knows yet: its points do not count, and the next window is masked if it did.

    Parameters
    ----------
    pieces : sequence of Piece
        Each of the leads in `rows`; all with missing samples, or all without.
    rows : numpy.ndarray of int
        For each lead of a piece, its place in the model's order.
    n_leads : int
        Leads of the model.
    spec : WindowSpec

    Returns
    -------
    list of Window
        Without their places (`index`, `start` and `end` are 0). Their arrays are views of common ones.
    """
    values = np.array([piece.values for piece in pieces], np.float64)
    missing = [piece.missing for piece in pieces if piece.missing is not None]
    present: npt.NDArray[np.bool_] | None = None
    gap = np.zeros(values.shape[:2], np.bool_)
    if missing:
        mean, scale, present, gap = _standardise_with_gaps(values, np.stack(missing))
    else:
        mean, scale = _standardise(values)
    poor = np.zeros(gap.shape, np.bool_)
    for number, piece in enumerate(pieces):
        if piece.poor is not None:
            poor[number] = piece.poor
    good = ~(gap | poor | (scale < spec.floor_mv))
    values /= np.where(good, scale, 1.0)[:, :, np.newaxis]
    if not good.all():
        values[~good] = 0.0

    shape = (len(pieces), n_leads, spec.samples)
    x, counted = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    mask = np.zeros(shape[:2], np.float32)
    means, scales = np.zeros_like(mask), np.ones_like(mask)
    # A slice where the leads are the model's own, in its order: that is done in half the time.
    places = slice(None) if np.array_equal(rows, np.arange(n_leads)) else rows
    x[:, places] = values
    counted[:, places] = good[:, :, np.newaxis] if present is None else present & good[:, :, np.newaxis]
    mask[:, places] = good
    means[:, places], scales[:, places] = np.where(good, mean, 0.0), np.where(good, scale, 1.0)
    windows = []
    for number in range(len(pieces)):
        reason = None
        if not good[number].any():
            reason = _why(len(rows), gap[number], poor[number])
        arrays = x[number], mask[number], counted[number], means[number], scales[number]
        windows.append(Window(0, 0, 0, *arrays, reason=reason))
    return windows


def _why(known: int, gap: npt.NDArray[np.bool_], poor: npt.NDArray[np.bool_]) -> str:
    if not known:
        return "no known lead"
    if gap.any():
        return "gap"
    return "poor signal" if poor.any() else "flat"


def _standardise(values: Float64Array) -> tuple[Float64Array, Float64Array]:
    # Centres in place; mean and standard deviation of each lead.
    mean = values.sum(axis=2) / values.shape[2]
    values -= mean[:, :, np.newaxis]
    return mean, np.sqrt(np.square(values).sum(axis=2) / values.shape[2])


def _standardise_with_gaps(
    values: Float64Array, missing: Float32Array
) -> tuple[Float64Array, Float64Array, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    # The same over valid samples, and which those are, and which leads have too long a gap.
    present = missing == 0.0
    count = np.maximum(present.sum(axis=2), 1)
    mean = (values * present).sum(axis=2) / count
    values -= mean[:, :, np.newaxis]
    # A bridged point goes in as the lead's mean: it neither counts nor carries the held value.
    values *= present
    scale = np.sqrt(np.square(values).sum(axis=2) / count)
    return mean, scale, present, missing.max(axis=2, initial=0.0) > BRIDGE_S
