"""The simulated group: real coordinators share out every partition once, and what moves is counted."""

from __future__ import annotations

import asyncio

import pytest

from bench.assignment import simulate
from stream.embedded import EmbeddedServer


@pytest.mark.slow
def test_a_small_group_shares_and_changes(redis_server: EmbeddedServer) -> None:
    steps = asyncio.run(simulate(redis_server.url, beds=200, workers=5, partitions=20, standbys=1))
    assert [step["workers"] for step in steps] == [5, 4, 5, 5, 4, 5, 6]
    assert [step["partitions_per_worker"] for step in steps[:3]] == [[4, 4], [5, 5], [4, 4]]
    first, stopped, back = steps[:3]
    assert first["beds_moved"] == 0
    # Only what had no worker any more has moved, and most of it to where its state was already.
    assert stopped["beds_moved"] == stopped["beds_moved_of_workers_that_left"] > 0
    assert 0 < stopped["beds_moved_to_a_standby"] <= stopped["beds_moved"]
    assert back["beds_moved"] > back["beds_moved_of_workers_that_left"] == 0
    assert all(step["beds_per_worker"]["median"] >= 200 / 6 * 0.8 for step in steps)
