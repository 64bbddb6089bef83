"""PyTorch: on an NVIDIA GPU with cuDNN's LSTM and a CUDA graph for each batch size, else on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from models.architectures import NetworkConfig
from models.backends.batched import BatchedSession, one_line
from models.backends.engines import GPU_MAX_BATCH
from models.bundle import Bundle, BundleError
from models.networks.build import build
from models.session import FloatArray

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Runs before a graph is recorded, in which cuDNN chooses its kernels and gets its memory.
_WARM_UP = 3


class TorchSession(BatchedSession):
    """A bundle's weights in its network (see `models.session.Session`), on the GPU if there is one.

    Use `models.backends.open_session`, which also checks parity.

    Parameters
    ----------
    bundle : Bundle
    precision : str
        Of all parameters and all arithmetic.
    threads : int
        Of torch, in the whole process.

    Raises
    ------
    BundleError
        If the bundle has no such precision, its configuration or weights do not fit, or the GPU cannot run
        it, for lack of memory or otherwise.
    """

    backend = "torch"

    def __init__(self, bundle: Bundle, precision: str = "fp32", threads: int = 1) -> None:
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            self.device = torch.cuda.get_device_name()
        torch.set_num_threads(threads)
        # The bundle's own file decides which precisions it has.
        bundle.onnx(precision)
        self._dtype = _TYPES[precision]
        try:
            super().__init__(bundle, precision, GPU_MAX_BATCH if self._cuda else None)
            network = _network(bundle)
            where = torch.device("cuda" if self._cuda else "cpu")
            self._network = network.to(where, self._dtype).eval().requires_grad_(requires_grad=False)
            self._prepare(where)
        # Too little memory of the GPU among them; all that a run needs is allocated here.
        except RuntimeError as error:
            raise BundleError(
                f"backend 'torch' refused: {bundle.name} {precision} on {self.device}: {one_line(error)}"
            ) from error

    def _prepare(self, where: torch.device) -> None:
        self._host = [torch.from_numpy(array) for array in (self._x, self._mask)]
        if not self._cuda:
            self._on_cpu: dict[str, FloatArray] = self._evaluate(1)
            return
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._given = [torch.zeros_like(array, device=where) for array in self._host]
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, dict[str, torch.Tensor]]] = {}
        # The largest first: the smaller ones then find their memory in the pool.
        bucket, pool = self.max_batch, None
        while bucket:
            self._graphs[bucket] = self._recorded(bucket, pool)
            pool = self._graphs[bucket][0].pool()
            bucket //= 2
        self._results = {
            name: torch.empty((self.max_batch, *value.shape[1:]), pin_memory=True)
            for name, value in self._graphs[1][1].items()
        }

    def _recorded(self, bucket: int, pool: Any) -> tuple[torch.cuda.CUDAGraph, dict[str, torch.Tensor]]:
        # Outputs of the graph stay where they are: every replay writes them again.
        graph = torch.cuda.CUDAGraph()
        given = [array[:bucket] for array in self._given]
        # A GPU's convolutions and LSTMs would round their factors to ten bits, which is another precision.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False, benchmark=False):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP):
                    self._forward(*given)
            self._stream.synchronize()
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                outputs = self._forward(*given)
        return graph, outputs

    def _forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self._network(x.to(self._dtype), mask.to(self._dtype))
        return {name: value.to(torch.float32).contiguous() for name, value in outputs.items()}

    def _evaluate(self, n: int) -> dict[str, FloatArray]:
        with torch.inference_mode():
            return {
                name: value.numpy() for name, value in self._forward(*(a[:n] for a in self._host)).items()
            }

    def _allocate(self, shape: tuple[int, ...]) -> FloatArray:
        array: FloatArray = torch.zeros(shape, pin_memory=self._cuda).numpy()
        return array

    @property
    def _names(self) -> list[str]:
        return list(self._results if self._cuda else self._on_cpu)

    def _infer(self, n: int, names: list[str]) -> dict[str, FloatArray]:
        if not self._cuda:
            found = self._evaluate(n)
            return {name: found[name] for name in names}
        # Rows beyond n hold what was there before; no row depends on another.
        graph, outputs = self._graphs[1 << (n - 1).bit_length()]
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for given, host in zip(self._given, self._host, strict=True):
                given[:n].copy_(host[:n], non_blocking=True)
            graph.replay()
            for name in names:
                self._results[name][:n].copy_(outputs[name][:n], non_blocking=True)
        self._stream.synchronize()
        return {name: self._results[name][:n].numpy() for name in names}


def _network(bundle: Bundle) -> torch.nn.Module:
    try:
        config: NetworkConfig = TypeAdapter(NetworkConfig).validate_python(
            bundle.manifest.hyperparameters.get("network")
        )
        network = build(config)
        weights = {name: torch.from_numpy(np.array(value)) for name, value in bundle.weights().items()}
        network.load_state_dict(weights)
    except (ValidationError, RuntimeError) as error:
        raise BundleError(
            f"model {bundle.name!r} refused: its manifest does not describe the network of its weights "
            f"({one_line(error)}); export it again"
        ) from error
    return network
