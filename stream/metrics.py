"""What a worker counts for Prometheus. No label ever names a bed, a patient or a session."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from prometheus_client import Counter, Gauge, Histogram, Info

from stream.contract import AlarmEvent, SampleChunk
from stream.engine import Accepted, Pending
from stream.latency import STAGES, RecentLatencies

# From half a millisecond (a wake-up over a unix socket) to the ten seconds that an alarm may take.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

MODEL = Info("bedside_model", "Model and backend that score the windows")
MODELS = Gauge("bedside_models", "Models loaded: the worker's own, and those chosen for beds")
BEDS = Gauge("bedside_beds", "Beds whose feed this worker has heard")
CHUNKS = Counter("bedside_chunks", "Sample chunks taken from the stream")
LEFT_OUT = Counter("bedside_chunks_left_out", "Chunks not used", ["why"])
GAPS = Counter("bedside_gaps", "Holes in a feed's sample numbers")
MISSING = Counter("bedside_missing_samples", "Samples that never came")
DEAD_LETTERS = Counter("bedside_dead_letters", "Messages that are not of the contract")
WINDOWS = Counter("bedside_windows", "Windows completed", ["outcome"])
_SCORED, _UNSCORED = WINDOWS.labels("scored"), WINDOWS.labels("unscored")
FINDINGS = Counter("bedside_findings", "Findings published")
ALARM_EVENTS = Counter("bedside_alarm_events", "Alarm transitions published", ["kind", "presence"])
ALARMS = Counter("bedside_alarms_raised", "Alarms raised", ["kind", "priority"])
SHEDDING = Gauge(
    "bedside_shedding_step", "What the worker leaves out: 0 nothing, 1 explanations, from 2 on windows, too"
)
FALLBACKS = Counter("bedside_backend_fallbacks", "Backends that could not be used", ["backend"])
ALARMS_AT_RISK = Gauge(
    "bedside_alarms_at_risk", "1 while no replica, or not the file, had the last alarms when it was asked"
)
MODEL_FAILURES = Counter("bedside_model_failures", "Batches on which the model failed")
SNAPSHOTS = Counter("bedside_snapshots", "Alarm snapshots", ["outcome"])
SNAPSHOT_TIME = Histogram(
    "bedside_snapshot_seconds", "Time that it takes to read back, make and store one", buckets=_SECONDS
)
LAG = Gauge("bedside_lag_seconds", "Age of the chunk taken last, by its ingest time")
CLOCK_SKEW = Gauge(
    "bedside_clock_skew_seconds",
    "How far the clock of any device has moved away from the worker's since its feed began, the most of all",
)
BATCH = Histogram(
    "bedside_batch_windows", "Windows in one run of the model", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
STAGE = Histogram(
    "bedside_stage_seconds",
    "Time that a window spends in each stage: queue (ingest to worker), prepare, wait, inference, publish;"
    " total is ingest to published",
    ["stage"],
    buckets=_SECONDS,
)


_STAGES = [STAGE.labels(stage) for stage in STAGES]
LATENCIES = RecentLatencies()


def total(counter: Counter) -> int:
    """Return the sum of a counter over all of its labels."""
    (family,) = counter.collect()
    return round(sum(sample.value for sample in family.samples if sample.name.endswith("_total")))


def observe_event(event: AlarmEvent) -> None:
    """Count a transition of an alarm."""
    ALARM_EVENTS.labels(event.kind, event.presence).inc()
    if event.number == 0:
        ALARMS.labels(event.kind, event.priority).inc()


def observe_chunk(chunk: SampleChunk, accepted: Accepted, now_ns: int) -> None:
    """Count a chunk that was taken at `now_ns`."""
    LAG.set((now_ns - chunk.header.ingest_ns) / 1e9)
    if accepted.dropped:
        LEFT_OUT.labels(accepted.dropped).inc()
    if accepted.missing:
        GAPS.inc()
        MISSING.inc(accepted.missing)


def observe_batch(windows: Sequence[Pending], scored: int) -> None:
    """Count windows that were judged together, and observe how long each spent in each stage.

    Parameters
    ----------
    windows : sequence of Pending
        With all their times.
    scored : int
        How many of them got a score.
    """
    if not windows:
        return
    BATCH.observe(len(windows))
    _SCORED.inc(scored)
    _UNSCORED.inc(len(windows) - scored)
    times = [
        (
            window.moment.ingest_ns,
            window.dequeued_ns,
            window.ready_ns,
            window.begun_ns,
            window.inferred_ns,
            window.published_ns,
        )
        for window in windows
    ]
    LATENCIES.add(times)
    for one in times:
        for stage, (begin, end) in zip(_STAGES, pairwise(one), strict=False):
            stage.observe((end - begin) / 1e9)
        _STAGES[-1].observe((one[-1] - one[0]) / 1e9)
