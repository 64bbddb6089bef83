"""Proof that a session computes what was trained."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle, BundleError, GoldenData
from models.manifest import Golden, Manifest
from models.scoring import score, sensitivity
from models.session import Session

Array = npt.NDArray[np.floating]


def check_parity(session: Session, bundle: Bundle) -> None:
    """Compare a session with the bundle's golden outputs and scores.

    All golden windows at once, then one by one: some runtimes take another path for a batch of one.

    Raises
    ------
    BundleError
        If a number differs by more than the manifest allows (see `models.manifest.Golden`): ``atol + rtol *
        |golden|`` for outputs, and for a score what such differences of the outputs can make of it, or what
        was measured.
    """
    manifest, golden = bundle.manifest, bundle.golden(session.precision)
    tolerance = manifest.golden[session.precision]
    counted = np.broadcast_to(golden.mask[:, :, np.newaxis] != 0, golden.x.shape)
    score_tolerance = _score_tolerance(manifest, golden, counted, tolerance)
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
                atol = tolerance.output_atol.get(name, tolerance.atol)
                allowed = atol + tolerance.rtol * np.abs(wanted)
            # Written so that NaN is refused.
            if not (np.abs(values - wanted) <= allowed).all():
                worst = float(np.max(np.abs(values - wanted)))
                raise BundleError(
                    f"model {manifest.name!r} refused: {session.backend} {session.precision} does not "
                    f"reproduce its golden {name} (off by {worst:.2g}, batch of {size}); "
                    "export it again or choose another backend"
                )


def _score_tolerance(
    manifest: Manifest, golden: GoldenData, counted: npt.NDArray[np.bool_], tolerance: Golden
) -> npt.NDArray[np.float64]:
    try:
        bound = sensitivity(
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
    return bound if tolerance.score_atol is None else np.full(len(golden.x), tolerance.score_atol)
