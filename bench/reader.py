"""The subscriber: follows findings and alarms as any program would, and notes when each arrived.

Runs as a process of its own (``python -m bench.reader URL PREFIX FOLDER``), so that it shares no event loop
with the load generator. It ends, with everything written, on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from bench.load import bed_number
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import Finding
from stream.subscription.follow import alarms
from stream.topics import FINDINGS

FINDINGS_FILE, ALARMS_FILE = "findings.bin", "alarms.jsonl"

_FIELDS = (
    "bed",
    "window",
    "scored",
    "ingest_ns",
    "dequeued_ns",
    "ready_ns",
    "begun_ns",
    "inferred_ns",
    "published_ns",
    "received_ns",
)
_ROW = struct.Struct(f"<{len(_FIELDS)}q")
ROW = np.dtype([(name, "<i8") for name in _FIELDS])
"""A finding as it is noted; ``begun_ns`` is 0 where the worker does not say when inference began."""

# What is lost to whoever looks at the files while we run.
_FLUSH_S = 0.2


def read_findings(folder: Path) -> npt.NDArray[Any]:
    """Return the findings noted so far, in order of arrival, dtype `ROW`."""
    file = folder / FINDINGS_FILE
    if not file.exists():
        return np.empty(0, ROW)
    content = file.read_bytes()
    # A row may be half written.
    return np.frombuffer(content[: len(content) // ROW.itemsize * ROW.itemsize], ROW)


def read_alarms(folder: Path) -> list[dict[str, Any]]:
    """Return the alarm events noted so far.

    Returns
    -------
    list of dict
        ``alarm``, ``bed``, ``kind``, ``code``, ``presence``, ``ingest_ns`` and ``received_ns`` of each.
    """
    file = folder / ALARMS_FILE
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


async def _follow_findings(bus: Bus, file: IO[bytes]) -> None:
    clock = SystemClock()
    async for entry in bus.tail(FINDINGS, after="0"):
        received_ns = clock.now_ns()
        finding = Finding.decode(entry.value)
        stamps = finding.stamps
        file.write(
            _ROW.pack(
                bed_number(finding.bed),
                finding.window,
                finding.score is not None,
                stamps.ingest_ns,
                stamps.dequeued_ns,
                stamps.ready_ns,
                getattr(stamps, "begun_ns", 0),
                stamps.inferred_ns,
                stamps.published_ns,
                received_ns,
            )
        )


async def _follow_alarms(url: str, prefix: str, file: IO[str]) -> None:
    clock = SystemClock()
    async for event in alarms(url, prefix=prefix, since="0-0", silent_after_s=None):
        noted = {
            "alarm": event.alarm,
            "bed": event.bed,
            "kind": event.kind,
            "code": event.code,
            "presence": event.presence,
            "ingest_ns": event.ingest_ns,
            "received_ns": clock.now_ns(),
        }
        file.write(json.dumps(noted) + "\n")


async def _run(url: str, prefix: str, folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with (folder / FINDINGS_FILE).open("wb") as findings, (folder / ALARMS_FILE).open("w") as events:
        async with await Bus.connect(url, prefix=prefix) as bus:
            tasks = [
                asyncio.ensure_future(_follow_findings(bus, findings)),
                asyncio.ensure_future(_follow_alarms(url, prefix, events)),
            ]
            print("ready", flush=True)  # noqa: T201 - our parent waits for it
            while not stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _FLUSH_S)
                findings.flush()
                events.flush()
                for task in tasks:
                    if task.done():
                        await task
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Follow a deployment until SIGTERM."""
    url, prefix, folder = sys.argv[1:]
    asyncio.run(_run(url, prefix, Path(folder)))


if __name__ == "__main__":
    main()
