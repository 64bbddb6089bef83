"""What the bed view says of a bed, as plain data for the browser."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from models.bundle import BundleError, list_bundles, load_bundle
from monitor.live.ward import Bed, Feed
from monitor.summary import alarm_line, is_current, number, state_line
from stream.contract import Finding, Validity
from stream.explain import hidden_maps

# A loss is told for as long as it takes to look up; the gap in the trace has gone by then.
_MISSING_SHOWN_NS = 60_000_000_000
# Less is no matter to anybody who compares two clocks.
_SKEW_SHOWN_S = 0.5
# Vitals come once a second; those of longer ago say nothing of now.
_RATED_NS = 3_000_000_000
_ISSUES = {"off": "lead off", "powerline": "mains hum", "baseline": "baseline wander"}
_FLAGS = {Validity.OFF: "lead off"}


def bed_words(bed: Bed, now_ns: int, runs_on: str = "") -> dict[str, Any]:
    """Return what is to be said of a bed beside its traces.

    Parameters
    ----------
    bed : Bed
    now_ns : int
    runs_on : str
        Backend and precision by which it is judged; empty if nobody knows.
    """
    finding, device_ns = bed.finding, bed.device_time(now_ns)
    state, _, text = state_line(bed, now_ns)
    rate = bed.heart_rate(now_ns)
    said: dict[str, Any] = {
        "bed": bed.name,
        "alarms": [alarm_line(event, device_ns, bed.text_of(event)) for event in bed.open_alarms()],
        "state": state,
        "text": text,
        "leads": lead_notes(bed, bed.feed, now_ns) if bed.feed else {},
        "rate": "–" if rate is None else f"{rate:.0f}",
        "missing": _troubles(bed, bed.feed, now_ns) if bed.feed else "",
        "model": finding.model if finding else "",
        "hidden": not_drawn(finding.model) if finding else "",
        "runs_on": "",
        "latency": "",
        "score": "–",
        "threshold": number(finding.threshold) if finding else "–",
        "percentile": "",
        "over": False,
    }
    if finding is not None and finding.score is not None and is_current(bed, now_ns):
        said["runs_on"], said["latency"] = runs_on, latency(finding)
        said["score"], said["over"] = number(finding.score), finding.anomalous
        if finding.percentile is not None:
            said["percentile"] = f"{min(finding.percentile, 99.0):.0f}"
    return said


def lead_notes(bed: Bed, feed: Feed, now_ns: int) -> dict[str, dict[str, str]]:
    """Return what is wrong with the signal of a lead, or unusual in it; only of leads of which there is."""
    notes: dict[str, dict[str, str]] = {}
    finding, vitals = bed.finding, bed.vitals
    if finding is not None and finding.session == feed.session and is_current(bed, now_ns):
        for lead, score in finding.lead_scores.items():
            if score > finding.threshold:
                notes[lead] = {"style": "over", "text": f"▲ {number(score)}"}
    if vitals is not None and vitals.session == feed.session:
        behind_s = (feed.ring.stop - vitals.end) / feed.fs
        if behind_s * 1e9 < _RATED_NS * max(feed.pace, 1.0):
            for lead, issues in vitals.issues.items():
                if issues:
                    words = ", ".join(_ISSUES.get(issue, issue) for issue in issues)
                    notes[lead] = {"style": "poor", "text": words}
    for lead, flag in zip(feed.leads, feed.valid, strict=True):
        if flag is not Validity.OK:
            notes[lead] = {"style": "poor", "text": _FLAGS.get(flag, flag.value)}
    return notes


def latency(finding: Finding) -> str:
    """Return how long after its last sample had come in a window was judged; empty if nobody can tell."""
    stamps = finding.stamps
    done_ns = stamps.published_ns or stamps.inferred_ns
    took_ms = (done_ns - stamps.ingest_ns) / 1e6
    if not done_ns or not math.isfinite(took_ms) or took_ms < 0:
        return ""
    return f"{took_ms:.0f} ms" if took_ms < 1000 else f"{took_ms / 1000:.1f} s"


@lru_cache(maxsize=64)
def not_drawn(model: str) -> str:
    """Return which maps of a model are not drawn and why; empty if all are, or nobody knows the model."""
    if model not in list_bundles():
        return ""
    try:
        hidden = hidden_maps(load_bundle(model).manifest)
    except BundleError:
        return ""
    return "; ".join(f"{name.replace('_', ' ')}: {why}" for name, why in hidden.items())


def _troubles(bed: Bed, feed: Feed, now_ns: int) -> str:
    said = []
    if feed.missing and now_ns - feed.missed_ns < _MISSING_SHOWN_NS:
        said.append(f"{feed.missing / feed.fs:.1f} s of signal lost")
    skew_s = bed.vitals.clock_skew_s if bed.vitals and bed.vitals.session == feed.session else None
    if skew_s is not None and abs(skew_s) >= _SKEW_SHOWN_S:
        said.append(f"device clock {abs(skew_s):.1f} s {'behind' if skew_s > 0 else 'ahead'}")
    return "; ".join(said)
