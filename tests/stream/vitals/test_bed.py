"""Vitals of beds: many at once are each by itself, and each block has the quality of its own time."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from stream.preprocess import Resampled
from stream.vitals.bed import BedVitals, Block, advance_together
from stream.vitals.grid import BLOCK, FS
from stream.vitals.quality import Issue, SecondQuality
from stream.vitals.rhythm import Limits, Rule
from tests.stream.vitals.feeds import TWO, simulated

LENGTH_S = 24


@dataclass(frozen=True)
class Feed:
    """One bed's signal, where it goes on after a hole too long to fill, and how it is cut."""

    signal: Resampled
    hole: int
    seed: int

    def pieces(self) -> list[Resampled]:
        """Return what the bed hears at each turn, cut anew by its seed; a hole of a minute in between."""
        choose, at, total = random.Random(self.seed), 0, self.signal.values.shape[1]
        pieces = []
        while at < total:
            end = min(total, at + choose.choice([1, 7, 20, 20, 20, 130]))
            if at < self.hole < end:
                end = self.hole
            first = at + (60 * FS + 13 if at >= self.hole else 0)
            pieces.append(Resampled(first, self.signal.values[:, at:end], self.signal.missing[:, at:end]))
            at = end
        return pieces


@pytest.fixture(scope="module")
def feeds() -> list[Feed]:
    timelines = ["vt:180@6 sinus@14", "pvc:20@0 leadoff:II@5+3", "af@0", "sinus:80@0 asystole@9"]
    signals = [simulated(20 + number, timeline, LENGTH_S)[0] for number, timeline in enumerate(timelines)]
    twelve, _ = simulated(30, "vf@10", LENGTH_S, ("I", "II", "III", "aVR", "aVL", "aVF"))
    return [Feed(signal, 1117 + 100 * n, n) for n, signal in enumerate([*signals, twelve])]


def of(feed: Feed) -> BedVitals:
    return BedVitals(len(feed.signal.values), Limits(), lambda grid: grid)


def test_beds_together_are_each_alone(feeds: list[Feed]) -> None:
    alone: list[list[Block]] = []
    for feed in feeds:
        bed, blocks = of(feed), []
        for piece in feed.pieces():
            bed.hear(piece)
            blocks += bed.advance()
        alone.append(blocks)
    # The beds' turns are not in step, and some have nothing to hear any more.
    beds, rest = [of(feed) for feed in feeds], [feed.pieces() for feed in feeds]
    together: list[list[Block]] = [[] for _ in feeds]
    while any(rest):
        for bed, pieces in zip(beds, rest, strict=True):
            for piece in pieces[: 1 + len(pieces) % 2]:
                bed.hear(piece)
            del pieces[: 1 + len(pieces) % 2]
        for blocks, brought in zip(together, advance_together(beds), strict=True):
            blocks += brought
    assert together == alone
    found = {
        judged.rule for blocks in alone for block in blocks for judged in block.judgements if judged.present
    }
    assert {Rule.ASYSTOLE, Rule.VENTRICULAR_TACHYCARDIA, Rule.VENTRICULAR_FIBRILLATION} <= found


def test_each_block_has_the_quality_of_the_second_before_it() -> None:
    signal, _ = simulated(40, "", 10, TWO)
    bed = BedVitals(2, Limits(), lambda grid: grid)

    def rated(second: int, usable: bool) -> SecondQuality:
        index = np.full(2, float(usable))
        both = np.full(2, usable)
        return SecondQuality(second, second * FS, (second + 1) * FS, index, (frozenset(),) * 2, both, ~both)

    # All at once, as a file comes: the seconds before the signal that they are of.
    bed.rate([rated(second, second != 8) for second in range(10)])
    bed.hear(signal)
    blocks = bed.advance()
    assert [block.end for block in blocks] == list(range(BLOCK, 10 * FS + 1, BLOCK))
    assert [block.quality.second if block.quality else None for block in blocks] == [
        (block.end // FS) - 1 if block.end >= FS else None for block in blocks
    ]
    blind = {block.end for block in blocks if all(judged.present is None for judged in block.judgements)}
    # Nothing is told with that second, and before the next one ends.
    assert {9 * FS, 9 * FS + BLOCK} <= blind
    assert 9 * FS - BLOCK not in blind


def flat(*issues: set[Issue]) -> SecondQuality:
    none = np.zeros(len(issues), np.bool_)
    return SecondQuality(0, 0, FS, none.astype(np.float64), tuple(map(frozenset, issues)), none, ~none)


@pytest.mark.parametrize(
    ("issues", "lines"),
    [
        ([{Issue.FLAT}, {Issue.FLAT}], [True, True]),
        ([{Issue.FLAT}, {Issue.OFF}], [True, False]),
        # The other one may show that the heart beats.
        ([{Issue.FLAT}, {Issue.NOISE}], [False, False]),
        ([{Issue.FLAT}, set()], [False, False]),
        ([{Issue.OFF}, {Issue.OFF}], [False, False]),
    ],
)
def test_what_may_be_a_heart_that_stands_still(issues: list[set[Issue]], lines: list[bool]) -> None:
    assert flat(*issues).flat_lines.tolist() == lines
