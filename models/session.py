"""What the engine asks of a model: the one interface through which serving sees `models`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.manifest import Manifest

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fallback:
    """A backend that was passed over although it is there.

    Attributes
    ----------
    backend : str
    reason : str
        One line.
    """

    backend: str
    reason: str


class Session(Protocol):
    """A loaded model, ready to run.

    Implementations are the backends in `models.backends`. A session is used by one thread at a time.

    There are two ways to run it. `run` takes arrays and gives arrays that are the caller's. `inputs` and
    `run_filled` work in memory of the session's own, which is allocated once: fill what `inputs` returns,
    run, and be done with the outputs before the next run.
    """

    fallbacks: tuple[Fallback, ...]
    """What ``auto`` passed over to come to this backend; empty for a backend that was asked for."""

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        ...

    @property
    def backend(self) -> str:
        """Name of the backend, such as ``"onnxruntime"``."""
        ...

    @property
    def device(self) -> str:
        """What it runs on, ``"cpu"`` or the name of a GPU."""
        ...

    @property
    def precision(self) -> str:
        """Precision in which it runs, such as ``"fp32"``: the key of its thresholds in the manifest."""
        ...

    @property
    def max_batch(self) -> int:
        """Most windows of one `run_filled`: the manifest's on a CPU, more on a GPU."""
        ...

    def inputs(self, n: int) -> tuple[FloatArray, FloatArray]:
        """Return the session's own input for a batch of `n` windows, to be filled in place.

        Parameters
        ----------
        n : int
            1 to `max_batch`.

        Returns
        -------
        x : numpy.ndarray of float32, shape (n, leads, samples)
        mask : numpy.ndarray of float32, shape (n, leads)
            As `run` takes them; views of the same memory at every call, holding what was there last.

        Raises
        ------
        ValueError
            If there is no room for so many.
        """
        ...

    def run_filled(self, n: int, wanted: Collection[str] | None = None) -> dict[str, FloatArray]:
        """Run the network on the first `n` windows of the session's own input.

        Parameters
        ----------
        n : int
        wanted : collection of str, optional
            Outputs to return; default all. A GPU does not copy the others.

        Returns
        -------
        dict of str to numpy.ndarray of float32
            Views of memory that the next run overwrites: copy what is to be kept.

        Raises
        ------
        ValueError
            As `inputs`.
        """
        ...

    def run(
        self, x: FloatArray, mask: FloatArray, wanted: Collection[str] | None = None
    ) -> dict[str, FloatArray]:
        """Run the network on a batch of normalised windows, of any size.

        Parameters
        ----------
        x : numpy.ndarray of float32, shape (batch, leads, samples)
            Normalised windows at the model's rate, leads in the manifest's order, zero where masked.
        mask : numpy.ndarray of float32, shape (batch, leads)
            1 where the lead is present, 0 where it is not.
        wanted : collection of str, optional
            Outputs to return; default all.

        Returns
        -------
        dict of str to numpy.ndarray
            See `models.scoring.Outputs`; at least ``"recon_mean"``. The caller's own.

        Raises
        ------
        ValueError
            If a shape or dtype is not the manifest's.
        """
        ...
