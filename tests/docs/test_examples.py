"""What the documentation shows is run, so that it stays true."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from stream.bus import Bus
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from stream.topics import SAMPLES, TOPICS

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
