from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.live.playout import Playout
from tests.monitor.messages import S

FS, N = 500.0, 100
CHUNK_NS = S // 5
TICK_NS = S // 25


def run(
    arrivals: list[tuple[int, int]], until_ns: int, *, fs: float = FS, pace: float = 1.0, n: int = N
) -> tuple[np.ndarray, np.ndarray]:
    """Return position and newest sample at each tick; an arrival is (time, number of the chunk)."""
    playout = Playout(fs, pace)
    waiting = sorted(arrivals)
    positions, newest = [], []
    stop = 0
    for now_ns in range(waiting[0][0], until_ns, TICK_NS):
        while waiting and waiting[0][0] <= now_ns:
            at_ns, number = waiting.pop(0)
            playout.hear(at_ns, number * n, (number + 1) * n)
            stop = max(stop, (number + 1) * n)
        positions.append(playout.position(now_ns))
        newest.append(stop)
    return np.array(positions), np.array(newest)


def test_moves_evenly_although_samples_come_in_chunks() -> None:
    positions, newest = run([(k * CHUNK_NS + CHUNK_NS, k) for k in range(50)], 50 * CHUNK_NS)
    steps = np.diff(positions[10:])
    assert set(steps) <= {19, 20, 21}
    # One chunk behind, and no more than a tick on top.
    assert (newest[10:] - positions[10:]).max() <= N + 20


@given(st.lists(st.integers(0, 80_000_000), min_size=20, max_size=20))
def test_jitter_that_has_been_seen_is_absorbed(jitter: list[int]) -> None:
    arrivals = [((k + 1) * CHUNK_NS + late, k) for k, late in enumerate(jitter * 4)]
    positions, newest = run(arrivals, 80 * CHUNK_NS)
    assert (np.diff(positions) >= 0).all()
    assert (positions <= newest).all()
    # From then on it stands still for no tick, and never runs faster or slower than by one tenth.
    steps = np.diff(positions[150:])
    assert steps.min() >= 17
    assert steps.max() <= 23
    assert (newest[150:] - positions[150:]).max() <= N + 0.08 * FS + 25


def test_an_outage_is_left_behind() -> None:
    # Ten seconds of chunks come at once, late: the screen goes on with the newest instead of replaying them.
    arrivals = [((k + 1) * CHUNK_NS, k) for k in range(20)]
    arrivals += [(20 * CHUNK_NS + 10 * S, k) for k in range(20, 70)]
    arrivals += [((k + 1) * CHUNK_NS, k) for k in range(70, 140)]
    positions, newest = run(arrivals, 139 * CHUNK_NS)
    behind = newest - positions
    at_return = (20 * CHUNK_NS + 10 * S) // TICK_NS
    assert behind[at_return + 25] <= 2 * FS
    assert behind[-1] <= N + 20
    assert (np.diff(positions) >= 0).all()


def test_history_says_nothing_of_arrivals() -> None:
    playout = Playout(FS, 1.0)
    for k in range(100):
        playout.hear(0, k * N, (k + 1) * N, live=False)
    assert playout.position(0) == 100 * N
    playout.hear(CHUNK_NS, 100 * N, 101 * N)
    assert playout.position(CHUNK_NS) == 100 * N


@pytest.mark.parametrize("pace", [0.5, 4.0])
def test_follows_the_pace_of_the_feed(pace: float) -> None:
    step = round(CHUNK_NS / pace)
    positions, newest = run([((k + 1) * step, k) for k in range(80)], 80 * step, pace=pace)
    steps = np.diff(positions[40:])
    assert np.abs(steps - 20 * pace).max() <= 1 + 2 * pace
    assert (newest[40:] - positions[40:]).max() <= N + 20 * pace + 1


def test_a_feed_without_pace_is_shown_at_its_newest_sample() -> None:
    playout = Playout(FS, 0.0)
    playout.hear(0, 0, 5000)
    assert playout.position(1) == 5000
