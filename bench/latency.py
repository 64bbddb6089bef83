"""End-to-end latency: how late a finding and an alarm reach a subscriber, and where the time went.

The load is open-loop and each latency counts from the time at which its chunk was due (`bench.load`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.machine import machine, versions
from bench.stages import drift, over_time
from bench.tables import growth_text, illness, played
from bench.trial import Load, Progress, Trial, run_trial
from bench.usage import SERVER_DATA
from bench.ward import Ward
from models.bundle import load_bundle

# Memory settles while arenas, caches and the bus's ten minutes fill: a soak's slope begins after this, or
# after a third of a shorter run.
_SETTLING_S = 900.0


async def measure_latency(
    load: Load,
    *,
    model: str,
    worker_options: tuple[str, ...] = (),
    workers: int = 1,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a deployment of its own under load.

    Parameters
    ----------
    load : Load
        One episode after the other (`bench.signals.STORM_S`) makes for as many alarms as there can be.
    model : str
        Bundle that scores.
    worker_options : tuple of str
        More options of ``bedside worker``.
    workers : int
    on_progress : callable, optional
        Called with the seconds of signal sent so far.

    Returns
    -------
    dict
        The fields of ``bedside bench latency --json``.

    Raises
    ------
    bench.ward.WardError
        If a part of the deployment does not start or dies.
    """
    # Before anything of ours runs: the load that others are.
    setting = {"machine": machine(), "versions": versions()}
    spec = load_bundle(model).manifest.window
    options = ("--model", model, *worker_options)
    with (
        tempfile.TemporaryDirectory(prefix="bs-") as folder,
        Ward(Path(folder), worker_options=options, workers=workers) as ward,
    ):
        trial = await run_trial(ward, load, spec, on_progress=on_progress)
        names = ward.workers
    return {
        "benchmark": "latency",
        **_described(trial, load, names),
        "model": model,
        "worker_options": list(worker_options),
        "workers": workers,
        **setting,
    }


def _described(trial: Trial, load: Load, workers: tuple[str, ...]) -> dict[str, Any]:
    at_ns = trial.measured["ingest_ns"] - trial.begin_ns
    times = over_time(at_ns, trial.latencies["publish_to_finding"])
    stages, curves = {}, {}
    for stage, latencies in trial.latencies.items():
        histogram = trial.histogram(stage)
        stages[stage] = {**histogram.summary(), "hdr": histogram.encode() if len(latencies) else None}
        curves[stage] = histogram.curve()
    usage = trial.usage
    settled_s = trial.measured_from_s + min(_SETTLING_S, load.seconds / 3)
    growth = {name: usage.growth(name, settled_s) for name in (*usage.pids, SERVER_DATA)}
    first_s = usage.at_s[0]
    return {
        "beds": load.beds,
        **load.described(),
        "chunks": trial.chunks,
        "backend": trial.backend,
        "precision": trial.precision,
        "findings": trial.findings,
        "alarms": trial.raised,
        "alarm_events": len(trial.events),
        "technical_alarms": trial.technical,
        "shedding": trial.shedding,
        "lost": trial.lost,
        "unscored": trial.unscored,
        "repeated": trial.repeated,
        "generator_late": trial.late,
        "stages": stages,
        "curves": curves,
        "over_time": times,
        "drift": drift(times),
        "worker_rss_mb": max(trial.used[name]["rss_mb"] for name in workers),
        "rss_growth_mb_per_hour": {
            name: None if slope is None else {"slope": slope.per_hour, "interval": list(slope.interval)}
            for name, slope in growth.items()
        },
        "cpu_percent": {name: used["cpu_percent"] for name, used in trial.used.items()},
        "rss_mb": {name: used["rss_mb"] for name, used in trial.used.items()},
        "handles": {name: [handles[0], handles[-1]] for name, handles in usage.handles.items()},
        "memory_over_time": {
            "at_s": [round(at - first_s, 1) for at in usage.at_s],
            **{name: [round(value, 1) for value in values] for name, values in usage.rss_mb.items()},
        },
    }


def latency_text(result: dict[str, Any]) -> str:
    """Return a measurement of `measure_latency` as a table for people."""
    lines = [
        f"{played(result)}, model {result['model']}:"
        f" {result['findings']} findings, {result['alarms']} alarms, {result['lost']} lost;"
        f" {illness(result)}",
        f"{'stage':22}{'n':>9}{'p50':>9}{'p90':>9}{'p99':>9}{'p99.9':>9}{'max':>9}  ms",
    ]
    for stage, row in result["stages"].items():
        cells = [row[f"{name}_ms"] for name in ("p50", "p90", "p99", "p999", "max")]
        values = "".join("        -" if cell is None else f"{cell:9.2f}" for cell in cells)
        lines.append(f"{stage:22}{row['n']:9d}{values}")
    used = (
        f"{name} {percent:g} %, {result['rss_mb'][name]:g} MB"
        for name, percent in result["cpu_percent"].items()
    )
    lines.append(f"share of a core, memory: {'; '.join(used)}")
    late = result["generator_late"]
    lines.append(f"the generator was late by {late['p99_ms']:g} ms (p99), {late['max_ms']:g} ms at most")
    lines += growth_text(result)
    return "\n".join(lines)
