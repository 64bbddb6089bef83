"""One run of a deployment under load: what the benchmarks of latency, capacity and baseline have in common.

Server, scorer, load generator and subscriber are processes of their own; this one starts them, samples what
they use and counts.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bench.histogram import LatencyHistogram, Nanoseconds
from bench.load import CHUNK_NS, SPREAD_NS, LoadPlan
from bench.reader import read_alarms, read_findings
from bench.signals import WARD_S
from bench.stages import stage_latencies
from bench.tally import windows_due
from bench.usage import SERVER_DATA, Usage
from bench.ward import Ward, WardError
from models.manifest import WindowSpec
from stream.bus import Bus
from stream.children import spawn
from stream.heartbeat import HEARTBEAT
from stream.windows import windows_per_hop

# After a bed's first window: caches are warm, and the burst in which a ward is opened is over.
_SETTLE_S = 2.0
# How long the findings of the last chunks may take to arrive before they count as lost.
_LAST_FINDINGS_S = 10.0
# Often enough to miss no heartbeat (one a second), seldom enough to cost nothing.
_POLL_S = 0.5

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What a deployment is put under.

    Attributes
    ----------
    beds : int
    seconds : float
        Measured; a warm-up comes before.
    paths : tuple of str
        Recordings to play; none for simulated patients.
    seed : int
        Of the simulated patients.
    ill_every_s : float
        How often each simulated patient falls ill; see `bench.signals`.
    hop_s : float or None
        How often the worker judges a bed; None for as often as the model says.
    speed : float
        Seconds of signal in a second.
    """

    beds: int
    seconds: float
    paths: tuple[str, ...] = ()
    seed: int = 0
    ill_every_s: float = WARD_S
    hop_s: float | None = None
    speed: float = 1.0

    def described(self) -> dict[str, Any]:
        """Return what a result says of it."""
        return {
            "seconds": self.seconds,
            "seed": self.seed,
            # A result is shown to others: not where the recordings lie here.
            "signal": ["/".join(Path(path).parts[-2:]) for path in self.paths] or "simulated",
            "ill_every_s": None if self.paths else self.ill_every_s,
            "hop_s": self.hop_s,
            "speed": self.speed,
        }

    def every(self, window: WindowSpec) -> int:
        """Return of how many windows of the model one is judged."""
        return 1 if self.hop_s is None else windows_per_hop(window, self.hop_s)


@dataclass(slots=True)
class Trial:
    """What came out.

    Attributes
    ----------
    beds : int
    seconds : float
        Measured.
    chunks : int
        Sent, the warm-up included.
    findings : int
        Received, each window once.
    measured : numpy.ndarray of `bench.reader.ROW`
        Those whose chunk was due in the time measured.
    begin_ns : int
        Of the time measured.
    findings_per_s : float
        That arrived in the time measured, whenever their chunks were due.
    lost : int
        Windows that should have a finding and have none.
    unscored : int
        Findings without a score.
    repeated : int
        Findings that came again.
    events : list of dict
        Alarm events of the time measured.
    technical : dict of str to int
        Technical alarms raised in the whole run, by code.
    backend, precision : str or None
        What a worker's heartbeat said that it runs.
    shedding : int
        The most that a worker's heartbeat said it left out (see `stream.shedding`); 0 for nothing.
    latencies : dict of str to numpy.ndarray of int64
        By stage, ns (see `bench.stages`).
    late : dict
        How late the generator was: a histogram's summary.
    usage : Usage
    used : dict
        CPU and memory of each process in the time measured.
    """

    beds: int
    seconds: float
    chunks: int
    findings: int
    measured: npt.NDArray[Any]
    begin_ns: int
    findings_per_s: float
    lost: int
    unscored: int
    repeated: int
    events: list[dict[str, Any]]
    technical: dict[str, int]
    backend: str | None
    precision: str | None
    shedding: int
    latencies: dict[str, Nanoseconds]
    late: dict[str, Any]
    usage: Usage
    used: dict[str, dict[str, Any]]
    measured_from_s: float
    """Beginning of the time measured, seconds of the monotonic clock."""

    @property
    def raised(self) -> int:
        """Physiological alarms raised in the time measured."""
        return sum(event["presence"] == "on" and event["kind"] == "physiological" for event in self.events)

    def histogram(self, stage: str = "publish_to_finding") -> LatencyHistogram:
        """Return the latencies of a stage."""
        return LatencyHistogram(self.latencies[stage])


def warm_up_s(spec: WindowSpec) -> float:
    """Return how long a run is under way before it is measured."""
    return spec.seconds + SPREAD_NS / 1e9 + _SETTLE_S


async def run_trial(
    ward: Ward, load: Load, spec: WindowSpec, *, on_progress: Progress | None = None
) -> Trial:
    """Put a deployment that has just been started under load.

    Parameters
    ----------
    ward : Ward
        Entered, not yet ready.
    load : Load
    spec : WindowSpec
        Of the model that scores: says which windows are due.
    on_progress : callable, optional
        Called with the seconds of signal sent so far.

    Raises
    ------
    WardError
        If a part of the deployment, the generator or the subscriber dies.
    """
    await ward.ready()
    async with await ward.connect() as bus:
        await bus.declare_all()
        with tempfile.TemporaryDirectory(prefix="bs-") as name:
            return await _run(ward, bus, load, spec, Path(name), on_progress)


async def _run(
    ward: Ward, bus: Bus, load: Load, spec: WindowSpec, folder: Path, on_progress: Progress | None
) -> Trial:
    before_s, every = warm_up_s(spec), load.every(spec)
    plan = LoadPlan(
        url=ward.url,
        prefix=bus.prefix,
        beds=load.beds,
        chunks=math.ceil((before_s + load.seconds) * load.speed * 1e9 / CHUNK_NS),
        seed=load.seed,
        ill_every_s=load.ill_every_s,
        paths=load.paths,
        accepted=str(folder / "accepted.npy"),
        speed=load.speed,
    )
    plan.write(folder / "plan.json")
    with _Child("subscriber", "-m", "bench.reader", ward.url, bus.prefix, str(folder)) as reader:
        await reader.line()
        with _Child("generator", "-m", "bench.load", str(folder / "plan.json")) as generator:
            begin_ns = int(await generator.line())
            begin_s = time.monotonic()
            # Once: looking through all keys keeps a server from everything else.
            heartbeats = await bus.client.keys(f"{bus.prefix}{HEARTBEAT}*")
            (first, *_) = await _beats(bus, heartbeats)
            shedding = 0
            data_mb = await _data_mb(bus)
            processes = _pids(ward) | {"generator": generator.pid, "subscriber": reader.pid}
            usage = Usage(processes, {SERVER_DATA: lambda: data_mb})
            watching = asyncio.ensure_future(usage.watch())
            try:
                reporting = asyncio.ensure_future(generator.line())
                while not reporting.done():
                    await asyncio.wait((reporting,), timeout=_POLL_S)
                    ward.check()
                    reader.check()
                    beats = await _beats(bus, heartbeats)
                    data_mb = await _data_mb(bus)
                    shedding = max([shedding, *(beat.get("shedding", 0) for beat in beats)])
                    if on_progress is not None:
                        on_progress(time.monotonic() - begin_s)
                report = json.loads(await reporting)
                await _until_found(folder, report, spec, every)
            finally:
                watching.cancel()
    ward.check()
    findings, repeated = _once(read_findings(folder))
    events = read_alarms(folder)
    accepted = np.load(plan.accepted)
    from_ns = begin_ns + round(before_s * 1e9)
    to_ns = from_ns + round(load.seconds * 1e9)
    measured = findings[(findings["ingest_ns"] >= from_ns) & (findings["ingest_ns"] < to_ns)]
    arrived = (findings["received_ns"] >= from_ns) & (findings["received_ns"] < to_ns)
    during = [event for event in events if from_ns <= event["ingest_ns"] < to_ns]
    delays = np.array([event["received_ns"] - event["ingest_ns"] for event in during], np.int64)
    from_s = begin_s + before_s
    return Trial(
        beds=load.beds,
        seconds=load.seconds,
        chunks=report["chunks"],
        findings=len(findings),
        measured=measured,
        begin_ns=from_ns,
        findings_per_s=float(np.count_nonzero(arrived)) / load.seconds,
        lost=_lost(findings, report, spec, every),
        unscored=int(np.count_nonzero(findings["scored"] == 0)),
        repeated=repeated,
        events=during,
        technical=dict(
            Counter(
                event["code"]
                for event in events
                if event["presence"] == "on" and event["kind"] == "technical"
            )
        ),
        backend=first.get("backend"),
        precision=first.get("precision"),
        shedding=shedding,
        latencies=stage_latencies(measured, accepted, begin_ns, load.speed) | {"publish_to_alert": delays},
        late=report["late"],
        usage=usage,
        used=usage.between(from_s, from_s + load.seconds),
        measured_from_s=from_s,
    )


def _pids(ward: Ward) -> dict[str, int]:
    pids = {name: ward.children[name].pid for name in ward.workers}
    return pids if ward.server.pid is None else pids | {"server": ward.server.pid}


async def _beats(bus: Bus, heartbeats: list[Any]) -> list[dict[str, Any]]:
    return [json.loads(beat) for beat in await bus.client.mget(heartbeats) if beat]


async def _data_mb(bus: Bus) -> float:
    memory: Any = await bus.client.info("memory")
    return float(memory["used_memory"]) / 2**20


async def _until_found(folder: Path, report: dict[str, Any], spec: WindowSpec, every: int) -> None:
    # The subscriber is another process: all that can be looked at is its file.
    until_s = time.monotonic() + _LAST_FINDINGS_S
    while (  # noqa: ASYNC110
        _lost(_once(read_findings(folder))[0], report, spec, every) and time.monotonic() < until_s
    ):
        await asyncio.sleep(_POLL_S)


def _once(findings: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    # Each window as it first arrived, and how many came again.
    _, first = np.unique(findings[["bed", "window"]], return_index=True)
    return findings[np.sort(first)], len(findings) - len(first)


def _lost(findings: npt.NDArray[Any], report: dict[str, Any], spec: WindowSpec, every: int) -> int:
    # What each bed should have is every so many of a range of numbers from 0: what it has of them is counted.
    due = np.array([windows_due(samples, fs, spec) for samples, fs in report["sent"]])
    wanted = (findings["window"] < due[findings["bed"]]) & (findings["window"] % every == 0)
    return int((-(-due // every)).sum()) - int(np.count_nonzero(wanted))


class _Child:
    # A process of the benchmark's own, which tells of itself in lines on standard output.

    def __init__(self, name: str, *arguments: str) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = spawn([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=self._errors)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._errors.close()

    async def line(self) -> str:
        assert self._process.stdout is not None
        line = (await asyncio.to_thread(self._process.stdout.readline)).decode()
        if not line:
            self._process.wait()
            self.check()
        return line

    def check(self) -> None:
        if self._process.poll():
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise WardError(f"the {self._name} stopped: {words or 'without a word'}")
