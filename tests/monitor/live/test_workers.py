from __future__ import annotations

import asyncio
from typing import Any

import pytest

from monitor.live.workers import heard, runs_on
from stream.bus import Bus
from stream.embedded import EmbeddedServer
from stream.heartbeat import WorkerStatus, beat, leave, workers_key
from stream.transport.layout import partition_of
from tests.monitor.system.test_words import status as any_status

BED = "icu-1"
MINE = partition_of(BED.encode(), 4)
OTHERS = tuple(number for number in range(4) if number != MINE)


def status(*partitions: int, **changes: Any) -> WorkerStatus:
    return any_status(partitions=partitions, **changes)


INT8 = {"precision": "int8"}
TORCH = {"backend": "torch"}


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([], ""),
        ([status()], ""),
        ([status(0, 1, 2, 3)], "onnxruntime fp32"),
        # All that judge say the same, whoever has the bed.
        ([status(0), status(9), status(**INT8)], "onnxruntime fp32"),
        # They differ, and each partition is one worker's.
        ([status(*OTHERS), status(MINE, **INT8)], "onnxruntime int8"),
        ([status(*OTHERS, **TORCH), status(MINE)], "onnxruntime fp32"),
        # They differ, and nobody can tell who has the bed.
        ([status(*OTHERS[1:]), status(MINE, **INT8)], ""),
        ([status(0, 1, 2, 3), status(MINE, **INT8)], ""),
        ([status(*OTHERS, 4), status(MINE, **INT8)], ""),
        ([status(0, 1, 2, 3), None], ""),
    ],
)
def test_what_judges_a_bed_is_said_if_it_is_certain(
    workers: list[WorkerStatus | None], expected: str
) -> None:
    assert runs_on(workers, BED, 4) == expected


def test_who_has_gone_or_is_silent_is_not_heard(redis_server: EmbeddedServer) -> None:
    async def main() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            client, prefix = bus.client, bus.prefix
            told = {name: status(number).model_dump() for number, name in enumerate(("a", "b", "c"))}
            for name, body in told.items():
                await beat(client, prefix, name, body)
            await beat(client, prefix, "d", {})
            assert sorted(one.partitions for one in await heard(client, prefix) if one) == [(0,), (1,), (2,)]
            assert None in await heard(client, prefix)
            await leave(client, prefix, "a")
            await leave(client, prefix, "d")
            # As if it had been heard of four seconds earlier.
            await client.zincrby(workers_key(prefix), -4_000, "b")
            assert [one.partitions for one in await heard(client, prefix) if one] == [(2,)]

    asyncio.run(main())
