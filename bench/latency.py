"""End-to-end latency: simulated beds through server and worker back to a subscriber, in real time.

``python -m bench.latency`` starts a deployment of its own and prints how long each stage took, until a
subscriber had the finding or the alarm, and what the worker used. The load is open-loop: a chunk is sent
when it is due, whether or not earlier ones have been answered, and each latency counts from its own chunk's
ingest.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import psutil

from bench.machine import in_words, machine, versions
from bench.tally import Sent, Tally, percentiles_ms
from bench.ward import Ward
from ingest.chunks import Feed
from ingest.publisher import BusPublisher
from ingest.replay import ReplayStatus, replay
from ingest.simulator import PatientSimulator
from models.bundle import load_bundle
from stream.console import progress_bar
from stream.settings import Settings

_LAST_FINDINGS_S = 10.0
# Every second bed falls ill, one after the other, so that there are alarms to deliver.
_FIRST_ONSET_S = 12


def _patients(beds: int, seconds: float) -> list[Feed]:
    feeds = []
    for number in range(beds):
        onset = _FIRST_ONSET_S + number % 10
        timeline = f"sinus:80@0 vt:180@{onset}" if number % 2 else ""
        feeds.append(Feed(f"bed-{number + 1}", PatientSimulator(number, timeline, duration_s=seconds)))
    return feeds


async def measure(beds: int, seconds: float, *, on_progress: Any = None) -> dict[str, Any]:
    """Run `beds` simulated beds for so many seconds of signal, in real time.

    Returns
    -------
    dict
        The fields of ``bedside bench latency --json``.
    """
    window = load_bundle(Settings().model).manifest.window
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, Ward(Path(folder)) as ward:
        await ward.ready()
        processes = {"worker": psutil.Process(ward.children["worker"].pid)}
        if ward.server.pid is not None:
            processes["server"] = psutil.Process(ward.server.pid)
        async with await ward.connect() as bus:
            tally, sent = Tally(), Sent(BusPublisher(bus))
            following = asyncio.ensure_future(tally.follow(bus))
            for process in processes.values():
                process.cpu_percent()

            def told(status: ReplayStatus) -> None:
                if on_progress is not None:
                    on_progress(status.chunks)

            report = await replay(_patients(beds, seconds), sent, on_status=told)
            cpu = {name: process.cpu_percent() for name, process in processes.items()}
            rss = processes["worker"].memory_info().rss
            lost = await tally.lost_at_last(sent, window, _LAST_FINDINGS_S)
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
        ward.check()
    return {
        "beds": beds,
        "seconds": seconds,
        "chunks": report.chunks,
        "findings": tally.findings,
        "alarms": len(tally.raised),
        "lost": lost,
        "behind_ms": round(report.max_behind_s * 1000, 1),
        "stages": {
            stage: {f"{name}_ms": value for name, value in percentiles_ms(values).items()}
            for stage, values in tally.stages_ms.items()
        },
        "worker_rss_mb": round(rss / 2**20, 1),
        "cpu_percent": cpu,
        "machine": machine(),
        "versions": versions(),
    }


@click.command()
@click.option("--beds", default=16, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(min=30))
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def main(beds: int, seconds: float, json_path: Path | None) -> None:
    """Measure end-to-end latency in real time."""
    with progress_bar(f"{beds} beds", beds * seconds * 5) as progress:
        result = asyncio.run(measure(beds, seconds, on_progress=progress))
    click.echo(
        f"{beds} beds, {seconds:g} s: {result['chunks']} chunks, {result['findings']} findings,"
        f" {result['alarms']} alarms, {result['lost']} lost"
    )
    click.echo(f"{'stage':22}{'p50':>9}{'p90':>9}{'p99':>9}{'p99.9':>9}{'max':>9}  ms")
    for stage, row in result["stages"].items():
        values = "".join("        -" if value is None else f"{value:9.2f}" for value in row.values())
        click.echo(f"{stage:22}{values}")
    used = ", ".join(f"{name} {percent:g} %" for name, percent in result["cpu_percent"].items())
    click.echo(f"worker memory {result['worker_rss_mb']:g} MiB; CPU of one core: {used}")
    click.echo(in_words())
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
