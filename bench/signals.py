"""What the beds of a benchmark play: a few patients, cut into chunks before the clock starts.

Making a signal must not cost the load generator anything while it sends, so that many beds play the same few
recordings, each from another place, over and over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.chunks import CHUNK_S
from ingest.looping import LoopedRecording
from ingest.recordings import open_recording
from ingest.simulator import PatientSimulator
from ingest.source import IngestError, Recording

# Enough for neighbours in a batch to differ.
_PATIENTS = 16
# Each cycle raises one alarm and ends it: after 12 s of tachycardia 17 of 24 windows have been over the
# threshold, and 24 s later two thirds of them are below it again.
CYCLE_S = 36
"""A simulated patient falls ill once in this time."""
_SCRIPT = "sinus@0 vt:180@8 sinus@20"
# A recording is looped; this much of the loop is played, then begins again.
_RECORDED_S = 60.0


@dataclass(frozen=True, slots=True)
class Playlist:
    """One patient's signal in chunks, to be played over and over.

    Attributes
    ----------
    fs : float
        Hz, a multiple of 5.
    leads : tuple of str
    gain : tuple of float
        LSB per millivolt.
    chunks : tuple of bytes
        Samples as they travel: int16 little-endian, shape (samples, leads).
    """

    fs: float
    leads: tuple[str, ...]
    gain: tuple[float, ...]
    chunks: tuple[bytes, ...]

    @property
    def samples_per_chunk(self) -> int:
        """Samples of one lead in a chunk."""
        return round(self.fs * CHUNK_S)


def simulated(seed: int) -> list[Playlist]:
    """Return simulated patients, each of whom falls ill once a cycle.

    Parameters
    ----------
    seed : int
        Of the first patient.
    """
    return [
        _playlist(PatientSimulator(seed + number, _SCRIPT, duration_s=CYCLE_S), CYCLE_S)
        for number in range(_PATIENTS)
    ]


def recorded(paths: Sequence[str]) -> list[Playlist]:
    """Return recordings, looped.

    Raises
    ------
    IngestError
        If one cannot be read, is too short to be looped, or 200 ms of it are no whole number of samples.
    """
    playlists = []
    for path in paths:
        loop = LoopedRecording(open_recording(path))
        if not (loop.fs * CHUNK_S).is_integer():
            raise IngestError(path, f"{loop.fs:g} Hz: a benchmark sends whole samples in {CHUNK_S:g} s")
        playlists.append(_playlist(loop, _RECORDED_S))
    return playlists


def _playlist(recording: Recording, seconds: float) -> Playlist:
    per_chunk = round(recording.fs * CHUNK_S)
    samples: npt.NDArray[np.int16] = recording.read(0, round(seconds * recording.fs))
    chunks = (samples[at : at + per_chunk] for at in range(0, len(samples), per_chunk))
    return Playlist(
        recording.fs,
        recording.leads,
        recording.gain,
        tuple(np.ascontiguousarray(chunk, "<i2").tobytes() for chunk in chunks),
    )
