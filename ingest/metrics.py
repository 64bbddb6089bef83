"""What ingest counts for Prometheus. No label names a patient, a bed or a session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client import Counter, Gauge

from stream.contract import INVALID, SampleChunk

BEDS = Gauge("bedside_ingest_beds", "Beds being fed at the moment.")
CHUNKS = Counter("bedside_ingest_chunks", "Sample chunks published.")
BYTES = Counter("bedside_ingest_bytes", "Bytes of sample chunks published.")
INVALID_SAMPLES = Counter(
    "bedside_ingest_invalid_samples", "Samples published that are marked as invalid (gaps, leads off)."
)
BEHIND = Gauge("bedside_ingest_behind_seconds", "How far the latest chunks were behind their schedule.")
DROPPED_SAMPLES = Counter("bedside_ingest_dropped_samples", "Samples that came again, or too late.")
REFUSED = Counter("bedside_ingest_refused", "Messages of devices, or pieces of them, that were not taken.")
DEVICE_CLOCK = Gauge(
    "bedside_ingest_device_clock_seconds",
    "By how much the device's clock that is furthest off is behind ours (negative: ahead).",
)


def observe(chunks: Sequence[SampleChunk], values: Sequence[bytes]) -> None:
    """Count chunks that were published, and the bytes that they were on the wire."""
    CHUNKS.inc(len(chunks))
    BYTES.inc(sum(map(len, values)))
    INVALID_SAMPLES.inc(sum(int(np.count_nonzero(chunk.samples == INVALID)) for chunk in chunks))
