"""What is said of a recording window by window and second by second: a day of it in a few megabytes.

As objects, a day of windows takes a hundred; here they are rows of numbers, and each is made when it is
asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Annotated, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
from pydantic import PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

T = TypeVar("T")


@dataclass(slots=True)
class WindowResult:
    """One scored window of a recording; times in seconds from the first sample."""

    start_s: float
    end_s: float
    score: float
    anomalous: bool
    lead_scores: dict[str, float]


@dataclass(slots=True)
class SecondResult:
    """One second of a recording; times in seconds from the first sample."""

    start_s: float
    end_s: float
    heart_rate_bpm: float | None
    issues: dict[str, tuple[str, ...]]
    """By lead, where there are any; see `stream.vitals.quality.Issue`."""


class _Rows(Sequence[T]):
    # Rows of as many numbers each; equal to any sequence of the same objects.

    def __init__(self, width: int) -> None:
        self._width = width
        self._numbers = array("d")

    @abstractmethod
    def _made(self, place: int, row: array[float]) -> T: ...

    def __len__(self) -> int:
        return len(self._numbers) // self._width

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> list[T]: ...

    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        at = range(len(self))[place]
        return self._made(at, self._numbers[at * self._width : (at + 1) * self._width])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it grows


class WindowRows(_Rows[WindowResult]):
    """Windows of a recording.

    Parameters
    ----------
    leads : sequence of str
        Those that may have a score.
    """

    def __init__(self, leads: Sequence[str]) -> None:
        self._leads = tuple(leads)
        super().__init__(4 + len(self._leads))

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Score of each window so far."""
        return np.array(self._numbers[2 :: self._width])

    def append(
        self, start_s: float, end_s: float, score: float, anomalous: bool, lead_scores: dict[str, float]
    ) -> None:
        """Add the next window; see `WindowResult`."""
        self._numbers.extend((start_s, end_s, score, anomalous))
        self._numbers.extend(lead_scores.get(lead, nan) for lead in self._leads)

    def _made(self, place: int, row: array[float]) -> WindowResult:
        by_lead = {lead: x for lead, x in zip(self._leads, row[4:], strict=True) if not isnan(x)}
        return WindowResult(row[0], row[1], row[2], bool(row[3]), by_lead)


class SecondRows(_Rows[SecondResult]):
    """Seconds of a recording."""

    def __init__(self) -> None:
        super().__init__(3)
        # Few seconds have any.
        self._issues: dict[int, dict[str, tuple[str, ...]]] = {}

    def append(
        self,
        start_s: float,
        end_s: float,
        heart_rate_bpm: float | None,
        issues: dict[str, tuple[str, ...]],
    ) -> None:
        """Add the next second; see `SecondResult`."""
        if issues:
            self._issues[len(self)] = issues
        self._numbers.extend((start_s, end_s, nan if heart_rate_bpm is None else heart_rate_bpm))

    def _made(self, place: int, row: array[float]) -> SecondResult:
        rate = None if isnan(row[2]) else row[2]
        return SecondResult(row[0], row[1], rate, self._issues.get(place, {}))


def _as_they_are(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, _Rows) else validate(value)


# Neither made into a list on the way in, nor on the way out.
Windows = Annotated[
    Sequence[WindowResult],
    WrapValidator(_as_they_are),
    PlainSerializer(iter, return_type=Iterable[WindowResult]),
]
"""Field of windows, in order."""
Seconds = Annotated[
    Sequence[SecondResult],
    WrapValidator(_as_they_are),
    PlainSerializer(iter, return_type=Iterable[SecondResult]),
]
"""Field of seconds, in order."""
