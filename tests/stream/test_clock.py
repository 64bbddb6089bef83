"""Clocks: the system's never steps back, the manual one moves when told."""

from __future__ import annotations

import asyncio
import time

import pytest

from stream.clock import ManualClock, SystemClock


def test_the_system_clock_tells_the_time_and_rises() -> None:
    clock = SystemClock()
    assert abs(clock.now_ns() - time.time_ns()) < 1_000_000_000
    readings = [clock.now_ns() for _ in range(1000)]
    assert readings == sorted(readings)


def test_a_step_of_the_wall_clock_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now_ns()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert 0 <= clock.now_ns() - before < 1_000_000_000


def test_the_system_clock_sleeps_until() -> None:
    async def sleep() -> int:
        clock = SystemClock()
        due = clock.now_ns() + 30_000_000
        await clock.sleep_until(due)
        return clock.now_ns() - due

    assert -2_000_000 <= asyncio.run(sleep()) < 1_000_000_000


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock(1_000)])
def test_sleeping_until_the_past_gives_others_one_turn(clock: SystemClock | ManualClock) -> None:
    async def sleep() -> list[str]:
        turns = []

        async def other() -> None:
            turns.append("other")

        task = asyncio.create_task(other())
        await clock.sleep_until(0)
        turns.append("back")
        await task
        return turns

    assert asyncio.run(sleep()) == ["other", "back"]


def test_a_manual_clock_moves_when_told_and_never_back() -> None:
    clock = ManualClock(5)
    assert clock.now_ns() == 5
    clock.set(9)
    clock.set(7)
    assert clock.now_ns() == 9
    asyncio.run(clock.sleep_until(30))
    assert clock.now_ns() == 30
    asyncio.run(clock.sleep_until(20))
    assert clock.now_ns() == 30
