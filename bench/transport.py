"""Measure the Redis Streams transport: one Faust worker process on a server of its own.

``python -m bench.transport`` prints how many messages per second a worker drains, and how long a message
takes from XADD to the agent's body at fixed rates.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
import faust
import numpy as np
import redis

from bench.machine import in_words, machine, versions
from stream.children import spawn
from stream.embedded import EmbeddedServer
from stream.transport.layout import TopicConfig, partition_of, registry_key, stream_key

# A chunk of 12 leads, 200 ms at 500 Hz, with its header; and 400 ms of it.
_PAYLOADS = (2_700, 5_000)
_RATES = (200, 1_000)
_BEDS = 200
_PARTITIONS = 16
_PREFIX = "bench:"
# The first messages wait for a worker that has just started.
_WARM_UP_S = 1.0
_TIMEOUT_S = 120.0


def run_worker(broker: str, diary_url: str, expected: int) -> None:
    """Consume `expected` messages and leave a report under the key ``report``.

    Runs in a process of its own.
    """
    app = faust.App(
        "bench",
        broker=broker,
        web_enabled=False,
        broker_commit_interval=1.0,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=1.0,
        stream_wait_empty=False,
    )
    topic = app.topic(
        "samples", key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )
    diary = redis.Redis.from_url(diary_url)

    async def measure(stream: faust.Stream[bytes]) -> None:
        # Monotonic time is the same in all processes of a machine.
        seen = np.empty(expected, np.int64)
        sent = np.empty(expected, np.int64)
        count = 0
        cpu_s = 0.0
        async for event in stream.events():
            seen[count] = time.monotonic_ns()
            sent[count] = int.from_bytes(event.value[:8], "little")
            if count == 0:
                cpu_s = time.process_time()
            count += 1
            if count == expected:
                break
        latency_ms = (seen - sent)[sent - sent[0] >= _WARM_UP_S * 1e9] / 1e6
        report = {
            "seconds": (seen[-1] - seen[0]) / 1e9,
            "cpu_s": time.process_time() - cpu_s,
            "latency_ms": {
                name: float(np.percentile(latency_ms, q)) if latency_ms.size else None
                for name, q in (("p50", 50), ("p99", 99), ("max", 100))
            },
        }
        diary.set("report", json.dumps(report))

    async def ready(*_: Any, **__: Any) -> None:
        diary.set("ready", 1)

    # Faust's types want an agent that takes a stream of anything.
    app.agent(topic, name="measure")(measure)  # type: ignore[arg-type]
    app.on_rebalance_complete.connect(ready, weak=False)
    sys.exit(faust.Worker(app, loglevel="warning").execute_from_commandline())


class _Trial:
    """A fresh server, and a worker that expects so many messages."""

    def __init__(self, expected: int, payload: int) -> None:
        self.expected = expected
        self._payload = os.urandom(payload - 8)
        self._directory = tempfile.TemporaryDirectory(prefix="bs-")

    def __enter__(self) -> _Trial:
        self._server = EmbeddedServer(self._directory.name).start()
        self.redis = redis.Redis.from_url(self._server.url)
        self.redis.hset(registry_key(_PREFIX), "samples", TopicConfig(_PARTITIONS).to_json())
        self._worker: subprocess.Popen[bytes] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
        self.redis.close()
        self._server.stop()
        self._directory.cleanup()

    def start_worker(self) -> None:
        arguments = (f"{self._server.url}?prefix={_PREFIX}", self._server.url, self.expected)
        program = f"from bench.transport import run_worker; run_worker(*{arguments!r})"
        self._worker = spawn([sys.executable, "-c", program], stdout=subprocess.DEVNULL)

    def add(self, number: int, client: Any) -> None:
        bed = b"bed-%d" % (number % _BEDS)
        stream = stream_key(_PREFIX, "samples", partition_of(bed, _PARTITIONS))
        stamp = time.monotonic_ns().to_bytes(8, "little")
        client.xadd(stream, {"t": time.time_ns() // 1_000_000, "k": bed, "v": stamp + self._payload})

    def wait_for(self, key: str) -> bytes:
        deadline = time.monotonic() + _TIMEOUT_S
        while (value := self.redis.get(key)) is None:
            if time.monotonic() > deadline:
                raise click.ClickException(f"the worker has not finished within {_TIMEOUT_S:.0f} s")
            time.sleep(0.05)
        return cast(bytes, value)


def drain(messages: int, payload: int) -> dict[str, Any]:
    """Return how fast a worker works off a backlog."""
    with _Trial(messages, payload) as trial:
        with trial.redis.pipeline(transaction=False) as pipeline:
            for number in range(messages):
                trial.add(number, pipeline)
                if number % 200 == 199:
                    pipeline.execute()
            pipeline.execute()
        trial.start_worker()
        report = json.loads(trial.wait_for("report"))
    return {
        "payload_bytes": payload,
        "messages": messages,
        "messages_per_s": round(messages / report["seconds"]),
        "cpu_ms_per_message": round(report["cpu_s"] * 1000 / messages, 3),
    }


def latency(rate: float, payload: int, seconds: float) -> dict[str, Any]:
    """Return how long messages take from XADD to the agent's body at a rate (messages/s)."""
    messages = int(rate * (seconds + _WARM_UP_S))
    with _Trial(messages, payload) as trial:
        trial.start_worker()
        trial.wait_for("ready")
        began = time.monotonic()
        for number in range(messages):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            trial.add(number, trial.redis)
        report = json.loads(trial.wait_for("report"))
    return {
        "payload_bytes": payload,
        "rate_per_s": rate,
        "messages": messages,
        **{f"{name}_ms": round(value, 2) for name, value in report["latency_ms"].items()},
    }


@click.command()
@click.option("--messages", default=20_000, show_default=True, help="Backlog to drain.")
@click.option("--rate", type=float, multiple=True, default=_RATES, show_default=True, help="Messages/s.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of each latency measurement.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write results here."
)
def main(messages: int, rate: tuple[float, ...], seconds: float, json_path: Path | None) -> None:
    """Measure the Redis Streams transport with one Faust worker."""
    note: Callable[[str], None] = lambda text: click.echo(text, err=True)  # noqa: E731
    result: dict[str, Any] = {"machine": machine(), "versions": versions(), "drain": [], "latency": []}
    for payload in _PAYLOADS:
        note(f"draining {messages} messages of {payload} bytes ...")
        row = drain(messages, payload)
        result["drain"].append(row)
        click.echo(f"drain    {payload:5d} B            {row['messages_per_s']:7d} messages/s")
    for one in rate:
        for payload in _PAYLOADS:
            note(f"{one:g} messages/s of {payload} bytes for {seconds:g} s ...")
            row = latency(one, payload, seconds)
            result["latency"].append(row)
            times = "   ".join(f"{name} {row[f'{name}_ms']:.2f} ms" for name in ("p50", "p99", "max"))
            click.echo(f"latency  {payload:5d} B  {one:5g} /s   {times}")
    click.echo(in_words())
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
