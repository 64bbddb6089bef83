"""What has been learnt of a bed's beats, rhythm and signal, for another worker to go on with.

Little of it can be found again in the last seconds of signal: levels and kinds of beats are those of the last
hundred beats, and a rhythm keeps the onset that it began with. What can be, is not in here: samples and their
envelope come from the stream again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stream.preprocess import SETTLING_S
from stream.vitals.grid import FS

Arrays = Mapping[str, npt.NDArray[Any]]

# Another number is another meaning of the arrays: of such a memory nothing is known.
_VERSION = 1


class ForeignMemoryError(ValueError):
    """Bytes that are no memory of this version."""


@dataclass(frozen=True, slots=True)
class Memory:
    """State of one session of one bed at the end of a block.

    Attributes
    ----------
    session : str
    at : int
        Grid sample after the last one that beats and rhythm have heard.
    leads : int
        Of the feed.
    arrays : mapping of str to numpy.ndarray
        Of signal quality, beats and rhythm.
    """

    session: str
    at: int
    leads: int
    arrays: Arrays

    @property
    def since_s(self) -> float:
        """From which second of the session on samples are needed to go on with it."""
        return max(0.0, self.at / FS - SETTLING_S)

    def encode(self) -> bytes:
        """Return it as bytes: a safetensors file."""
        about = np.array([_VERSION, self.at, self.leads])
        session = np.frombuffer(self.session.encode(), np.uint8)
        return save({"about": about, "session": session, **self.arrays})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a memory.

        Raises
        ------
        ForeignMemoryError
            If it is none, or one of another version.
        """
        try:
            arrays = load(data)
            version, at, leads = arrays.pop("about").tolist()
            session = arrays.pop("session").tobytes().decode()
        except (SafetensorError, KeyError, ValueError) as error:
            raise ForeignMemoryError(f"no memory: {error}") from error
        if version != _VERSION:
            raise ForeignMemoryError(f"a memory of version {version}, not {_VERSION}")
        return cls(session, at, leads, arrays)


def optional(value: float | None) -> float:
    """Return a number for an array, NaN for None."""
    return np.nan if value is None else float(value)


def whole(value: float) -> int | None:
    """Return what `optional` took of a whole number."""
    return None if np.isnan(value) else int(value)
