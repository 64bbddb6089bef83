"""Measure replay: how evenly chunks go out at speed 1, and a day of signal through ``bedside analyze``.

``python -m bench.replaying`` starts a server of its own, and analyses in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import psutil
import wfdb

from bench.machine import machine, versions
from ingest.recordings import open_recording
from ingest.simulator import PatientSimulator
from ingest.source import Recording
from stream.bus import Bus
from stream.children import spawn
from stream.console import json_option, write_json
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from stream.topics import SAMPLES

# Imports, the first reads and the server's first pages are over by then.
_WARM_UP_S = 2.0
_LOOK_S = 0.2
# Of an analysis: until then models are loaded and arenas fill.
_SETTLED = 0.2
_MEGABYTE = 2**20


def measure_jitter(record: Path, beds: int, seconds: float) -> dict[str, Any]:
    """Replay a record as so many beds, live; return how late chunks went out, and were in Redis.

    Live device time is the time at which a sample is due, and the stream says by our clock when a chunk went
    out, and by the server's, to the millisecond, when it was there.
    """
    lasts_s = _WARM_UP_S + seconds
    command = ["replay", str(record), "--loop", "--beds", str(beds), "--seconds", str(lasts_s)]

    async def sent(url: str) -> npt.NDArray[np.int64]:
        times = []
        async with await Bus.connect(url) as bus:
            await bus.declare(SAMPLES)
            async for entry in bus.kept(SAMPLES):
                chunk = SampleChunk.decode(entry.value)
                there_ns = int(entry.id.partition("-")[0]) * 1_000_000
                times.append((chunk.time_of(chunk.end), chunk.header.ingest_ns, there_ns))
        return np.array(times, np.int64)

    with tempfile.TemporaryDirectory(prefix="bs-") as name, EmbeddedServer(Path(name)) as server:
        child = spawn(
            [sys.executable, "-m", "bedside", *command, "--redis", server.url, "--metrics-port", "0"],
            stderr=subprocess.PIPE,
        )
        _, said = child.communicate()
        if child.returncode != 0:
            raise click.ClickException(said.decode().strip())
        times = asyncio.run(sent(server.url))
    times = times[times[:, 0] > times[:, 0].min() + _WARM_UP_S * 1e9]
    return {
        "beds": beds,
        "seconds": seconds,
        "chunks": len(times),
        "sent_late": _quantiles_ms(times[:, 1] - times[:, 0]),
        "there_late": _quantiles_ms(times[:, 2] - times[:, 0]),
    }


def _quantiles_ms(late_ns: npt.NDArray[np.int64]) -> dict[str, float]:
    levels = {"p50_ms": 50, "p99_ms": 99, "p999_ms": 99.9, "max_ms": 100}
    return {name: round(float(np.percentile(late_ns, level)) / 1e6, 3) for name, level in levels.items()}


def measure_analysis(record: Path, hours: float, folder: Path) -> dict[str, Any]:
    """Analyse a record repeated for so many hours; return how fast it went and what memory it took."""
    long = _tiled(open_recording(record), hours, folder)
    out = folder / "analysis.json"
    command = [sys.executable, "-m", "bedside", "analyze", str(long), "--json", str(out)]
    begun = time.monotonic()
    child = spawn(command, env=os.environ | {"BEDSIDE_BACKEND": "onnxruntime"})
    process = psutil.Process(child.pid)
    memory: list[tuple[float, float]] = []
    while child.poll() is None:
        try:
            memory.append((time.monotonic() - begun, process.memory_info().rss / _MEGABYTE))
            cpu = process.cpu_times()
        except psutil.NoSuchProcess:
            break
        time.sleep(_LOOK_S)
    took_s = time.monotonic() - begun
    if child.wait() != 0:
        raise click.ClickException(f"bedside analyze ended with exit code {child.returncode}")
    analysis = json.loads(out.read_text())
    times, mb = np.array(memory).T
    settled = times > _SETTLED * took_s
    slope, _ = np.polyfit(times[settled], mb[settled], 1)
    return {
        "hours": hours,
        "leads": len(analysis["leads"]),
        "fs": analysis["fs"],
        "windows": len(analysis["windows"]),
        "alarms": len(analysis["alarms"]),
        "took_s": round(took_s, 1),
        "times_real_time": round(analysis["duration_s"] / took_s),
        "cpu_s": round(cpu.user + cpu.system, 1),
        "rss_mb": {"settled": round(float(mb[settled][0]), 1), "max": round(float(mb.max()), 1)},
        # What stays are the results: a score and its leads for each window.
        "rss_mb_per_hour": round(float(slope) * took_s / hours, 2),
    }


def _tiled(recording: Recording, hours: float, folder: Path) -> Path:
    # Format 16, as an amplifier would have stored it; read in pieces by who analyses it.
    assert recording.n_samples is not None
    piece = recording.read(0, recording.n_samples)
    frames = round(hours * 3600 * recording.fs)
    header = wfdb.Record(
        record_name="long",
        n_sig=len(recording.leads),
        fs=recording.fs,
        sig_len=frames,
        file_name=["long.dat"] * len(recording.leads),
        fmt=["16"] * len(recording.leads),
        adc_gain=list(recording.gain),
        baseline=[0] * len(recording.leads),
        units=["mV"] * len(recording.leads),
        adc_res=[16] * len(recording.leads),
        adc_zero=[0] * len(recording.leads),
        init_value=[int(value) for value in piece[0]],
        checksum=[0] * len(recording.leads),
        block_size=[0] * len(recording.leads),
        sig_name=list(recording.leads),
    )
    header.wrheader(write_dir=str(folder))
    with (folder / "long.dat").open("wb") as file:
        for start in range(0, frames, len(piece)):
            file.write(piece[: frames - start].astype("<i2").tobytes())
    return folder / "long"


def _simulated(folder: Path, seed: int) -> Path:
    # Five minutes of twelve leads at 500 Hz.
    patient = PatientSimulator(seed, duration_s=300.0)
    wfdb.wrsamp(
        "patient",
        fs=patient.fs,
        units=["mV"] * len(patient.leads),
        sig_name=list(patient.leads),
        d_signal=patient.read(0, round(300 * patient.fs)),
        fmt=["16"] * len(patient.leads),
        adc_gain=list(patient.gain),
        baseline=[0] * len(patient.leads),
        write_dir=str(folder),
    )
    return folder / "patient"


@click.command()
@click.option(
    "--beds", "wards", multiple=True, default=(1, 64), show_default=True, type=click.IntRange(1, 1000)
)
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(min=2))
@click.option("--hours", default=24.0, show_default=True, type=click.FloatRange(min=0.05))
@click.option("--data", metavar="PATH", help="A record. [default: a simulated one of 12 leads at 500 Hz]")
@click.option("--seed", default=0, show_default=True)
@json_option
def main(
    wards: tuple[int, ...], seconds: float, hours: float, data: str | None, seed: int, json_path: str | None
) -> None:
    """Measure how evenly a replay goes out, and how fast a day of signal is analysed.

    \b
    python -m bench.replaying --json bench/results/replaying-2-cores.json
    python -m bench.replaying --data $BEDSIDE_DATA/mitdb/100 --json bench/results/replaying-mitdb-2-cores.json
    """  # noqa: D301 (click needs the control character)
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        folder = Path(name)
        record = Path(data) if data else _simulated(folder, seed)
        jitter = []
        for beds in wards:
            jitter.append(measure_jitter(record, beds, seconds))
            click.echo(f"jitter: {json.dumps(jitter[-1])}", err=json_path == "-")
        analysis = measure_analysis(record, hours, folder)
        click.echo(f"analysis: {json.dumps(analysis)}", err=json_path == "-")
    result = {
        "benchmark": "replaying",
        "machine": machine(),
        "versions": versions(),
        "data": Path(data).name if data else "simulated",
        "jitter": jitter,
        "analysis": analysis,
    }
    if json_path:
        write_json(json.dumps(result, indent=1), json_path)


if __name__ == "__main__":
    main()
