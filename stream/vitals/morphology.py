"""The shape of a beat: how wide, how high, and how much like the bed's usual beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.vitals.grid import FS
from stream.vitals.memory import Arrays

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Half of what is compared of a beat, samples (0.15 s: the widest QRS, without P and most of T), and how far
# it is moved to fit.
_HALF, _SHIFT = 15, 3
_LENGTH, _SHIFTS = 2 * _HALF + 1, 2 * _SHIFT + 1
# Slopes below this part of the steepest belong to no QRS complex, but to ST and T.
_STEEP = 0.25
# From this correlation on two beats are of one kind.
_ALIKE = 0.85
# Beats in which a kind is forgotten, and kinds that are kept.
_MEMORY, _KINDS = 100, 4
# What a ventricular beat counts that follows fast: a ventricular tachycardia must not become the usual rhythm
# within minutes. Slow wide beats may, such as paced ones.
_FAST_VENTRICULAR = 0.1
_LEARNING_RATE = 1 / 8
# The dominant kind is the narrowest of those with at least this part of the commonest one's beats: in a run
# of ventricular beats, and in bigeminy, it stays the conducted one.
_COMMON = 0.3
# A beat is ventricular if it is less like the dominant kind than this and so much wider, seconds ...
_UNLIKE, _WIDER_S = 0.8, 0.03
# ... or still less like it, and not narrow: beside a paced rhythm others need not be wider.
_FOREIGN, _NARROW_S = 0.6, 0.09


@dataclass(frozen=True, slots=True)
class Shape:
    """What one beat looks like; see `stream.vitals.beats.Beat`.

    Attributes
    ----------
    width_s, amplitude_mv : float
    similarity : float or None
        To the dominant kind.
    ventricular : bool
    kind : int or None
        The kind that it is of; None if it is like none.
    wave : numpy.ndarray, shape (leads, samples)
        Millivolts, each lead about its mean, moved to fit its kind.
    """

    width_s: float
    amplitude_mv: float
    similarity: float | None
    ventricular: bool
    kind: int | None
    wave: Float32Array


@dataclass(slots=True, eq=False)
class _Kind:
    # A number of its own, mean shape in millivolts, shape (leads, samples), mean width, and how many of the
    # last beats.
    number: int
    wave: Float32Array
    width_s: float
    count: float


class Morphology:
    """Kinds of beats of one bed, the commonest of which is the dominant one."""

    def __init__(self) -> None:
        self._kinds: list[_Kind] = []
        self._next = 0

    def measure(self, x: Float32Array, column: int, scale: Float64Array) -> Shape:
        """Return the shape of a beat.

        Parameters
        ----------
        x : numpy.ndarray of float32, shape (leads, n)
            Millivolts.
        column : int
            Where the beat is.
        scale : numpy.ndarray, shape (leads,)
            By how much each lead is multiplied before it is compared.
        """
        reach = _HALF + _SHIFT
        around = x[:, column - reach : column + reach + 1]
        waves = around - (around.sum(axis=1) / around.shape[1])[:, np.newaxis]
        fits = self._fits(waves, scale)
        own = max(range(len(fits)), key=lambda place: fits[place][0], default=None)
        if own is not None and fits[own][0] < _ALIKE:
            own = None
        start = _SHIFT if own is None else fits[own][1]
        wave = waves[:, start : start + _LENGTH]
        best = wave[int(scale.argmax())]
        width_s = _width(around, scale)
        dominant = self._dominant()
        similarity = None if dominant is None else fits[dominant][0]
        return Shape(
            width_s=width_s,
            amplitude_mv=float(best[int(np.abs(best).argmax())]),
            similarity=similarity,
            ventricular=similarity is not None
            and _ventricular(similarity, width_s, self._kinds[dominant or 0].width_s),
            kind=None if own is None else self._kinds[own].number,
            wave=wave,
        )

    def _fits(self, waves: Float32Array, scale: Float64Array) -> list[tuple[float, int]]:
        # How much like each kind the beat is at best, and how far it is moved for that.
        if not self._kinds:
            return []
        # First the beat at each shift, then the kinds.
        all_ = np.empty((_SHIFTS + len(self._kinds), *waves.shape[:1], _LENGTH))
        for shift in range(_SHIFTS):
            all_[shift] = waves[:, shift : shift + _LENGTH]
        for place, kind in enumerate(self._kinds, _SHIFTS):
            all_[place] = kind.wave
        all_ *= scale[:, np.newaxis]
        flat = all_.reshape(len(all_), -1)
        products = flat @ flat.T
        sizes = np.sqrt(products.diagonal())
        norms = np.maximum(sizes[_SHIFTS:, np.newaxis] * sizes[:_SHIFTS], 1e-12)
        fits: list[tuple[float, int]] = []
        for of_kind in (products[_SHIFTS:, :_SHIFTS] / norms).tolist():
            best = max(of_kind)
            # One that is like none at all is not moved.
            fits.append((best, of_kind.index(best) if best else _SHIFT))
        return fits

    def _dominant(self) -> int | None:
        most = max((kind.count for kind in self._kinds), default=0.0)
        common = [place for place, kind in enumerate(self._kinds) if kind.count >= _COMMON * most]
        return min(common, key=lambda place: self._kinds[place].width_s, default=None)

    def count(self, shape: Shape, *, fast: bool) -> int:
        """Count a beat to its kind, or make a new kind of it; return the kind's number.

        Parameters
        ----------
        shape : Shape
        fast : bool
            Whether it follows the beat before as in a tachycardia.
        """
        own = next((kind for kind in self._kinds if kind.number == shape.kind), None)
        if own is None:
            if len(self._kinds) == _KINDS:
                self._kinds.remove(min(self._kinds, key=lambda kind: kind.count))
            own = _Kind(self._next, shape.wave.copy(), shape.width_s, 0.0)
            self._next += 1
            self._kinds.append(own)
        else:
            own.wave += _LEARNING_RATE * (shape.wave - own.wave)
            own.width_s += _LEARNING_RATE * (shape.width_s - own.width_s)
        part = _FAST_VENTRICULAR if fast and shape.ventricular else 1.0
        for kind in self._kinds:
            kind.count += part * ((kind is own) - kind.count / _MEMORY)
        return own.number

    def remember(self) -> Arrays:
        """Return the state."""
        kinds = [(kind.number, kind.width_s, kind.count) for kind in self._kinds]
        found = {"kinds": np.array([*kinds, (self._next, 0.0, 0.0)])}
        return found | ({"waves": np.array([kind.wave for kind in self._kinds])} if kinds else {})

    def recall(self, state: Arrays) -> None:
        """Take the state that another one had."""
        *kinds, (following, _, _) = state["kinds"].tolist()
        self._next = int(following)
        self._kinds = [
            _Kind(int(number), wave.copy(), width_s, count)
            for (number, width_s, count), wave in zip(kinds, state.get("waves", ()), strict=True)
        ]


def _width(around: Float32Array, scale: Float64Array) -> float:
    slope = scale @ np.abs(around[:, 1:] - around[:, :-1])
    steep = (slope >= _STEEP * slope.max()).nonzero()[0]
    return float(steep[-1] - steep[0] + 1) / FS


def _ventricular(similarity: float, width_s: float, usual_s: float) -> bool:
    wider = similarity < _UNLIKE and width_s >= usual_s + _WIDER_S
    return wider or (similarity < _FOREIGN and width_s >= _NARROW_S)
