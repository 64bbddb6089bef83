"""What the model saw of a recording and what it expected, on one time axis.

Windows overlap: at 8 s and a hop of half a second, sixteen of them cover a point. The reconstruction of a
point is the mean of what all scored windows covering it expected, its error the mean of their errors, so
that no window is preferred. (The live page cannot wait for later windows and draws a single one.) So are its
spread and the attention that it received, where the model has them.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.manifest import Manifest
from stream.contract import Finding, SampleChunk, to_millivolts
from stream.engine import Pending
from stream.explain import attentions
from stream.offline import Analysis
from stream.preprocess import Conditioner, Resampled
from stream.verdict import Verdict

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Signal, reconstruction, two errors (four bytes each) and how many windows a point was in (two).
_BYTES_PER_POINT = 4 * 4 + 2
_ALWAYS = ("reconstruction", "absolute_error", "squared_error")
# What a small machine has to spare. At 100 Hz: 82 hours of two leads, 13 hours of twelve. Spread and lead
# attention, four bytes each, come on top: which of them a model has is known when it has judged a window.
_LIMIT_BYTES = 1 << 30
# Samples hardly shrink: a higher level takes three times as long for a few per cent.
_LEVEL = 1


class TooLongError(ValueError):
    """A recording too long to keep the arrays of."""


@dataclass(frozen=True, slots=True)
class Traces:
    """Arrays of a recording, one row for each lead that it has and the model knows.

    Attributes
    ----------
    leads : tuple of str
        In the model's order.
    fs : float
        The model's sampling frequency, Hz.
    t_s : numpy.ndarray of float64, shape (n,)
        Seconds from the recording's first sample, at which the source had the signal: the filter's delay
        has been taken off, therefore the first point lies a little before 0.
    signal : numpy.ndarray of float32, shape (leads, n)
        What the model was given, millivolts: band-passed and resampled, its normalisation undone. NaN where
        the source had no valid sample.
    reconstruction : numpy.ndarray of float32, shape (leads, n)
        Millivolts; mean over the scored windows that cover the point. NaN where there is none, or the lead
        was masked in all of them.
    absolute_error : numpy.ndarray of float32, shape (leads, n)
        Millivolts; mean over the same windows of each one's absolute error. NaN also where `signal` is.
    squared_error : numpy.ndarray of float32, shape (leads, n)
        The same of the squared error in squared standard deviations of the lead in its window: the quantity
        of which scores of the kinds ``mse`` and ``log_mse`` are made; others take its root, or divide it by
        the variance that the model expected (`models.scoring`).
    spread : numpy.ndarray of float32, shape (leads, n), or None
        Millivolts; mean over the same windows of the standard deviation that each expected. None: the model
        expects none.
    temporal_attention : numpy.ndarray of float32, shape (n,), or None
        Mean over the scored windows that cover the point of the attention that its step received, in
        multiples of an even share: 1 is as much as if all steps of the window had received the same. None:
        the model has none, or one that carries no information (`stream.explain.attentions`).
    lead_attention : numpy.ndarray of float32, shape (leads, n), or None
        The same of the weight of the lead at the step; 1 is as much as if all leads present had the same.
    """

    leads: tuple[str, ...]
    fs: float
    t_s: Float64Array
    signal: Float32Array
    reconstruction: Float32Array
    absolute_error: Float32Array
    squared_error: Float32Array
    spread: Float32Array | None = None
    temporal_attention: Float32Array | None = None
    lead_attention: Float32Array | None = None


class Overlay:
    """Collects the arrays of a recording while it is analysed.

    Parameters
    ----------
    manifest : Manifest
        Of the model that judges.
    leads : iterable of str
        The recording's.
    fs : float
        Its sampling frequency, Hz.
    duration_s : float
        Its length: room is made for so much.
    begin : int
        Sample of the session with which the arrays begin, as for `stream.offline.analyse`. What is heard
        before it counts as part of `duration_s`.

    Raises
    ------
    TooLongError
        If the arrays would need more than 1 GiB of memory.

    Examples
    --------
    >>> overlay = Overlay(session.manifest, recording.leads, 360.0, 1805.6)  # doctest: +SKIP
    >>> analyse(overlay.heard(chunks), session, record="100", on_window=overlay.add)  # doctest: +SKIP
    >>> overlay.traces().reconstruction  # doctest: +SKIP
    """

    def __init__(
        self, manifest: Manifest, leads: Iterable[str], fs: float, duration_s: float, begin: int = 0
    ) -> None:
        feed = list(leads)
        known = [(feed.index(lead), row) for row, lead in enumerate(manifest.leads) if lead in feed]
        self._manifest = manifest
        self._columns = [column for column, _ in known]
        self._rows = np.array([row for _, row in known], dtype=np.intp)
        self._fs = fs
        # Two more: the grid's rate is taken as a fraction.
        n = int(duration_s * manifest.window.fs) + 2
        if len(known) * n * _BYTES_PER_POINT > _LIMIT_BYTES:
            most = _LIMIT_BYTES / _BYTES_PER_POINT / len(known) / manifest.window.fs
            raise TooLongError(
                f"{duration_s / 3600:.1f} h of {len(known)} leads: arrays and pictures need it all in memory"
                f" and take {most / 3600:.1f} h at most; without them any length can be analysed"
            )
        shape = (len(known), n)
        self._signal = np.full(shape, np.nan, np.float32)
        # How many windows a point was in, and how many a moment: a lead may be masked in some of them.
        self._windows = np.zeros(shape, np.uint16)
        self._moments = np.zeros((1, n), np.uint16)
        self._sums = {name: np.zeros(shape, np.float32) for name in _ALWAYS}
        self._conditioner: Conditioner | None = None
        # The sample of the session with which the arrays begin; the first grid point that is heard.
        self._n0, self._first = begin, 0

    def heard(self, chunks: Iterable[SampleChunk]) -> Iterator[SampleChunk]:
        """Hand chunks on and keep their signal, also where no window can be scored.

        Parameters
        ----------
        chunks : iterable of SampleChunk
            One session of one bed.

        Yields
        ------
        SampleChunk
        """
        spec = self._manifest
        for chunk in chunks:
            if self._conditioner is None:
                start = chunk.header.n0
                self._conditioner = Conditioner(
                    spec.filter, self._fs, spec.window.fs, len(self._columns), start
                )
                self._first = self._conditioner.next_out
                self._n0 = max(self._n0, start)
            hole = chunk.header.n0 - self._conditioner.next_in
            if hole > 0:
                self._keep(self._conditioner.push(np.full((len(self._columns), hole), np.nan)))
            (millivolts,) = to_millivolts([chunk])
            self._keep(self._conditioner.push(np.ascontiguousarray(millivolts[:, self._columns].T)))
            yield chunk

    def _keep(self, piece: Resampled) -> None:
        at = piece.first - self._first
        self._signal[:, at : at + piece.values.shape[1]] = np.where(
            piece.missing == 0, piece.values, np.float32(np.nan)
        )

    def add(self, pending: Pending, verdict: Verdict | None, finding: Finding) -> None:
        """Take a window: the `on_window` of `stream.offline.analyse`."""
        window = pending.window
        if verdict is None or verdict.reconstruction is None or finding.score is None:
            return
        present = np.flatnonzero(window.mask[self._rows])
        rows = self._rows[present]
        samples = window.x.shape[1]
        begin = window.index * self._manifest.window.hop - self._first
        place = np.s_[present, begin : begin + samples]
        scale = window.scale[rows, np.newaxis]
        error = window.x[rows] - verdict.reconstruction[rows]
        self._add(
            "reconstruction", place, verdict.reconstruction[rows] * scale + window.mean[rows, np.newaxis]
        )
        self._add("absolute_error", place, np.abs(error) * scale)
        self._add("squared_error", place, np.square(error))
        self._windows[place] += 1
        self._moments[:, begin : begin + samples] += 1
        if (spread := verdict.spread) is not None:
            self._add("spread", place, spread[rows] * scale)
        for name, weights in attentions(self._manifest, verdict).items():
            step = np.arange(samples) * weights.shape[-1] // samples
            if name == "lead_attention":
                self._add(name, place, weights[rows][:, step] * np.count_nonzero(window.mask))
            else:
                self._add(name, np.s_[:1, begin : begin + samples], weights[step] * len(weights))

    def _add(self, name: str, place: Any, values: npt.NDArray[np.floating]) -> None:
        # What only some models have gets its room when the first window brings it.
        if name not in self._sums:
            shape = self._moments.shape if name == "temporal_attention" else self._signal.shape
            self._sums[name] = np.zeros(shape, np.float32)
        self._sums[name][place] += values

    def traces(self) -> Traces:
        """Return the arrays. Call it once, at the end: what has been summed up is divided in place."""
        conditioner = self._conditioner
        spec = self._manifest
        n = conditioner.next_out - self._first if conditioner is not None else 0
        # The point that belongs to the first sample, or the next one.
        before = math.ceil(self._n0 * spec.window.fs / self._fs - 1e-9) - self._first
        kept = slice(max(0, before), n)
        signal = self._signal[:, kept]
        merged = {name: sums[:, kept] for name, sums in self._sums.items()}
        for name, sums in merged.items():
            count = (self._moments if name == "temporal_attention" else self._windows)[:, kept]
            np.divide(sums, count, out=sums, where=count > 0)
            sums[count == 0] = np.nan
        for name in ("absolute_error", "squared_error"):
            # A bridged point went in as the lead's mean: its error means nothing.
            merged[name][np.isnan(signal)] = np.nan
        temporal = merged.pop("temporal_attention", None)
        grid_s = np.arange(self._first + kept.start, self._first + n) / spec.window.fs
        return Traces(
            leads=tuple(spec.leads[row] for row in self._rows),
            fs=spec.window.fs,
            t_s=grid_s - self._n0 / self._fs - spec.filter.delay_ms / 1000,
            signal=signal,
            temporal_attention=None if temporal is None else temporal[0],
            **merged,
        )


def save_arrays(path: str | Path, traces: Traces, analysis: Analysis, manifest: Manifest) -> None:
    """Write arrays and scores as ``.npz``: plain NumPy arrays, read by `numpy.load`.

    One row for each lead of the model; a lead that the recording does not have is NaN throughout.

    Parameters
    ----------
    path : str or pathlib.Path
        Used as it is: no extension is added.
    traces : Traces
    analysis : Analysis
    manifest : Manifest

    Raises
    ------
    OSError
        If it cannot be written.

    Notes
    -----
    - ``t_s`` (n,), ``signal_mv``, ``reconstruction_mv``, ``absolute_error_mv``, ``squared_error`` (leads, n):
      as in `Traces`; ``leads`` (leads,); ``fs``: of these arrays, Hz.
    - Of a model that has them: ``spread_mv``, ``lead_attention`` (leads, n) and ``temporal_attention`` (n,).
    - ``window_start_s``, ``window_end_s``, ``window_score`` (windows,), ``window_lead_scores``
      (windows, leads; NaN where a lead did not take part): the scored windows, as in ``--json``.
    - ``window_threshold``, ``record_threshold``, ``record_score`` (NaN if no window was scored), ``record``,
      ``model``, ``source_fs``.
    """
    windows = analysis.windows
    rows = {
        "signal_mv": traces.signal,
        "reconstruction_mv": traces.reconstruction,
        "absolute_error_mv": traces.absolute_error,
        "squared_error": traces.squared_error,
    }
    if traces.spread is not None:
        rows["spread_mv"] = traces.spread
    if traces.lead_attention is not None:
        rows["lead_attention"] = traces.lead_attention
    rest: dict[str, npt.ArrayLike] = {
        "t_s": traces.t_s,
        "fs": np.float64(traces.fs),
        "leads": np.array(manifest.leads),
        "window_start_s": np.array([window.start_s for window in windows], np.float64),
        "window_end_s": np.array([window.end_s for window in windows], np.float64),
        "window_score": np.array([window.score for window in windows], np.float64),
        "window_lead_scores": np.array(
            [[window.lead_scores.get(lead, np.nan) for lead in manifest.leads] for window in windows],
            np.float64,
        ).reshape(len(windows), len(manifest.leads)),
        "window_threshold": np.float64(analysis.window_threshold),
        "record_threshold": np.float64(analysis.threshold),
        "record_score": np.float64(np.nan if analysis.record_score is None else analysis.record_score),
        "record": np.array(analysis.record),
        "model": np.array(analysis.model),
        "source_fs": np.float64(analysis.fs),
    }
    if traces.temporal_attention is not None:
        rest["temporal_attention"] = traces.temporal_attention
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name, array in rest.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        for name, present in rows.items():
            _write_rows(
                archive, name, dict(zip(traces.leads, present, strict=True)), manifest, len(traces.t_s)
            )


def _write_rows(
    archive: zipfile.ZipFile, name: str, present: Mapping[str, Float32Array], manifest: Manifest, n: int
) -> None:
    # Row by row: with all of the model's leads in memory a long two-lead recording would take six times
    # its room.
    absent = np.full(n, np.nan, np.float32)
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(manifest.leads), n)}
        np.lib.format.write_array_header_2_0(member, header)
        for lead in manifest.leads:
            member.write(present.get(lead, absent).astype("<f4", copy=False).tobytes())
