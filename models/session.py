"""What the engine asks of a model: the one interface through which serving sees `models`."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.manifest import Manifest

FloatArray = npt.NDArray[np.float32]


class Session(Protocol):
    """A loaded model, ready to run.

    Implementations are the backends in `models.backends`. A session is used by one thread at a time.
    """

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        ...

    @property
    def backend(self) -> str:
        """Name of the backend, such as ``"onnxruntime"``."""
        ...

    @property
    def precision(self) -> str:
        """Precision in which it runs, such as ``"fp32"``: the key of its thresholds in the manifest."""
        ...

    def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        """Run the network on a batch of normalised windows.

        Parameters
        ----------
        x : numpy.ndarray of float32, shape (batch, leads, samples)
            Normalised windows at the model's rate, leads in the manifest's order, zero where masked.
        mask : numpy.ndarray of float32, shape (batch, leads)
            1 where the lead is present, 0 where it is not.

        Returns
        -------
        dict of str to numpy.ndarray
            See `models.scoring.Outputs`; at least ``"recon_mean"``.
        """
        ...
