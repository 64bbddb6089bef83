"""ONNX Runtime on the CPU: the default backend."""

from __future__ import annotations

import numpy as np
import onnxruntime

from models.bundle import Bundle, BundleError
from models.manifest import Manifest
from models.session import FloatArray


class OrtSession:
    """A bundle's ONNX file in ONNX Runtime (see `models.session.Session`).

    Use `models.backends.open_session`, which also checks parity.

    Parameters
    ----------
    bundle : Bundle
    precision : str
    threads : int
        Threads within one operator. Measured: one worker per core with one thread each beats one worker
        with several.

    Raises
    ------
    BundleError
        If the bundle has no such precision, or its file is missing or altered.
    """

    backend = "onnxruntime"

    def __init__(self, bundle: Bundle, precision: str = "fp32", threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.manifest: Manifest = bundle.manifest
        self.precision = precision
        content = bundle.onnx(precision)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                f"model {bundle.name!r} refused: ONNX Runtime cannot load its {precision} file ({reason}); "
                "export it again"
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        """Run the network, in pieces of at most the manifest's ``max_batch`` windows.

        Parameters
        ----------
        x : numpy.ndarray of float32, shape (batch, leads, samples)
        mask : numpy.ndarray of float32, shape (batch, leads)

        Returns
        -------
        dict of str to numpy.ndarray of float32

        Raises
        ------
        ValueError
            If a shape or dtype is not the manifest's.
        """
        leads, samples = len(self.manifest.leads), self.manifest.window.samples
        if x.ndim != 3 or x.shape[1:] != (leads, samples) or mask.shape != x.shape[:2]:
            raise ValueError(
                f"model {self.manifest.name!r} takes x (batch, {leads}, {samples}) and "
                f"mask (batch, {leads}), not {x.shape} and {mask.shape}"
            )
        if x.dtype != np.float32 or mask.dtype != np.float32:
            raise ValueError(f"x and mask must be float32, not {x.dtype} and {mask.dtype}")
        size = self.manifest.max_batch
        pieces = [
            self._session.run(self._outputs, {"x": x[at : at + size], "mask": mask[at : at + size]})
            # An empty batch still runs once, for the shapes of its outputs.
            for at in range(0, max(len(x), 1), size)
        ]
        if len(pieces) == 1:
            return dict(zip(self._outputs, pieces[0], strict=True))
        joined = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        return dict(zip(self._outputs, joined, strict=True))
