"""Recordings as NumPy arrays in ``.npy`` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.source import IngestError, Recording
from stream.contract import INVALID, to_lsb
from stream.leads import LEADS, canonical_leads

# The wire's gain for sources without one of their own.
_GAIN = 1000.0

# Half of a minute beyond the wire's range of 32.8 mV: no electrode does that, another unit does.
_LARGEST_MEDIAN_MV = 32.767
_SCAN_S = 60.0


class NpyRecording(Recording):
    """An array of shape [n, leads] or [leads, n].

    Floats are millivolts, with NaN (or infinity) for a missing sample; int16 are LSB at 1000 per
    millivolt, with -32768 for a missing sample.

    Parameters
    ----------
    path : pathlib.Path
    fs : float, optional
        Sampling frequency, Hz. The file does not know it, so it must be given.
    leads : sequence of str, optional
        Names of the leads; not needed for the twelve standard leads in their standard order.

    Raises
    ------
    IngestError
        If the file is no such array, if `fs` or `leads` is missing or does not fit, or if no sample is valid.

    Notes
    -----
    The file is mapped into memory and read in pieces.
    """

    def __init__(self, path: Path, *, fs: float | None = None, leads: Sequence[str] | None = None) -> None:
        if fs is None:
            raise IngestError(path, "a .npy file does not say its sampling frequency; give it with --fs")
        if not 0 < fs < float("inf"):
            raise IngestError(path, f"--fs {fs:g}: a sampling frequency is greater than 0 Hz")
        array = _mapped(path)
        names = canonical_leads(leads) if leads is not None else None
        self._array = _samples_first(path, array, names)
        self._digital = array.dtype.kind == "i"
        self._path = path
        super().__init__(
            name=path.stem,
            fs=fs,
            leads=names or LEADS,
            gain=[_GAIN] * self._array.shape[1],
            n_samples=len(self._array),
        )
        self._check_values()

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        # A copy, so that a page fault of the mapped file happens here, in the thread that reads.
        piece = self._array[start:stop]
        if self._digital:
            return np.array(piece, np.int16, order="C")
        return to_lsb(np.array(piece, np.float64, order="C"), _GAIN)

    def _check_values(self) -> None:
        step = max(1, round(_SCAN_S * self.fs))
        for start in range(0, len(self._array), step):
            piece = self._array[start : start + step]
            valid = piece[piece != INVALID] if self._digital else piece[np.isfinite(piece)]
            if not valid.size:
                continue
            middle = 0.0 if self._digital else float(np.median(np.abs(valid)))
            if middle > _LARGEST_MEDIAN_MV:
                reason = f"floats must be millivolts, but half of them exceed {middle:.0f}; microvolts?"
                raise IngestError(self._path, reason)
            return
        raise IngestError(self._path, "no valid sample (all are NaN or marked as missing)")


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise IngestError(path, error.strerror or error) from error
    except (ValueError, EOFError) as error:
        # Objects are pickles, and unpickling a file can run any program.
        raise IngestError(path, f"no array of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise IngestError(path, "several arrays in one file; save one array with numpy.save")
    if array.dtype.kind != "f" and (array.dtype.kind, array.dtype.itemsize) != ("i", 2):
        raise IngestError(path, f"{array.dtype}: expected floats (millivolts) or int16 (LSB, 1000 per mV)")
    return array


def _samples_first(path: Path, array: npt.NDArray[Any], names: tuple[str, ...] | None) -> npt.NDArray[Any]:
    count = len(names) if names is not None else len(LEADS)
    shape = list(array.shape)
    if array.ndim == 1 and count == 1:
        return array[:, np.newaxis]
    if array.ndim != 2:
        raise IngestError(path, f"shape {shape}: expected [samples, leads] or [leads, samples]")
    if shape.count(count) == 2:
        raise IngestError(path, f"shape {shape}: cannot tell leads from samples")
    if count not in shape:
        hint = "" if names is not None else "; name the leads (--leads) of a record that has other than 12"
        raise IngestError(
            path, f"shape {shape}: no axis of {count} {'lead' if count == 1 else 'leads'}{hint}"
        )
    return array if shape[1] == count else array.T
