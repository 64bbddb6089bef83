"""What docs/performance.md says of the edges of the line: pages, adapters, replay, servers."""

from __future__ import annotations

from typing import Any

from bench.markdown import table
from bench.tables import number, setting

Results = list[dict[str, Any]]


def page_lines(bed: Results, ward: Results, sessions: Results) -> list[str]:
    """Return the figures of the live page.

    Parameters
    ----------
    bed, ward, sessions : list of dict
        Results of ``bench.page.bed``, ``bench.page.ward`` and ``bench.page.sessions``.
    """
    rows = []
    for result in bed:
        late = result["publication_to_pixels_ms"]
        found = f"{result['found']} of {result['markers']} markers"
        rows += [
            ["bed view, 12 leads at 500 Hz: painted updates", "≥ 20 /s", f"{result['painted_per_s']:g} /s"],
            [f"publication of a chunk to its pixels, p95 ({found})", "≤ 250 ms", f"{number(late['p95'])} ms"],
        ]
    for result in ward:
        updates = result["updates_per_s"]
        seen = f"{updates['least']:g} /s (the least of {updates['tiles']} strips)"
        used = f"{result['used']['page']['cpu_percent']:g} % of a core"
        rows += [
            [f"ward view of {result['beds']} beds: updates of a strip", "≥ 5 /s", seen],
            [f"dashboard with that view of {result['beds']} beds", "< 1 core", used],
        ]
    for result in sessions:
        grown = f"{result['growth_percent']:+.1f} % ({result['before_mb']:g} → {result['after_mb']:g} MB)"
        rows.append([f"memory after {result['sessions']} sessions", "≤ +5 %", grown])
    if not rows:
        return []
    return [*table(["", "to reach", "measured"], rows), "", f"{setting([*bed, *ward, *sessions][0])}."]


def adapter_lines(results: Results) -> list[str]:
    """Return what adapters of live feeds take, by ``bench.adapters``."""
    lines: list[str] = []
    for result in results:
        rows = [
            [
                row["adapter"],
                str(row["beds"]),
                number(row["p50_ms"]),
                number(row["p99_ms"]),
                f"{row['cpu_percent']:g} %",
                str(row["lost_samples"]),
                number(row["devices_late_p99_ms"]),
            ]
            for row in result["rows"]
        ]
        head = ["adapter", "beds", "p50, ms", "p99, ms", "of a core", "samples lost", "devices late, p99, ms"]
        lines += [*table(head, rows), "", f"{setting(result)}.", ""]
    return lines[:-1]


def replay_lines(results: Results) -> list[str]:
    """Return how even a replay is and how fast an analysis, by ``bench.replaying``."""
    lines: list[str] = []
    for result in results:
        rows = [
            [
                f"{row['beds']} {'bed' if row['beds'] == 1 else 'beds'}: a chunk goes out after it is due,"
                " p50 / p99 / max",
                "≤ 2 ms (p99)",
                f"{number(row['sent_late']['p50_ms'])} / {number(row['sent_late']['p99_ms'])} /"
                f" {number(row['sent_late']['max_ms'])} ms",
            ]
            for row in result["jitter"]
        ]
        done = result["analysis"]
        data = f"{done['leads']} leads at {done['fs']:g} Hz"
        what = f"`analyze` of {done['hours']:g} h of {result['data']}, {data}"
        memory = f"{done['rss_mb']['settled']:g} MB, {done['rss_mb_per_hour']:g} MB more for each hour"
        rows += [
            [what, "≥ 500 × real time", f"{done['times_real_time']} ×"],
            ["its memory", "constant", memory],
        ]
        lines += [*table(["", "to reach", "measured"], rows), "", f"{setting(result)}.", ""]
    return lines[:-1]


def durability_lines(results: Results) -> list[str]:
    """Return how late alarms are where they are kept twice, by ``bench.durability``."""
    lines: list[str] = []
    for result in results:
        rows = [
            [
                row["name"],
                *(number(row["published"][name]) for name in ("p50_ms", "p99_ms", "max_ms")),
                f"{number(row['answered']['p50_ms'])} / {number(row['answered']['max_ms'])} ms"
                if "answered" in row
                else "",
            ]
            for row in result["rows"]
        ]
        head = ["alarms published", "p50, ms", "p99, ms", "max, ms", "answered, p50 / max"]
        each = f"{result['rate_per_s']:g} alarms a second for {result['seconds']:g} s each"
        lines += [*table(head, rows), "", f"{each}. {setting(result)}.", ""]
    return lines[:-1]


def fuzz_lines(results: Results) -> list[str]:
    """Return how many inputs each parser took, by ``bench.fuzz``."""
    lines: list[str] = []
    for result in results:
        rows = [
            [
                row["parser"],
                f"{row['inputs']:,}".replace(",", " "),
                f"{row['seconds']} s",
                f"{row['peak_rss_mb']} MB",
                "failed" if row["failed"] else "none",
            ]
            for row in result["rows"]
        ]
        head = ["parser", "inputs", "took", "memory, at most", "crashes, hangs"]
        lines += [*table(head, rows), "", f"{setting(result)}.", ""]
    return lines[:-1]
