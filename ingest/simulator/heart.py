"""The electric dipole of a heart beat, and how the twelve leads see it.

The dipole moves along a sum of Gaussians in time, each with an amplitude in the three Frank axes
(X left, Y down, Z back), as in [1]_ and [2]_; unlike there, a Gaussian is placed in milliseconds around
the R peak rather than in the phase of the beat, so that the QRS complex keeps its width at any rate,
while ST segment and T wave move with the QT interval by Fridericia's cube root [3]_. Dower's matrix [4]_
gives the leads. The amplitudes were set so that all twelve leads of the average heart lie near the medians of
the normal records of PTB-XL [5]_.

References
----------
.. [1] McSharry PE, Clifford GD, Tarassenko L, Smith LA. A dynamical model for generating synthetic
   electrocardiogram signals. IEEE Trans Biomed Eng 2003;50:289-294.
.. [2] Sameni R, Clifford GD, Jutten C, Shamsollahi MB. Multichannel ECG and noise modeling: application to
   maternal and fetal ECG signals. EURASIP J Adv Signal Process 2007:43407.
.. [3] Fridericia LS. Die Systolendauer im Elektrokardiogramm bei normalen Menschen und bei Herzkranken.
   Acta Med Scand 1920;53:469-486.
.. [4] Dower GE, Machado HB, Osborne JA. On deriving the electrocardiogram from vectorcardiographic leads.
   Clin Cardiol 1980;3:87-95.
.. [5] Wagner P, Strodthoff N, Bousseljot RD, et al. PTB-XL, a large publicly available electrocardiography
   dataset. Sci Data 2020;7:154.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

# Rows I, II, V1 to V6; columns X, Y, Z [4].
_DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

TWELVE_FROM_EIGHT = np.array(
    [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [-1, 1, 0, 0, 0, 0, 0, 0],
        [-0.5, -0.5, 0, 0, 0, 0, 0, 0],
        [1, -0.5, 0, 0, 0, 0, 0, 0],
        [-0.5, 1, 0, 0, 0, 0, 0, 0],
        *np.eye(8)[2:],
    ]
)
"""Einthoven's and Goldberger's sums: the twelve standard leads from I, II, V1 to V6."""

# The RR interval, s, at which the T wave lies where the tables put it (68 beats/min).
_REFERENCE_RR = 0.89


class Wave(IntEnum):
    """What a Gaussian belongs to: each kind varies, and moves with the rate, in its own way."""

    P = 0
    QRS = 1
    T = 2


@dataclass(frozen=True, slots=True)
class Morphology:
    """One shape of beat, as K Gaussians.

    Attributes
    ----------
    centre, rise, fall : numpy.ndarray of float, shape (K,)
        Milliseconds; the width is the standard deviation before and after the centre.
    dipole : numpy.ndarray of float, shape (K, 3)
        Millivolts in X, Y, Z.
    wave : numpy.ndarray of int, shape (K,)
    """

    centre: npt.NDArray[np.float64]
    rise: npt.NDArray[np.float64]
    fall: npt.NDArray[np.float64]
    dipole: npt.NDArray[np.float64]
    wave: npt.NDArray[np.intp]

    @classmethod
    def of(cls, *rows: tuple[Wave, float, float, float, float, float, float]) -> Morphology:
        """Return a morphology from rows of wave, centre, rise, fall, X, Y, Z."""
        table = np.array([row[1:] for row in rows], dtype=np.float64)
        wave = np.array([row[0] for row in rows], dtype=np.intp)
        return cls(table[:, 0], table[:, 1], table[:, 2], table[:, 3:], wave)

    def __add__(self, other: Morphology) -> Morphology:
        both = zip(self._parts(), other._parts(), strict=True)
        return Morphology(*(np.concatenate(pair) for pair in both))

    def _parts(self) -> tuple[npt.NDArray[Any], ...]:
        return self.centre, self.rise, self.fall, self.dipole, self.wave


_CONDUCTED = Morphology.of(
    (Wave.P, -155.0, 24.0, 22.0, 0.050, 0.060, -0.028),  # right atrium
    (Wave.P, -124.0, 20.0, 17.0, 0.062, 0.040, 0.022),  # left atrium
    (Wave.QRS, -23.5, 7.6, 7.6, -0.105, -0.035, -0.080),  # septum
    (Wave.QRS, -11.0, 9.3, 9.3, 0.250, 0.020, -0.330),
    (Wave.QRS, 1.6, 9.0, 9.0, 1.400, 0.640, -0.125),  # free walls
    (Wave.QRS, 8.0, 12.6, 11.0, -0.380, -0.020, 0.830),  # base
    (Wave.T, 140.0, 50.0, 66.0, 0.035, 0.006, -0.080),  # ST segment
    (Wave.T, 250.0, 46.0, 46.0, 0.300, 0.130, -0.185),
)

# Width of the average heart's P wave, QRS complex and T wave relative to the table. With it, half of the QRS
# complexes last 80 to 88 ms, where the normal records of PTB-XL have 80 to 90 ms by the same measure.
_MEAN_WIDTH = (1.0, 1.09, 1.0)

# A beat from the free wall of the left ventricle goes to the right and forward (V1 up, I down); one from
# the outflow tract of the right ventricle to the left, down and back (V1 down, II up). 150 ms wide, and
# the T wave against the QRS complex, as in any beat that is not conducted.
_VENTRICULAR = (
    Morphology.of(
        (Wave.QRS, -30.0, 20.0, 20.0, -0.35, -0.30, -0.45),
        (Wave.QRS, 8.0, 24.0, 26.0, -0.80, -0.55, -0.75),
        (Wave.QRS, 62.0, 20.0, 24.0, 0.10, 0.10, -0.25),
        (Wave.T, 255.0, 70.0, 50.0, 0.38, 0.28, 0.34),
    ),
    Morphology.of(
        (Wave.QRS, -30.0, 20.0, 20.0, 0.10, 0.45, 0.25),
        (Wave.QRS, 8.0, 24.0, 26.0, 0.55, 1.15, 0.75),
        (Wave.QRS, 62.0, 20.0, 24.0, 0.15, 0.10, 0.30),
        (Wave.T, 255.0, 70.0, 50.0, -0.22, -0.45, -0.36),
    ),
)

# Direction of an ST deviation by territory, scaled to 1 mV in V3, II and V6.
_ST_DIRECTION = {
    name: direction / (_DOWER[row] @ direction)
    for name, row, direction in (
        ("anterior", 4, np.array([0.35, -0.05, -0.93])),
        ("inferior", 1, np.array([-0.15, 0.98, 0.05])),
        ("lateral", 7, np.array([0.90, -0.20, 0.35])),
    )
}
# The J point to the top of the T wave.
_ST_SHAPE = ((90.0, 28.0, 60.0, 0.75), (190.0, 60.0, 45.0, 0.65))


def st_deviation(territory: str, millivolts: float) -> Morphology:
    """Return what an ST deviation adds to each beat."""
    dipole = _ST_DIRECTION[territory] * millivolts
    return Morphology.of(*((Wave.T, c, rise, fall, *(a * dipole)) for c, rise, fall, a in _ST_SHAPE))


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat to be drawn.

    Attributes
    ----------
    time_s : float
        Of the R peak.
    rr_s : float
        The RR interval that its QT interval goes by: an average, for the QT interval follows slowly.
    morphology : Morphology
    strength : numpy.ndarray of float, shape (3,)
        Factor of the amplitude, per `Wave`.
    """

    time_s: float
    rr_s: float
    morphology: Morphology
    strength: npt.NDArray[np.float64]

    # P and T waves reach no further from the R peak, even at 20 beats/min.
    BEFORE_S: ClassVar[float] = 0.35
    AFTER_S: ClassVar[float] = 0.75


class Heart:
    """One patient's anatomy, drawn at random within what is normal.

    Parameters
    ----------
    rng : numpy.random.Generator

    Attributes
    ----------
    resting_rate : float
        Beats per minute.
    conducted : Morphology
        The normal beat.
    ectopic : Morphology
        A beat from the ventricle.
    lead_field : numpy.ndarray of float, shape (8, 3)
        Leads I, II, V1 to V6 from the dipole.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.resting_rate = float(np.clip(rng.normal(70, 8), 56, 90))
        # Frontal axis by 15 degrees (normal: -30 to 90, the average here 43), then by the position of
        # the heart in the chest; electrodes a finger's breadth from their place.
        angles = np.clip(rng.normal(0, (15, 8, 8)), -25, 25)
        rotation = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
        self.lead_field = (_DOWER * rng.normal(1, 0.05, _DOWER.shape)) @ rotation
        amplitude = np.clip(rng.normal(1, (0.12, 0.15, 0.15)), 0.7, 1.35)
        self.conducted = _varied(_CONDUCTED, rng, amplitude)
        self.ectopic = _varied(_VENTRICULAR[rng.integers(2)], rng, np.ones(3))

    def dipole(self, beat: Beat, time_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return one beat's dipole, mV, shape (n, 3), at the given times."""
        shape = beat.morphology
        stretch = np.cbrt(beat.rr_s / _REFERENCE_RR)
        # The PQ interval shortens as well, by about a third as much.
        factor = np.where(shape.wave == Wave.T, stretch, np.where(shape.wave == Wave.P, stretch**0.35, 1.0))
        since = (time_s - beat.time_s)[:, np.newaxis] * 1000.0 - shape.centre * factor
        width = np.where(since < 0, shape.rise, shape.fall) * np.where(shape.wave == Wave.T, factor, 1.0)
        bell = np.exp(-0.5 * np.square(since / width))
        result: npt.NDArray[np.float64] = bell @ (shape.dipole * beat.strength[shape.wave][:, np.newaxis])
        return result


def _varied(shape: Morphology, rng: np.random.Generator, amplitude: npt.NDArray[np.float64]) -> Morphology:
    # Amplitude by wave, then each Gaussian a little for itself; the QRS complex 75 to 100 ms wide.
    dipole = shape.dipole * amplitude[shape.wave][:, np.newaxis] * rng.normal(1, 0.05, shape.dipole.shape)
    width = np.clip(rng.normal(_MEAN_WIDTH, (0.04, 0.06, 0.04)), 0.92, 1.22)[shape.wave]
    return Morphology(shape.centre * width, shape.rise * width, shape.fall * width, dipole, shape.wave)
