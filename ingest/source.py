"""What every source of recorded ECG offers to the rest of the program.

A recording is read in pieces, at any place, in constant memory, and a read is always short: the caller
decides when to read and how much, so replay, looping and offline analysis share one contract.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.contract import INVALID, Validity

# Largest magnitude of a valid sample on the wire: -32768 is the mark of an invalid one.
MAX_LSB = 32767

# 200 LSB/mV, the resolution of MIT-BIH (5 uV), is the coarsest that still draws a P wave well. It leaves
# +-164 mV of range; what goes beyond is an electrode that lies on the floor, and saturates.
_COARSEST_GAIN = 200.0

# A name travels on the wire in every header; `stream.contract` takes at most 64 characters and 64 leads.
_MAX_LEADS = 64


class IngestError(ValueError):
    """A source that cannot be used. The text is one line: which file, what is wrong, what would help."""

    def __init__(self, where: object, reason: object) -> None:
        super().__init__(" ".join(f"{where}: {reason}".split()))


class Recording(ABC):
    """A stretch of ECG that can be read at any place.

    Parameters
    ----------
    name : str
        What people call it: the record's name, not its path.
    fs : float
        Sampling frequency, Hz.
    leads : sequence of str
        Canonical names, each once; see `stream.leads.canonical_leads`.
    gain : sequence of float
        LSB per millivolt, per lead.
    n_samples : int, optional
        Samples per lead; None for a source without end.
    start_time : datetime.datetime, optional
        When the first sample was acquired; one without a time zone is taken for UTC.

    Raises
    ------
    IngestError
        If one of these cannot be.

    Notes
    -----
    A subclass implements `_read` and nothing else. Reads may come from any thread, but never two at
    the same time.
    """

    blocking: bool = True
    """Whether a read may take milliseconds (a disk, a computation): replay then reads in a thread."""
    first_index: int | None = None
    """Index that the first sample had in the session in which it was recorded; None where there was none."""

    def __init__(
        self,
        *,
        name: str,
        fs: float,
        leads: Sequence[str],
        gain: Sequence[float],
        n_samples: int | None = None,
        start_time: datetime | None = None,
    ) -> None:
        if not (math.isfinite(fs) and 0 < fs <= 100_000):
            raise IngestError(name, f"a sampling frequency of {fs} Hz cannot be")
        if not leads:
            raise IngestError(name, "no ECG channel")
        if len(leads) > _MAX_LEADS:
            raise IngestError(name, f"{len(leads)} channels; at most {_MAX_LEADS} can be sent")
        if len(set(leads)) != len(leads):
            raise IngestError(name, f"a lead stands twice in {' '.join(leads)}")
        if len(gain) != len(leads) or not all(math.isfinite(g) and g >= 1e-6 for g in gain):
            raise IngestError(name, f"gains {list(gain)} do not fit {len(leads)} leads")
        if n_samples is not None and n_samples < 1:
            raise IngestError(name, "no samples")
        self.name = name
        self.fs = float(fs)
        self.leads = tuple(leads)
        self.gain = tuple(float(g) for g in gain)
        self.n_samples = n_samples
        self.start_time = start_time

    @property
    def duration_s(self) -> float | None:
        """Length in seconds; None for a source without end."""
        return None if self.n_samples is None else self.n_samples / self.fs

    @property
    def bed(self) -> str:
        """What its bed is called unless somebody names it: the recording's name, as far as it can be sent."""
        printable = "".join(character for character in self.name if character.isprintable())
        return printable[:64] or "recording"

    @property
    def session(self) -> str:
        """What its session is called offline: a second run names the same alarms."""
        return self.bed

    @property
    def start_ns(self) -> int:
        """Device time of the first sample, ns since the epoch; 0 where it is unknown or before 1970."""
        if self.start_time is None:
            return 0
        start = self.start_time if self.start_time.tzinfo else self.start_time.replace(tzinfo=UTC)
        elapsed = start - datetime(1970, 1, 1, tzinfo=UTC)
        # Integers throughout: a float of seconds resolves only to 0.2 us today.
        return max(0, (elapsed.days * 86_400 + elapsed.seconds) * 10**9 + elapsed.microseconds * 1000)

    def read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        """Return the samples from `start` up to, not including, `stop`.

        Parameters
        ----------
        start, stop : int
            Sample indices from the beginning of the recording, ``0 <= start <= stop``.

        Returns
        -------
        numpy.ndarray of int16, shape (n, leads)
            In LSB, baseline subtracted; `stream.contract.INVALID` marks a missing sample. ``n`` is
            less than ``stop - start`` only at the end of the recording.

        Raises
        ------
        IngestError
            If the file cannot be read (any more).
        """
        if not 0 <= start <= stop:
            raise ValueError(f"cannot read the samples from {start} to {stop}")
        if self.n_samples is not None:
            stop = min(stop, self.n_samples)
        if start >= stop:
            return np.empty((0, len(self.leads)), np.int16)
        return self._read(start, stop)

    def flags(self, start: int, stop: int, samples: npt.NDArray[np.int16]) -> tuple[Validity, ...] | None:
        """Return what the source says of the leads in a stretch; None: nothing came at all.

        Parameters
        ----------
        start, stop : int
            As for `read`.
        samples : numpy.ndarray of int16, shape (n, leads)
            What `read` returned.

        Returns
        -------
        tuple of Validity, or None
            Unless a source knows better, a lead without a valid sample is off.
        """
        off = (samples == INVALID).all(axis=0) & (len(samples) > 0)
        return tuple(Validity.OFF if lead_off else Validity.OK for lead_off in off)

    @abstractmethod
    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        # Called with a range that is not empty and lies inside the recording.
        ...


class ArrayRecording(Recording):
    """A recording held in memory: for short files, and for tests.

    Parameters
    ----------
    samples : numpy.ndarray of int16, shape (n, leads)
        In LSB; `stream.contract.INVALID` marks a missing sample.
    **fields
        As for `Recording`, without `n_samples`.
    """

    blocking = False

    def __init__(self, samples: npt.NDArray[np.int16], **fields: Any) -> None:
        super().__init__(n_samples=len(samples), **fields)
        self._samples = samples

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        return self._samples[start:stop]


def fitting_gain(gain: float, peak_mv: float) -> float:
    """Return the gain at which a signal travels as int16.

    Parameters
    ----------
    gain : float
        The source's own, LSB per millivolt.
    peak_mv : float
        Largest magnitude of the signal, millivolts.

    Returns
    -------
    float
        The source's own wherever the signal fits, so that its digital values are kept; else the largest
        at which it fits, but not below 200 LSB/mV (beyond which samples saturate).
    """
    # A peak is often computed from a gain: the last bit must not decide.
    if gain * peak_mv <= MAX_LSB * (1 + 1e-9):
        return gain
    return max(MAX_LSB / peak_mv, min(gain, _COARSEST_GAIN))
