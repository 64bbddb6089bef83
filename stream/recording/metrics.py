"""What a recorder counts for Prometheus. No label ever names a bed, a patient or a session."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

BEDS = Gauge("bedside_recorder_beds", "Beds whose segment is being written")
CHUNKS = Counter("bedside_recorder_chunks", "Sample chunks recorded")
BEHIND = Gauge("bedside_recorder_behind_seconds", "Age of the newest chunk when the disk had it")
WAITING = Gauge("bedside_recorder_waiting", "1 while the disk takes nothing")
BYTES = Gauge("bedside_recorder_bytes", "Size of all recordings, looked at once a minute")
