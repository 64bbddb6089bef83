"""The risk table that people read is the one that the code has."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.alarms.conditions import CONDITIONS, Condition

PAGE = (Path(__file__).parents[2] / "docs" / "alarms.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## The risk table")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| `")
]


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=lambda condition: condition.rule)
def test_each_condition_stands_in_the_risk_table_as_it_is(condition: Condition) -> None:
    (row,) = (row for row in ROWS if row[0] == f"`{condition.rule}`")
    assert row[1:4] == [condition.kind, condition.priority, "yes" if condition.latching else "no"]
    if condition.hold_s:
        assert f"{condition.hold_s:g} s" in row[5]
    if condition.delay_s:
        assert f"{condition.delay_s:g} s" in row[4]
