"""The senders and the adapter that docs/adapters.md shows, run as its reader runs them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.ports import free_port
from ingest.live.kit import SourceKit
from ingest.live.notes import Rule
from stream.bus import Bus
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from tests.command_line import assert_refused, run
from tests.docs.test_examples import DOCS, python_blocks
from tests.ingest.live.feeding import chunks_on, until_samples

JSON_SENDER, BINARY_SENDER, WEBSOCKET_SENDER, ADAPTER, KIT = python_blocks(DOCS / "adapters.md")


class Adapter:
    """A process of ``bedside ingest NAME``."""

    def __init__(self, *arguments: object, path: Path | None = None, **environment: str) -> None:
        search = os.pathsep.join([*([str(path)] if path else []), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bedside", "ingest", *map(str, arguments), "--metrics-port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": search} | environment,
        )
        assert self.process.stderr is not None
        self.first = self.process.stderr.readline()
        assert "waiting for devices" in self.first, self.first + self.process.stderr.read()

    def stop(self) -> str:
        """End it as an init system does; return what else it said."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, errors
        return errors


def sent_by(program: str, **replaced: str) -> None:
    """Run an example without its waiting."""
    for old, new in {"time.sleep(0.2)": "pass", "asyncio.sleep(0.2)": "asyncio.sleep(0)"}.items():
        program = program.replace(old, new)
    for old, new in replaced.items():
        program = program.replace(old.removeprefix("port_"), new)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def fed(server: EmbeddedServer, prefix: str, bed: str, samples: int) -> list[SampleChunk]:
    async def main() -> list[SampleChunk]:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            return await until_samples(bus, samples, bed)

    return asyncio.run(main())


def ends(server: EmbeddedServer, prefix: str, bed: str) -> list[bool]:
    async def main() -> list[bool]:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            return [chunk.header.last for chunk in await chunks_on(bus, bed)]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "usual", "programs"),
    [
        ("tcp", "8040", {"icu-1": JSON_SENDER, "icu-2": BINARY_SENDER}),
        ("ws", "8041", {"icu-3": WEBSOCKET_SENDER}),
    ],
)
def test_the_senders_feed_their_beds_and_sigterm_ends_the_feeds(
    redis_server_module: EmbeddedServer, name: str, usual: str, programs: dict[str, str]
) -> None:
    prefix, port = f"{name}:", str(free_port())
    adapter = Adapter(*(name, "--port", port, "--redis", redis_server_module.url), BEDSIDE_PREFIX=prefix)
    for bed, program in programs.items():
        # As many lines as the page promises, beside what they are of.
        assert len([line for line in program.splitlines() if line]) <= 11
        sent_by(program, **{f"port_{usual}": port})
        chunks = fed(redis_server_module, prefix, bed, 15_000)
        assert {chunk.header.leads for chunk in chunks} == {("II", "V1")}
        assert {int(chunk.samples[0, 0]) for chunk in chunks} == {100}
    errors = adapter.stop()
    for bed in programs:
        assert f"bed {bed}: II V1 at 250 Hz from 127.0.0.1" in errors
        assert ends(redis_server_module, prefix, bed).index(True) == 300


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip makes of a package with the adapter of the page, and of one that is broken."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "your_package.py").write_text(ADAPTER)
    assert len(ADAPTER.strip().splitlines()) <= 40
    toml = (DOCS / "adapters.md").read_text()
    (section,) = re.findall(r'entry-points\."bedside.sources"\]\n(\w+) = "([\w.:]+)"', toml)
    info = folder / "your_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: your-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[bedside.sources]\n" + " = ".join(section) + "\nbroken = your_package:Nothing\n"
    )
    return folder


def test_an_adapter_of_another_package_is_a_command(
    redis_server_module: EmbeddedServer, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    adapter = Adapter(
        *("datagrams", "--port", port, "--redis", redis_server_module.url),
        path=package,
        BEDSIDE_PREFIX="datagrams:",
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        for n0 in range(0, 500, 50):
            message = {"bed": "icu-9", "n0": n0, "mv": [0.5] * 50}
            device.sendto(json.dumps(message).encode(), ("127.0.0.1", port))
    chunks = fed(redis_server_module, "datagrams:", "icu-9", 500)
    assert {int(value) for chunk in chunks for value in chunk.samples[:, 0]} == {500}
    adapter.stop()
    # One that cannot be loaded is told of, and harms no other.
    monkeypatch.syspath_prepend(str(package))
    listed = run("ingest", "--help")
    assert "datagrams" in listed.stdout
    assert "Datagrams of JSON, lead II." in listed.stdout
    assert_refused(run("ingest", "broken", "--port", "1"), "your_package:Nothing cannot be used")


names: dict[str, Any] = {"__name__": "adapters"}
exec(compile(ADAPTER + KIT, "adapters.md", "exec"), names)


class TestDatagrams(names["TestDatagrams"], SourceKit):  # type: ignore[misc]
    """The example passes the kit, by the class that the page shows."""


def test_the_alarms_stand_in_the_risk_table() -> None:
    table = (DOCS / "alarms.md").read_text().partition("## The risk table")[2].partition("\n## ")[0]
    for rule in Rule:
        assert f"| `{rule}` | technical | {rule.priority} | no |" in table
