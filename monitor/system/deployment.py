"""What the system view, programs and Prometheus are told of, put together in one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from redis.exceptions import RedisError

from monitor.api.access import Access
from monitor.system.survey import Look, Survey, Worker
from monitor.system.words import LEVELS, problems, worker_state
from stream.contract import AlarmKind, Priority
from stream.usage import cpu_seconds, package_version, resident_mb

PUMP_LATE_S = 5.0
"""A pump further behind than this is not ready: what the pages show is no longer live."""

_MB = 2**20


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What this process says of itself.

    Attributes
    ----------
    pump_lag_s : float, optional
        For how long the oldest message that it has not taken has waited; None before it has begun, or while
        the server does not answer.
    sessions : int
        Pages that are open.
    watched : int
        Beds for which they want explanations.
    followers : int
        Alarm streams and sockets of programs.
    beds : int
    malformed : int
        Messages that could not be read, since the start.
    open_alarms : Counter of (Priority, AlarmKind)
    cpu : float
        Processors used of late.
    rss_mb : float, optional
    """

    pump_lag_s: float | None
    sessions: int
    watched: int
    followers: int
    beds: int
    malformed: int
    open_alarms: Counter[tuple[Priority, AlarmKind]]
    cpu: float
    rss_mb: float | None


class Deployment:
    """Looks at the deployment, and at this process.

    Parameters
    ----------
    access : Access
    sessions : callable
        Returns how many pages are open.
    """

    def __init__(self, access: Access, sessions: Callable[[], int]) -> None:
        self._access = access
        self._sessions = sessions
        self._survey = Survey(access.redis_url, access.prefix, access.clock)
        self._cpu = 0.0
        self._used = (access.clock.now_ns(), cpu_seconds())

    async def close(self) -> None:
        await self._survey.close()

    async def look(self) -> Look:
        """Return the deployment; see `monitor.system.survey.Survey.look`."""
        return await self._survey.look()

    async def dashboard(self, *, lost: bool = False) -> Dashboard:
        """Return what this process can say of itself; it needs no server for that.

        Parameters
        ----------
        lost : bool
            The server is known not to answer: then it is not asked again how far behind the page is, which
            takes longer than Prometheus waits.
        """
        pump, ward = self._access.pump, self._access.pump.ward
        try:
            pump_lag_s = None if lost else await pump.behind_s()
        except (RedisError, OSError):
            pump_lag_s = None
        events = [event for bed in ward.beds.values() for event in bed.open_alarms()]
        events += ward.everywhere.values()
        return Dashboard(
            pump_lag_s=pump_lag_s,
            sessions=self._sessions(),
            watched=len(pump.watched),
            followers=self._access.followers,
            beds=len(ward.beds),
            malformed=pump.malformed,
            open_alarms=Counter((event.priority, event.kind) for event in events),
            cpu=self._cpu_share(),
            rss_mb=resident_mb(),
        )

    def _cpu_share(self) -> float:
        # Since an earlier look, but not over less than a second: processor time is told in hundredths of one.
        (then_ns, then_s), now = self._used, (self._access.clock.now_ns(), cpu_seconds())
        if (seconds := (now[0] - then_ns) / 1e9) >= 1:
            self._cpu, self._used = round((now[1] - then_s) / seconds, 3), now
        return self._cpu

    async def unready(self) -> list[str]:
        """Return why nobody should be sent to this dashboard now; nothing if it is ready."""
        pump = self._access.pump
        silence = "the Redis server does not answer"
        if pump.lost_since_ns is not None:
            return [silence]
        try:
            behind_s = await pump.behind_s()
        except (RedisError, OSError):
            return [silence]
        if behind_s is None:
            return ["has just started, and does not know yet where the streams stand"]
        return [f"{behind_s:.1f} s behind the streams"] if behind_s > PUMP_LATE_S else []


def as_json(look: Look, dashboard: Dashboard) -> dict[str, Any]:
    """Return what ``/api/system`` answers (docs/operations.md)."""
    server = look.server
    return {
        "at_ms": look.now_ms,
        "version": package_version(),
        "problems": [asdict(said) for said in problems(look, dashboard.pump_lag_s, PUMP_LATE_S)],
        # Those that somebody should look at come first.
        "workers": sorted(
            (_worker(worker) for worker in look.workers),
            key=lambda worker: (LEVELS.index(worker["level"]), worker["name"]),
        ),
        "partitions": [
            {
                "partition": number,
                "worker": look.holder(number),
                "entries": stream.entries,
                "newest_s": stream.newest_s,
                "lag_s": stream.lag_s,
            }
            for number, stream in enumerate(look.samples)
        ],
        "topics": [
            {
                "topic": topic,
                "partitions": len(streams),
                "entries": sum(stream.entries for stream in streams),
                "newest_s": min((s.newest_s for s in streams if s.newest_s is not None), default=None),
            }
            for topic, streams in look.topics.items()
        ],
        "redis": {
            "version": server.version,
            "used_mb": round(server.used / _MB, 1),
            "max_mb": round(server.limit / _MB, 1) if server.limit else None,
            "policy": server.policy,
            "clients": server.clients,
            "evicted": server.evicted,
            "append_only_file": server.keeps,
        },
        "alarms": {
            "last_hour": _by_priority(look.alarms),
            "open": _by_priority(dashboard.open_alarms),
        },
        "dashboard": {
            "pump_lag_s": dashboard.pump_lag_s,
            "sessions": dashboard.sessions,
            "watched": dashboard.watched,
            "followers": dashboard.followers,
            "beds": dashboard.beds,
            "malformed": dashboard.malformed,
            "cpu": dashboard.cpu,
            "rss_mb": dashboard.rss_mb,
        },
    }


def _worker(worker: Worker) -> dict[str, Any]:
    state, says = worker_state(worker)
    return {
        "name": worker.name,
        "state": state,
        "level": says.level,
        "says": says.text,
        "since_ms": worker.since_ms,
        "silent_s": worker.silent_s,
        "status": worker.status.model_dump(mode="json") if worker.status else None,
    }


def _by_priority(counts: Counter[Any]) -> dict[str, int]:
    found = {str(priority): 0 for priority in Priority}
    for (priority, _), count in counts.items():
        found[str(priority)] += count
    return found
