"""Backends: ways to run a bundle. A module here is imported only when its backend is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from models.backends.batched import BackendUnavailableError
from models.backends.parity import check_parity
from models.bundle import Bundle, BundleError
from models.restoration import RestoringSession
from models.session import Session

__all__ = [
    "AUTO",
    "BACKENDS",
    "Backend",
    "BackendUnavailableError",
    "check_parity",
    "load_session",
    "open_session",
]

AUTO = "auto"
"""In place of a backend's name: the fastest one here (see `models.backends.choice`)."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What is known of a backend before its module is imported.

    Attributes
    ----------
    module, session : str
        Where its session class is.
    packages : tuple of str
        Distributions that it may come from.
    install : str
        What to give to ``pip install``.
    precisions : tuple of str
    """

    module: str
    session: str
    packages: tuple[str, ...]
    install: str
    precisions: tuple[str, ...]


BACKENDS = {
    "onnxruntime": Backend(
        "models.backends.ort", "OrtSession", ("onnxruntime",), "onnxruntime", ("fp32", "fp16", "int8")
    ),
    "openvino": Backend(
        "models.backends.openvino",
        "OpenVinoSession",
        ("openvino",),
        "'bedside[openvino]'",
        ("fp32", "fp16", "bf16"),
    ),
    "torch": Backend(
        "models.backends.torch", "TorchSession", ("torch",), "'bedside[torch]'", ("fp32", "fp16", "bf16")
    ),
    "tensorrt": Backend(
        "models.backends.tensorrt",
        "TensorRtSession",
        ("tensorrt", "tensorrt-cu13", "tensorrt-rtx", "tensorrt-lean", "tensorrt-lean-cu13"),
        "'bedside[tensorrt-rtx]', or 'bedside[tensorrt]'",
        ("fp32", "fp16", "bf16"),
    ),
}
"""By name, in the order in which ``auto`` prefers those that are equally fast."""


def open_session(
    bundle: Bundle, backend: str = "onnxruntime", precision: str = "fp32", threads: int = 1
) -> Session:
    """Load a bundle into a backend and prove that it computes what was trained.

    Parameters
    ----------
    bundle : Bundle
    backend : str
        One of `BACKENDS`, or ``"auto"``: the fastest here whose numbers are right. What it passed over stands
        in the session's ``fallbacks``.
    precision : str
        One of those in the manifest's thresholds. No backend takes another one instead.
    threads : int
        Threads within one operator.

    Returns
    -------
    Session
        It also restores leads (see `models.restoration`) if the model's score is made of that.

    Raises
    ------
    BackendUnavailableError
        If the backend is not installed, or has no device here.
    BundleError
        If the backend is unknown or does not run the precision, the bundle has no such precision, or the
        session does not reproduce the golden outputs and scores. Only ``auto`` falls back to another backend.
    """
    if backend == AUTO:
        from models.backends.choice import open_fastest

        return open_fastest(bundle, precision, threads)
    session = load_session(bundle, backend, precision, threads)
    check_parity(session, bundle)
    return session


def load_session(bundle: Bundle, backend: str, precision: str, threads: int = 1) -> Session:
    """Load a bundle into a backend without a proof; see `open_session`."""
    if backend not in BACKENDS:
        raise BundleError(f"no backend {backend!r}: choose from {', '.join(sorted([*BACKENDS, AUTO]))}")
    known = BACKENDS[backend]
    bundle.check_precision(precision)
    if precision not in known.precisions:
        others = [name for name, other in BACKENDS.items() if precision in other.precisions]
        raise BundleError(f"backend {backend!r} does not run {precision}: choose from {', '.join(others)}")
    try:
        session_class = getattr(import_module(known.module), known.session)
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend {backend!r} is not installed ({error}): pip install {known.install}"
        ) from error
    session: Session = session_class(bundle, precision=precision, threads=threads)
    return RestoringSession(session) if bundle.manifest.score.kind == "restoration" else session
