"""When a simulated heart beats, and from where."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingest.simulator.heart import Beat, Heart, Wave, st_deviation
from ingest.simulator.timeline import RHYTHMS, Episode, Kind

# Modulation of the sinus interval by breathing (RSA) and by the 0.1 Hz rhythm of blood pressure (Mayer
# waves), and what is left: together an SDNN of about 35 ms at 70 beats/min, a resting adult's.
_RSA, _MAYER, _REST = 0.035, 0.025, 0.012
_MAYER_HZ = 0.1

# Coefficient of variation of the RR interval in atrial fibrillation, and the shortest (AV node refractory).
_AF_VARIATION, _AF_SHORTEST_S = 0.22, 0.32
_VT_VARIATION = 0.012

# A premature beat comes after this part of the interval; the sinus node fires on, unheard, so that the
# next beat is a whole number of intervals after the last one (the compensatory pause).
_COUPLING = 0.58

# Two beats are never closer than the ventricle's refractory time.
_REFRACTORY_S = 0.22

# How long a heart that has stopped takes to its first beat, and a new rhythm to its own.
_ESCAPE_S, _TAKEOVER_S = 0.45, 0.15

# Standard deviation of the amplitude from beat to beat: P, QRS, T.
_STRENGTH_VARIATION = (0.06, 0.025, 0.04)

# Weight of a new RR interval in the average which the QT interval follows (half in three beats; the real
# one takes a minute, but shows the same shape).
_QT_MEMORY = 0.2


class Respiration:
    """Breathing: one cycle in 3.5 to 5 s, never quite regular.

    Parameters
    ----------
    rng : numpy.random.Generator
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._hz = rng.uniform(0.20, 0.28)
        self._phase, self._drift = rng.uniform(0, 2 * math.pi, 2)

    def __call__(self, time_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the depth of breath, -1 to 1, at the given times."""
        wobble = 0.9 * np.sin(2 * math.pi * 0.017 * time_s + self._drift)
        result: npt.NDArray[np.float64] = np.sin(2 * math.pi * self._hz * time_s + self._phase + wobble)
        return result


class Rhythm:
    """The beats of one patient, one after the other.

    Parameters
    ----------
    heart : Heart
    respiration : Respiration
    timeline : sequence of Episode
    rng : numpy.random.Generator
    """

    def __init__(
        self,
        heart: Heart,
        respiration: Respiration,
        timeline: Sequence[Episode],
        rng: np.random.Generator,
    ) -> None:
        self._heart = heart
        self._respiration = respiration
        self._rhythms = [episode for episode in timeline if episode.kind in RHYTHMS]
        self._overlays = [episode for episode in timeline if episode.kind in (Kind.PVC, Kind.ST)]
        self._rng = rng
        self._mayer_phase = rng.uniform(0, 2 * math.pi)
        self._at = rng.uniform(0.1, 0.9)
        self._ectopic = False
        self._qt_rr = 60.0 / heart.resting_rate

    def until(self, time_s: float) -> list[Beat]:
        """Return the beats from where the last call ended up to a time."""
        beats = []
        while self._at < time_s:
            rhythm = next(episode for episode in self._rhythms if episode.covers(self._at))
            if rhythm.kind in (Kind.ASYSTOLE, Kind.VF):
                self._ectopic = False
                self._at = rhythm.stop_s + _ESCAPE_S
                continue
            beats.append(self._beat(rhythm))
            self._advance(rhythm)
        return beats

    def _beat(self, rhythm: Episode) -> Beat:
        ventricular = self._ectopic or rhythm.kind is Kind.VT
        morphology = self._heart.ectopic if ventricular else self._heart.conducted
        for episode in self._overlays:
            if episode.kind is Kind.ST and episode.covers(self._at) and not ventricular:
                morphology += st_deviation(episode.where[0], episode.value or 0.0)
        strength = self._rng.normal(1.0, _STRENGTH_VARIATION)
        if rhythm.kind is Kind.AF:
            strength[Wave.P] = 0.0
        return Beat(self._at, self._qt_rr, morphology, strength)

    def _advance(self, rhythm: Episode) -> None:
        interval = self._interval(rhythm)
        self._qt_rr += _QT_MEMORY * (interval - self._qt_rr)
        if self._ectopic:
            self._ectopic, following = False, self._at + interval * (2.0 - _COUPLING)
        elif rhythm.kind is Kind.SINUS and self._rng.random() < self._premature_share(interval):
            self._ectopic, following = True, self._at + interval * _COUPLING
        else:
            following = self._at + interval
        if following >= rhythm.stop_s:
            self._ectopic = False
            following = max(self._at + _REFRACTORY_S, rhythm.stop_s + _TAKEOVER_S)
        self._at = following

    def _interval(self, rhythm: Episode) -> float:
        mean = 60.0 / (rhythm.value or self._heart.resting_rate)
        if rhythm.kind is Kind.AF:
            # Gamma distributed, as RR intervals in atrial fibrillation nearly are.
            shape = _AF_VARIATION**-2
            return max(_AF_SHORTEST_S, self._rng.gamma(shape, mean / shape))
        if rhythm.kind is Kind.VT:
            return mean * self._rng.normal(1.0, _VT_VARIATION)
        breath = float(self._respiration(np.array([self._at]))[0])
        mayer = math.sin(2 * math.pi * _MAYER_HZ * self._at + self._mayer_phase)
        # A fast sinus rhythm hardly varies: the vagus, which mediates it, is withdrawn.
        calm = min(1.0, mean / 0.86) ** 2
        return mean * (1.0 + calm * (_RSA * breath + _MAYER * mayer) + self._rng.normal(0.0, _REST))

    def _premature_share(self, interval: float) -> float:
        # The part of the beats that a premature one follows. A pair takes two intervals.
        per_minute = sum(
            episode.value or 0.0
            for episode in self._overlays
            if episode.kind is Kind.PVC and episode.covers(self._at)
        )
        pairs = per_minute * 2.0 * interval / 60.0
        return min(1.0, pairs / (2.0 - min(pairs, 1.0))) if per_minute else 0.0
