"""What is to be said of a deployment: every worker's state, and what somebody should look at, in words.

Each has a level, ``"ok"``, ``"warning"`` or ``"alarm"``, so that no display has to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from monitor.summary import duration
from monitor.system.survey import Look, Worker
from stream.shedding import LATE_S
from stream.topics import DEAD_LETTERS

Level = Literal["ok", "warning", "alarm"]
LEVELS: tuple[Level, ...] = ("alarm", "warning", "ok")
"""The worst first."""
State = Literal["working", "idle", "joining", "silent", "failing", "behind", "shedding", "unknown"]

# What a worker does is written down at least every three seconds: past that somebody is missing.
_PARTITION_LATE_S = 5.0
# A feed that still comes.
_LIVE_S = 3.0
_REFUSED_S = 60.0
# At the limit the server refuses chunks (or throws away streams): time to act before that.
_MEMORY_WARNING, _MEMORY_ALARM = 0.8, 0.95
_SHED = ("", "leaves out explanations", "scores every other window", "scores one window of four")


@dataclass(frozen=True, slots=True)
class Said:
    """One sentence, how much it matters, and which worker it is about, if it is about one."""

    level: Level
    text: str
    worker: str | None = None


def worker_state(worker: Worker) -> tuple[State, Said]:
    """Return a worker's state, the worst of what applies, and how to say it."""
    status = worker.status
    if worker.is_silent:
        return "silent", Said("alarm", f"silent for {duration(worker.silent_s)}")
    if status is None:
        return "unknown", Said("warning", "of another version: says nothing that can be read here")
    late = f"{status.behind_s:.1f} s behind"
    if status.shedding:
        text = _SHED[min(status.shedding, len(_SHED) - 1)]
        return "shedding", Said("warning", f"overloaded: {text}" + (f", {late}" * (status.behind_s > LATE_S)))
    if status.behind_s > LATE_S:
        return "behind", Said("warning", late)
    if status.recent_errors:
        times = "error" if status.recent_errors == 1 else "errors"
        return "failing", Said("warning", f"{status.recent_errors} {times} in the last minute")
    if not status.partitions:
        return "joining", Said("ok", "holds no partition yet")
    if not status.beds:
        return "idle", Said("ok", "ready, no feed yet")
    return "working", Said("ok", "works")


def problems(look: Look, pump_lag_s: float | None, pump_late_s: float) -> list[Said]:
    """Return what somebody should look at, the worst first.

    Parameters
    ----------
    look : Look
    pump_lag_s : float, optional
        How far the dashboard is behind the streams; None before it has begun.
    pump_late_s : float
        From where on that matters.
    """
    said = [*_of_workers(look), *_of_partitions(look), *_of_server(look)]
    if pump_lag_s is not None and pump_lag_s > pump_late_s:
        said.append(Said("warning", f"this dashboard is {duration(pump_lag_s)} behind: what it shows is old"))
    return sorted(said, key=lambda one: LEVELS.index(one.level))


def _of_workers(look: Look) -> list[Said]:
    said = []
    for worker in look.workers:
        state, says = worker_state(worker)
        if says.level != "ok":
            warning = worker.status.warning if worker.status and state == "failing" else None
            text = f"{worker.name}: {says.text}" + (f" ({warning.text})" if warning else "")
            said.append(Said(says.level, text, worker.name))
    if all(worker.is_silent for worker in look.workers) and _is_live(look):
        said.append(Said("alarm", "no worker scores the feeds that come in"))
    return said


def _of_partitions(look: Look) -> list[Said]:
    if all(worker.is_silent for worker in look.workers):
        return []
    live = [number for number, stream in enumerate(look.samples) if _recent(stream.newest_s, _LIVE_S)]
    orphans = [number for number in live if look.holder(number) is None]
    late = [
        number
        for number in live
        if number not in orphans and (look.samples[number].lag_s or 0) > _PARTITION_LATE_S
    ]
    said = []
    if orphans:
        said.append(Said("warning", f"no worker holds {_partitions(orphans)}, and feeds come in there"))
    if late:
        most = max(look.samples[number].lag_s or 0 for number in late)
        said.append(Said("warning", f"{_partitions(late)} up to {duration(most)} behind"))
    return said


def _of_server(look: Look) -> list[Said]:
    server, said = look.server, []
    share = server.used / server.limit if server.limit else 0.0
    if share > _MEMORY_WARNING:
        level: Level = "alarm" if share > _MEMORY_ALARM else "warning"
        said.append(Said(level, f"Redis uses {share:.0%} of the memory that it may use".replace("%", " %")))
    if server.limit and server.policy != "noeviction":
        said.append(
            Said(
                "warning", f"Redis may throw streams away (maxmemory-policy {server.policy}): set noeviction"
            )
        )
    if server.evicted:
        said.append(Said("alarm", f"Redis has thrown away {server.evicted} keys for lack of memory"))
    refused = [
        stream.newest_s
        for stream in look.topics.get(DEAD_LETTERS, ())
        if _recent(stream.newest_s, _REFUSED_S)
    ]
    if refused:
        said.append(
            Said("warning", "messages that cannot be read came in the last minute (topic dead-letters)")
        )
    return said


def _is_live(look: Look) -> bool:
    return any(_recent(stream.newest_s, _LIVE_S) for stream in look.samples)


def _recent(age_s: float | None, limit_s: float) -> bool:
    return age_s is not None and age_s <= limit_s


def _partitions(numbers: list[int]) -> str:
    return f"partition{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
