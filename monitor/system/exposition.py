"""The dashboard's page for Prometheus. No label ever names a bed, a patient or a session.

Nothing is counted along the way: each page is made of a look at the deployment, and of one at this process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from monitor.system.deployment import Dashboard
from monitor.system.survey import Look, Worker
from stream.contract import AlarmKind, Priority
from stream.heartbeat import WorkerStatus

_MB = 2**20
# Of a worker that is heard of: metric, what it is, and where it stands in the worker's own words.
_GAUGES: tuple[tuple[str, str, Callable[[WorkerStatus], float | None]], ...] = (
    ("beds", "Beds that it holds", lambda status: status.beds),
    ("partitions", "Partitions of the samples that it holds", lambda status: len(status.partitions)),
    ("chunks_per_second", "Chunks taken, over ten seconds", lambda status: status.chunks_per_s),
    ("windows_per_second", "Windows judged, over ten seconds", lambda status: status.windows_per_s),
    ("behind_seconds", "Age of what it does next, against the newest chunk", lambda status: status.behind_s),
    ("shedding_step", "What it leaves out: 0 nothing, 1 explanations, 2, 3 windows", lambda s: s.shedding),
    ("cpu_cores", "Processors used, over ten seconds", lambda status: status.cpu),
    (
        "memory_bytes",
        "Resident memory",
        lambda status: None if status.rss_mb is None else status.rss_mb * _MB,
    ),
    ("start_time_seconds", "When it came up, since the epoch", lambda status: status.started / 1e9),
)


class Exposition:
    """Writes pages for Prometheus."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # Memory, processor time, open files and start of this process.
        ProcessCollector(registry=self._registry)
        self._families = _Families()
        self._registry.register(self._families)

    def page(self, look: Look | None, dashboard: Dashboard, accept: str) -> tuple[bytes, str]:
        """Return a page and its content type.

        Parameters
        ----------
        look : Look, optional
            None while the Redis server does not answer.
        dashboard : Dashboard
        accept : str
            The ``Accept`` header of who asks.
        """
        self._families.now = look, dashboard
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Families(Collector):
    now: tuple[Look | None, Dashboard] | None = None

    def collect(self) -> Iterator[Metric]:
        if self.now is None:
            return
        look, dashboard = self.now
        yield _gauge("bedside_dashboard_redis_up", "Whether the Redis server answers", look is not None)
        yield from _dashboard(dashboard)
        if look is not None:
            yield from _server(look)
            yield from _streams(look)
            yield _alarms("bedside_alarms_last_hour", "Alarms raised within the last hour", look.alarms)
            yield from _workers(look)


def _dashboard(dashboard: Dashboard) -> Iterator[Metric]:
    name = "bedside_dashboard_"
    if dashboard.pump_lag_s is not None:
        yield _gauge(
            f"{name}pump_lag_seconds", "Age of the oldest message that it has not taken", dashboard.pump_lag_s
        )
    yield _gauge(f"{name}sessions", "Pages that are open", dashboard.sessions)
    yield _gauge(f"{name}watched_beds", "Beds for which pages want explanations", dashboard.watched)
    yield _gauge(f"{name}followers", "Alarm streams and sockets of programs", dashboard.followers)
    yield _gauge(f"{name}beds", "Beds that it knows", dashboard.beds)
    malformed = CounterMetricFamily(f"{name}malformed_messages", "Messages that it could not read")
    malformed.add_metric([], dashboard.malformed)
    yield malformed
    yield _alarms("bedside_open_alarms", "Alarms that are open", dashboard.open_alarms)


def _server(look: Look) -> Iterator[Metric]:
    server = look.server
    yield _gauge("bedside_redis_memory_bytes", "Memory that the Redis server uses", server.used)
    yield _gauge("bedside_redis_memory_max_bytes", "Memory that it may use; 0: no limit", server.limit)
    yield _gauge("bedside_redis_clients", "Connections to the Redis server", server.clients)
    evicted = CounterMetricFamily("bedside_redis_evicted_keys", "Keys thrown away for lack of memory")
    evicted.add_metric([], server.evicted)
    yield evicted


def _streams(look: Look) -> Iterator[Metric]:
    entries = GaugeMetricFamily("bedside_topic_entries", "Messages that a topic holds", labels=["topic"])
    for topic, streams in look.topics.items():
        entries.add_metric([topic], sum(stream.entries for stream in streams))
    yield entries
    lag = GaugeMetricFamily(
        "bedside_partition_lag_seconds",
        "How much older the last chunk written down as done is than the newest one; up to 3 s is usual",
        labels=["partition"],
    )
    for number, stream in enumerate(look.samples):
        if stream.lag_s is not None:
            lag.add_metric([str(number)], stream.lag_s)
    yield lag


def _workers(look: Look) -> Iterator[Metric]:
    up = GaugeMetricFamily("bedside_worker_up", "Whether a worker is heard of", labels=["worker"])
    silent = GaugeMetricFamily(
        "bedside_worker_silent_seconds", "Since a worker was last heard of", labels=["worker"]
    )
    for worker in look.workers:
        up.add_metric([worker.name], not worker.is_silent)
        silent.add_metric([worker.name], worker.silent_s)
    yield up
    yield silent
    # What a dead one held, and how fast it was, is no longer so.
    speaking = [
        (worker, worker.status)
        for worker in look.workers
        if worker.status is not None and not worker.is_silent
    ]
    yield _info(speaking)
    for name, text, value_of in _GAUGES:
        family = GaugeMetricFamily(f"bedside_worker_{name}", text, labels=["worker"])
        for worker, status in speaking:
            value = value_of(status)
            if value is not None:
                family.add_metric([worker.name], value)
        yield family
    stages = GaugeMetricFamily(
        "bedside_worker_stage_seconds",
        "Time that windows spent in a stage, over a minute",
        labels=["worker", "stage", "quantile"],
    )
    errors = CounterMetricFamily("bedside_worker_errors", "Errors", labels=["worker", "kind"])
    for worker, status in speaking:
        for stage, spent in status.stages.items():
            stages.add_metric([worker.name, stage, "0.5"], spent.p50_ms / 1e3)
            stages.add_metric([worker.name, stage, "0.99"], spent.p99_ms / 1e3)
        for kind, count in status.errors.items():
            errors.add_metric([worker.name, kind], count)
    yield stages
    yield errors


def _info(speaking: list[tuple[Worker, WorkerStatus]]) -> Metric:
    family = InfoMetricFamily("bedside_worker", "What a worker runs", labels=["worker"])
    for worker, status in speaking:
        about = {name: getattr(status, name) for name in ("model", "backend", "precision", "version")}
        family.add_metric([worker.name], about)
    return family


def _alarms(name: str, text: str, counts: Counter[Any]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["priority", "kind"])
    for priority in Priority:
        for kind in AlarmKind:
            family.add_metric([priority.value, kind.value], counts[priority, kind])
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
