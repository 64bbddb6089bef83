"""Backends: ways to run a bundle. A module here is imported only when its backend is asked for."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle, BundleError
from models.restoration import RestoringSession
from models.scoring import score, sensitivity
from models.session import Session

Array = npt.NDArray[np.floating]

# Name of the backend: its module, its class, and what to install when the module cannot be imported.
_BACKENDS = {"onnxruntime": ("models.backends.ort", "OrtSession", "onnxruntime")}


def open_session(
    bundle: Bundle, backend: str = "onnxruntime", precision: str = "fp32", threads: int = 1
) -> Session:
    """Load a bundle into a backend and prove that it computes what was trained.

    Parameters
    ----------
    bundle : Bundle
    backend : str
    precision : str
        One of those in the manifest's thresholds.
    threads : int
        Threads within one operator.

    Returns
    -------
    Session
        It also restores leads (see `models.restoration`) if the model's score is made of that.

    Raises
    ------
    BundleError
        If the backend is unknown or not installed, the bundle has no such precision, or the session does
        not reproduce the golden outputs and scores. Nothing falls back to another backend.
    """
    if backend not in _BACKENDS:
        raise BundleError(f"no backend {backend!r}: choose from {', '.join(sorted(_BACKENDS))}")
    module, name, requirement = _BACKENDS[backend]
    try:
        session_class = getattr(import_module(module), name)
    except ImportError as error:
        raise BundleError(
            f"backend {backend!r} is not installed ({error}): pip install {requirement}"
        ) from error
    session: Session = session_class(bundle, precision=precision, threads=threads)
    if bundle.manifest.score.kind == "restoration":
        session = RestoringSession(session)
    check_parity(session, bundle)
    return session


def check_parity(session: Session, bundle: Bundle) -> None:
    """Compare a session with the bundle's golden outputs and scores.

    All golden windows at once, then one by one: some runtimes take another path for a batch of one.

    Raises
    ------
    BundleError
        If a number differs by more than the manifest allows: ``atol + rtol * |golden|`` for outputs, and for
        a score what such differences of the outputs can make of it.
    """
    manifest, golden = bundle.manifest, bundle.golden(session.precision)
    tolerance = manifest.golden[session.precision]
    counted = np.broadcast_to(golden.mask[:, :, np.newaxis] != 0, golden.x.shape)
    try:
        score_tolerance = sensitivity(
            golden.x,
            golden.outputs,
            counted,
            golden.mask,
            manifest.score,
            atol=tolerance.atol,
            rtol=tolerance.rtol,
        )
    except ValueError as error:
        raise BundleError(f"model {manifest.name!r} refused: {error}") from error
    for size in (len(golden.x), 1):
        runs = [
            session.run(golden.x[at : at + size], golden.mask[at : at + size])
            for at in range(0, len(golden.x), size)
        ]
        missing = golden.outputs.keys() - runs[0].keys()
        if missing:
            raise BundleError(
                f"model {manifest.name!r} refused: {session.backend} {session.precision} has no output "
                f"{', '.join(sorted(missing))}; export it again"
            )
        found = {name: np.concatenate([run[name] for run in runs]) for name in golden.outputs}
        scores = score(golden.x, found, counted, golden.mask, manifest.score).window
        expected: dict[str, Array] = {**golden.outputs, "score": golden.scores}
        for name, wanted in expected.items():
            values = scores if name == "score" else found[name]
            if values.shape != wanted.shape:
                raise BundleError(
                    f"model {manifest.name!r} refused: {name} has the shape {values.shape} where its golden "
                    f"file has {wanted.shape}; export it again"
                )
            allowed = score_tolerance
            if name != "score":
                allowed = tolerance.atol + tolerance.rtol * np.abs(wanted)
            # Written so that NaN is refused.
            if not (np.abs(values - wanted) <= allowed).all():
                worst = float(np.max(np.abs(values - wanted)))
                raise BundleError(
                    f"model {manifest.name!r} refused: {session.backend} {session.precision} does not "
                    f"reproduce its golden {name} (off by {worst:.2g}, batch of {size}); "
                    "export it again or choose another backend"
                )
