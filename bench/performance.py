"""docs/performance.md, from what the benchmarks left in bench/results/.

``bedside bench NAME --json bench/results/NAME-MACHINE.json`` measures; its text stands in
``bench/templates/performance.md``. A table whose result is absent says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.edges import adapter_lines, durability_lines, fuzz_lines, page_lines, replay_lines
from bench.markdown import table
from bench.tables import (
    Table,
    backend_table,
    baseline_table,
    curve_table,
    growth_text,
    illness,
    number,
    played,
    process_table,
    sentence,
    setting,
    skipped_table,
    soak_table,
    stage_table,
)

_ROOT = Path(__file__).parent.parent
_RESULTS = _ROOT / "bench" / "results"
PAGE = _ROOT / "docs" / "performance.md"

_NOT_YET = "Not measured yet."
# The shipped model that an alarm is raised by, unless another is asked for, and the largest one.
_DEFAULT, _LARGEST = "cae-100hz", "vae-bilstm-mha-100hz"
# A run of so much signal or more is a soak.
_SOAK_S = 3600.0
_GOAL_BEDS = 64

Results = Sequence[tuple[str, dict[str, Any]]]


@click.command()
def main() -> None:
    """Write docs/performance.md.

    \b
    python -m bench.performance
    """  # noqa: D301 (click needs the control character)
    PAGE.write_text(performance_page(), encoding="utf-8")
    click.echo(PAGE.relative_to(_ROOT))


def _is_soak(result: dict[str, Any]) -> bool:
    return bool(result["seconds"] * result.get("speed", 1.0) >= _SOAK_S)


def performance_page(results: Path = _RESULTS) -> str:
    """Return the text of docs/performance.md.

    Parameters
    ----------
    results : pathlib.Path
        Folder of the benchmarks' JSON files.
    """
    runs = _read(results, "latency")
    found = {
        "latency": [run for run in runs if not _is_soak(run[1])],
        "soak": [run for run in runs if _is_soak(run[1])],
        **{name: _read(results, name) for name in ("capacity", "baseline", "backends")},
    }
    parts: dict[str, Callable[[Results], list[str]]] = {
        "latency": _latency,
        "capacity": _capacity,
        "baseline": _baseline,
        "backends": _backends,
        "soak": _soak,
    }
    texts = {name: "\n".join(part(found[name]) or [_NOT_YET]) for name, part in parts.items()}
    texts["goals"] = "\n".join(_goals(found))
    texts["page"] = "\n".join(
        page_lines(*(_found(results, f"page-{name}") for name in ("bed", "ward", "sessions"))) or [_NOT_YET]
    )
    edges = {
        "adapters": adapter_lines,
        "durability": durability_lines,
        "replaying": replay_lines,
        "fuzz": fuzz_lines,
    }
    for name, lines in edges.items():
        texts[name] = "\n".join(lines(_found(results, name)) or [_NOT_YET])
    texts["transport"] = "\n".join(_transport(results) or [_NOT_YET])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        # It is Markdown.
        autoescape=False,
    )
    return environment.get_template("performance.md").render(texts)


def _read(folder: Path, benchmark: str) -> Results:
    # Of a benchmark, whatever the file is called: name and content.
    files = (
        (path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))
    )
    return [(name, result) for name, result in files if result.get("benchmark") == benchmark]


def _found(folder: Path, benchmark: str) -> list[dict[str, Any]]:
    return [result for _, result in _read(folder, benchmark)]


def _lines(head_and_rows: Table) -> list[str]:
    return table(*head_and_rows)


def _where(name: str, result: dict[str, Any]) -> list[str]:
    return ["", f"`{name}.json`: {setting(result)}."]


def _asked(result: dict[str, Any]) -> str:
    several, pinned = result["workers"] > 1, result.get("pinned")
    workers = f", {result['workers']} workers" if several else ", one worker" if pinned else ""
    cores = ", one core each" if pinned else ""
    hop = f", each bed judged every {result['hop_s']:g} s" if result.get("hop_s") else ""
    return f"`{result['model']}` on {result['backend']} {result['precision']}{workers}{cores}{hop}"


def _latency(runs: Results) -> list[str]:
    lines: list[str] = []
    for name, result in runs:
        lines += [
            f"### {result['beds']} beds, {_asked(result)}, {result['seconds']:g} s",
            "",
            sentence(illness(result)),
            "",
            *_lines(stage_table(result)),
            "",
            f"{result['alarms']} alarms raised, {result['lost']} windows lost, {result['repeated']} findings"
            f" repeated. The generator was late by {number(result['generator_late']['p99_ms'])} ms (p99),"
            f" {number(result['generator_late']['max_ms'])} ms at most. {' '.join(growth_text(result))}",
            "",
            *_lines(process_table(result)),
            *_where(name, result),
            "",
        ]
    return lines[:-1]


def _capacity(runs: Results) -> list[str]:
    lines: list[str] = []
    for name, result in runs:
        more = "" if result["limit_reached"] else " (more were not tried)"
        lines += [
            f"### {result['beds']} beds{more}, {_asked(result)}",
            "",
            sentence(illness(result)),
            "",
            *_lines(curve_table(result["curve"])),
            *_where(name, result),
            "",
        ]
    return lines[:-1]


def _baseline(runs: Results) -> list[str]:
    lines: list[str] = []
    for name, result in runs:
        lines += [
            *_lines(baseline_table(result["rows"])),
            "",
            f"Attempts of {result['seconds']:g} s; {illness(result)}.",
            *_where(name, result),
            "",
        ]
    return lines[:-1]


def _backends(runs: Results) -> list[str]:
    lines: list[str] = []
    for name, result in runs:
        speeds = ", ".join(
            f"{kind.replace('_', ' ')} {value:g}" for kind, value in result["gemm_gflops"].items()
        )
        lines += [*_lines(backend_table(result["rows"])), "", f"Multiplying matrices, GFLOP/s: {speeds}."]
        if result["skipped"]:
            lines += ["", *_lines(skipped_table(result["skipped"]))]
        lines += [*_where(name, result), ""]
    return lines[:-1]


def _soak(runs: Results) -> list[str]:
    lines: list[str] = []
    for name, result in runs:
        lines += [
            f"{played(result)}, {_asked(result)}:"
            f" {result['lost']} windows lost, {result['alarms']} alarms; {illness(result)}."
            f" {' '.join(growth_text(result))}",
            "",
            *_lines(soak_table(result)),
            *_where(name, result),
            "",
        ]
    return lines[:-1]


def _transport(folder: Path) -> list[str]:
    lines: list[str] = []
    for path in sorted(folder.glob("transport-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        drained = [
            ["backlog drained", f"{row['payload_bytes']} B", f"{row['messages_per_s']} chunks/s", "", ""]
            for row in result["drain"]
        ]
        late = [
            [f"XADD → agent at {row['rate_per_s']:g} /s", f"{row['payload_bytes']} B"]
            + [f"{number(row[field])} ms" for field in ("p50_ms", "p99_ms", "max_ms")]
            for row in result["latency"]
        ]
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        where = f"{result['machine']['cores']} cores of {result['machine']['cpu']}; {versions}"
        lines += [
            *table(["", "message", "p50", "p99", "max"], [*drained, *late]),
            "",
            f"`{path.stem}.json`: {where}.",
        ]
    return lines


def _goals(found: dict[str, Results]) -> list[str]:
    # What the project set out to reach on two cores, and what the results say.
    plain = [
        run
        for _, run in found["latency"]
        if run["beds"] == _GOAL_BEDS and run["workers"] == 1 and _of(run, _DEFAULT)
    ]
    run = plain[0] if plain else None

    def stage(name: str, field: str) -> float | None:
        return None if run is None else run["stages"][name][field]

    def beds(model: str) -> float | None:
        carried = [result["beds"] for _, result in found["capacity"] if _of(result, model)]
        return max(carried, default=None)

    def gain() -> float | None:
        # Of a second worker, where each has a core of its own.
        of = {
            result["workers"]: result["beds"]
            for _, result in found["capacity"]
            if _of(result, _LARGEST) and result.get("pinned")
        }
        return round(of[2] / of[1], 2) if {1, 2} <= of.keys() else None

    def ratio(name: str) -> float | None:
        rows = [row for _, result in found["baseline"] for row in result["rows"] if row["name"] == name]
        return rows[0]["ratio"] if rows else None

    rows = [
        _goal(
            "64 beds, chunk due → finding received, p50", "≤ 25 ms", stage("publish_to_finding", "p50_ms"), 25
        ),
        _goal(
            "64 beds, chunk due → finding received, p99", "≤ 75 ms", stage("publish_to_finding", "p99_ms"), 75
        ),
        _goal(
            "64 beds, chunk due → alarm received, p99", "≤ 100 ms", stage("publish_to_alert", "p99_ms"), 100
        ),
        _goal("alarms in that run", "≥ 1000", None if run is None else run["alarms"], -1000),
        _goal("worker memory at 64 beds, MB", "≤ 400", None if run is None else run["worker_rss_mb"], 400),
        _goal("capacity at p99 ≤ 300 ms, beds", "≥ 500", beds(_DEFAULT), -500),
        _goal("capacity of VAE-BiLSTM-MHA, beds", "≥ 64", beds(_LARGEST), -64),
        _goal("two workers against one, VAE-BiLSTM-MHA, one core each", "≥ 1.5 ×", gain(), -1.5),
        _goal("against a plain loop with the same model", "≥ 2 ×", ratio("same"), -2),
        _goal("against a plain loop with the thesis's model", "≥ 10 ×", ratio("thesis"), -10),
        _goal("GEMM speed ÷ that of the thesis-size model", "≤ 1.5 ×", _from_gemm(found["backends"]), 1.5),
    ]
    return table(["", "to reach", "measured", "reached"], rows)


def _goal(what: str, wanted: str, measured: float | None, bound: float) -> list[str]:
    # A negative bound is the least that is wanted, a positive one the most.
    if measured is None:
        return [what, wanted, "not measured yet", "–"]
    reached = measured <= bound if bound > 0 else measured >= -bound
    shown = number(measured) if isinstance(measured, float) else str(measured)
    return [what, wanted, shown, "yes" if reached else "no"]


def _of(result: dict[str, Any], model: str) -> bool:
    # On a machine of two cores, with as many workers as were asked for.
    return result["model"] == model and result["machine"]["cores"] == 2 and result["machine"]["gpu"] is None


def _from_gemm(runs: Results) -> float | None:
    shares = [
        row["share_of_gemm"]
        for _, result in runs
        for row in result["rows"]
        if row["model"].startswith("thesis") and "share_of_gemm" in row
    ]
    return 1 / max(shares) if shares else None


if __name__ == "__main__":
    main()
