"""Chunks and segments for tests: signals in which every sample can be told from every other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.bus import Bus
from stream.contract import ChunkHeader, SampleChunk, Validity
from stream.embedded import EmbeddedServer
from stream.recording.lock import locked
from stream.recording.recorder import Recorder
from stream.recording.segment import Begin
from stream.recording.writer import SegmentWriter
from stream.topics import SAMPLES

# Half past ten, and some.
T0 = 1_764_412_200_123_456_789
HOUR = 3_600_000_000_000
FS = 500.0
LEADS = ("I", "II", "V1")
GAIN = (1000.0, 200.0, 409.6)


def signal(start: int, stop: int, leads: int = len(LEADS)) -> npt.NDArray[np.int16]:
    """Return the samples of a session from `start` up to `stop`: noise that depends on the place alone."""
    place = np.arange(start, stop)[:, np.newaxis] * 64 + np.arange(leads)
    mixed = (place.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)
    return (mixed.astype(np.int64) - 32768).clip(-32767).astype(np.int16)


def header(n0: int = 0, **changes: Any) -> ChunkHeader:
    fields: dict[str, Any] = {
        "bed": "icu-1",
        "session": "s",
        "seq": n0,
        "n0": n0,
        "t0": T0 + round(n0 * 1e9 / changes.get("fs", FS)),
        "ingest_ns": T0,
        "fs": FS,
        "leads": LEADS,
        "gain": GAIN,
    } | changes
    return ChunkHeader(valid=fields.pop("valid", (Validity.OK,) * len(fields["leads"])), **fields)


def chunk(n0: int, n: int = 100, **changes: Any) -> SampleChunk:
    made = header(n0, **changes)
    return SampleChunk(made, signal(n0, n0 + n, len(made.leads)))


def chunks(start: int, stop: int, step: int = 100, **changes: Any) -> list[SampleChunk]:
    return [chunk(n0, min(step, stop - n0), **changes) for n0 in range(start, stop, step)]


def write_segment(
    folder: Path, frames: int, *, leads: Sequence[str] = LEADS, end: bool = True, **changes: Any
) -> Path:
    """Write a segment of noise and return its path, without extension."""
    fields: dict[str, Any] = {
        "bed": "icu-1",
        "session": "s",
        "n0": 0,
        "t0": T0,
        "fs": FS,
        "gain": (1000.0,) * len(leads),
        "begun_ns": T0,
    }
    begin = Begin(leads=tuple(leads), **fields | changes)
    writer = SegmentWriter(folder, begin)
    n0 = begin.n0
    writer.append(n0, begin.t0, signal(n0, n0 + frames, len(leads)), (Validity.OK,) * len(leads))
    writer.sync(T0 if end else None)
    assert writer.record is not None
    return writer.record


async def publish(bus: Bus, sent: Sequence[SampleChunk]) -> None:
    await bus.publish_many(SAMPLES, [(one.header.bed.encode(), one.encode()) for one in sent], paced=False)


async def record(
    server: EmbeddedServer,
    root: Path,
    sent: Sequence[SampleChunk] = (),
    *,
    prefix: str = "bedside:",
    also: Callable[[Bus], Any] | None = None,
    **options: Any,
) -> list[str]:
    """Run a recorder for as long as it takes to record what is sent, and return what it said."""
    said: list[str] = []
    async with await Bus.connect(server.url, prefix=prefix) as bus:
        stop, ready = asyncio.Event(), asyncio.Event()
        recorder = Recorder(bus, root, say=said.append, **options)
        with locked(root):
            running = asyncio.ensure_future(recorder.run(stop, ready.set))
            await asyncio.wait({running, asyncio.ensure_future(ready.wait())}, return_when="FIRST_COMPLETED")
            if sent:
                await publish(bus, sent)
            if also is not None:
                await also(bus)
            # Told to stop, it reads what has come once more.
            stop.set()
            await running
    return said
