"""The short form: a few faults, and every invariant after each round.

``make faults`` is the long one, which also measures how soon all is well again.
"""

from __future__ import annotations

import asyncio

import pytest

from models.backends import open_session
from models.bundle import load_bundle
from tests.faults.__main__ import ward
from tests.faults.rounds import run_round

ROUNDS = (
    (1, ("TCP resets", "kill -9 worker")),
    (2, ("full disk", "poison")),
    (3, ("kill -9 Redis", "stop worker 10 s")),
)


@pytest.mark.faults
@pytest.mark.slow
# Three rounds of some fifteen seconds, on one ward: a busy machine may take several times as long.
@pytest.mark.timeout(400)
def test_nothing_is_lost_or_doubled() -> None:
    session = open_session(load_bundle("cae-100hz"))

    async def main(seed: int, kinds: tuple[str, ...]) -> list[str]:
        await one.ready()
        return (await run_round(one, session, seed, kinds, beds=2)).wrong

    with ward() as one:
        for seed, kinds in ROUNDS:
            assert asyncio.run(main(seed, kinds)) == [], f"seed {seed}"
