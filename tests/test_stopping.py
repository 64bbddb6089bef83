"""Every command that runs until it is stopped ends with exit code 0 on SIGTERM, and logs as it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import redis

from stream.asking import acknowledge
from stream.bus import Bus
from stream.embedded import EmbeddedServer
from stream.topics import SAMPLES
from tests.stream.turmoil import event

PASSWORD = "hidden-word"
NAME = "Florence"
COMMANDS = {
    "worker": ("worker", "--backend", "onnxruntime", "--metrics-port", "0"),
    "dashboard": ("dashboard", "--port", "0"),
    "watch": ("watch",),
    "record": ("record", "--metrics-port", "0"),
    "alerts": ("alerts", "--follow", "--since", "1h", "--json"),
    "forward": ("alerts", "forward", "https://hooks.example/hidden-path", "--metrics-port", "0"),
    "ingest": ("ingest", "simulate", "--metrics-port", "0"),
    "replay": ("replay", "{signal}", "--fs", "100", "--loop", "--bed", "again", "--metrics-port", "0"),
}
# What each says once it runs.
READY = {
    "worker": "worker ready",
    "dashboard": "live page at",
    "watch": "watching the workers",
    "record": "recording every bed",
    "forward": "forwarding as",
}
PATIENCE_S = 60.0


class Running:
    """One of the commands, with what it prints."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        arguments = [part.format(signal=folder / "signal.npy") for part in COMMANDS[name]]
        self.out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the module
        self.err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bedside", "-v", *arguments],
            stdout=self.out,
            stderr=self.err,
            env=os.environ
            | {
                "BEDSIDE_REDIS_URL": url,
                "BEDSIDE_LOG_FORMAT": "json",
                "BEDSIDE_RECORDINGS": str(folder / "recordings"),
            },
        )

    def printed(self, stream: IO[bytes]) -> str:
        return os.pread(stream.fileno(), 1 << 20, 0).decode()


@pytest.fixture(scope="module")
def commands() -> Iterator[tuple[dict[str, Running], str]]:
    """Run all of them on a server that asks for a password."""
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="bs-") as name, EmbeddedServer(name) as server:
        folder = Path(name)
        redis.Redis.from_url(server.url).config_set("requirepass", PASSWORD)
        url = server.url.replace("unix://", f"unix://:{PASSWORD}@")
        np.save(folder / "signal.npy", np.zeros((500, 12)))

        async def alarm() -> None:
            async with await Bus.connect(url) as bus:
                raised = event(0, "icu-1")
                await bus.publish("alarms", raised.bed.encode(), raised.encode())

        asyncio.run(alarm())
        running = {name: Running(name, url, folder) for name in COMMANDS}
        yield running, url
        for one in running.values():
            one.process.kill()
            one.process.wait()
            one.out.close()
            one.err.close()


@pytest.mark.slow
def test_all_end_cleanly_and_log_no_secret_and_no_name(commands: tuple[dict[str, Running], str]) -> None:
    running, url = commands
    client = redis.Redis.from_url(url)
    deadline = time.monotonic() + PATIENCE_S

    def beds() -> set[bytes]:
        keys = list(client.scan_iter(f"bedside:{SAMPLES}:*"))
        return {client.xrevrange(key, count=1)[0][1][b"k"] for key in keys}

    def ready(name: str) -> bool:
        one = running[name]
        assert one.process.poll() is None, one.printed(one.err)
        if name in READY:
            return READY[name] in one.printed(one.err)
        if name == "alerts":
            return "icu-1" in one.printed(one.out)
        return (b"sim-1" if name == "ingest" else b"again") in beds()

    waiting = set(running)
    while waiting:
        assert time.monotonic() < deadline, f"not ready: {waiting}"
        waiting = {name for name in waiting if not ready(name)}
        time.sleep(0.1)

    async def disturb() -> None:
        # Something to log, with a bed and a name.
        async with await Bus.connect(url) as bus:
            await bus.publish(SAMPLES, b"icu-9", b"no chunk")
            answer = await acknowledge(bus, bed="sim-1", who=NAME)
            assert answer.who == NAME

    asyncio.run(disturb())
    while "dead letter" not in running["worker"].printed(running["worker"].err):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for one in running.values():
        one.process.terminate()
    for name, one in running.items():
        assert one.process.wait(20) == 0, (name, one.printed(one.err))
    lines = {}
    for name, one in running.items():
        text = one.printed(one.err)
        assert PASSWORD not in text
        assert NAME not in text
        assert "hidden-path" not in text
        lines[name] = [json.loads(line) for line in text.splitlines()]
    (letter,) = [line for line in lines["worker"] if "dead letter" in line["message"]]
    assert letter["bed"] == "icu-9"
    assert letter["chunk"].startswith("samples:")
