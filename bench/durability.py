"""What it costs alarms to be on a replica and in a file: ``python -m bench.durability``.

A producer publishes alarm events at a steady rate: on a server alone, on one with a replica and an
append-only file, and there with the question that a worker asks at each checkpoint. All on this machine.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import faust
import numpy as np
import redis

from bench.machine import in_words, machine, versions
from bench.ports import free_port
from stream.bus import Bus
from stream.children import spawn
from stream.clock import SystemClock
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority
from stream.durability import Durability
from stream.embedded import find_binary
from stream.outgoing import Outgoing
from stream.settings import broker_with_prefix

# More than a storm of 64 beds: 3752 transitions in 200 s (docs/performance.md).
_RATE = 20.0
# As a worker's checkpoints (`stream.worker`).
_EVERY_S = 2.0
_WARM_UP_S = 1.0
_TIMEOUT_S = 30.0
_KEPT = ("--appendonly", "yes", "--appendfsync", "everysec")


@contextmanager
def _server(*options: str) -> Iterator[int]:
    # A server, by its port.
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bs-") as folder:
        command = [str(find_binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        log = Path(folder, "log").open("wb")  # noqa: SIM115 - closed below
        process = spawn([*command, "--save", "", *options], stdout=log, stderr=log)
        try:
            _wait_for(port, lambda client: client.ping())
            yield port
        finally:
            process.kill()
            process.wait()
            log.close()


def _wait_for(port: int, true: Any) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    with redis.Redis(port=port) as client:
        while True:
            try:
                if true(client):
                    return
            except redis.ConnectionError:
                pass
            if time.monotonic() > deadline:
                raise click.ClickException("a server does not come up")
            time.sleep(0.02)


@contextmanager
def _replicated() -> Iterator[int]:
    with (
        _server(*_KEPT, "--repl-diskless-sync-delay", "0") as primary,
        _server(*_KEPT, "--replicaof", f"127.0.0.1 {primary}") as replica,
    ):
        _wait_for(replica, lambda client: client.info("replication")["master_link_status"] == "up")
        yield primary


def _event(number: int) -> AlarmEvent:
    return AlarmEvent(
        alarm=f"alarm-{number}",
        event=f"alarm-{number}-0",
        bed=f"bed-{number % 64}",
        session="s",
        rule="anomaly",
        kind=AlarmKind.PHYSIOLOGICAL,
        code="ECG_ANOMALY",
        priority=Priority.MEDIUM,
        presence=Presence.ON,
        onset=0,
        onset_t=0,
        since=0,
        message="the model does not know this",
        ingest_ns=0,
    )


async def _measure(port: int, seconds: float, *, asks: bool) -> dict[str, Any]:
    url = f"redis://127.0.0.1:{port}"
    app = faust.App("bench", broker=broker_with_prefix(url, "bedside:"), web_enabled=False)
    outgoing = Outgoing(app.maybe_start_producer)
    published: list[float] = []
    answered: list[float] = []
    async with await Bus.connect(url) as bus:
        await bus.declare_all()

        async def get() -> Bus:
            return bus

        durability = Durability(get, SystemClock(), url)

        async def ask_forever() -> None:
            while True:
                await asyncio.sleep(_EVERY_S)
                began = time.monotonic()
                await durability.confirm(published=True)
                answered.append(time.monotonic() - began)

        asking = asyncio.create_task(ask_forever()) if asks else None
        began = time.monotonic()
        for number in range(int((seconds + _WARM_UP_S) * _RATE)):
            due = began + number / _RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await (await outgoing.event(_event(number)))
            # From when it was due: one that had to wait for another counts its wait.
            if due - began >= _WARM_UP_S:
                published.append(time.monotonic() - due)
        if asking is not None:
            asking.cancel()
        await app.producer.stop()
    return {"published": _spread(published)} | ({"answered": _spread(answered)} if asks else {})


def _spread(seconds: list[float]) -> dict[str, float]:
    ms = np.asarray(seconds) * 1000
    of = {"p50_ms": 50, "p99_ms": 99, "max_ms": 100}
    return {"n": len(seconds)} | {name: round(float(np.percentile(ms, q)), 2) for name, q in of.items()}


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="Of each measurement.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
def main(seconds: float, json_path: Path | None) -> None:
    """Measure how late alarms are published, with and without a replica and a file, and asking for them."""
    rows = []
    for name, servers, asks in (
        ("a server alone", _server, False),
        ("with a replica and a file", _replicated, False),
        ("and a worker that asks for both", _replicated, True),
    ):
        with servers() as port:
            row = {"name": name, **asyncio.run(_measure(port, seconds, asks=asks))}
        rows.append(row)
        click.echo(json.dumps(row))
    click.echo(in_words())
    if json_path is not None:
        result = {
            "benchmark": "durability",
            "rate_per_s": _RATE,
            "seconds": seconds,
            "machine": machine(),
            "versions": versions(),
            "rows": rows,
        }
        json_path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
