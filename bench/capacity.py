"""How many beds one deployment carries: the largest load that meets a budget, and what happens beyond."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.machine import machine, versions
from bench.trial import Load, Trial, run_trial
from bench.ward import Ward
from models.bundle import load_bundle
from models.manifest import WindowSpec

BUDGET_MS = 300.0
"""From a chunk being due to its finding having arrived: less than a heartbeat."""

MOST = 4096
"""Beds beyond which nobody looks: more than any hospital has monitored."""

# A bisection ends when the answer is known to this share of itself: runs of half a minute do not repeat
# more exactly.
_PRECISION = 0.05


@dataclass(frozen=True, slots=True)
class Search:
    """Where a search for the capacity begins, and where it ends.

    Attributes
    ----------
    start : int
        Beds of the first run.
    most : int
        Beds that are not exceeded.
    """

    start: int = 64
    most: int = MOST


def capacity_search(search: Search) -> Generator[int, bool, int]:
    """Look for the largest load that can be carried: double it, then bisect.

    Parameters
    ----------
    search : Search

    Yields
    ------
    int
        Beds to try; send back whether they were carried.

    Returns
    -------
    int
        The largest load that was carried; 0 if one bed was not.

    Notes
    -----
    Whatever can be carried, less of it can: loads above one that was not carried are not tried.
    """
    carried, beds = 0, min(search.start, search.most)
    while (yield beds):
        carried = beds
        if beds == search.most:
            return carried
        beds = min(2 * beds, search.most)
    too_many = beds
    while too_many - carried > max(1, round(_PRECISION * carried)):
        beds = (carried + too_many) // 2
        if (yield beds):
            carried = beds
        else:
            too_many = beds
    return carried


async def search_capacity(
    attempt: Callable[[int], Awaitable[Trial]],
    search: Search,
    budget_ms: float,
    *,
    on_attempt: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    """Run a search.

    Parameters
    ----------
    attempt : callable
        Returns the outcome with so many beds.
    search : Search
    budget_ms : float
        For the 99th percentile of ``publish_to_finding``.
    on_attempt : callable, optional
        Called with each row of the curve.

    Returns
    -------
    beds : int
    curve : list of dict
        One row for each attempt, by beds.
    """
    curve: list[dict[str, Any]] = []
    steps = capacity_search(search)
    beds = next(steps)
    while True:
        row = _row(await attempt(beds), budget_ms)
        curve.append(row)
        if on_attempt is not None:
            on_attempt(row)
        try:
            beds = steps.send(row["carried"])
        except StopIteration as end:
            return end.value, sorted(curve, key=lambda row: int(row["beds"]))


def _row(trial: Trial, budget_ms: float) -> dict[str, Any]:
    histogram = trial.histogram()
    p99_ms = histogram.percentile_ms(99)
    # A window without a score, a technical alarm, or a worker that leaves something out is no service.
    in_order = trial.lost == trial.unscored == trial.shedding == 0 and not trial.technical
    return {
        "beds": trial.beds,
        "n": histogram.n,
        "findings_per_s": round(trial.findings_per_s, 3),
        "p50_ms": histogram.percentile_ms(50),
        "p99_ms": p99_ms,
        "max_ms": histogram.percentile_ms(100),
        "lost": trial.lost,
        "unscored": trial.unscored,
        "alarms": trial.raised,
        "technical_alarms": trial.technical,
        "shedding": trial.shedding,
        "backend": trial.backend,
        "precision": trial.precision,
        "carried": in_order and p99_ms is not None and p99_ms <= budget_ms,
        "generator_late_p99_ms": trial.late["p99_ms"],
        "cpu_percent": {name: used["cpu_percent"] for name, used in trial.used.items()},
        "rss_mb": {name: used["rss_mb"] for name, used in trial.used.items()},
    }


async def attempt(load: Load, spec: WindowSpec, **ward_options: Any) -> Trial:
    """Start a deployment, put it under load, and stop it.

    Parameters
    ----------
    load : Load
    spec : WindowSpec
        Of the model that scores.
    **ward_options
        As for `bench.ward.Ward`.
    """
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, Ward(Path(folder), **ward_options) as ward:
        return await run_trial(ward, load, spec)


async def measure_capacity(
    load: Load,
    *,
    model: str,
    search: Search,
    budget_ms: float = BUDGET_MS,
    worker_options: tuple[str, ...] = (),
    workers: int = 1,
    pinned: bool = False,
    on_attempt: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Find the capacity of a deployment on this machine, load generator and subscriber included.

    Parameters
    ----------
    load : Load
        Of each attempt, but for the number of beds.
    model : str
    search : Search
    budget_ms : float
    worker_options : tuple of str
        More options of ``bedside worker``.
    workers : int
    pinned : bool
        See `bench.ward.Ward`.
    on_attempt : callable, optional
        Called with each row of the curve.

    Returns
    -------
    dict
        The fields of ``bedside bench capacity --json``.
    """
    # Before anything of ours runs: the load that others are.
    setting = {"machine": machine(), "versions": versions()}
    spec = load_bundle(model).manifest.window
    options = ("--model", model, *worker_options)

    async def carry(beds: int) -> Trial:
        return await attempt(
            replace(load, beds=beds), spec, worker_options=options, workers=workers, pinned=pinned
        )

    beds, curve = await search_capacity(carry, search, budget_ms, on_attempt=on_attempt)
    at_capacity = next((row for row in curve if row["beds"] == beds), curve[0])
    return {
        "benchmark": "capacity",
        "beds": beds,
        "p99_ms": at_capacity["p99_ms"],
        "lost": at_capacity["lost"],
        "budget_ms": budget_ms,
        **load.described(),
        "limit_reached": any(not row["carried"] for row in curve),
        "curve": curve,
        "model": model,
        "backend": at_capacity["backend"],
        "precision": at_capacity["precision"],
        "worker_options": list(worker_options),
        "workers": workers,
        "pinned": pinned,
        **setting,
    }


def curve_row_text(row: dict[str, Any]) -> str:
    """Return one attempt as a line for people."""
    verdict = "carried" if row["carried"] else "not carried"
    p50, p99 = ("-" if row[name] is None else f"{row[name]:.0f}" for name in ("p50_ms", "p99_ms"))
    used = ", ".join(f"{name} {percent:g} %" for name, percent in row["cpu_percent"].items())
    return (
        f"{row['beds']:5d} beds  p50 {p50:>6} ms  p99 {p99:>6} ms  {row['lost']:5d} lost  {verdict:12} {used}"
    )
