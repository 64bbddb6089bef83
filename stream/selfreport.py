"""What a worker says of itself with each sign of life: gathered here, written by `stream.heartbeat`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from models.session import Session
from stream import metrics
from stream.heartbeat import STATUS_VERSION, Warned, WorkerStatus
from stream.usage import cpu_seconds, package_version, resident_mb

# Rates are told over so long: steady with a bed's two windows a second.
_RATE_NS = 10_000_000_000
# Errors of the last minute are news.
_RECENT_NS = 60_000_000_000
# A line for a person; the whole of it is in the log.
_WARNING_CHARACTERS = 240
# What Faust and other libraries warn of and matters, we warn of in our own words.
_LOGGERS = ("stream", "models")

_ERRORS = {
    "dead letters": metrics.DEAD_LETTERS,
    "model failures": metrics.MODEL_FAILURES,
    "snapshots failed": metrics.SNAPSHOTS.labels("failed"),
}


class _Sample(NamedTuple):
    at_ns: int
    chunks: int
    windows: int
    errors: int
    cpu_s: float


class SelfReport:
    """Puts together what a worker says of itself.

    Parameters
    ----------
    session : Session
        The loaded model.
    fallback : str, optional
        See `stream.heartbeat.WorkerStatus`.
    now_ns : int
        The worker comes up now.
    """

    def __init__(self, session: Session, fallback: str | None, now_ns: int) -> None:
        self._session = session
        self._fallback = fallback
        self._started_ns = now_ns
        self._samples = deque([_sample(now_ns)])
        self._warnings = _LastWarning()
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self._warnings)

    def take(
        self, now_ns: int, *, beds: int, partitions: Collection[int], behind_s: float, shedding: int
    ) -> WorkerStatus:
        """Return what is to be said now; for the parameters see `stream.heartbeat.WorkerStatus`."""
        now = _sample(now_ns)
        self._samples.append(now)
        while now_ns - self._samples[1].at_ns >= _RECENT_NS:
            self._samples.popleft()
        before = self._samples[0]
        for sample in self._samples:
            if now_ns - sample.at_ns >= _RATE_NS:
                before = sample
        seconds = max(1e-9, (now_ns - before.at_ns) / 1e9)
        metrics.LATENCIES.turn(now_ns)
        session = self._session
        return WorkerStatus(
            v=STATUS_VERSION,
            at=now_ns,
            started=self._started_ns,
            version=package_version(),
            model=session.manifest.name,
            backend=session.backend,
            precision=session.precision,
            fallback=self._fallback,
            beds=beds,
            partitions=tuple(sorted(partitions)),
            chunks_per_s=round((now.chunks - before.chunks) / seconds, 1),
            windows_per_s=round((now.windows - before.windows) / seconds, 1),
            behind_s=round(behind_s, 3),
            shedding=shedding,
            stages=metrics.LATENCIES.spent(),
            cpu=round((now.cpu_s - before.cpu_s) / seconds, 3),
            rss_mb=resident_mb(),
            errors={kind: metrics.total(counter) for kind, counter in _ERRORS.items()},
            recent_errors=now.errors - self._samples[0].errors,
            warning=self._warnings.newest,
        )

    def close(self) -> None:
        """Listen to the log no longer."""
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self._warnings)


def _sample(now_ns: int) -> _Sample:
    return _Sample(
        now_ns,
        metrics.total(metrics.CHUNKS),
        metrics.total(metrics.WINDOWS),
        sum(metrics.total(counter) for counter in _ERRORS.values()),
        cpu_seconds(),
    )


class _LastWarning(logging.Handler):
    # Keeps the newest warning or error.

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.newest: Warned | None = None

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        self.newest = Warned(at=round(record.created * 1e9), text=text[:_WARNING_CHARACTERS])
