"""What a worker counts for Prometheus. No label ever names a bed, a patient or a session."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram, Info

from stream.engine import Pending

# From half a millisecond (a wake-up over a unix socket) to the ten seconds that an alarm may take.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

MODEL = Info("bedside_model", "Model and backend that score the windows")
BEDS = Gauge("bedside_beds", "Beds whose feed this worker has heard")
CHUNKS = Counter("bedside_chunks", "Sample chunks taken from the stream")
LEFT_OUT = Counter("bedside_chunks_left_out", "Chunks not used", ["why"])
GAPS = Counter("bedside_gaps", "Holes in a feed's sample numbers")
MISSING = Counter("bedside_missing_samples", "Samples that never came")
DEAD_LETTERS = Counter("bedside_dead_letters", "Messages that are not of the contract")
WINDOWS = Counter("bedside_windows", "Windows completed", ["outcome"])
FINDINGS = Counter("bedside_findings", "Findings published")
ALARM_EVENTS = Counter("bedside_alarm_events", "Alarm transitions published", ["kind", "presence"])
LAG = Gauge("bedside_lag_seconds", "Age of the chunk taken last, by its ingest time")
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


def observe_batch(windows: Sequence[Pending], begun_ns: int, inferred_ns: int, published_ns: int) -> None:
    """Observe how long each window of a batch spent in each stage.

    Parameters
    ----------
    windows : sequence of Pending
    begun_ns, inferred_ns, published_ns : int
        When the model began, when it had answered, and when the server had everything.
    """
    if windows:
        BATCH.observe(len(windows))
    for window in windows:
        stages = {
            "queue": window.dequeued_ns - window.moment.ingest_ns,
            "prepare": window.ready_ns - window.dequeued_ns,
            "wait": begun_ns - window.ready_ns,
            "inference": inferred_ns - begun_ns,
            "publish": published_ns - inferred_ns,
            "total": published_ns - window.moment.ingest_ns,
        }
        for stage, spent_ns in stages.items():
            STAGE.labels(stage).observe(spent_ns / 1e9)
