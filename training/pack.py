"""Packs: many recordings in one memory-mapped array, as ``bedside preprocess`` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.source import IngestError
from stream.contract import INVALID
from stream.leads import LEADS

SIGNALS = "signals.npy"
"""The array, int16, shape (samples of all recordings, 12): a column for each of `stream.leads.LEADS`."""

GAIN = 1000.0
"""LSB per millivolt: one LSB is a microvolt, finer than any source, and the range is +-32.767 mV."""

# Packs that are open at once: training reads from two or three.
_OPEN = 8


@dataclass(frozen=True, slots=True)
class Slice:
    """Where a recording lies in a pack.

    Attributes
    ----------
    offset : int
        Row of its first sample.
    samples : int
        Samples of each lead.
    fs : float
        Hz.
    """

    offset: int
    samples: int
    fs: float


def read_slice(path: Path, piece: Slice) -> npt.NDArray[np.float64]:
    """Read one recording of a pack, and no more than that from the disk.

    Parameters
    ----------
    path : pathlib.Path
        Of the array.
    piece : Slice

    Returns
    -------
    numpy.ndarray of float64, shape (samples, 12)
        Millivolts, in the order of `stream.leads.LEADS`; NaN where there is no valid sample.

    Raises
    ------
    IngestError
        If the array is missing, is no pack, or ends before the recording does.
    """
    try:
        status = path.stat()
        signals = _signals(path, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError) as error:
        raise IngestError(path, f"the pack cannot be read ({error})") from error
    stop = piece.offset + piece.samples
    if stop > len(signals):
        raise IngestError(
            path, f"the pack ends after {len(signals)} samples; its index names samples up to {stop}"
        )
    samples = np.asarray(signals[piece.offset : stop])
    millivolts: npt.NDArray[np.float64] = samples / GAIN
    millivolts[samples == INVALID] = np.nan
    return millivolts


# By modification time and size too, so that a pack that was written anew is opened anew.
@lru_cache(maxsize=_OPEN)
def _signals(path: Path, _modified_ns: int, _size: int) -> npt.NDArray[np.int16]:
    signals: npt.NDArray[np.int16] = np.load(path, mmap_mode="r", allow_pickle=False)
    if signals.dtype != np.int16 or signals.ndim != 2 or signals.shape[1] != len(LEADS):
        raise ValueError(f"{signals.dtype} of shape {signals.shape}, not int16 of shape (n, {len(LEADS)})")
    return signals
