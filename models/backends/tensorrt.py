"""TensorRT on an NVIDIA GPU: one implementation for TensorRT, TensorRT-RTX and the lean runtime."""

from __future__ import annotations

from math import prod
from typing import Any

from models.backends.batched import BackendUnavailableError, BatchedSession
from models.backends.cuda import CudaDevice, CudaError
from models.backends.engines import GPU_MAX_BATCH, Library, engine_of, find_library, make_logger
from models.bundle import Bundle, BundleError
from models.session import FloatArray


class TensorRtSession(BatchedSession):
    """A bundle's ONNX file as a TensorRT engine (see `models.session.Session`).

    Use `models.backends.open_session`, which also checks parity.

    Parameters
    ----------
    bundle : Bundle
    precision : str
    threads : int
        Not used: the work is the GPU's.

    Raises
    ------
    BackendUnavailableError
        If no TensorRT is installed, or there is no GPU.
    BundleError
        If the engine cannot be built, the library refuses the GPU or its memory is too small; in the
        library's own words.
    """

    backend = "tensorrt"

    def __init__(self, bundle: Bundle, precision: str = "fp32", threads: int = 1) -> None:
        library = find_library()
        try:
            self._cuda = CudaDevice()
        except CudaError as error:
            raise BackendUnavailableError(f"backend 'tensorrt' has no GPU here: {error}") from error
        self.device = self._cuda.name
        try:
            super().__init__(bundle, precision, GPU_MAX_BATCH)
            self._load(library, engine_of(library, bundle, precision, self.device))
        except CudaError as error:
            raise self._refused(library, str(error)) from error

    def _load(self, library: Library, content: bytes) -> None:
        trt = library.module
        # All three have to live as long as the context.
        self._log = make_logger(library)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        context: Any = None if self._engine is None else self._engine.create_execution_context()
        if context is None:
            raise self._refused(library, self._log.last)
        self._context = context
        self._batch = 0
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._outputs: dict[str, FloatArray] = {}
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            shape = tuple(self._engine.get_tensor_shape(name))[1:]
            self._addresses[name] = self._cuda.allocate(4 * self.max_batch * prod(shape))
            context.set_tensor_address(name, self._addresses[name])
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                self._shapes[name] = shape
            else:
                self._outputs[name] = self._cuda.pinned((self.max_batch, *shape))

    def _allocate(self, shape: tuple[int, ...]) -> FloatArray:
        return self._cuda.pinned(shape)

    @property
    def _names(self) -> list[str]:
        return list(self._outputs)

    def _infer(self, n: int, names: list[str]) -> dict[str, FloatArray]:
        self._cuda.enter()
        x, mask = self.inputs(n)
        self._cuda.to_device(self._addresses["x"], x)
        self._cuda.to_device(self._addresses["mask"], mask)
        if n != self._batch:
            for name, shape in self._shapes.items():
                self._context.set_input_shape(name, (n, *shape))
            self._batch = n
        if not self._context.execute_async_v3(self._cuda.stream):
            raise RuntimeError(f"TensorRT did not run: {self._log.last}")
        found = {name: self._outputs[name][:n] for name in names}
        for name, output in found.items():
            self._cuda.to_host(output, self._addresses[name])
        self._cuda.wait()
        return found

    def _refused(self, library: Library, said: str) -> BundleError:
        return BundleError(
            f"backend 'tensorrt' refused: {library.name} {library.version} on {self.device} says: {said}"
        )
