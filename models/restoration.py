"""Restoring each lead from the others, with any network that takes a subset of its leads."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from models.manifest import Manifest
from models.scoring import Outputs
from models.session import FloatArray, Session

Restoring = Callable[[FloatArray, FloatArray], dict[str, FloatArray]]
"""x (batch, leads, samples) and mask (batch, leads) to outputs, ``recon_restored`` among them."""


def restoring(run: Callable[[FloatArray, FloatArray], Outputs]) -> Restoring:
    """Return a function that also restores each lead from the others.

    The network runs once on the windows as they are, and once more for each lead with that lead hidden: what
    it then says of the hidden lead is ``recon_restored``. A network that copies its input, what is unusual in
    it included, cannot copy a lead that it does not see (masked restoration as in Jiang et al., Multi-scale
    Cross-restoration Framework for Electrocardiogram Anomaly Detection, MICCAI 2023, who hide parts of time).

    A lead that is absent is not seen by the plain run either, whose reconstruction it keeps. A lead that is
    alone has nothing to be restored from and keeps it, too: with nothing to go by, a network says the same of
    every window, and a score made of that would look as if somebody had judged. Such windows are scored by
    how well they are reconstructed; statistics of one lead are measured in the same way, so that their scores
    mean what those of others do.

    Parameters
    ----------
    run : callable
        x (batch, leads, samples) and mask (batch, leads) to outputs; what stands in a masked lead does not
        matter to it.

    Returns
    -------
    callable
        As `run`, with ``recon_restored``, and slower: with twelve leads it runs thirteen times. All other
        outputs are those of the plain run.
    """

    def run_and_restore(x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        outputs = dict(run(x, mask))
        restored = outputs["recon_mean"].copy()
        present = mask != 0
        several = np.count_nonzero(present, axis=1) > 1
        for lead in range(mask.shape[1]):
            hiding = np.flatnonzero(present[:, lead] & several)
            if not len(hiding):
                continue
            given, kept = x[hiding], mask[hiding]
            given[:, lead], kept[:, lead] = 0.0, 0.0
            restored[hiding, lead] = run(given, kept)["recon_mean"][:, lead]
        return {**outputs, "recon_restored": restored}

    return run_and_restore


class RestoringSession:
    """A session that also restores leads (see `models.session.Session` and `restoring`).

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self.manifest: Manifest = session.manifest
        self.backend = session.backend
        self.device = session.device
        self.precision = session.precision
        self.max_batch = session.max_batch
        self.fallbacks = session.fallbacks
        self._run = restoring(session.run)
        # Not the memory of the session within, which its runs overwrite.
        leads, samples = len(self.manifest.leads), self.manifest.window.samples
        self._x = np.zeros((self.max_batch, leads, samples), np.float32)
        self._mask = np.zeros((self.max_batch, leads), np.float32)

    def inputs(self, n: int) -> tuple[FloatArray, FloatArray]:
        """Return the session's own input for a batch of `n` windows."""
        if not 1 <= n <= self.max_batch:
            raise ValueError(f"no room for {n} windows: 1 to {self.max_batch}")
        return self._x[:n], self._mask[:n]

    def run_filled(self, n: int, wanted: Collection[str] | None = None) -> dict[str, FloatArray]:
        """Run the network on the first `n` windows of the input, and for each lead without it."""
        return self.run(*self.inputs(n), wanted)

    def run(
        self, x: FloatArray, mask: FloatArray, wanted: Collection[str] | None = None
    ) -> dict[str, FloatArray]:
        """Run the network on a batch of normalised windows, and for each lead without it."""
        outputs = self._run(x, mask)
        return {name: value for name, value in outputs.items() if wanted is None or name in wanted}
