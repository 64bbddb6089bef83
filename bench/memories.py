"""What it costs that another worker can go on with a bed as if nothing had been: bytes, and processor time.

One simulated patient through the engine, with the rows that a worker writes: its state every two seconds,
what was learnt of its signal (`stream.vitals.memory`) when the last one is six seconds old.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench.machine import machine, versions
from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from models.bundle import load_bundle
from stream.engine import Engine

_BED = "bed"
_CHUNK_S = 0.2
_CHUNKS_OF_A_ROW = 10
# Ectopic beats, a tachycardia and another rhythm: as many kinds of beats as are kept.
_TIMELINE = "pvc:20@0 vt:180@60 sinus:80@75 af:110@150"


def measure(seconds: float) -> dict[str, Any]:
    """Return bytes and processor time of one bed, 12 leads at 500 Hz in chunks of 200 ms."""
    patient = PatientSimulator(1, _TIMELINE, fs=500.0, duration_s=seconds)
    chunks = list(chunks_of(patient, _BED, "s", chunk_s=_CHUNK_S))
    engine = Engine(load_bundle("cae-100hz").manifest, "fp32")
    spent = {"accept": 0.0, "row": 0.0, "memory": 0.0}
    sizes: dict[str, list[int]] = {"row": [], "memory": []}

    def timed(what: str, work: Callable[[], Any]) -> Any:
        begun = time.process_time()
        done = work()
        spent[what] += time.process_time() - begun
        return done

    def memory() -> bytes | None:
        found = engine.memory(_BED)
        return None if found is None else found.encode()

    for number, chunk in enumerate(chunks, 1):
        timed("accept", partial(engine.accept, chunk, 0))
        if number % _CHUNKS_OF_A_ROW:
            continue
        row = timed("row", lambda: engine.state(_BED).model_dump_json().encode())
        sizes["row"].append(len(row))
        if (kept := timed("memory", memory)) is not None:
            sizes["memory"].append(len(kept))
    return {
        "seconds": seconds,
        "timeline": _TIMELINE,
        "us_per_bed_second": {what: round(of_all / seconds * 1e6, 1) for what, of_all in spent.items()},
        "bytes": {
            what: {"mean": round(sum(of_all) / len(of_all)), "max": max(of_all)}
            for what, of_all in sizes.items()
        },
        "per_second": {what: round(len(of_all) / seconds, 3) for what, of_all in sizes.items()},
    }


@click.command()
@click.option("--seconds", default=300.0, show_default=True, type=click.FloatRange(min=20))
@click.option("--json", "path", default="bench/results/memories.json", show_default=True, metavar="FILE")
def main(seconds: float, path: str) -> None:
    """Measure what memories of beds cost; see the module."""
    result = measure(seconds) | {"machine": machine(), "versions": versions()}
    Path(path).write_text(json.dumps(result, indent=1) + "\n")
    click.echo(json.dumps({name: result[name] for name in ("us_per_bed_second", "bytes", "per_second")}))


if __name__ == "__main__":
    main()
