"""Metrics: nothing that names a person, and the stages of a window."""

from __future__ import annotations

from prometheus_client import REGISTRY

import ingest.metrics
from stream import metrics

# Few values each, known beforehand. A bed, a session or a patient is never a label: it would leak, and grow.
ALLOWED = {"why", "outcome", "kind", "presence", "priority", "stage", "le", "model", "backend", "precision"}


def test_no_label_names_a_bed_a_session_or_a_patient() -> None:
    assert ingest.metrics.CHUNKS is not None
    metrics.LEFT_OUT.labels("repeat").inc(0)
    metrics.STAGE.labels("total").observe(0.01)
    labels = {
        label
        for family in REGISTRY.collect()
        if family.name.startswith("bedside")
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= ALLOWED
    assert {"why", "stage"} <= labels
