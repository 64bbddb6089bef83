"""The report of a pack: what it holds, what was left out, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from stream.leads import LEADS
from training.pack import GAIN
from training.preprocess.catalogue import UNREADABLE, UNWANTED, WHY, Catalogue, Reason

# What of each reason the report names; the complete list is a table of its own.
_EXAMPLES = 5
_SHOWN = 3

UNREADABLE_LIMIT = 0.01
"""Share of damaged records beyond which a copy of a data set is not to be trusted. The published ones hold a
handful among tens of thousands; an interrupted download loses whole folders."""

_SPLITS = ("train", "val", "test")


def report_of(lines: Iterable[Mapping[str, Any]], catalogue: Catalogue, source: str) -> dict[str, Any]:
    """Count what became of the records.

    Parameters
    ----------
    lines : iterable of mapping
        One for each settled record (see `training.preprocess.store.Store.lines`).
    catalogue : Catalogue
    source : str
        Name of the folder.

    Returns
    -------
    dict
        For JSON; see ``docs/training-data.md``. It says nothing of time, place or machine: the same records
        give the same report.
    """
    kept, seconds, clipped = 0, 0.0, 0
    groups: dict[str, Counter[str]] = {split: Counter() for split in _SPLITS}
    datasets: dict[str, Counter[str]] = {}
    splits_of: dict[tuple[str, str], set[str]] = {}
    left_out: Counter[Reason] = Counter()
    examples: dict[Reason, list[dict[str, str]]] = {}
    for line in lines:
        if "offset" not in line:
            reason = Reason(line["reason"])
            left_out[reason] += 1
            if left_out[reason] <= _EXAMPLES:
                examples.setdefault(reason, []).append(
                    {key: line[key] for key in ("record", "path", "detail") if line[key]}
                )
            continue
        kept += 1
        seconds += line["samples"] / line["fs"]
        clipped += line["clipped"]
        kind = "normal" if not line["label"] else "rhythm_only" if line["rhythm_only"] else "abnormal"
        for counts in (groups[line["split"]], datasets.setdefault(line["dataset"], Counter())):
            counts[kind] += 1
        if line["patient_id"]:
            splits_of.setdefault((line["dataset"], line["patient_id"]), set()).add(line["split"])
    # Not of those that nobody wanted to read.
    read = kept + sum(count for reason, count in left_out.items() if reason not in UNWANTED)
    unreadable = sum(left_out[reason] for reason in UNREADABLE)
    return {
        "dataset": catalogue.name,
        "source": source,
        "split_by": catalogue.split_by,
        "listed": catalogue.total,
        "records": kept + left_out.total(),
        "kept": kept,
        "hours": round(seconds / 3600, 3),
        "patients": len(splits_of),
        "patients_in_two_splits": sum(len(splits) > 1 for splits in splits_of.values()),
        "splits": {split: _kinds(counts) for split, counts in groups.items()},
        "datasets": {name: _kinds(counts) for name, counts in sorted(datasets.items())},
        "left_out": {
            reason.value: {"count": left_out[reason], "why": WHY[reason], "examples": examples[reason]}
            for reason in Reason
            if left_out[reason]
        },
        "unreadable": unreadable,
        "unreadable_share": round(unreadable / read, 5) if read else 0.0,
        "clipped_samples": clipped,
        "signals": {"leads": list(LEADS), "lsb_per_mv": GAIN},
    }


def _kinds(counts: Counter[str]) -> dict[str, int]:
    return {kind: counts[kind] for kind in ("normal", "abnormal", "rhythm_only")}


def described(report: Mapping[str, Any]) -> str:
    """Return a report as lines for people."""
    lines = [
        f"{report['source']}: {report['kept']} of {report['records']} records kept,"
        f" {report['hours']:.1f} hours" + (f", {report['patients']} patients" if report["patients"] else ""),
        f"  {'':20}{'normal':>10}{'abnormal':>10}{'rhythm only':>13}",
    ]
    rows = {**report["splits"], **(report["datasets"] if len(report["datasets"]) > 1 else {})}
    for name, kinds in rows.items():
        lines.append(
            f"  {name:20}{kinds['normal']:>10}{kinds['abnormal']:>10}{kinds['rhythm_only']:>13}".rstrip()
        )
    lines.append(f"  split by {report['split_by']}")
    if report["records"] < report["listed"]:
        lines.append(f"  stopped at --limit, after {report['records']} of {report['listed']} records")
    if report["patients_in_two_splits"]:
        lines.append(
            f"  WARNING: {report['patients_in_two_splits']} patients are in two splits, by the table itself"
        )
    if report["clipped_samples"]:
        lines.append(f"  {report['clipped_samples']} samples beyond +-32.767 mV were cut to that")
    lines.append(f"  left out: {report['records'] - report['kept'] or 'nothing'}")
    for reason, found in report["left_out"].items():
        lines.append(f"  {found['count']:>8}  {reason:14}{found['why']}")
        lines += [f"            {_example(example)}" for example in found["examples"][:_SHOWN]]
        if found["count"] > _SHOWN:
            lines.append(f"            … and {found['count'] - _SHOWN} more")
    return "\n".join(lines)


def _example(example: Mapping[str, str]) -> str:
    where = example.get("path") or example.get("record", "")
    return f"{where}: {example['detail']}" if example.get("detail") else where
