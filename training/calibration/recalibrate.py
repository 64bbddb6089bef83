"""A model's thresholds anew, from somebody's own normal recordings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ingest.source import IngestError
from models.backends import BACKENDS, BackendUnavailableError, open_session
from models.bundle import Bundle, GoldenData, onnx_file
from models.manifest import FalseAlarmRate, Golden, Manifest, ScoreSpec, Thresholds
from models.scoring import score
from models.session import Session
from training.calibration.statistics import MOST_WINDOWS, score_statistics
from training.calibration.stretches import (
    Scorer,
    Stretch,
    StretchScores,
    recording_of,
    score_stretches,
    with_stretches,
)
from training.calibration.thresholds import false_alarm_rate, operating_points
from training.dataset import CropSource
from training.recordings import Entry, Signal
from training.tolerance import measured_tolerance

Float64Array = npt.NDArray[np.float64]

FEWEST = 20
"""Of fewer normals none lies above their 95th percentile."""

# Windows of one recording for the score statistics: those of ten seconds overlap, more say no more.
_WINDOWS_PER_RECORDING = 5


@dataclass(frozen=True, slots=True)
class Chosen:
    """The recordings of an index that a model is calibrated on.

    Attributes
    ----------
    normals : tuple of Entry
        Set the thresholds.
    abnormal : tuple of Entry
        Labelled abnormal, but not for their rhythm alone: for the alternatives.
    lasting : tuple of Entry
        Those that stretches of normal ECG are taken of (see `training.calibration.stretches.with_stretches`).
    to_refit : tuple of Entry
        Normals for the score statistics.
    split : str
        What the normals are called in the index; empty if it has no splits.
    """

    normals: tuple[Entry, ...]
    abnormal: tuple[Entry, ...]
    lasting: tuple[Entry, ...]
    to_refit: tuple[Entry, ...]
    split: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Old and new operating points of one precision.

    Attributes
    ----------
    was, now : Thresholds
    above : tuple of float, or None
        Share of the normals above the record threshold, before and now; None if scores are on another scale.
    rate : tuple of (FalseAlarmRate, FalseAlarmRate), or None
        False alarms before and now; None also where there are no stretches.
    """

    was: Thresholds
    now: Thresholds
    above: tuple[float, float] | None
    rate: tuple[FalseAlarmRate, FalseAlarmRate] | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration comes to.

    Attributes
    ----------
    manifest : Manifest
    files : dict of str to bytes
        Every other file of the bundle.
    comparisons : dict of str to Comparison
        By precision.
    left_out : tuple of str
        Which recordings could not be used, and why.
    precisions_left_out : tuple of str
        Precisions that nothing here runs: the new bundle does not have them.
    """

    manifest: Manifest
    files: dict[str, bytes]
    comparisons: dict[str, Comparison]
    left_out: tuple[str, ...]
    precisions_left_out: tuple[str, ...]


def choose(entries: Sequence[Entry]) -> Chosen:
    """Choose the recordings of an index to calibrate on.

    Parameters
    ----------
    entries : sequence of Entry

    Returns
    -------
    Chosen
        Of an index with splits normals of ``val``, and for the score statistics those of ``train``, if there
        are any; of one without splits all. Never ``test``.
    """
    splits = {entry.split for entry in entries} - {""}

    def labelled(split: str, label: int) -> tuple[Entry, ...]:
        return tuple(
            entry for entry in entries if entry.label == label and (entry.split == split if splits else True)
        )

    normals = labelled("val", 0)
    return Chosen(
        normals=normals,
        abnormal=tuple(entry for entry in labelled("val", 1) if not entry.rhythm_only),
        lasting=tuple(with_stretches(normals, entries)),
        to_refit=labelled("train", 0) or normals,
        split="val" if splits else "",
    )


def recalibrate(
    bundle: Bundle,
    chosen: Chosen,
    index: Path,
    *,
    name: str,
    created: str,
    statistics: Literal["keep", "refit"] = "keep",
    backend: str = "onnxruntime",
    on_done: Callable[[float], None] | None = None,
) -> Calibration:
    """Set a model's operating points anew, for each of its precisions.

    Parameters
    ----------
    bundle : Bundle
    chosen : Chosen
        With at least `FEWEST` normals.
    index : pathlib.Path
        Where they are from; its hash goes into the manifest.
    name : str
        Of the new bundle.
    created : str
        Date, ISO 8601.
    statistics : {"keep", "refit"}
        Whether to measure anew what an average score is. It needs recordings with all leads of the model.
    backend : str
        What runs the model, and where it does not run a precision, the first of `models.backends.BACKENDS`
        that does.
    on_done : callable, optional
        Called with the share that is done, 0 to 1.

    Returns
    -------
    Calibration
        The weights are those of `bundle`. Its metrics are left out: they hold at other thresholds.

    Raises
    ------
    BundleError
        If a precision cannot be run.
    ValueError
        If too few recordings can be scored, or the statistics cannot be refitted.
    """
    manifest = bundle.manifest
    sessions = _sessions(bundle, backend)
    precisions = list(sessions)
    spec = manifest.score
    if statistics == "refit":
        spec = _refitted(Scorer.of(sessions[precisions[0]]), chosen.to_refit)
    steps = len(chosen.normals) + len(chosen.abnormal) + len(chosen.lasting)
    compared: dict[str, Comparison] = {}
    left_out: dict[str, None] = {}
    for number, precision in enumerate(precisions):

        def done(step: float, number: int = number) -> None:
            if on_done is not None:
                on_done((number + step / steps) / len(precisions))

        scorer = replace(Scorer.of(sessions[precision]), spec=spec)
        was = manifest.thresholds[precision]
        compared[precision], missing = _compare(scorer, chosen, was, manifest, done)
        left_out |= dict.fromkeys(missing)
        if spec != manifest.score:
            compared[precision] = replace(compared[precision], above=None, rate=None)
    used = Counter(entry.dataset or "unnamed" for entry in chosen.normals)
    calibrated = manifest.model_copy(
        update={
            "name": name,
            "score": spec,
            "thresholds": {precision: found.now for precision, found in compared.items()},
            "golden": {precision: manifest.golden[precision] for precision in precisions},
            "metrics": {"what": f"none: those of {manifest.name} hold at its own thresholds"},
            "data": {
                **manifest.data,
                "calibration": {
                    "what": "thresholds are from a user's own recordings; the weights are those of the model",
                    "model": manifest.name,
                    "date": created,
                    "index_sha256": hashlib.sha256(index.read_bytes()).hexdigest(),
                    "split": chosen.split,
                    "normals": dict(sorted(used.items())),
                    "abnormal": len(chosen.abnormal),
                    "left_out": len(left_out),
                    "statistics": statistics,
                },
            },
        }
    )
    dropped = tuple(precision for precision in manifest.thresholds if precision not in sessions)
    gone = {onnx_file(precision) for precision in dropped}
    files = {file: bundle.read(file) for file in manifest.sha256 if file not in gone}
    if spec != manifest.score:
        rescored = {precision: _rescored(bundle.golden(precision), spec) for precision in precisions}
        files |= {
            manifest.golden[precision].file: golden.to_bytes() for precision, golden in rescored.items()
        }
        tolerances = {
            precision: _tolerance(sessions[precision], golden, spec, manifest.golden[precision])
            for precision, golden in rescored.items()
        }
        calibrated = calibrated.model_copy(update={"golden": tolerances})
    return Calibration(calibrated, files, compared, tuple(left_out), dropped)


def _sessions(bundle: Bundle, backend: str) -> dict[str, Session]:
    # By precision. One that nothing here runs would keep thresholds of another hospital, and is left out.
    sessions: dict[str, Session] = {}
    for precision in bundle.manifest.thresholds:
        able = [name for name, known in BACKENDS.items() if precision in known.precisions]
        # A name that is none is refused where it is opened.
        for name in sorted(able, key=lambda name: name != backend) if backend in BACKENDS else [backend]:
            try:
                sessions[precision] = open_session(bundle, name, precision)
            except BackendUnavailableError:
                # What was asked for and runs this precision elsewhere is not replaced without a word.
                if name == backend:
                    raise
                continue
            break
    if not sessions:
        raise BackendUnavailableError(f"no backend here runs {bundle.name} in any of its precisions")
    return sessions


def _compare(
    scorer: Scorer, chosen: Chosen, was: Thresholds, manifest: Manifest, done: Callable[[float], None]
) -> tuple[Comparison, list[str]]:
    normals, missing = _score_recordings(scorer, chosen.normals, done)
    if len(normals) < FEWEST:
        raise ValueError(
            f"{len(normals)} normal recordings can be scored; at least {FEWEST} are needed"
            + (f" (the first that cannot: {missing[0]})" if missing else "")
        )
    at = len(chosen.normals)
    abnormal, more = _score_recordings(scorer, chosen.abnormal, lambda step: done(at + step))
    missing += more
    at += len(chosen.abnormal)
    stretches, more = score_stretches(scorer, chosen.lasting, on_done=lambda step: done(at + step))
    missing += more
    records = np.array([found.score.mean() for found in normals])
    now = operating_points(
        np.concatenate([found.score for found in normals]),
        np.repeat(np.arange(len(normals)), [len(found.score) for found in normals]),
        len(normals),
        abnormal=np.array([found.score.mean() for found in abnormal]),
        stretches=stretches,
        rule=manifest.alarm,
        window=manifest.window,
    )
    return Comparison(
        was,
        now,
        above=(float(np.mean(records > was.record)), float(np.mean(records > now.record))),
        rate=_rates(stretches, manifest, was, now),
    ), missing


def _rates(
    stretches: Sequence[StretchScores], manifest: Manifest, was: Thresholds, now: Thresholds
) -> tuple[FalseAlarmRate, FalseAlarmRate] | None:
    if not now.false_alarms_per_bed_hour:
        return None
    watched = [stretch for stretch in stretches if stretch.watched(manifest.alarm)]
    before = false_alarm_rate(watched, manifest.alarm, manifest.window, was.window)
    return before, now.false_alarms_per_bed_hour["all"]


def _score_recordings(
    scorer: Scorer, entries: Sequence[Entry], done: Callable[[float], None]
) -> tuple[list[StretchScores], list[str]]:
    scores: list[StretchScores] = []
    missing: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            recording = recording_of(entry)
            whole = Stretch(recording, 0.0, recording.duration_s or 0.0, entry.person, "")
            found = scorer.score(whole)
            if len(found.score):
                scores.append(found)
            else:
                missing.append(f"{entry.path}: no window can be scored")
        except (IngestError, OSError) as error:
            missing.append(" ".join(str(error).split()))
        done(number)
    return scores, missing


def _refitted(scorer: Scorer, entries: Sequence[Entry]) -> ScoreSpec:
    step = -(-len(entries) // MOST_WINDOWS)
    source = CropSource(
        (signal for entry in entries[::step] if (signal := _read(entry)) is not None),
        scorer.leads,
        scorer.filter,
        scorer.window,
    )
    windows = source.draw(_WINDOWS_PER_RECORDING, np.random.default_rng(0))
    complete = windows.select(np.asarray(windows.mask.all(axis=1)))
    if not len(complete):
        raise ValueError(
            "score statistics can only be refitted on recordings with all leads of the model: "
            + " ".join(scorer.leads)
        )
    spec = scorer.spec
    return score_statistics(
        scorer.run,
        complete,
        kind=spec.kind,
        alpha=spec.alpha,
        beta=spec.beta,
        distance_weight=spec.distance_weight,
    )


def _read(entry: Entry) -> Signal | None:
    # What cannot be read is named when it is scored.
    try:
        return entry.read()
    except (IngestError, OSError):
        return None


def _rescored(golden: GoldenData, spec: ScoreSpec) -> GoldenData:
    counted = np.broadcast_to(golden.mask[:, :, np.newaxis] != 0, golden.x.shape)
    scores = score(golden.x, golden.outputs, counted, golden.mask, spec).window
    return replace(golden, scores=scores)


def _tolerance(session: Session, golden: GoldenData, spec: ScoreSpec, was: Golden) -> Golden:
    # On another scale the same outputs make scores that are off by another amount.
    if was.score_atol is None:
        return was
    now = measured_tolerance([session], golden, spec, was.file)
    return was.model_copy(update={"score_atol": now.score_atol})
