"""The workers that are heard of now, and what each of them runs the model on."""

from __future__ import annotations

from collections.abc import Sequence

import redis.asyncio as redis

from stream.heartbeat import WorkerStatus, read_signs, read_statuses
from stream.transport.layout import partition_of

SILENT_S = 3.0
"""Heartbeats come every second: with a look a second, a worker that dies is shown within five."""


async def heard(client: redis.Redis, prefix: str) -> list[WorkerStatus | None]:
    """Return what the workers that are heard of say of themselves; None for what cannot be read.

    Raises
    ------
    redis.exceptions.RedisError, OSError
        If the server does not answer.
    """
    signs = await read_signs(client, prefix)
    names = [name for name, ms in signs.last_ms.items() if signs.now_ms - ms <= SILENT_S * 1000]
    return list((await read_statuses(client, prefix, names)).values())


def runs_on(workers: Sequence[WorkerStatus | None], bed: str, partitions: int) -> str:
    """Return backend and precision by which a bed is judged; empty if that is not known for certain.

    Parameters
    ----------
    workers : sequence of WorkerStatus or None
        All that are heard of. One runs all its models alike.
    bed : str
    partitions : int
        Of the samples on Redis.
    """
    judging = [worker for worker in workers if worker is not None and worker.partitions]
    if None in workers or not judging:
        return ""
    said = {f"{worker.backend} {worker.precision}" for worker in judging}
    if len(said) == 1:
        return said.pop()
    # On Kafka there may be another number of partitions; and while they change hands two may claim one.
    if sorted(number for worker in judging for number in worker.partitions) != list(range(partitions)):
        return ""
    number = partition_of(bed.encode(), partitions)
    return next(f"{one.backend} {one.precision}" for one in judging if number in one.partitions)
