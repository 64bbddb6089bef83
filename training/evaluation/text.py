"""What an evaluation found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from training.evaluation.results import (
    FEW,
    Calibration,
    Diagnosis,
    Evaluation,
    Figures,
    Group,
    Interval,
    Robustness,
    SkippedRecording,
)

# As many as fit a screen; the JSON has all.
_MOST_DIAGNOSES = 12
_MOST_SKIPPED = 5


def described(evaluation: Evaluation) -> Iterator[Table | Text]:
    """Yield what to print, from top to bottom."""
    chosen = "all rows" if evaluation.split is None else f"split {evaluation.split}"
    if evaluation.dataset is not None:
        chosen += f", {evaluation.dataset}"
    yield Text(
        f"{evaluation.model} ({evaluation.backend}, {evaluation.precision}) on {evaluation.index}, {chosen}:"
        f" {evaluation.n_normal} normal and {evaluation.n_abnormal} abnormal recordings"
        f" of {evaluation.n_patients} patients"
    )
    yield Text()
    yield _main_table(evaluation)
    yield Text(
        f"Threshold {evaluation.threshold:.3f}, the 95th percentile of validation normals."
        " In brackets 95 % intervals, by resampling patients.",
        style="dim",
    )
    if any(group.few for _, group in named_groups(evaluation)):
        yield Text(f"No interval: fewer than {FEW} normal or abnormal recordings.", style="dim")
    for name, missing in _missing(evaluation):
        yield Text(f"{name}: {missing}, so not every figure exists.", style="yellow")
    yield from (Text(f"Note: {note}.", style="yellow") for note in evaluation.notes)
    for table in _further_tables(evaluation):
        yield Text()
        yield table
    yield Text()
    if evaluation.unlabelled:
        yield Text(f"{evaluation.unlabelled} rows have no label and were left out.")
    if evaluation.skipped:
        yield from _skipped(evaluation.skipped)


def _further_tables(evaluation: Evaluation) -> Iterator[Table]:
    if evaluation.calibration is not None:
        yield _calibration_table(evaluation.calibration)
    if evaluation.diagnoses:
        yield _diagnosis_table(evaluation.diagnoses)
    if evaluation.robustness is not None:
        yield _robustness_table(evaluation.robustness)
        if len(evaluation.groups) > 1:
            yield _robustness_by_dataset(evaluation.robustness, evaluation.groups)


def _main_table(evaluation: Evaluation) -> Table:
    table = _table(
        "",
        "normal",
        "abnormal",
        "AUROC",
        "AUPRC (prev.)",
        "sensitivity",
        "specificity",
        "F1",
        "prec. at 90 % recall",
    )
    groups = named_groups(evaluation)
    for place, (name, group) in enumerate(groups):
        style = "bold" if place == 0 and len(groups) > 1 else "dim" if group.few else ""
        table.add_row(*_row(name, group), style=style)
    # Of the data sets' own, few have enough to tell anything; the JSON and the page have them.
    if evaluation.rhythm_only is not None:
        table.add_row(*_row("rhythm only", evaluation.rhythm_only), style="italic")
    return table


def named_groups(evaluation: Evaluation) -> list[tuple[str, Group]]:
    """Return all recordings together, then each data set; a data set that holds them all stands alone."""
    groups = list(evaluation.groups.items())
    if len(groups) == 1 and groups[0][1].n == evaluation.n:
        return groups
    return [("all", evaluation), *groups]


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    auprc = number(figures.auprc, None)
    if figures.auprc is not None and figures.prevalence is not None:
        auprc += f" ({share(figures.prevalence, 2)})"
    few = figures.few
    return (
        name,
        str(figures.n_normal),
        str(figures.n_abnormal),
        number(figures.auroc, None if few else figures.auroc_ci),
        auprc,
        number(figures.sensitivity, None if few else figures.sensitivity_ci),
        number(figures.specificity, None if few else figures.specificity_ci),
        number(figures.f1, None),
        number(figures.precision_at_recall_90, None),
    )


def number(value: float | None, interval: Interval | None) -> str:
    """Return a share with its interval, such as ``.885 [.82–.94]``."""
    if value is None:
        return "–"
    if interval is None:
        return share(value, 3)
    return f"{share(value, 3)} [{share(interval[0], 2)}–{share(interval[1], 2)}]"


def share(value: float, decimals: int) -> str:
    """Return a share without the zero in front, such as ``.885``."""
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("0") else text


def _missing(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    for name, group in named_groups(evaluation):
        if group.missing is not None:
            yield name, group.missing


def _calibration_table(found: Calibration) -> Table:
    table = _table("Calibration: share of normals above", "expected", "observed")
    rows = [(f"window, P{level.percentile:g}", level) for level in found.windows]
    for name, level in [*rows, ("recording, threshold", found.record)]:
        table.add_row(name, percent(level.expected), observed(level.observed, level.observed_ci))
    return table


def percent(value: float) -> str:
    """Return a share in per cent."""
    return f"{100 * value:.3g} %"


def observed(value: float, interval: Interval | None) -> str:
    """Return an observed share in per cent, with its interval."""
    bounds = "" if interval is None else f" [{100 * interval[0]:.1f}–{100 * interval[1]:.1f}]"
    return f"{100 * value:.1f} %{bounds}"


def _diagnosis_table(rows: tuple[Diagnosis, ...]) -> Table:
    table = _table("Diagnosis (against all normals)", "code", "n", "rhythm only", "AUROC", "sensitivity")
    for row in rows[:_MOST_DIAGNOSES]:
        table.add_row(
            row.name,
            row.code if row.code != row.name else "",
            str(row.n),
            str(row.n_rhythm_only or ""),
            number(row.auroc, row.auroc_ci),
            number(row.sensitivity, row.sensitivity_ci),
        )
    if len(rows) > _MOST_DIAGNOSES:
        table.add_row(f"and {len(rows) - _MOST_DIAGNOSES} rarer ones", style="dim")
    return table


def _robustness_table(rows: tuple[Robustness, ...]) -> Table:
    table = _table("Robustness", "n", "AUROC", "change", "AUPRC", "sensitivity", "specificity")
    for row in rows:
        table.add_row(
            row.name,
            str(row.n),
            number(row.auroc, row.auroc_ci),
            change(row.auroc_delta, row.auroc_delta_ci),
            number(row.auprc, None),
            number(row.sensitivity, None),
            number(row.specificity, None),
        )
    return table


def _robustness_by_dataset(rows: tuple[Robustness, ...], groups: dict[str, Group]) -> Table:
    told = {name: group.robustness for name, group in groups.items() if group.robustness and not group.few}
    table = _table("Robustness, AUROC", *told)
    for place, row in enumerate(rows):
        table.add_row(row.name, *(number(of[place].auroc, None) for of in told.values()))
    return table


def change(delta: float | None, interval: Interval | None) -> str:
    """Return how far a figure moved, with its interval, such as ``-.013 [-.04,+.01]``."""
    if delta is None:
        return "–"
    bounds = "" if interval is None else f" [{_signed(interval[0], 2)},{_signed(interval[1], 2)}]"
    return _signed(delta, 3) + bounds


def _signed(value: float, decimals: int) -> str:
    rounded = round(value, decimals)
    return f"{rounded:+.{decimals}f}".replace("0.", ".", 1) if rounded else f"{0:.{decimals}f}"[1:]


def _skipped(skipped: tuple[SkippedRecording, ...]) -> Iterator[Text]:
    what = "1 labelled recording was" if len(skipped) == 1 else f"{len(skipped)} labelled recordings were"
    yield Text(f"{what} skipped:", style="yellow")
    yield from (Text(f"  {row.path}: {row.why}") for row in skipped[:_MOST_SKIPPED])
    if len(skipped) > _MOST_SKIPPED:
        yield Text(f"  and {len(skipped) - _MOST_SKIPPED} more; --json lists them all")


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="left" if column == "code" else "right")
    return table
