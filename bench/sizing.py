"""What a bed costs in bytes: on the wire, and in a Redis server that keeps ten minutes of it.

A real deployment takes ten minutes of simulated patients as fast as it can; then its server is asked.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import click

from bench.machine import machine, versions
from bench.ward import Ward
from ingest.chunks import Feed
from ingest.publisher import BusPublisher
from ingest.replay import replay
from ingest.simulator import PatientSimulator
from models.bundle import load_bundle
from stream.bus import Bus
from stream.topics import BEDS_TABLE, FINDINGS, MEMORIES_TABLE, SAMPLES, VITALS, WORKER_GROUP
from stream.transport.layout import stream_key

_CHANGELOG = f"{WORKER_GROUP}-{BEDS_TABLE}-changelog"
_MEMORIES = f"{WORKER_GROUP}-{MEMORIES_TABLE}-changelog"
_MEASURED = (SAMPLES, FINDINGS, VITALS, _CHANGELOG, _MEMORIES)
_LOOK_S = 0.5
_TIMEOUT_S = 600.0


async def measure(beds: int, seconds: float) -> dict[str, Any]:
    """Return what beds that are fed for so long leave on a server, by topic.

    Parameters
    ----------
    beds : int
    seconds : float
        Of signal, 12 leads at 500 Hz in chunks of 200 ms.

    Returns
    -------
    dict
    """
    window = load_bundle("cae-100hz").manifest.window
    findings = beds * int((seconds - window.seconds) * window.fs / window.hop + 1)
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, Ward(Path(folder) / "s") as ward:
        await ward.ready()
        async with await ward.connect() as bus:
            before = await bus.client.info("memory")
            feeds = [
                Feed(f"bed-{number}", PatientSimulator(number, "", fs=500.0, duration_s=seconds))
                for number in range(beds)
            ]
            await replay(feeds, BusPublisher(bus), speed=float("inf"))
            async with asyncio.timeout(_TIMEOUT_S):
                # Nobody tells when all is scored.
                while not await _all_there(bus, beds, findings):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)
            topics = {topic: await _measured(bus, topic, beds, seconds) for topic in _MEASURED}
            after = await bus.client.info("memory")
        ward.check()
    return {
        "beds": beds,
        "seconds": seconds,
        "topics": topics,
        "server_mb_per_bed": round((after["used_memory"] - before["used_memory"]) / beds / 2**20, 2),
    }


async def _all_there(bus: Bus, beds: int, findings: int) -> bool:
    if not {_CHANGELOG, _MEMORIES} <= (await bus.topics()).keys():
        return False
    rows = [await _count(bus, table) for table in (_CHANGELOG, _MEMORIES)]
    return await _count(bus, FINDINGS) >= findings and min(rows) >= beds


async def _count(bus: Bus, topic: str) -> int:
    partitions = (await bus.topics())[topic].partitions
    return sum([await bus.client.xlen(stream_key(bus.prefix, topic, number)) for number in range(partitions)])


async def _measured(bus: Bus, topic: str, beds: int, seconds: float) -> dict[str, Any]:
    messages, memory = await _count(bus, topic), 0
    values: list[int] = []
    for partition in range((await bus.topics())[topic].partitions):
        key = stream_key(bus.prefix, topic, partition)
        memory += await bus.client.memory_usage(key, samples=0) or 0
        rows: Any = await bus.client.xrange(key, count=100)
        values += [len(fields[b"v"]) for _, fields in rows]
    return {
        "messages": messages,
        "messages_per_bed_and_s": round(messages / beds / seconds, 3),
        "bytes_per_message": round(sum(values) / max(1, len(values))),
        "server_bytes_per_message": round(memory / max(1, messages)),
    }


@click.command()
@click.option("--beds", default=16, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(min=20))
@click.option("--json", "path", default="bench/results/sizing.json", show_default=True, metavar="FILE")
def main(beds: int, seconds: float, path: str) -> None:
    """Measure what a bed costs in bytes; see the module."""
    result = asyncio.run(measure(beds, seconds)) | {"machine": machine(), "versions": versions()}
    Path(path).write_text(json.dumps(result, indent=1) + "\n")
    click.echo(json.dumps({name: result[name] for name in ("topics", "server_mb_per_bed")}, indent=1))


if __name__ == "__main__":
    main()
