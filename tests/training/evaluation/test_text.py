from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.training.evaluation.conftest import entry, scored, stand_in
from training.evaluation.results import Evaluation
from training.evaluation.scored import Change, Scored, Skipped
from training.evaluation.summary import summarise
from training.evaluation.text import change, described, number


def printed(evaluation: Evaluation, width: int = 140) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    for part in described(evaluation):
        console.print(part)
    return out.getvalue()


def evaluated(found: Scored, tmp_path: Path, **options: object) -> Evaluation:
    index = tmp_path / "index.csv"
    index.write_text("path,label\n")
    return summarise(found, stand_in(threshold=0.5), index, resamples=50, **options)  # type: ignore[arg-type]


def two_sets() -> Scored:
    entries = [entry(f"{name}{i}", i % 2, dataset=name) for name in ("first", "second") for i in range(12)]
    entries += [entry(f"third{i}", i % 2, dataset="third") for i in range(4)]
    entries += [entry(f"r{i}", 1, dataset="first", rhythm_only=True) for i in range(3)]
    scores = np.random.default_rng(0).normal([entry.label for entry in entries])
    gone = [Skipped(entry(f"gone{i}"), "not found") for i in range(7)]
    return scored(entries, scores.tolist(), skipped=gone, half=(scores / 2).tolist())


def test_each_data_set_has_a_row_and_a_few_recordings_no_interval(tmp_path: Path) -> None:
    evaluation = evaluated(two_sets(), tmp_path, unlabelled=4)
    lines = printed(evaluation).splitlines()
    row = {line.split()[0]: line for line in lines if line and line.split()[0] in ("all", "first", "third")}
    assert number(evaluation.auroc, evaluation.auroc_ci) in row["all"]
    assert "[" in row["first"]
    assert "[" not in row["third"]
    assert any(line.startswith("rhythm only") for line in lines)
    text = "\n".join(lines)
    assert "4 rows have no label" in text
    assert "7 labelled recordings were skipped" in text
    assert "gone4.dat: not found" in text
    assert "and 2 more; --json lists them all" in text
    assert "gone5" not in text


def test_a_missing_class_is_said(tmp_path: Path) -> None:
    text = printed(evaluated(scored([entry("n")], [0.0]), tmp_path))
    assert "a: no abnormal recordings, so not every figure exists." in text
    assert "None" not in text


def test_robustness_is_told_over_all_and_by_data_set(tmp_path: Path) -> None:
    evaluation = evaluated(two_sets(), tmp_path, changes=[Change("half", "k", lambda signal: signal)])
    lines = printed(evaluation).splitlines()
    (over_all, by_dataset) = (line for line in lines if line.startswith("half"))
    assert ".000" in over_all
    assert len(by_dataset.split()) == 3  # third has too few


def test_nothing_is_cut_off_in_a_narrow_terminal(tmp_path: Path) -> None:
    evaluation = evaluated(two_sets(), tmp_path, changes=[Change("half", "k", lambda signal: signal)])
    assert "…" not in printed(evaluation, width=106)


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.8849, (0.82, 0.9449), ".885 [.82–.94]"),
        (1.0, None, "1.000"),
        (0.0, (0.0, 1.0), ".000 [.00–1.00]"),
        (None, None, "–"),
    ],
)
def test_numbers_are_written_as_shares(
    value: float | None, interval: tuple[float, float] | None, text: str
) -> None:
    assert number(value, interval) == text


def test_changes_carry_their_sign() -> None:
    assert change(-0.0131, (-0.04, 0.0061)) == "-.013 [-.04,+.01]"
    assert change(-0.0001, None) == ".000"
    assert change(None, None) == "–"
