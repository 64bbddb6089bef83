"""OpenVINO on the CPU: bfloat16 and float16 where the processor computes in them."""

from __future__ import annotations

import io

import numpy as np
import openvino

from models.backends.batched import BackendUnavailableError, BatchedSession, cannot_load
from models.bundle import Bundle
from models.session import FloatArray

# OpenVINO's names of precisions: as it lists what a processor has, and as a model is told.
_CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}
_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class OpenVinoSession(BatchedSession):
    """A bundle's ONNX file in OpenVINO (see `models.session.Session`).

    Use `models.backends.open_session`, which also checks parity.

    Parameters
    ----------
    bundle : Bundle
    precision : str
    threads : int

    Raises
    ------
    BackendUnavailableError
        If the processor does not compute in that precision; OpenVINO would take float32 without a word.
    BundleError
        If the bundle has no such precision, or its file cannot be loaded.
    """

    backend = "openvino"

    def __init__(self, bundle: Bundle, precision: str = "fp32", threads: int = 1) -> None:
        super().__init__(bundle, precision)
        content = bundle.onnx(precision)
        core = openvino.Core()
        if _CAPABILITIES[precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendUnavailableError(
                f"backend 'openvino' cannot run {precision}: this processor does not compute in it"
            )
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Workers side by side would all be pinned to the first core.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = core.compile_model(core.read_model(io.BytesIO(content)), "CPU", settings)
        except RuntimeError as error:
            raise cannot_load(self, error) from error
        self._request = compiled.create_infer_request()
        # OpenVINO also calls an output by the name of the node that it merged the last one with.
        known = bundle.golden(precision).outputs
        self._outputs: dict[str, FloatArray] = {}
        for port in compiled.outputs:
            name = next((name for name in sorted(port.get_names()) if name in known), port.get_any_name())
            shape = [axis.get_length() for axis in list(port.get_partial_shape())[1:]]
            self._outputs[name] = np.empty((self.max_batch, *shape), np.float32)
        self._tensors: dict[int, dict[str, openvino.Tensor]] = {}

    @property
    def _names(self) -> list[str]:
        return list(self._outputs)

    def _infer(self, n: int, names: list[str]) -> dict[str, FloatArray]:
        if n not in self._tensors:
            self._tensors[n] = self._shared(n)
        for name, tensor in self._tensors[n].items():
            self._request.set_tensor(name, tensor)
        self._request.start_async()
        self._request.wait()
        return {name: self._outputs[name][:n] for name in names}

    def _shared(self, n: int) -> dict[str, openvino.Tensor]:
        x, mask = self.inputs(n)
        arrays = {"x": x, "mask": mask} | {name: array[:n] for name, array in self._outputs.items()}
        return {name: openvino.Tensor(array, shared_memory=True) for name, array in arrays.items()}
