"""What the documentation shows is run, so that it stays true."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from monitor.uploads.desk import UPLOAD_BYTES
from stream.alarms.conditions import CONDITIONS
from stream.bus import Bus
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from stream.subscription.webhook import signature
from stream.topics import SAMPLES, TOPICS
from tests.stream.turmoil import event, publish

DOCS = Path(__file__).parents[2] / "docs"


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


def test_a_bed_can_be_fed_with_redis_and_numpy_alone(redis_server: EmbeddedServer) -> None:
    (example,) = python_blocks(DOCS / "wire.md")
    # The same program against the test's server, and without its waiting.
    program = example.replace("redis://localhost", redis_server.url).replace("time.sleep(0.2)", "pass")

    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            await bus.declare_all()
            exec(compile(program, "wire.md", "exec"), {})
            chunks = [SampleChunk.decode(entry.value) async for entry in bus.kept(SAMPLES)]
        assert [chunk.header.seq for chunk in chunks] == list(range(300))
        assert chunks[0].header.leads == ("II", "V1")
        assert chunks[0].samples.shape == (50, 2)

    asyncio.run(main())


def test_the_documented_topics_are_the_topics() -> None:
    text = (DOCS / "wire.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| [^|]+ \|", text, flags=re.MULTILINE)
    assert {name: int(partitions) for name, partitions in rows} == {
        name: config.partitions for name, config in TOPICS.items()
    }


def test_the_documented_proxy_takes_what_the_page_takes() -> None:
    (most,) = re.findall(r"client_max_body_size (\d+)m;", (DOCS / "page.md").read_text())
    assert int(most) * 2**20 == UPLOAD_BYTES


def test_the_examples_of_following_run(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    following, plain, _, checking = python_blocks(DOCS / "subscribe.md")

    async def fill() -> list[str]:
        async with await Bus.connect(redis_server.url) as bus:
            return await publish(bus, event(1, "icu-1"), event(2, "icu-1"))

    positions = asyncio.run(fill())

    def first_line(example: str) -> str:
        program = example.replace("redis://localhost", redis_server.url)
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.kill()
        return line

    assert first_line(plain).startswith(f"{positions[0]} icu-1 on")
    (tmp_path / "position.txt").write_text(positions[0])
    assert first_line(following).startswith(f"{positions[1]} icu-1 on")
    names: dict[str, Any] = {}
    exec(compile(checking, "subscribe.md", "exec"), names)
    secret, stamp = b"0123456789abcdef", str(int(time.time()))
    headers = {"Bedside-Timestamp": stamp, "Bedside-Signature": signature(secret, stamp, b"{}")}
    assert names["is_ours"](secret, headers, b"{}")
    assert not names["is_ours"](secret, headers, b"{ }")
    assert not names["is_ours"](secret, headers | {"Bedside-Timestamp": "1"}, b"{}")


@pytest.mark.slow
def test_the_example_of_a_consumer_of_sdc_shows_what_is_open(redis_server: EmbeddedServer) -> None:
    _, _, consuming, _ = python_blocks(DOCS / "subscribe.md")
    # Other tests may be on the network.
    bed = f"icu-{uuid.uuid4().hex}"

    async def fill() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, event(1, bed))

    asyncio.run(fill())
    command = ["-m", "bedside", "alerts", "sdc", "--redis", redis_server.url, "--epr", str(uuid.uuid4())]
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True) as provider:
        assert provider.stderr is not None
        assert "alarms are provided" in provider.stderr.readline()
        program = [sys.executable, "-c", consuming.replace("icu-1", bed)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as consumer:
            assert consumer.stdout is not None
            lines = [consumer.stdout.readline() for _ in CONDITIONS]
            consumer.kill()
        provider.terminate()
    assert "alerts/anomaly/signal On\n" in lines
    assert "alerts/asystole/signal Off\n" in lines
