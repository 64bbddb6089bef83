"""Tables of the pages that are made of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as lines of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def area(value: float | None, ends: Sequence[float] | None = None) -> str:
    """Return a share with its interval, such as ``0.885 [0.82, 0.94]``; a dash if there is none."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def moved(value: float | None, ends: Sequence[float] | None = None) -> str:
    """Return a difference with its sign, such as ``-0.013 [-0.04, +0.01]``; a dash if there is none."""
    if value is None:
        return "–"
    return _signed(value, 3) + (f" [{_signed(ends[0], 2)}, {_signed(ends[1], 2)}]" if ends else "")


def _signed(value: float, decimals: int) -> str:
    rounded = round(value, decimals)
    return f"{rounded:+.{decimals}f}" if rounded else f"{0:.{decimals}f}"
