"""What is measured of a trained network: its scores, operating points, maps and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from torch import nn

from models.manifest import MapCheck, ScoreSpec, Thresholds
from models.restoration import restoring
from stream.leads import LEADS
from training.calibration.statistics import Run, record_scores, score_statistics
from training.calibration.stretches import Scorer, score_stretches
from training.calibration.thresholds import operating_points
from training.config import TrainConfig
from training.evaluation.by_dataset import LEAD_SETS, figures_by_dataset
from training.explanation import check_maps
from training.fitting.density import fit_density
from training.recordings import Entry
from training.sources import Source, score_source, some_windows

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Recordings whose windows score statistics choose from; those of 10 s have five windows or more each.
_STATISTICS_RECORDINGS = 1000


def network_run(network: nn.Module, device: torch.device, kind: str) -> Run:
    """Return a network as a function of arrays, in evaluation mode and float32.

    Parameters
    ----------
    network : torch.nn.Module
        Is moved to `device`.
    device : torch.device
    kind : str
        Of the score: one by restoration needs more than the network says by itself.
    """
    network.to(device).eval()

    def run(x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        # A GPU's convolutions would round their inputs to ten bits.
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            outputs = network(torch.from_numpy(x).to(device), torch.from_numpy(mask).to(device))
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    return restoring(run) if kind == "restoration" else run


def finish(
    network: nn.Module,
    weights: Mapping[str, FloatArray],
    source: Source,
    config: TrainConfig,
    records: npt.NDArray[np.intp] | None = None,
) -> dict[str, FloatArray]:
    """Give a network its trained weights, and what is measured, not trained (see `training.fitting.density`).

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place.
    weights : mapping of str to numpy.ndarray of float32
    source : Source
    config : TrainConfig
    records : numpy.ndarray of int, optional
        Numbers of the training normals in `source`; default all.

    Returns
    -------
    dict of str to numpy.ndarray of float32
        All that is to be stored.
    """
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    fit_density(network, some_windows(source, _STATISTICS_RECORDINGS, records), seed=config.fit.seed)
    return {name: value.cpu().numpy().copy() for name, value in network.state_dict().items()}


def statistics_of(
    run: Run, source: Source, config: TrainConfig, records: npt.NDArray[np.intp] | None = None
) -> ScoreSpec:
    """Measure how training normals score (see `training.calibration.statistics.score_statistics`).

    Parameters
    ----------
    run : callable
    source : Source
    config : TrainConfig
        Its kind of score.
    records : numpy.ndarray of int, optional
        Numbers of the normals in `source`; default all.

    Returns
    -------
    ScoreSpec

    Raises
    ------
    ValueError
        If there are too few windows with all leads.
    """
    windows = some_windows(source, _STATISTICS_RECORDINGS, records)
    complete = np.flatnonzero(windows.mask.all(axis=1))
    most = config.calibration.windows
    if len(complete) > most:
        complete = complete[np.linspace(0, len(complete) - 1, most).astype(np.intp)]
    choice = config.score.model_dump(exclude_none=True)
    return score_statistics(run, windows.select(complete), seed=config.fit.seed, **choice)


def operating_points_of(
    run: Run,
    spec: ScoreSpec,
    config: TrainConfig,
    *,
    normals: Source,
    abnormal: Source,
    lasting: Sequence[Entry],
    progress: Progress,
) -> tuple[Thresholds, list[str]]:
    """Set the operating points (see `training.calibration.thresholds.operating_points`).

    Parameters
    ----------
    run : callable
    spec : ScoreSpec
    config : TrainConfig
    normals, abnormal : Source
        Of the validation split. Abnormal recordings whose only finding is one of rhythm set nothing.
    lasting : sequence of Entry
        Recordings that stretches of normal ECG are taken of.
    progress : rich.progress.Progress

    Returns
    -------
    thresholds : Thresholds
    left_out : list of str
        Recordings of `lasting` that could not be used, and why.

    Raises
    ------
    ValueError
        If no validation normal has a score.
    """
    scores, record = score_source(run, normals, spec, what="scoring validation normals", progress=progress)
    others = score_source(run, abnormal, spec, what="scoring abnormal ones", progress=progress)
    rhythm = np.array([entry.rhythm_only for entry in abnormal.entries], np.bool_)
    some = share_of_sources(lasting, config.calibration.stretches)
    scorer = Scorer(run, spec, LEADS, config.filter, config.window, batch=config.max_batch)
    with _task(progress, "counting false alarms", len(some)) as on_done:
        stretches, left_out = score_stretches(scorer, some, on_done=on_done)
    found = operating_points(
        scores,
        record,
        len(normals.entries),
        abnormal=np.where(rhythm, np.nan, record_scores(*others, len(abnormal.entries))),
        stretches=stretches,
        rule=config.alarm,
        window=config.window,
    )
    return found, left_out


def maps_of(
    run: Run, spec: ScoreSpec, config: TrainConfig, normals: Source, progress: Progress
) -> dict[str, MapCheck]:
    """Check which maps of a window say something (see `training.explanation.check_maps`).

    Parameters
    ----------
    run : callable
    spec : ScoreSpec
    config : TrainConfig
    normals : Source
        Of the validation split.
    progress : rich.progress.Progress

    Returns
    -------
    dict of str to MapCheck
        Empty where there is nothing to check with.
    """
    windows = some_windows(normals, config.calibration.maps) if config.calibration.maps else None
    if windows is None or not len(windows):
        return {}
    with _task(progress, "checking maps", 1) as on_done:
        return check_maps(
            run,
            spec,
            windows,
            config.window.fs,
            seed=config.fit.seed,
            batch=config.max_batch,
            on_done=on_done,
        )


def figures_of(
    run: Run, spec: ScoreSpec, sources: Sequence[Source], threshold: float, progress: Progress
) -> dict[str, Any]:
    """Return figures of labelled recordings by set of leads (see `training.evaluation.by_dataset`).

    Parameters
    ----------
    run : callable
    spec : ScoreSpec
    sources : sequence of Source
        Their recordings are taken together.
    threshold : float
        A recording with a higher score is called abnormal.
    progress : rich.progress.Progress
    """
    found: dict[str, Any] = {}
    entries = [entry for source in sources for entry in source.entries]
    if not entries:
        return found
    for name, chosen in LEAD_SETS.items():
        kept = np.array([chosen is None or lead in chosen for lead in LEADS])
        scores = []
        for source in sources:
            scored = score_source(
                run, source, spec, kept, what=f"evaluating, leads {name}", progress=progress
            )
            scores.append(record_scores(*scored, len(source.entries)))
        found[name] = figures_by_dataset(np.concatenate(scores), entries, threshold)
    return found


def share_of_sources(lasting: Sequence[Entry], most: int) -> list[Entry]:
    """Choose the recordings on which false alarms are counted, evenly spaced, some of each kind.

    Parameters
    ----------
    lasting : sequence of Entry
        Normals, most of which are looped, and annotated ambulatory recordings (see
        `training.calibration.stretches.with_stretches`).
    most : int
        Recordings to choose.

    Returns
    -------
    list of Entry
        In the order of `lasting`. Half of them are of each kind; of the rarer one all, if it has fewer. In an
        index there are a few annotated recordings among hundreds of normals, and they score highest: a
        threshold set without them raises false alarms on every ambulatory feed.
    """
    kinds = [
        [number for number, entry in enumerate(lasting) if (entry.label is None) == annotated]
        for annotated in (True, False)
    ]
    rarer, other = sorted(kinds, key=len)
    some = _evenly(rarer, -(-most // 2) if other else most)
    chosen = {*some, *_evenly(other, most - len(some))}
    return [entry for number, entry in enumerate(lasting) if number in chosen]


def _evenly(numbers: Sequence[int], most: int) -> Sequence[int]:
    if len(numbers) <= most:
        return numbers
    return [numbers[at] for at in np.linspace(0, len(numbers) - 1, most).astype(int).tolist()]


@contextmanager
def _task(progress: Progress, what: str, total: float) -> Iterator[Callable[[float], None]]:
    task = progress.add_task(what, total=total)
    yield lambda done: progress.update(task, completed=done)
