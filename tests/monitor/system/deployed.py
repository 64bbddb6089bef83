"""A real worker, a feed and a dashboard: what this folder's tests ask."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.ports import free_port
from bench.ward import Ward
from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from stream.bus import Bus
from stream.children import spawn
from stream.clock import SystemClock
from stream.contract import SampleChunk
from stream.topics import SAMPLES

DOCS = Path(__file__).parents[3] / "docs"
BEDS = ("icu-4711", "icu-4712")
PATIENCE_S = 120.0


class Answer(NamedTuple):
    status: int
    kind: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def get(url: str, **headers: str) -> Answer:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return Answer(answer.status, answer.headers["Content-Type"], answer.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers["Content-Type"], error.read().decode())


def wait_for(
    condition: Callable[[], Any], every_s: float = 0.1, *, missing: Callable[[], object] = lambda: ""
) -> Any:
    """Ask until it is so; what HTTP tells has no event that a test could await.

    `missing` returns what to show if it never is.
    """
    clock = SystemClock()
    end_ns = clock.now_ns() + round(PATIENCE_S * 1e9)
    while not (found := condition()):
        assert clock.now_ns() < end_ns, f"it does not come about: {missing()}"
        asyncio.run(clock.sleep_until(clock.now_ns() + round(every_s * 1e9)))
    return found


class Running(NamedTuple):
    """A worker, a feed that has been, a feed that is, and a dashboard."""

    page: str
    pages: tuple[str, str, str]
    """Where Prometheus looks: dashboard, worker, ingest."""
    worker: str
    report: Any
    ward: Ward


@contextmanager
def deployment() -> Iterator[Running]:
    """Run it; two beds have fallen ill, one goes on, and a message could not be read."""
    directory = Path(tempfile.mkdtemp(prefix="bs-"))
    ports = [free_port() for _ in range(3)]
    urls = [f"http://127.0.0.1:{port}/" for port in ports]
    with Ward(directory, page_port=ports[0], worker_options=("--metrics-port", str(ports[1]))) as ward:
        asyncio.run(ward.ready())
        asyncio.run(feed(ward.url))
        command = [sys.executable, "-m", "bedside", "ingest", "simulate", "--beds", "1", "--redis", ward.url]
        ingest = spawn([*command, "--metrics-port", str(ports[2])])
        try:

            def done() -> Any:
                report = get(f"{urls[0]}api/system").json
                (worker,) = report["workers"]
                status = worker["status"]
                well = (
                    status and status["stages"] and status["beds"] == 3 and status["errors"]["dead letters"]
                )
                return report if well and report["alarms"]["last_hour"]["high"] else None

            report = wait_for(done)
            pages = (urls[0] + "metrics", urls[1] + "metrics", urls[2] + "metrics")
            yield Running(urls[0], pages, report["workers"][0]["name"], report, ward)
        finally:
            ingest.kill()
            ingest.wait()
    shutil.rmtree(directory, ignore_errors=True)


async def feed(url: str) -> None:
    """Publish half a minute of two beds that fall ill, and something that is no chunk."""
    async with await Bus.connect(url) as bus:
        clock = SystemClock()
        for seed, bed in enumerate(BEDS):
            patient = PatientSimulator(seed, "sinus:80@0 vt:180@10", fs=500.0, duration_s=30.0)
            for chunk in chunks_of(patient, bed, f"session-of-{bed}", chunk_s=0.2):
                header = chunk.header.model_copy(update={"ingest_ns": clock.now_ns()})
                value = SampleChunk(header, chunk.samples).encode()
                await bus.publish(SAMPLES, bed.encode(), value)
            # Once more: it is left out.
            await bus.publish(SAMPLES, bed.encode(), value)
        await bus.client.xadd(f"{bus.prefix}{SAMPLES}:0", {"k": "icu-4713", "v": "no chunk"})
