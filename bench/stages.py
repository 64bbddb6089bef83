"""Where the time of a finding went: each station's stamp against the one before it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from bench.histogram import LatencyHistogram, Nanoseconds
from bench.load import CHUNK_NS, phase_ns

STAGES = {
    "ingest": "due → the server has the chunk",
    "queue": "→ the worker takes it",
    "ready": "→ filtered, and a window complete",
    "batch_wait": "→ inference of its batch begins",
    "inference": "→ the model's answer is scored",
    "publish": "→ the worker hands the finding over",
    "deliver": "→ a subscriber has it",
    "batch_and_inference": "ready → the model's answer is scored",
    "publish_to_finding": "due → a subscriber has the finding",
    "publish_to_alert": "due → a subscriber has the alarm event",
}
"""What is measured, in order; the first seven add up to ``publish_to_finding``."""

# A stretch of time in which percentiles are looked at for drift: a thousand findings of 64 beds.
_BIN_S = 10.0
# A line through less than two minutes says nothing of an hour.
_FEWEST_BINS = 12


def stage_latencies(
    findings: npt.NDArray[Any], accepted: Nanoseconds, begin_ns: int, speed: float = 1.0
) -> dict[str, Nanoseconds]:
    """Return how long each finding took in each stage.

    Parameters
    ----------
    findings : numpy.ndarray of `bench.reader.ROW`
    accepted : numpy.ndarray of int64, shape (beds, chunks)
        When the server had each chunk.
    begin_ns : int
        Time of the first bed's first sample.
    speed : float
        Seconds of signal in a second.

    Returns
    -------
    dict of str to numpy.ndarray of int64
        ``batch_and_inference`` takes the place of its two parts where the worker does not say when inference
        began.
    """
    beds = len(accepted)
    phases = np.array([phase_ns(number, beds) for number in range(beds)], np.int64)
    # The chunk that completed the window: its ingest time is when it was due.
    passed = (findings["ingest_ns"] - begin_ns) * speed - phases[findings["bed"]]
    seq = np.rint(passed / CHUNK_NS).astype(np.int64) - 1
    stations = {
        "due": findings["ingest_ns"],
        "ingest": accepted[findings["bed"], np.clip(seq, 0, accepted.shape[1] - 1)],
        "queue": findings["dequeued_ns"],
        "ready": findings["ready_ns"],
        "batch_wait": findings["begun_ns"],
        "inference": findings["inferred_ns"],
        "publish": findings["published_ns"],
        "deliver": findings["received_ns"],
    }
    if not (findings["begun_ns"] > 0).all():
        del stations["batch_wait"]
        stations = {
            "batch_and_inference" if name == "inference" else name: at for name, at in stations.items()
        }
    latencies = {
        name: stations[name] - stations[before] for before, name in pairwise(stations) if name != "due"
    }
    return latencies | {"publish_to_finding": findings["received_ns"] - findings["ingest_ns"]}


def over_time(at_ns: Nanoseconds, latencies_ns: Nanoseconds) -> list[dict[str, float]]:
    """Return percentiles of stretches of ten seconds: ``at_s`` (their middle), ``p50_ms``, ``p99_ms``.

    Parameters
    ----------
    at_ns : numpy.ndarray of int64
        When each began, from the beginning of the measurement.
    latencies_ns : numpy.ndarray of int64
    """
    stretch = at_ns // int(_BIN_S * 1e9)
    rows = []
    for number in np.unique(stretch):
        histogram = LatencyHistogram(latencies_ns[stretch == number])
        rows.append(
            {
                "at_s": (float(number) + 0.5) * _BIN_S,
                "p50_ms": histogram.percentile_ms(50) or 0.0,
                "p99_ms": histogram.percentile_ms(99) or 0.0,
            }
        )
    return rows


def drift(rows: list[dict[str, float]]) -> dict[str, Any] | None:
    """Return whether the median grows over a run: ``ms_per_hour`` with its 95 % ``interval``.

    Parameters
    ----------
    rows : list of dict
        From `over_time`.

    Returns
    -------
    dict or None
        ``grows`` where the whole interval lies above zero. None with fewer stretches than make two minutes.
    """
    if len(rows) < _FEWEST_BINS:
        return None
    line = stats.linregress([row["at_s"] / 3600 for row in rows], [row["p50_ms"] for row in rows])
    margin = float(stats.t.ppf(0.975, len(rows) - 2) * line.stderr)
    interval = [round(float(line.slope) - margin, 2), round(float(line.slope) + margin, 2)]
    return {"ms_per_hour": round(float(line.slope), 2), "interval": interval, "grows": interval[0] > 0}
