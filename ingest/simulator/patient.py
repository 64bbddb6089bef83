"""The simulated patient as a recording."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingest.simulator.fibrillation import Fibrillation
from ingest.simulator.heart import TWELVE_FROM_EIGHT, Beat, Heart
from ingest.simulator.noise import ElectrodeNoise
from ingest.simulator.rhythm import Respiration, Rhythm
from ingest.simulator.timeline import Episode, Kind, parse_timeline
from ingest.source import IngestError, Recording
from stream.contract import INVALID, to_lsb
from stream.leads import LEADS

_GAIN = 1000.0

# Samples are computed in blocks of this length, whatever is read, so that they do not depend on how they
# are read. Long against the cost of a call, short against a piece of replay.
_BLOCK_S = 4.0
# Blocks kept for reading again without computing from the start.
_BLOCKS_KEPT = 4

# Breathing moves the heart: its axis by some degrees, and the amplitudes by some percent.
_BREATH_TILT_RAD = 0.05
_BREATH_AMPLITUDE = 0.03

# Fibrillation sets in and ends, and movement swells and ebbs, within this time.
_FADE_S = 0.3


class PatientSimulator(Recording):
    """A patient with twelve leads, a seed and a script; without end unless a duration is given.

    For demonstrations, load and fault tests; never for figures of quality.

    Parameters
    ----------
    seed : int
        Decides anatomy, resting rate and every random thing: the same seed gives the same samples.
    timeline : str or sequence of Episode
        As in `ingest.simulator.timeline`; sinus rhythm at the resting rate unless given.
    duration_s : float, optional
    leads : sequence of str
        Which of the twelve, and in which order.
    fs : float
        Hz, 100 to 2000.
    name : str, optional

    Raises
    ------
    IngestError
        If the timeline makes no sense or there is no such lead or rate.

    Notes
    -----
    Reading on is cheap (a patient in real time costs about a thousandth of a processor core); reading
    far back computes everything from the beginning again. Memory does not grow.

    Examples
    --------
    >>> patient = PatientSimulator(7, "sinus:72@0 vt:180@25 asystole@60")
    >>> patient.read(0, 5000).shape
    (5000, 12)
    """

    def __init__(
        self,
        seed: int,
        timeline: str | Sequence[Episode] = "",
        *,
        duration_s: float | None = None,
        leads: Sequence[str] = LEADS,
        fs: float = 500.0,
        name: str | None = None,
    ) -> None:
        name = name or f"simulated-{seed}"
        if unknown := [lead for lead in leads if lead not in LEADS]:
            raise IngestError(name, f"no such lead: {', '.join(unknown)}")
        if not 100 <= fs <= 2000:
            raise IngestError(name, f"{fs} Hz: the simulator can do 100 to 2000 Hz")
        super().__init__(
            name=name,
            fs=fs,
            leads=leads,
            gain=[_GAIN] * len(leads),
            n_samples=None if duration_s is None else round(duration_s * fs),
        )
        self._seed = seed
        self._timeline = parse_timeline(timeline) if isinstance(timeline, str) else tuple(timeline)
        self._block = round(_BLOCK_S * fs)
        columns = [LEADS.index(lead) for lead in leads]
        self._leads_from_eight = TWELVE_FROM_EIGHT[columns].T
        self._restart()

    @property
    def resting_rate(self) -> float:
        """Beats per minute in sinus rhythm without a rate of its own."""
        return self._heart.resting_rate

    def beat_times(self, until_s: float) -> list[float]:
        """Return when the ventricles beat (R peaks), seconds from the beginning."""
        rhythm = Rhythm(self._heart, self._respiration, self._timeline, self._rng(1))
        return [beat.time_s for beat in rhythm.until(until_s)]

    def _rng(self, *stream: int) -> np.random.Generator:
        # A generator of its own for each purpose, so that no draw depends on the order of the others.
        return np.random.default_rng([self._seed, *stream])

    def _restart(self) -> None:
        self._heart = Heart(self._rng(0))
        self._respiration = Respiration(self._rng(2))
        self._fibrillation = Fibrillation(self._rng(3))
        self._noise = ElectrodeNoise(self._rng(4), self._respiration, self.fs)
        self._tilt_axis = self._rng(5).normal(0, 1, 3)
        self._rhythm = Rhythm(self._heart, self._respiration, self._timeline, self._rng(1))
        self._beats: deque[Beat] = deque()
        self._kept: deque[tuple[int, npt.NDArray[np.int16]]] = deque(maxlen=_BLOCKS_KEPT)
        self._next_block = 0

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        pieces = []
        for number in range(start // self._block, -(-stop // self._block)):
            offset = number * self._block
            block = self._samples_of(number)
            pieces.append(block[max(0, start - offset) : stop - offset])
        return np.concatenate(pieces)

    def _samples_of(self, number: int) -> npt.NDArray[np.int16]:
        for kept, block in self._kept:
            if kept == number:
                return block
        if number < self._next_block:
            self._restart()
        while self._next_block <= number:
            block = self._compute(self._next_block)
            self._kept.append((self._next_block, block))
            self._next_block += 1
        return block

    def _compute(self, number: int) -> npt.NDArray[np.int16]:
        first = number * self._block
        time_s = np.arange(first, first + self._block) / self.fs
        under_way = [e for e in self._timeline if e.start_s <= time_s[-1] and e.stop_s > time_s[0] - _FADE_S]
        dipole = self._dipole(time_s, under_way)
        eight = dipole @ self._heart.lead_field.T
        eight += self._noise.block(self._rng(6, number), time_s, self._motion(time_s, under_way))
        samples = to_lsb(eight @ self._leads_from_eight, _GAIN)
        for episode in under_way:
            if episode.kind is Kind.LEAD_OFF:
                rows = (time_s >= episode.start_s) & (time_s < episode.stop_s)
                for lead in set(episode.where) & set(self.leads):
                    samples[rows, self.leads.index(lead)] = INVALID
        samples.setflags(write=False)
        return samples

    def _dipole(
        self, time_s: npt.NDArray[np.float64], under_way: Sequence[Episode]
    ) -> npt.NDArray[np.float64]:
        # The P wave of a beat after the block, and the T wave of one before it, lie in the block.
        self._beats.extend(self._rhythm.until(time_s[-1] + Beat.BEFORE_S))
        while self._beats and self._beats[0].time_s < time_s[0] - Beat.AFTER_S:
            self._beats.popleft()
        dipole = np.zeros((len(time_s), 3))
        for beat in self._beats:
            a, b = np.searchsorted(time_s, (beat.time_s - Beat.BEFORE_S, beat.time_s + Beat.AFTER_S))
            dipole[a:b] += self._heart.dipole(beat, time_s[a:b])
        for episode in under_way:
            if episode.kind is Kind.AF:
                dipole += _fade(time_s, episode) * self._fibrillation.atrial(time_s)
            elif episode.kind is Kind.VF:
                fibrillation = self._fibrillation.ventricular(time_s, episode.value or 0.0)
                dipole += _fade(time_s, episode) * fibrillation
        breath = self._respiration(time_s)[:, np.newaxis]
        # A small rotation is the vector plus its cross product with the axis.
        axis = self._tilt_axis / np.linalg.norm(self._tilt_axis) * _BREATH_TILT_RAD
        tilted: npt.NDArray[np.float64] = dipole + breath * np.cross(axis, dipole)
        return tilted * (1.0 + _BREATH_AMPLITUDE * breath)

    def _motion(
        self, time_s: npt.NDArray[np.float64], under_way: Sequence[Episode]
    ) -> npt.NDArray[np.float64] | None:
        moving = [episode for episode in under_way if episode.kind is Kind.MOTION]
        if not moving:
            return None
        total = sum(_fade(time_s, episode)[:, 0] * (episode.value or 0.0) for episode in moving)
        return np.asarray(total)


def _fade(time_s: npt.NDArray[np.float64], episode: Episode) -> npt.NDArray[np.float64]:
    rise = (time_s - episode.start_s) / _FADE_S
    fall = (episode.stop_s + _FADE_S - time_s) / _FADE_S if episode.stop_s < np.inf else np.ones_like(time_s)
    return np.clip(np.minimum(rise, fall), 0.0, 1.0)[:, np.newaxis]
