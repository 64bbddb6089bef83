"""Further precisions of a trained model: files, tolerances, thresholds, and what they cost in score."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from models.architectures import NetworkConfig
from models.backends import BACKENDS, BackendUnavailableError, load_session, open_session
from models.bundle import Bundle, onnx_file, write_bundle
from models.export import export
from models.manifest import Golden, Manifest, Thresholds
from models.session import Session
from training.calibration.recalibrate import FEWEST, choose, recalibrate
from training.evaluation.metrics import auroc
from training.evaluation.scored import score_recordings
from training.recordings import Entry, read_index
from training.tolerance import measured_tolerance

REFERENCE = "fp32"
"""The precision that a model is trained in, and that others are compared with."""


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """What a precision costs, on development recordings.

    Attributes
    ----------
    precision : str
    backend : str
        What set its thresholds.
    verified : tuple of str
        Backends that ran it here.
    score_error : float
        Mean difference of the score of a recording from that in float32.
    worst_score_error : float
    auroc, auroc_reference : float or None
        With this precision and with float32; None where one class is missing.
    normals, abnormal : int
        Recordings: normals of split ``val``, abnormal ones of ``val`` and ``train``, rhythm alone left out.
    """

    precision: str
    backend: str
    verified: tuple[str, ...]
    score_error: float
    worst_score_error: float
    auroc: float | None
    auroc_reference: float | None
    normals: int
    abnormal: int

    @property
    def loss(self) -> float | None:
        """By how much the AUROC is lower than with float32."""
        if self.auroc is None or self.auroc_reference is None:
            return None
        return self.auroc_reference - self.auroc


@dataclass(frozen=True, slots=True)
class Extended:
    """A bundle with more precisions, not written yet.

    Attributes
    ----------
    manifest : Manifest
    files : dict of str to bytes
    reports : tuple of PrecisionReport
    left_out : tuple of str
        Which recordings could not be used, and why.
    """

    manifest: Manifest
    files: dict[str, bytes]
    reports: tuple[PrecisionReport, ...]
    left_out: tuple[str, ...]


def add_precisions(
    bundle: Bundle,
    precisions: Sequence[str],
    index: Path,
    *,
    backend: str | None = None,
    on_done: Callable[[float], None] | None = None,
) -> Extended:
    """Export a model in further precisions and calibrate each with that very precision.

    Weights, score statistics and the precisions that are there already stay as they are; one of the same name
    is made anew.

    Parameters
    ----------
    bundle : Bundle
        With `REFERENCE`.
    precisions : sequence of str
        Of `models.export.PRECISIONS`, but for `REFERENCE`.
    index : pathlib.Path
        Recordings; see `training.calibration.recalibrate.choose`. Those of split ``test`` are not read.
    backend : str, optional
        What sets the thresholds; default the first of `models.backends.BACKENDS` that can.
    on_done : callable, optional
        Called with the share that is done, 0 to 1.

    Returns
    -------
    Extended

    Raises
    ------
    BundleError
        If no backend here runs a precision, or one that should does not.
    IndexFileError
        If the index cannot be used.
    ValueError
        If the network has no such precision, or there are too few recordings.
    """
    entries = read_index(index)
    chosen = choose(entries)
    if len(chosen.normals) < FEWEST:
        raise ValueError(f"{len(chosen.normals)} normal recordings (label 0); at least {FEWEST} are needed")
    known = _development(entries, chosen.normals)
    # In shares of the work: the reference, then each precision twice as long (thresholds and scores).
    total = 1 + 2 * len(precisions)

    def tell(begun: int) -> Callable[[float], None]:
        def done(share: float) -> None:
            if on_done is not None:
                on_done((begun + share) / total)

        return done

    manifest, files = bundle.manifest, {file: bundle.read(file) for file in bundle.manifest.sha256}
    reference = _scores(open_session(bundle, precision=REFERENCE), known, tell(0))
    reports: list[PrecisionReport] = []
    left_out: dict[str, None] = {}
    for number, precision in enumerate(precisions):
        files[onnx_file(precision)] = export(_network(manifest), bundle.weights(), precision)
        with tempfile.TemporaryDirectory() as folder:
            # Thresholds and tolerance of the reference stand in until there are own ones.
            same = manifest.thresholds[REFERENCE], manifest.golden[REFERENCE]
            drafted = _with(manifest, precision, *same)
            draft = write_bundle(Path(folder) / "draft", drafted, files)
            sessions = _sessions(draft, precision, backend)
            golden = measured_tolerance(
                sessions, draft.golden(REFERENCE), manifest.score, manifest.golden[REFERENCE].file
            )
            # Alone, so that nothing else is calibrated.
            alone = manifest.model_copy(
                update={
                    "thresholds": {precision: manifest.thresholds[REFERENCE]},
                    "golden": {precision: golden},
                }
            )
            trial = write_bundle(Path(folder) / "trial", alone, files)
            first = sessions[0].backend
            calibration = recalibrate(
                trial,
                chosen,
                index,
                name=bundle.name,
                created="",
                backend=first,
                on_done=tell(1 + 2 * number),
            )
            found = _scores(open_session(trial, first, precision), known, tell(2 + 2 * number))
        left_out |= dict.fromkeys(calibration.left_out)
        manifest = _with(manifest, precision, calibration.comparisons[precision].now, golden)
        report = _report(precision, sessions, known, found, reference)
        reports.append(report)
        manifest = manifest.model_copy(update={"metrics": _metrics(manifest, report)})
    return Extended(manifest, files, tuple(reports), tuple(left_out))


def _development(entries: Sequence[Entry], normals: Sequence[Entry]) -> list[Entry]:
    # Of an index without splits all abnormal ones.
    splits = {"train", "val"} if any(entry.split for entry in entries) else {""}
    abnormal = [e for e in entries if e.label == 1 and not e.rhythm_only and e.split in splits]
    return [*normals, *abnormal]


def _scores(session: Session, entries: Sequence[Entry], done: Callable[[float], None]) -> dict[Entry, float]:
    scored = score_recordings(entries, session, on_done=lambda count: done(count / len(entries)))
    return dict(zip(scored.entries, scored.score.tolist(), strict=True))


def _network(manifest: Manifest) -> NetworkConfig:
    config: NetworkConfig = TypeAdapter(NetworkConfig).validate_python(
        manifest.hyperparameters.get("network")
    )
    return config


def _with(manifest: Manifest, precision: str, thresholds: Thresholds, golden: Golden) -> Manifest:
    return manifest.model_copy(
        update={
            "thresholds": {**manifest.thresholds, precision: thresholds},
            "golden": {**manifest.golden, precision: golden},
        }
    )


def _sessions(draft: Bundle, precision: str, backend: str | None) -> list[Session]:
    # One for each backend that runs the precision here, that which calibrates first.
    names = [name for name, known in BACKENDS.items() if precision in known.precisions]
    if backend is not None:
        names = [backend, *(name for name in names if name != backend)]
    sessions: list[Session] = []
    missing: list[BackendUnavailableError] = []
    for name in names:
        try:
            sessions.append(load_session(draft, name, precision))
        except BackendUnavailableError as error:
            if name == backend:
                raise
            missing.append(error)
    if not sessions:
        raise BackendUnavailableError(
            f"no backend here runs {precision}, and thresholds are set by running it: "
            + "; ".join(map(str, missing))
        )
    return sessions


def _report(
    precision: str,
    sessions: Sequence[Session],
    entries: Sequence[Entry],
    found: dict[Entry, float],
    reference: dict[Entry, float],
) -> PrecisionReport:
    both = [entry for entry in entries if entry in found and entry in reference]
    label = np.array([entry.label == 1 for entry in both])
    ours, theirs = (np.array([scores[entry] for entry in both]) for scores in (found, reference))
    off = np.abs(ours - theirs)
    return PrecisionReport(
        precision=precision,
        backend=sessions[0].backend,
        verified=tuple(session.backend for session in sessions),
        score_error=float(off.mean()),
        worst_score_error=float(off.max()),
        auroc=auroc(ours, label),
        auroc_reference=auroc(theirs, label),
        normals=int((~label).sum()),
        abnormal=int(label.sum()),
    )


def _metrics(manifest: Manifest, report: PrecisionReport) -> dict[str, Any]:
    told = {
        "calibrated_with": report.backend,
        "executed_with": list(report.verified),
        "score_error": round(report.score_error, 6),
        "worst_score_error": round(report.worst_score_error, 6),
        "auroc": None if report.auroc is None else round(report.auroc, 5),
        "auroc_fp32": None if report.auroc_reference is None else round(report.auroc_reference, 5),
        "normals": report.normals,
        "abnormal": report.abnormal,
        "what": "scores of recordings against float32; normals of val, abnormal ones of val and train",
    }
    metrics = dict(manifest.metrics)
    return {**metrics, "precisions": {**metrics.get("precisions", {}), report.precision: told}}
