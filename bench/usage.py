"""What processes use: share of a core, resident memory and file handles, sampled while they run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from scipy import stats

# Often enough for a soak's slope and a run's peak, and nothing against what is measured.
_EVERY_S = 1.0
SERVER_DATA = "the server's data"
"""What the server needs its memory for now; what it needed once it may keep, and use again."""
# Neighbouring samples of memory are alike: their means over this many stretches are taken for independent.
_STRETCHES = 20


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast something grows, with its 95 % interval, both per hour."""

    per_hour: float
    interval: tuple[float, float]


def slope(at_s: list[float], values: list[float]) -> Slope | None:
    """Return the slope of a straight line through means over stretches of equal length.

    Parameters
    ----------
    at_s : list of float
        Seconds, ascending.
    values : list of float

    Returns
    -------
    Slope or None
        The interval is that of least squares over the stretches' means (Student's t). None with fewer than
        two values in each stretch.
    """
    per_stretch = len(values) // _STRETCHES
    if per_stretch < 2:
        return None

    def means(numbers: list[float]) -> list[float]:
        stretches = (numbers[n * per_stretch : (n + 1) * per_stretch] for n in range(_STRETCHES))
        return [sum(stretch) / per_stretch for stretch in stretches]

    line = stats.linregress([at / 3600 for at in means(at_s)], means(values))
    # No number where nothing changes at all.
    margin = float(np.nan_to_num(stats.t.ppf(0.975, _STRETCHES - 2) * line.stderr))
    rise = float(line.slope)
    return Slope(round(rise, 3), (round(rise - margin, 3), round(rise + margin, 3)))


@dataclass(slots=True)
class Usage:
    """CPU time, memory and file handles of named processes over a run.

    Parameters
    ----------
    pids : mapping of str to int
    also : mapping of str to callable, optional
        What else takes memory: returns how much, MB.
    """

    pids: Mapping[str, int]
    also: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    at_s: list[float] = field(default_factory=list)
    """When each sample was taken, seconds of the monotonic clock."""
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    rss_mb: dict[str, list[float]] = field(default_factory=dict)
    handles: dict[str, list[int]] = field(default_factory=dict)

    def sample(self) -> None:
        """Take one sample; a process that has ended keeps its last values."""
        self.at_s.append(time.monotonic())
        for name, pid in self.pids.items():
            cpu, rss = self.cpu_s.setdefault(name, []), self.rss_mb.setdefault(name, [])
            handles = self.handles.setdefault(name, [])
            try:
                process = psutil.Process(pid)
                times = process.cpu_times()
                now = times.user + times.system, process.memory_info().rss / 2**20, process.num_fds()
            except psutil.NoSuchProcess:
                now = (cpu[-1], rss[-1], handles[-1]) if cpu else (0.0, 0.0, 0)
            cpu.append(now[0])
            rss.append(now[1])
            handles.append(now[2])
        for name, measure in self.also.items():
            self.rss_mb.setdefault(name, []).append(measure())

    async def watch(self) -> None:
        """Take samples until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(_EVERY_S)

    def between(self, begin_s: float, end_s: float) -> dict[str, dict[str, Any]]:
        """Return ``cpu_percent`` (of one core) and the highest ``rss_mb`` of each process in a time.

        Parameters
        ----------
        begin_s, end_s : float
            Seconds of the monotonic clock.
        """
        chosen = [place for place, at in enumerate(self.at_s) if begin_s <= at <= end_s]
        if len(chosen) < 2:
            chosen = list(range(len(self.at_s)))
        first, last = chosen[0], chosen[-1]
        seconds = max(self.at_s[last] - self.at_s[first], 1e-9)
        return {
            name: {
                "cpu_percent": round(100 * (self.cpu_s[name][last] - self.cpu_s[name][first]) / seconds, 1),
                "rss_mb": round(max(self.rss_mb[name][first : last + 1]), 1),
            }
            for name in self.pids
        }

    def growth(self, name: str, begin_s: float) -> Slope | None:
        """Return how fast the memory of something grows from a time on, MB (2**20 bytes) per hour."""
        chosen = [place for place, at in enumerate(self.at_s) if at >= begin_s]
        return slope([self.at_s[n] for n in chosen], [self.rss_mb[name][n] for n in chosen])
