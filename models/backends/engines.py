"""TensorRT engines: which library is there, building them from ONNX files, and the cache of those built."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from models.backends.batched import BackendUnavailableError
from models.backends.cache import cache_folder, digest, keep, kept, say
from models.bundle import Bundle, BundleError

# In the order in which they are looked for. Lean runs engines that another TensorRT built.
_LEAN = "tensorrt_lean"
_MODULES = ("tensorrt", "tensorrt_rtx", _LEAN)
GPU_MAX_BATCH = 512
"""Windows of one run on a GPU: the manifest's cap is about a processor's caches."""
# Smallest, most usual and largest batch that an engine is built for.
_PROFILE = (1, 64, GPU_MAX_BATCH)
_PORTABLE = "any GPU of the library's"


@dataclass(frozen=True, slots=True)
class Library:
    """The TensorRT that is installed: ``tensorrt``, ``tensorrt_rtx`` or ``tensorrt_lean``.

    Attributes
    ----------
    name : str
    version : str
    module : module
    """

    name: str
    version: str
    module: Any

    @property
    def builds(self) -> bool:
        """Whether it can build engines."""
        return hasattr(self.module, "Builder")

    @property
    def portable(self) -> bool:
        """Whether its engines are not bound to one GPU and can be built without one."""
        return self.name == "tensorrt_rtx"


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that an engine depends on.

    Attributes
    ----------
    onnx_sha256, module, version, device : str
    profile : tuple of int
        Batches: smallest, most usual, largest.
    """

    onnx_sha256: str
    module: str
    version: str
    device: str
    profile: tuple[int, int, int] = _PROFILE


@dataclass(frozen=True, slots=True)
class Built:
    """A new engine.

    Attributes
    ----------
    engine : bytes
    layers, loops : int
        Of the network as parsed; an LSTM layer is one loop a direction or for both.
    seconds : float
    """

    engine: bytes
    layers: int
    loops: int
    seconds: float


def find_library() -> Library:
    """Return the TensorRT that is installed.

    Raises
    ------
    BackendUnavailableError
        If none is.
    """
    for name in _MODULES:
        try:
            module = import_module(name)
        # Its bindings raise whatever the loader of shared libraries says.
        except Exception:
            continue
        return Library(name, str(module.__version__), module)
    raise BackendUnavailableError(
        "backend 'tensorrt' is not installed: pip install 'bedside[tensorrt-rtx]' or 'bedside[tensorrt]'"
    )


def make_logger(library: Library) -> Any:
    """Return a logger for the library that keeps its last error in ``last``."""
    trt = library.module

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Log()


def build_engine(library: Library, content: bytes, *, lean: bool = False) -> Built:
    """Build an engine of an ONNX file.

    Parameters
    ----------
    library : Library
    content : bytes
    lean : bool
        For the lean runtime, which runs no other engines.

    Raises
    ------
    BundleError
        If the library cannot build, or refuses the file; with its own words.
    """
    if not library.builds:
        raise BundleError(
            f"{library.name} {library.version} runs engines and cannot build them: build them with `bedside "
            "export --engine --lean` where tensorrt is installed, and copy them to the same cache folder here"
        )
    trt, started = library.module, time.perf_counter()
    log = make_logger(library)
    builder = trt.Builder(log)
    # TensorRT 10 has to be told to take types as they stand in the file; from 11 on it does nothing else.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        said = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise BundleError(f"{library.name} {library.version} cannot parse the file: {said or log.last}")
    config = builder.create_builder_config()
    # Ten bits of float32 factors would be another precision.
    config.clear_flag(trt.BuilderFlag.TF32)
    if lean:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        given = network.get_input(number)
        window = list(given.shape)[1:]
        profile.set_shape(given.name, *([batch, *window] for batch in _PROFILE))
    config.add_optimization_profile(profile)
    loops = sum(
        network.get_layer(number).type == trt.LayerType.TRIP_LIMIT for number in range(network.num_layers)
    )
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BundleError(f"{library.name} {library.version} cannot build an engine: {log.last}")
    return Built(bytes(engine), network.num_layers, loops, time.perf_counter() - started)


def engine_key(library: Library, content: bytes, device: str | None, *, lean: bool = False) -> EngineKey:
    """Return the key of an ONNX file's engine; `device` is ignored where engines are portable."""
    lean = lean or library.name == _LEAN
    return EngineKey(
        onnx_sha256=hashlib.sha256(content).hexdigest(),
        module=_LEAN if lean else library.name,
        # Engines for the lean runtime hold through a major version.
        version=library.version.split(".")[0] if lean else library.version,
        device=_PORTABLE if library.portable or device is None else device,
    )


def engine_file(key: EngineKey) -> Path:
    """Return where an engine is kept."""
    return cache_folder() / "engines" / f"{digest(asdict(key))}.engine"


def engine_of(
    library: Library, bundle: Bundle, precision: str, device: str | None, *, lean: bool = False
) -> bytes:
    """Return the engine of a bundle's precision: from the cache, else built now and kept there.

    A kept engine says in its head what it was made of, and with its hash that it is whole; any other is
    built again.

    Parameters
    ----------
    library : Library
    bundle : Bundle
    precision : str
    device : str or None
        Name of the GPU; None where there is none.
    lean : bool
        As `build_engine`.

    Raises
    ------
    BundleError
        See `build_engine`.
    """
    content = bundle.onnx(precision)
    key = engine_key(library, content, device, lean=lean)
    file = engine_file(key)
    stored = kept(file)
    if stored is not None:
        engine = _unpacked(stored, key)
        if engine is not None:
            return engine
        say(f"{file} is no engine of {library.name} {library.version} for this file: building it again")
    say(f"building the {library.name} engine of {bundle.name} {precision} (some seconds, once)")
    built = build_engine(library, content, lean=lean)
    if not keep(file, _packed(built.engine, key)):
        say(f"cannot write {file}: the engine is built anew at every start")
    return built.engine


def _packed(engine: bytes, key: EngineKey) -> bytes:
    head = {**asdict(key), "engine_sha256": hashlib.sha256(engine).hexdigest()}
    return json.dumps(head, sort_keys=True).encode() + b"\n" + engine


def _unpacked(stored: bytes, key: EngineKey) -> bytes | None:
    head, _, engine = stored.partition(b"\n")
    expected, _, _ = _packed(engine, key).partition(b"\n")
    return engine if head == expected else None
