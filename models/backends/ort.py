"""ONNX Runtime on the CPU: the default backend."""

from __future__ import annotations

import numpy as np
import onnxruntime

from models.backends.batched import BatchedSession, cannot_load
from models.bundle import Bundle
from models.session import FloatArray


class OrtSession(BatchedSession):
    """A bundle's ONNX file in ONNX Runtime (see `models.session.Session`).

    Use `models.backends.open_session`, which also checks parity. The CPU has operators of float32 and int8: a
    float16 file is computed in float32 between its conversions, a bfloat16 file is refused.

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
        super().__init__(bundle, precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        content = bundle.onnx(precision)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise cannot_load(self, error) from error
        self._outputs = {
            output.name: np.empty((self.max_batch, *output.shape[1:]), np.float32)
            for output in self._session.get_outputs()
        }
        self._bindings: dict[int, onnxruntime.IOBinding] = {}

    @property
    def _names(self) -> list[str]:
        return list(self._outputs)

    def _infer(self, n: int, names: list[str]) -> dict[str, FloatArray]:
        # Bound memory spares the copies of outputs, 3 to 9 % of a run (measured).
        if n not in self._bindings:
            self._bindings[n] = self._bound(n)
        self._session.run_with_iobinding(self._bindings[n])
        return {name: self._outputs[name][:n] for name in names}

    def _bound(self, n: int) -> onnxruntime.IOBinding:
        binding = self._session.io_binding()
        x, mask = self.inputs(n)
        for name, array in (("x", x), ("mask", mask)):
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in self._outputs.items():
            binding.bind_output(name, "cpu", 0, np.float32, array[:n].shape, array.ctypes.data)
        return binding
