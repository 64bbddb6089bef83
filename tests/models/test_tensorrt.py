"""The adapter without a GPU: the host's memory stands in for a GPU's, and ONNX Runtime for an engine."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from models.backends import open_session, tensorrt
from models.backends.cuda import CudaError
from models.backends.engines import GPU_MAX_BATCH, Library
from models.bundle import Bundle, BundleError
from tests.models.conftest import SMALL_MHA, random_windows

Make = Callable[..., Bundle]

STREAM = 7


class HostDevice:
    """A CUDA device in the host's memory; queued copies happen when it is waited for."""

    name = "Stand-in (SM 0.0)"
    stream = STREAM
    full = False

    def __init__(self) -> None:
        self._memory: list[ctypes.Array[ctypes.c_char]] = []
        self._queue: list[tuple[int, int, int]] = []

    def enter(self) -> None:
        pass

    def pinned(self, shape: Sequence[int]) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def allocate(self, size: int) -> int:
        if self.full:
            raise CudaError("cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY, out of memory")
        self._memory.append(ctypes.create_string_buffer(size))
        return ctypes.addressof(self._memory[-1])

    def to_device(self, target: int, source: np.ndarray) -> None:
        assert source.flags.c_contiguous
        ctypes.memmove(target, source.ctypes.data, source.nbytes)

    def to_host(self, target: np.ndarray, source: int) -> None:
        self._queue.append((target.ctypes.data, source, target.nbytes))

    def wait(self) -> None:
        for copy in self._queue:
            ctypes.memmove(*copy)
        self._queue.clear()


class HostEngine:
    """An engine and its context: an ONNX file that reads and writes at the addresses it was given."""

    def __init__(self, content: bytes) -> None:
        self._session = onnxruntime.InferenceSession(content)
        self._inputs = {value.name: value.shape[1:] for value in self._session.get_inputs()}
        self._outputs = {value.name: value.shape[1:] for value in self._session.get_outputs()}
        self._names = [*self._inputs, *self._outputs]
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, number: int) -> str:
        return self._names[number]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *(self._inputs | self._outputs)[name])

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self._inputs else "out"

    def create_execution_context(self) -> HostEngine:
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self._shapes[name] = shape

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        given = {name: self._at(name, self._shapes[name]) for name in self._inputs}
        for name, value in zip(self._outputs, self._session.run(list(self._outputs), given), strict=True):
            self._at(name, value.shape)[...] = value
        return True

    def _at(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        flat = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self._addresses[name]))
        return flat.reshape(shape)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[HostDevice]:
    class Device(HostDevice):
        pass

    module = SimpleNamespace(
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=HostEngine),
        TensorIOMode=SimpleNamespace(INPUT="in"),
    )
    monkeypatch.setattr(tensorrt, "CudaDevice", Device)
    monkeypatch.setattr(tensorrt, "find_library", lambda: Library("tensorrt", "11.4.0", module))
    monkeypatch.setattr(
        tensorrt, "make_logger", lambda library: SimpleNamespace(last="SM 9.0 is not supported")
    )
    monkeypatch.setattr(
        tensorrt, "engine_of", lambda library, bundle, precision, name: bundle.onnx(precision)
    )
    return Device


@pytest.mark.usefixtures("device")
def test_the_adapter_gives_an_engine_its_windows_and_takes_its_outputs(make_bundle: Make) -> None:
    bundle = make_bundle(config=SMALL_MHA)
    session, wanted = open_session(bundle, "tensorrt"), open_session(bundle)
    assert (session.backend, session.device, session.max_batch) == (
        "tensorrt",
        "Stand-in (SM 0.0)",
        GPU_MAX_BATCH,
    )
    for n in (3, 1, 11):
        x, mask = random_windows(n, seed=n)
        found = session.run(x, mask)
        for name, value in wanted.run(x, mask).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    assert session.run(x, mask, {"distance"}).keys() == {"distance"}


def test_a_gpu_that_is_refused_is_reported_in_the_librarys_words(
    make_bundle: Make, device: type[HostDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostEngine, "create_execution_context", lambda self: None)
    with pytest.raises(
        BundleError, match=r"tensorrt 11.4.0 on Stand-in \(SM 0.0\) says: SM 9.0 is not supported"
    ):
        open_session(make_bundle(), "tensorrt")


def test_a_gpu_without_enough_memory_is_reported_in_the_drivers_words(
    make_bundle: Make, device: type[HostDevice]
) -> None:
    device.full = True
    with pytest.raises(BundleError, match=r"says: cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY, out of memory"):
        open_session(make_bundle(), "tensorrt")
