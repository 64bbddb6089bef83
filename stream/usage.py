"""What this process uses, and which release it is."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_MB = 2**20


def cpu_seconds() -> float:
    """Return the processor time that this process has used, seconds."""
    times = os.times()
    return times.user + times.system


def resident_mb() -> float | None:
    """Return the memory that this process has in use, MB of 2**20 bytes; None where the system tells not."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / _MB, 1)


@cache
def package_version() -> str:
    """Return the version of the package, ``"unknown"`` in a checkout that is not installed."""
    try:
        return version("bedside")
    except PackageNotFoundError:
        return "unknown"
