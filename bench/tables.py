"""The tables of a benchmark: the same in its report and in docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.stages import STAGES
from bench.usage import SERVER_DATA, slope

Result = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]

_HOUR_S = 3600

_PERCENTILES = {"p50": "p50_ms", "p90": "p90_ms", "p99": "p99_ms", "p99.9": "p999_ms", "max": "max_ms"}


def setting(result: Result) -> str:
    """Return the machine and the versions of a result, in one line."""
    where = result["machine"]
    gpu = f", {where['gpu']}" if where.get("gpu") else ""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{where['cores']} cores of {where['cpu']}, {where['memory_gb']:g} GB{gpu}; load average before the"
        f" run {where['load_average']:g}; {versions}"
    )


def illness(result: Result) -> str:
    """Return what the beds of a load play, in one sentence without a full stop."""
    every = result["ill_every_s"]
    if every is None:
        return "the beds play recordings"
    hourly = 3600 / every
    return f"each bed falls ill every {every:g} s ({hourly:.3g} times an hour), one after the other"


def played(result: Result) -> str:
    """Return how many beds were played for how long, and how fast."""
    seconds, speed = result["seconds"], result.get("speed", 1.0)
    if speed == 1:
        return f"{result['beds']} beds for {_long(seconds)}"
    signal = f"{_long(seconds * speed)} of {result['beds']} beds"
    return f"{signal} in {_long(seconds)}, {speed:g} times as fast as they were"


def _long(seconds: float) -> str:
    return f"{seconds / _HOUR_S:g} h" if seconds >= _HOUR_S else f"{seconds:g} s"


def sentence(text: str) -> str:
    """Return words as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def stage_table(result: Result) -> Table:
    """Return how long each stage took."""
    head = ["stage", "from → to", "n", *(f"{name}, ms" for name in _PERCENTILES)]
    rows = [
        [
            stage.replace("_", " "),
            STAGES[stage],
            f"{row['n']:,}".replace(",", " "),
            *(number(row[field]) for field in _PERCENTILES.values()),
        ]
        for stage, row in result["stages"].items()
    ]
    return head, rows


def process_table(result: Result) -> Table:
    """Return what each process used."""
    rows = [
        [name, f"{percent:.0f} %", f"{result['rss_mb'][name]:.0f} MB"]
        for name, percent in result["cpu_percent"].items()
    ]
    return ["process", "of one core", "memory"], rows


def soak_table(result: Result) -> Table:
    """Return what each process used, and how that grew once the ten minutes that Redis keeps were full."""
    head, rows = process_table(result)
    data = result["memory_over_time"].get(SERVER_DATA)
    if data is not None:
        rows.append([SERVER_DATA, "–", f"{max(data):.0f} MB"])
    for row in rows:
        growth, handles = result["rss_growth_mb_per_hour"][row[0]], result["handles"].get(row[0])
        whole = "–" if growth is None else _with_interval(growth["slope"], growth["interval"])
        opened = "–" if handles is None else f"{handles[0]} → {handles[-1]}"
        row += [whole, _in_last_third(result["memory_over_time"], row[0]), opened]
    grew = ["memory grew by, MB/h", "in the last third, MB/h"]
    return [*head, *grew, "file handles, first and last"], rows


def _in_last_third(over_time: Mapping[str, Sequence[float]], name: str) -> str:
    # Memory that is taken once, as for the first large batch, is no growth any more then.
    at_s, rss_mb = over_time["at_s"], over_time[name]
    chosen = [place for place, at in enumerate(at_s) if at >= at_s[-1] * 2 / 3]
    found = slope([at_s[n] for n in chosen], [rss_mb[n] for n in chosen])
    return "–" if found is None else _with_interval(found.per_hour, found.interval)


def _with_interval(value: float, interval: Sequence[float]) -> str:
    # Added: there is no negative nothing.
    middle, low, high = (round(one, 1) + 0.0 for one in (value, *interval))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def curve_table(curve: Sequence[Result]) -> Table:
    """Return the attempts of a search for the capacity."""
    names = list(curve[0]["cpu_percent"]) if curve else []
    head = ["beds", "p50, ms", "p99, ms", "lost", "carried", *(f"{name}, %" for name in names)]
    rows = [
        [
            str(row["beds"]),
            number(row["p50_ms"]),
            number(row["p99_ms"]),
            str(row["lost"]),
            "yes" if row["carried"] else "no",
            *(f"{row['cpu_percent'][name]:.0f}" for name in names),
        ]
        for row in curve
    ]
    return head, rows


def backend_table(rows: Sequence[Result]) -> Table:
    """Return the speed of each backend, a row for model, backend, precision and batch."""
    head = [
        "model",
        "backend",
        "precision",
        "batch",
        "windows/s",
        "ms a batch",
        "score error",
        "memory, MB",
        "GFLOP/s",
        "of GEMM",
    ]
    cells = [
        [
            row["model"],
            row["backend"] if row["device"] == "cpu" else f"{row['backend']}, {row['device']}",
            row["precision"],
            str(row["batch"]),
            number(row["windows_per_s"]),
            number(row["ms_per_batch"]),
            f"{row['score_error']:.1e}",
            f"{row['rss_mb']:.0f}",
            number(row.get("gflops")),
            f"{100 * row['share_of_gemm']:.0f} %" if "share_of_gemm" in row else "–",
        ]
        for row in rows
    ]
    return head, cells


def skipped_table(skipped: Sequence[Result]) -> Table:
    """Return what was not measured and why."""
    keys = ("model", "backend", "precision", "why")
    return ["model", "backend", "precision", "not measured because"], [
        [str(row.get(key, "")) for key in keys] for row in skipped
    ]


def baseline_table(rows: Sequence[Result]) -> Table:
    """Return Bedside against the plain loops."""
    head = ["row", "Bedside, beds", "plain loop, beds", "ratio", "AUROC of Bedside's model", "of the loop's"]
    cells = [
        [
            row["name"],
            f"{row['beds']:g}",
            f"{row['baseline_beds']:g}",
            "–" if row["ratio"] is None else f"{row['ratio']:g}",
            _auroc(row["auroc"]),
            _auroc(row["baseline_auroc"]),
        ]
        for row in rows
    ]
    return head, cells


def growth_text(result: Result) -> list[str]:
    """Return how the workers' memory grew, and whether latency did, in sentences."""
    lines = []
    for name, growth in result["rss_growth_mb_per_hour"].items():
        if growth is not None and name.startswith("worker"):
            low, high = growth["interval"]
            lines.append(f"Memory of the {name} grew by {growth['slope']:g} MB/h, 95 % [{low:g}, {high:g}].")
    drift = result["drift"]
    if drift is not None:
        low, high = drift["interval"]
        lines.append(
            f"The median latency of findings changed by {drift['ms_per_hour']:g} ms/h,"
            f" 95 % [{low:g}, {high:g}]."
        )
    return lines


def number(value: float | None) -> str:
    """Return a number to three digits, with a space between thousands; a dash for none."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _auroc(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "not measured yet"
    low, high = figure["interval"]
    how = "five folds" if figure["split"] == "folds" else "fixed split"
    return f"{figure['mean']:.3f} [{low:.2f}, {high:.2f}], {how}"
