"""What the sessions of all backends share: input in memory of their own, batches in pieces, errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

import numpy as np

from models.bundle import Bundle, BundleError
from models.manifest import Manifest
from models.session import Fallback, FloatArray


class BackendUnavailableError(BundleError):
    """A backend that is not installed, or has no device here; the text says what is missing."""


class BatchedSession(ABC):
    """A session with input that is allocated once (see `models.session.Session`).

    A backend sets `backend` and `device`, and says how a batch is run.

    Parameters
    ----------
    bundle : Bundle
    precision : str
    max_batch : int, optional
        Default the manifest's.
    """

    backend: str
    device: str = "cpu"

    def __init__(self, bundle: Bundle, precision: str, max_batch: int | None = None) -> None:
        self.manifest: Manifest = bundle.manifest
        self.precision = precision
        self.max_batch = max_batch or bundle.manifest.max_batch
        self.fallbacks: tuple[Fallback, ...] = ()
        self._x, self._mask = (
            self._allocate((self.max_batch, *self._window)),
            self._allocate((self.max_batch, self._window[0])),
        )

    def inputs(self, n: int) -> tuple[FloatArray, FloatArray]:
        """Return the session's own input for a batch of `n` windows, to be filled in place."""
        if not 1 <= n <= self.max_batch:
            raise ValueError(f"model {self.manifest.name!r} takes 1 to {self.max_batch} windows, not {n}")
        return self._x[:n], self._mask[:n]

    def run_filled(self, n: int, wanted: Collection[str] | None = None) -> dict[str, FloatArray]:
        """Run the network on the first `n` windows of the session's own input."""
        self.inputs(n)
        names = self._names if wanted is None else [name for name in self._names if name in wanted]
        return self._infer(n, names)

    def run(
        self, x: FloatArray, mask: FloatArray, wanted: Collection[str] | None = None
    ) -> dict[str, FloatArray]:
        """Run the network, in pieces of at most `max_batch` windows."""
        leads, samples = self._window
        if x.ndim != 3 or x.shape[1:] != (leads, samples) or mask.shape != x.shape[:2]:
            raise ValueError(
                f"model {self.manifest.name!r} takes x (batch, {leads}, {samples}) and "
                f"mask (batch, {leads}), not {x.shape} and {mask.shape}"
            )
        if x.dtype != np.float32 or mask.dtype != np.float32:
            raise ValueError(f"x and mask must be float32, not {x.dtype} and {mask.dtype}")
        joined: dict[str, FloatArray] = {}
        # An empty batch still runs once, for the shapes of its outputs.
        for at in range(0, max(len(x), 1), self.max_batch):
            piece = x[at : at + self.max_batch]
            n = max(len(piece), 1)
            own_x, own_mask = self.inputs(n)
            own_x[: len(piece)], own_mask[: len(piece)] = piece, mask[at : at + n]
            for name, output in self.run_filled(n, wanted).items():
                if name not in joined:
                    joined[name] = np.empty((len(x), *output.shape[1:]), np.float32)
                joined[name][at : at + len(piece)] = output[: len(piece)]
        return joined

    @property
    def _window(self) -> tuple[int, int]:
        return len(self.manifest.leads), self.manifest.window.samples

    def _allocate(self, shape: tuple[int, ...]) -> FloatArray:
        # A backend for a GPU has other memory to copy from.
        return np.zeros(shape, np.float32)

    @property
    @abstractmethod
    def _names(self) -> list[str]:
        """Names of the network's outputs."""

    @abstractmethod
    def _infer(self, n: int, names: list[str]) -> dict[str, FloatArray]:
        """Run the first `n` windows of the input; return views, valid until the next run."""


def one_line(error: BaseException) -> str:
    """Return what an error of a library says, as one line that is not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]} …"


def cannot_load(session: BatchedSession, error: BaseException) -> BundleError:
    """Return the refusal of a file that a backend cannot load."""
    return BundleError(
        f"model {session.manifest.name!r} refused: {session.backend} cannot load its {session.precision} "
        f"file ({one_line(error)}); export it again or choose another backend"
    )
