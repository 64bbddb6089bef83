"""Measure the recorder: what a ward costs it, what an hour becomes, and how soon a moment of it is found.

``python -m bench.recording`` starts a server of its own, the recorder and a load generator, each a process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from bench.load import CHUNK_NS, LoadPlan, bed_name
from bench.machine import machine, versions
from bench.signals import recorded, simulated
from stream.children import spawn
from stream.console import json_option, write_json
from stream.contract import Validity
from stream.embedded import EmbeddedServer
from stream.recording.compression import compress
from stream.recording.names import folder_of
from stream.recording.segment import Begin, Segment, beside
from stream.recording.store import Recordings
from stream.recording.writer import SegmentWriter
from stream.topics import DEFAULT_PREFIX

_HOUR_S = 3600
# A recorder has loaded what it needs, and the beds have all begun, by then.
_WARM_UP_S = 3.0
_LOOKS = 20
# As other benchmarks have it where illness does not matter.
_ILL_EVERY_S = 300.0
# Half past ten, so that an hour begins and ends between.
_T0 = 1_764_412_200_000_000_000


def measure_ward(beds: int, seconds: float, paths: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Record a ward live; return what the recorder used of a core, and what it lost."""
    with tempfile.TemporaryDirectory(prefix="bs-") as name, EmbeddedServer(Path(name) / "server") as server:
        folder = Path(name)
        chunks = round((_WARM_UP_S + seconds) * 1e9 / CHUNK_NS)
        accepted = folder / "accepted.npy"
        plan = LoadPlan(
            url=server.url,
            prefix=DEFAULT_PREFIX,
            beds=beds,
            chunks=chunks,
            seed=seed,
            ill_every_s=_ILL_EVERY_S,
            paths=paths,
            accepted=str(accepted),
        )
        plan.write(folder / "plan.json")
        command = ["-m", "bedside", "record", "--redis", server.url, "--out", str(folder / "out")]
        recorder = spawn([sys.executable, *command, "--metrics-port", "0"], stderr=subprocess.PIPE)
        generator = spawn(
            [sys.executable, "-m", "bench.load", str(folder / "plan.json")], stdout=subprocess.PIPE
        )
        assert recorder.stderr is not None
        assert generator.stdout is not None
        if b"recording" not in (line := recorder.stderr.readline()):
            raise click.ClickException(line.decode().strip())
        generator.stdout.readline()
        time.sleep(_WARM_UP_S)
        process = psutil.Process(recorder.pid)
        before, begun = process.cpu_times(), time.monotonic()
        report = json.loads(generator.stdout.readline())
        after, took = process.cpu_times(), time.monotonic() - begun
        memory = process.memory_info().rss
        recorder.send_signal(signal.SIGINT)
        recorder.wait()
        kept = Recordings(folder / "out")
        held = {bed: sum(one.frames for one in kept.segments(bed)) for bed in kept.beds()}
        lost = sum(samples - held.get(bed_name(n), 0) for n, (samples, _) in enumerate(report["sent"]))
        return {
            "beds": beds,
            "seconds": round(took, 1),
            "cpu_percent": round(100 * (sum(after[:2]) - sum(before[:2])) / took, 1),
            "rss_mb": round(memory / 2**20, 1),
            "lost_samples": lost,
            "generator_late_p99_ms": report["late"]["p99_ms"],
        }


def measure_hour(paths: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Compress an hour of one bed and look at moments of it."""
    playlist = (recorded(paths) if paths else simulated(seed, _ILL_EVERY_S))[0]
    leads = len(playlist.leads)
    whole = np.concatenate([np.frombuffer(chunk, "<i2").reshape(-1, leads) for chunk in playlist.chunks])
    frames = round(_HOUR_S * playlist.fs)
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        root = Path(name)
        begin = Begin(
            bed="icu-1",
            session="s",
            n0=0,
            t0=_T0,
            fs=playlist.fs,
            leads=playlist.leads,
            gain=playlist.gain,
            begun_ns=0,
        )
        writer = SegmentWriter(root / folder_of("icu-1"), begin)
        writer.append(0, _T0, np.resize(whole, (frames, leads)), (Validity.OK,) * leads)
        writer.sync(0)
        assert writer.record is not None
        raw = beside(writer.record, ".dat").stat().st_size
        begun = time.process_time()
        compress(writer.record, begin, frames)
        compress_s = time.process_time() - begun
        kept = Recordings(root)
        places = np.random.default_rng(seed).uniform(0, _HOUR_S - 60, _LOOKS)
        return {
            "raw_mb": round(raw / 1e6, 1),
            "share": round((kept.size("icu-1")) / raw, 3),
            "compress_cpu_s": round(compress_s, 2),
            "read_10_s_ms": _read_ms(kept, places, 10),
            "read_60_s_ms": _read_ms(kept, places, 60),
            "read_hour_ms": _read_ms(kept, places[:1] * 0, _HOUR_S),
            "frames": Segment.open(writer.record).frames,
        }


def _read_ms(kept: Recordings, places: Any, seconds: int) -> float:
    took = []
    for place in places:
        t0 = _T0 + round(place * 1e9)
        begun = time.perf_counter()
        kept.read("icu-1", t0, t0 + seconds * 10**9)
        took.append((time.perf_counter() - begun) * 1e3)
    return round(float(np.median(took)), 1)


@click.command()
@click.option("--beds", default=64, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(min=5))
@click.option(
    "--data", "paths", multiple=True, metavar="PATH", help="Recordings instead of simulated patients."
)
@click.option("--seed", default=0, show_default=True)
@json_option
def main(beds: int, seconds: float, paths: tuple[str, ...], seed: int, json_path: str | None) -> None:
    """Measure what recording a ward costs.

    \b
    python -m bench.recording --json bench/results/recording-2-cores.json
    """  # noqa: D301 (click needs the control character)
    ward = measure_ward(beds, seconds, paths, seed)
    hour = measure_hour(paths, seed)
    # Each bed once an hour.
    total = round(ward["cpu_percent"] + beds * hour["compress_cpu_s"] / _HOUR_S * 100, 1)
    result = {
        "benchmark": "recording",
        "machine": machine(),
        "versions": versions(),
        "data": list(paths) or "simulated",
        "ward": ward,
        "hour": hour,
        "cpu_percent_with_compression": total,
    }
    for part in ("ward", "hour"):
        click.echo(f"{part}: {json.dumps(result[part])}", err=json_path == "-")
    click.echo(f"with compression {total} % of a core", err=json_path == "-")
    if json_path:
        write_json(json.dumps(result, indent=1), json_path)


if __name__ == "__main__":
    main()
