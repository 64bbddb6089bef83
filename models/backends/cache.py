"""What backends remember on this machine: engines that were built, and what was measured to be fastest."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Return the folder of Bedside in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedside"


def digest(facts: dict[str, Any]) -> str:
    """Return a short name for a set of facts; equal facts have equal names."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def keep(path: Path, content: bytes) -> bool:
    """Write a file of the cache at once or not at all; false where there is no place for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        # Whoever reads at the same time sees the old file or the new one.
        os.replace(file.name, path)
    except OSError:
        return False
    return True


def kept(path: Path) -> bytes | None:
    """Return what `keep` wrote, or None."""
    with suppress(OSError):
        return path.read_bytes()
    return None


def machine() -> dict[str, Any]:
    """Return what decides how fast a backend is here: the processor and how many cores there are."""
    model = platform.processor()
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found.group(1) if found else model
    return {"host": platform.node(), "processor": model, "cores": os.cpu_count()}


def say(line: str) -> None:
    """Tell the person at the terminal about something that takes time or was decided for them."""
    # Where the log has a form of its own, as JSON, it goes there.
    log = logging.getLogger("bedside")
    if log.isEnabledFor(logging.INFO):
        log.info(line)
    else:
        sys.stderr.write(f"bedside: {line}\n")
        sys.stderr.flush()
