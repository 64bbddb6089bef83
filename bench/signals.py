"""What the beds of a benchmark play: a few patients, cut into chunks before the clock starts.

Making a signal must not cost the load generator anything while it sends, so that many beds play the same few
recordings, each from another place, over and over. A simulated patient has two: one of being well, which is
looped, and an episode, which comes in between as often as is wanted; so memory does not depend on how often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ingest.chunks import CHUNK_S
from ingest.looping import LoopedRecording
from ingest.recordings import open_recording
from ingest.simulator import PatientSimulator
from ingest.source import IngestError, Recording

# Enough for neighbours in a batch to differ.
_PATIENTS = 16
# An episode raises its alarms and ends them: after 12 s of tachycardia 17 of 24 windows have been over the
# model's threshold, and 24 s later two thirds of them are below it again.
EPISODE_S = 36
"""How long a simulated patient's episode lasts, from well to well: the most often that one can fall ill."""
_EPISODE, _WELL = "sinus@0 vt:180@8 sinus@20", "sinus@0"
STORM_S = float(EPISODE_S)
"""One episode after the other: as many alarms as there can be, to measure how late they are."""
WARD_S = 300.0
"""Each bed falls ill once in five minutes. An episode raises some four alarms, which makes about 1150 for
each bed and day; monitors of intensive care were heard to alarm 187 times: Drew BJ et al. Insights into the
problem of alarm fatigue with physiologic monitor devices. PLoS One 2014;9(10):e110274."""
# A recording is looped; this much of the loop is played, then begins again.
_RECORDED_S = 60.0


@dataclass(frozen=True, slots=True)
class Playlist:
    """One patient's signal in chunks, to be played without an end.

    Attributes
    ----------
    fs : float
        Hz, a multiple of 5.
    leads : tuple of str
    gain : tuple of float
        LSB per millivolt.
    chunks : tuple of bytes
        Samples as they travel: int16 little-endian, shape (samples, leads). Looped.
    episode : tuple of bytes
        The same of what comes in between; may be empty.
    every : int
        Chunks from the beginning of one episode to that of the next; counts if there is one.
    """

    fs: float
    leads: tuple[str, ...]
    gain: tuple[float, ...]
    chunks: tuple[bytes, ...]
    episode: tuple[bytes, ...] = ()
    every: int = 0

    @property
    def period(self) -> int:
        """Chunks after which all of it comes again, but for where in the loop it is."""
        return self.every if self.episode else len(self.chunks)

    def chunk(self, place: int) -> bytes:
        """Return the chunk at a place, counted from the beginning of an episode."""
        if not self.episode:
            return self.chunks[place % len(self.chunks)]
        place %= self.every
        if place < len(self.episode):
            return self.episode[place]
        return self.chunks[(place - len(self.episode)) % len(self.chunks)]

    @property
    def samples_per_chunk(self) -> int:
        """Samples of one lead in a chunk."""
        return round(self.fs * CHUNK_S)


def simulated(seed: int, ill_every_s: float) -> list[Playlist]:
    """Return simulated patients, each of whom falls ill at regular intervals.

    Parameters
    ----------
    seed : int
        Of the first patient.
    ill_every_s : float
        From one episode to the next, `EPISODE_S` or more.
    """
    patients = []
    for number in range(_PATIENTS):
        well, episode = (
            _playlist(PatientSimulator(seed + number, script, duration_s=EPISODE_S), EPISODE_S)
            for script in (_WELL, _EPISODE)
        )
        patients.append(replace(well, episode=episode.chunks, every=round(ill_every_s / CHUNK_S)))
    return patients


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
