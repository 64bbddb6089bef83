"""How far apart a worker's reads are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.transport.reader import Pace

EASY_S, BUSY_S = 0.01, 0.05


def settled(share: float, every_s: float = 0.02, seconds: float = 10.0) -> float:
    """Return what a pace has come to where reads take a share of a thread's time."""
    pace, gather_s = Pace(), EASY_S
    for read in range(round(seconds / every_s)):
        gather_s = pace.gather_s(read * every_s, read * every_s * share)
    return gather_s


def test_an_idle_worker_reads_soon_and_a_busy_one_lets_more_come_together() -> None:
    gathered = [settled(share) for share in (0.0, 0.4, 0.6, 0.8, 1.0)]
    assert gathered[0] == gathered[1] == EASY_S
    assert EASY_S < gathered[2] < gathered[3]
    assert BUSY_S * 0.99 <= gathered[3] <= gathered[4] <= BUSY_S


def test_a_moment_of_work_does_not_count() -> None:
    pace = Pace()
    for read in range(100):
        assert pace.gather_s(read * 0.02, 0.0) == EASY_S
    # One read after 200 ms of work.
    assert pace.gather_s(2.2, 0.2) == EASY_S


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=50))
def test_whatever_the_clocks_say_a_read_is_never_put_off_for_long(steps: list[tuple[float, float]]) -> None:
    pace, now_s, cpu_s = Pace(), 0.0, 0.0
    for passed_s, used_s in steps:
        now_s, cpu_s = now_s + passed_s, cpu_s + used_s
        assert EASY_S <= pace.gather_s(now_s, cpu_s) <= BUSY_S
