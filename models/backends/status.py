"""What a person can know of the backends here: installed or not, devices, precisions, what was verified."""

from __future__ import annotations

from importlib import import_module

from models.backends import BACKENDS, Backend, BackendUnavailableError, open_session
from models.backends.choice import installed_version
from models.backends.cuda import CudaDevice, CudaError
from models.backends.engines import build_engine, find_library
from models.bundle import Bundle


def verified(bundle: Bundle, backend: str, precision: str) -> str:
    """Verify one precision of a bundle on a backend; return what was done, in the words for it.

    ``executed``: it ran, and outputs and scores agree with the golden ones. ``built, not executed``: an
    engine was built; whether it computes the right thing is not known. ``left out``: the backend has no
    such precision.

    Parameters
    ----------
    bundle : Bundle
    backend, precision : str

    Raises
    ------
    BundleError
        If it cannot be run, or its numbers are wrong.
    """
    known = BACKENDS.get(backend)
    if known is not None and precision not in known.precisions:
        return "left out, the backend does not run it"
    try:
        session = open_session(bundle, backend, precision)
    except BackendUnavailableError as error:
        if backend != "tensorrt":
            raise
        library = find_library()
        if not (library.builds and library.portable):
            raise
        built = build_engine(library, bundle.onnx(precision))
        return (
            f"built, not executed: {library.name} {library.version}, {built.layers} layers, {built.loops} "
            f"loops, {len(built.engine) / 1e6:.1f} MB, {built.seconds:.1f} s ({error})"
        )
    return f"executed on {session.device}: files and golden outputs agree"


def backend_lines() -> list[str]:
    """Return a line for each backend: what is installed, where it runs, in which precisions."""
    return [
        f"{name:12} {_installed(name, known):34} {_device(name):44} {' '.join(known.precisions)}".rstrip()
        for name, known in BACKENDS.items()
    ]


def _installed(name: str, known: Backend) -> str:
    found = installed_version(name)
    return found or f"not installed: pip install {known.install}"


def _device(name: str) -> str:
    if installed_version(name) is None:
        return "-"
    if name == "torch":
        torch = import_module("torch")
        return (
            torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu (no GPU that torch can use)"
        )
    if name != "tensorrt":
        return "cpu"
    try:
        return CudaDevice().name
    except CudaError as error:
        library = find_library()
        able = "engines can be built, not executed" if library.builds and library.portable else "nothing runs"
        return f"{error}: {able}"
