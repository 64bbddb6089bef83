"""What an analysis says, in words: the same on the terminal, in pictures and in annotations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from stream.offline import Analysis
from stream.snapshots.hindsight import analysis_of
from stream.snapshots.store import Snapshot
from stream.statement import duration, why_not_scored

# Mean signal quality of a lead from which nothing is said about it.
_GOOD = 0.8


def maps_not_shown(analysis: Analysis) -> str:
    """Return what the model says but what is not shown, with the reasons; empty if there is no such thing."""
    return "; ".join(
        f"{name.replace('_', ' ')}, {found.why_not}"
        for name, found in analysis.explanations.items()
        if not found.shown
    )


def lead_means(analysis: Analysis) -> list[tuple[str, float]]:
    """Return each lead's mean score over the windows that it took part in, the highest first."""
    scores: dict[str, list[float]] = {}
    for window in analysis.windows:
        for lead, score in window.lead_scores.items():
            scores.setdefault(lead, []).append(score)
    means = [(lead, float(np.mean(values))) for lead, values in scores.items()]
    return sorted(means, key=lambda item: item[1], reverse=True)


def described(analysis: Analysis) -> str:
    """Return the analysis as lines for a terminal."""
    statement = analysis.statement
    lines = [f"{analysis.record}: {statement.headline}"]
    lines += [f"  {sentence}" for sentence in statement.sentences]
    lines.append(f"  {duration(analysis.duration_s)}, {analysis.fs:g} Hz, {' '.join(analysis.leads)}")
    if analysis.windows:
        lines.append(
            "  by lead: " + "  ".join(f"{lead} {score:+.1f}" for lead, score in lead_means(analysis))
        )
    skipped = why_not_scored(analysis)
    if skipped and not any(skipped in sentence for sentence in statement.sentences):
        lines.append(f"  windows not scored: {skipped}")
    if poor := [f"{lead} {mean:.2f}" for lead, mean in analysis.quality.items() if mean < _GOOD]:
        lines.append(f"  signal quality (1 is good): {', '.join(poor)}")
    if hidden := maps_not_shown(analysis):
        lines.append(f"  not shown: {hidden}")
    for alarm in analysis.alarms:
        end = f"to {duration(alarm.end_s)}" if alarm.end_s is not None else "and lasts"
        lines.append(
            f"  alarm, {alarm.priority} priority: {alarm.message}, from {duration(alarm.onset_s)} {end}"
        )
    return "\n".join(lines)


def described_snapshot(snapshot: Snapshot) -> str:
    """Return what a snapshot holds as lines for a terminal."""
    header, alarm = snapshot.header, snapshot.header.alarm
    lines = [f"{alarm.bed}: {alarm.message} ({alarm.priority} priority, alarm {alarm.alarm})"]
    if header.fs:
        lines.append(
            f"  {duration(snapshot.seconds)}, {header.fs:g} Hz, {' '.join(header.leads)};"
            f" onset at {snapshot.onset_s:.1f} s, raised at {snapshot.raised_s:.1f} s"
        )
    analysis = analysis_of(snapshot, alarm.alarm)
    if windows := analysis.windows:
        over = sum(window.anomalous for window in windows)
        highest = max(window.score for window in windows)
        lines.append(
            f"  {over} of {len(windows)} windows over the alarm threshold {header.threshold:.2f},"
            f" highest score {highest:.2f} (model {header.model})"
        )
        means = "  ".join(f"{lead} {score:+.1f}" for lead, score in lead_means(analysis))
        lines.append(f"  by lead: {means}")
    lines += [f"  {remark}" for remark in header.remarks]
    return "\n".join(lines)


def snapshot_fields(snapshot: Snapshot) -> dict[str, Any]:
    """Return what a snapshot says but its arrays, for JSON; seconds count from its first sample."""
    header = snapshot.header
    analysis = analysis_of(snapshot, header.alarm.alarm)
    return {
        **header.model_dump(mode="json", exclude={"arrays"}),
        "duration_s": snapshot.seconds,
        "onset_s": snapshot.onset_s,
        "raised_s": snapshot.raised_s,
        "windows": [asdict(window) for window in analysis.windows],
        "beats_s": analysis.beats_s,
        "gaps_s": [[start / header.fs, end / header.fs] for start, end in snapshot.gaps()],
    }
