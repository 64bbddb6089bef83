from __future__ import annotations

import json
import logging

import pytest

from models.session import Session
from stream import metrics
from stream.heartbeat import WorkerStatus
from stream.selfreport import SelfReport

S = 1_000_000_000


def take(report: SelfReport, second: float) -> WorkerStatus:
    return report.take(round(second * S), beds=2, partitions={3, 0}, behind_s=0.25, shedding=1)


def test_rates_are_those_of_ten_seconds_and_errors_of_a_minute_are_news(shipped: Session) -> None:
    report = SelfReport(shipped, None, 0)
    try:
        before = take(report, 0.5)
        for second in range(1, 31):
            metrics.CHUNKS.inc(40)
            metrics.WINDOWS.labels("scored").inc(10)
            status = take(report, second)
        assert (status.chunks_per_s, status.windows_per_s) == (40.0, 10.0)
        metrics.MODEL_FAILURES.inc()
        failed = take(report, 31)
        assert (before.recent_errors, failed.recent_errors) == (0, 1)
        assert failed.errors["model failures"] - before.errors["model failures"] == 1
        for second in range(32, 93):
            status = take(report, second)
        assert (status.recent_errors, status.chunks_per_s) == (0, 0.0)
        assert status.errors["model failures"] == failed.errors["model failures"]
        assert (status.beds, status.partitions, status.behind_s, status.shedding) == (2, (0, 3), 0.25, 1)
        assert (status.model, status.backend, status.started) == ("cae-100hz", "onnxruntime", 0)
    finally:
        report.close()


def test_the_newest_warning_of_our_own_log_is_told(
    shipped: Session, caplog: pytest.LogCaptureFixture
) -> None:
    report = SelfReport(shipped, "onnxruntime, not openvino", 0)
    try:
        logging.getLogger("stream.worker").info("nothing")
        logging.getLogger("elsewhere").warning("not ours")
        assert take(report, 1).warning is None
        logging.getLogger("stream.scorer").error("the model\nfailed on %d windows", 3)
        status = take(report, 2)
        assert status.warning is not None
        assert status.warning.text == "the model failed on 3 windows"
        # As it travels, from a later version with more to say.
        wire = json.dumps(status.model_dump(exclude_none=True) | {"mood": "good"})
        assert WorkerStatus.model_validate_json(wire) == status
        assert len(wire) < 1_000
    finally:
        report.close()
    logging.getLogger("stream.scorer").warning("later")
    assert take(report, 3).warning == status.warning
