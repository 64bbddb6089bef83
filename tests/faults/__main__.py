"""The long form: many faults, one report. ``python -m tests.faults --faults 200 --json report.json``."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bench.machine import machine, versions
from bench.markdown import table
from models.backends import open_session
from models.bundle import load_bundle
from models.session import Session
from stream.console import progress_bar
from tests.faults.evidence import keep
from tests.faults.faults import FAULTS
from tests.faults.rounds import Round, run_round
from tests.faults.ward import FaultyWard

# The streams of so many rounds are what a server loads in a second when it comes back.
_ROUNDS_OF_A_WARD = 3
# Violations of a round that are told: one fault can concern a hundred windows.
_TOLD = 12


@click.command()
@click.option("--faults", default=200, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--seed", default=1, show_default=True, help="Of everything that is drawn by lot.")
@click.option(
    "--only", "kinds", multiple=True, type=click.Choice(sorted(FAULTS)), help="This kind; repeatable. [all]"
)
@click.option("--together", default=5, show_default=True, help="Faults in a round.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the report there.")
@click.option(
    "--keep",
    "kept",
    default="build/faults",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Of a round that breaks an invariant, leave there what lay on the topics and what every part said.",
)
def main(
    faults: int, seed: int, kinds: tuple[str, ...], together: int, path: Path | None, kept: Path
) -> None:
    """Put a ward through faults, and say whether every invariant held."""
    plans = plan(faults, seed, kinds or tuple(FAULTS), together)
    # As the tests do: workers run what the report is compared with.
    os.environ["BEDSIDE_BACKEND"] = "onnxruntime"
    session = open_session(load_bundle("cae-100hz"))
    rounds: list[Round] = []
    with progress_bar("faults", faults) as progress:
        for first in range(0, len(plans), _ROUNDS_OF_A_WARD):
            with ward() as one:
                for number, chosen in plans[first : first + _ROUNDS_OF_A_WARD]:
                    rounds.append(asyncio.run(_round(one, session, number, chosen)))
                    progress(sum(len(done.courses) for done in rounds))
                    for wrong in rounds[-1].wrong[:_TOLD]:
                        click.echo(f"seed {number}: {wrong}")
                    if rounds[-1].wrong:
                        keep(one, rounds[-1].wrong, kept / f"seed-{number}")
                        click.echo(f"seed {number}: see {kept / f'seed-{number}'}")
                        # What it left behind must not be held against the next one.
                        break
            # Also of a run that is broken off.
            found = report(rounds, seed)
            if path is not None:
                path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    click.echo("\n".join(in_words(found)))
    raise SystemExit(bool(found["violations"]))


def plan(faults: int, seed: int, kinds: Sequence[str], together: int) -> list[tuple[int, list[str]]]:
    """Return seed and faults of each round: every kind as often as the others, in an order of its own."""
    dice = random.Random(seed)
    pool: list[str] = []
    while len(pool) < faults:
        some = list(kinds)
        dice.shuffle(some)
        pool += some
    starts = range(0, faults, together)
    return [(seed * 1000 + place, pool[at : min(at + together, faults)]) for place, at in enumerate(starts)]


@contextmanager
def ward() -> Iterator[FaultyWard]:
    """Run a ward in a folder that is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="bs-"))
    try:
        with FaultyWard(folder) as one:
            yield one
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _round(one: FaultyWard, session: Session, seed: int, kinds: Sequence[str]) -> Round:
    await one.ready()
    return await run_round(one, session, seed, kinds, say=click.echo)


def report(rounds: Sequence[Round], seed: int) -> dict[str, Any]:
    """Return what is worth keeping of a run."""
    by_kind: defaultdict[str, list[Any]] = defaultdict(list)
    for done in rounds:
        for course in done.courses:
            by_kind[course.kind].append(course)
    return {
        "machine": machine(),
        "versions": versions(),
        "seed": seed,
        "faults": sum(map(len, by_kind.values())),
        "rounds": len(rounds),
        "chunks": sum(done.chunks for done in rounds),
        "findings": sum(done.findings for done in rounds),
        "alarms": sum(done.alarms for done in rounds),
        "thinned_out": sum(done.thinned_out for done in rounds),
        "violations": [f"seed {done.seed}: {wrong}" for done in rounds for wrong in done.wrong],
        "kinds": {
            kind: {
                "faults": len(courses),
                "told_s": _spread([course.told_s for course in courses]),
                "back_s": _spread([course.back_s for course in courses]),
            }
            for kind, courses in sorted(by_kind.items())
        },
        "rss_mb": {
            name: max(done.rss_mb.get(name, math.nan) for done in rounds if name in done.rss_mb)
            for name in sorted({name for done in rounds for name in done.rss_mb if " " not in name})
        },
    }


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    there = sorted(value for value in values if value is not None)
    if not there:
        return None
    return {"median": round(there[len(there) // 2], 2), "max": round(there[-1], 2)}


def in_words(found: dict[str, Any]) -> list[str]:
    """Return a report as lines of Markdown."""

    def cell(spread: dict[str, float] | None) -> str:
        return "–" if spread is None else f"{spread['median']:.1f} / {spread['max']:.1f}"

    rows = [
        (kind, str(one["faults"]), cell(one["told_s"]), cell(one["back_s"]))
        for kind, one in found["kinds"].items()
    ]
    lines = table(("fault", "times", "told after, median / max (s)", "back after, median / max (s)"), rows)
    sums = f"{found['faults']} faults, {found['chunks']} chunks, {found['findings']} findings, "
    sums += f"{found['alarms']} alarms, {found['thinned_out']} beds for whose windows there was no time"
    return [*lines, "", sums + f"; {len(found['violations'])} violations"]


if __name__ == "__main__":
    main()
