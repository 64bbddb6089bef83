"""What a round that broke an invariant leaves behind: what lay on the topics, each part's last words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from stream import topics
from tests.faults.ward import FaultyWard

_TOPICS = (topics.SAMPLES, topics.FINDINGS, topics.ALARMS)


def keep(ward: FaultyWard, wrong: Sequence[str], folder: Path) -> None:
    """Write evidence into a folder.

    Parameters
    ----------
    ward : FaultyWard
        Still running.
    wrong : sequence of str
        What the round came to.
    folder : pathlib.Path
        Made if need be. Gets ``violations.txt``; of each topic a ``.jsonl`` with place and value of each
        message, without samples; a ``.log`` of each part that still runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "violations.txt").write_text("\n".join(wrong) + "\n")
    for topic, lines in asyncio.run(_lying_on_topics(ward)).items():
        (folder / f"{topic}.jsonl").write_text("".join(line + "\n" for line in lines))
    for name in ward.children:
        (folder / f"{name}.log").write_text(ward.log(name) + "\n")


async def _lying_on_topics(ward: FaultyWard) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {topic: [] for topic in _TOPICS}
    async with ward.direct() as bus:
        for topic, lines in found.items():
            async for entry in bus.kept(topic):
                # Of a chunk, the line before its samples.
                head = entry.value.partition(b"\n")[0].decode(errors="replace")
                lines.append(json.dumps({"id": entry.id, "partition": entry.partition, "value": head}))
    return found
