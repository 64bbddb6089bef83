"""Signs of life of the workers: written by each every second, read by whoever wants to know who is there.

Keys, behind the deployment's prefix:

``worker:<name>``
    What a worker says of itself, a `WorkerStatus`. Its last words stay for a day, for whoever wants to know
    what became of it, unless it stops on purpose or another comes for it: `workers` tells who lives.
``workers``
    Sorted set: when each worker was last heard of, ms by the server's clock. A worker that stops on purpose
    takes itself out; one that dies stays, so that everybody sees the same last sign of it.
``workers:joined``
    Sorted set: since when each has been there.
``workers:left``
    ``<ms> <name>`` of the last worker that stopped on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as redis
from pydantic import BaseModel, ConfigDict, ValidationError

from stream.latency import Spent

HEARTBEAT = "worker:"
"""Key of a worker's heartbeat, behind the deployment's prefix and before the worker's name."""

BEAT_S = 1.0
# As long as snapshots are kept.
_LAST_WORDS_S = 86_400
STATUS_VERSION = 1
STEP_MS = 1_000
"""A sign of life from so far ahead was left before the server's clock was set back: whoever lives has left
another one by now, or will within a second."""

_NOW = """
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
"""

# KEYS: the worker's key, workers, joined; ARGV: name, body, time to live (s)
_BEAT = (
    _NOW
    + """
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[3], 'NX', now, ARGV[1])
"""
)

# KEYS: the worker's key, workers, joined, left; ARGV: name
_LEAVE = (
    _NOW
    + """
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('SET', KEYS[4], now .. ' ' .. ARGV[1])
"""
)


class Warned(BaseModel):
    """A line of a worker's log."""

    at: int
    """Ns since the epoch, by the worker's clock."""
    text: str


class WorkerStatus(BaseModel):
    """What a worker says of itself. Fields that a later version adds are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    v: int
    """Rises when a field changes its meaning."""
    at: int
    """When it was said, ns since the epoch, by the worker's clock."""
    started: int
    """When the worker came up, likewise."""
    version: str
    """Of the package."""
    model: str
    backend: str
    precision: str
    fallback: str | None = None
    """Why the model does not run on the backend that comes first, where it does not."""
    beds: int
    """Beds that it holds and has heard."""
    partitions: tuple[int, ...]
    """Those of the samples topic that it holds."""
    chunks_per_s: float
    windows_per_s: float
    """Over the last ten seconds."""
    behind_s: float
    """How much older the last chunk that it took is than the newest one; the most of all its partitions."""
    shedding: int
    """What it leaves out for lack of time, a step of `stream.shedding`."""
    stages: dict[str, Spent]
    """Of the windows of the last minute, median and 99th percentile; none without a window."""
    cpu: float
    """Processors used over the last ten seconds: 1 is one of them all the time."""
    rss_mb: float | None = None
    """Memory, MB of 2**20 bytes; None where the system does not tell."""
    errors: dict[str, int]
    """Since the start, by kind."""
    recent_errors: int
    """In the last minute."""
    warning: Warned | None = None
    """The newest warning or error in its log."""


def workers_key(prefix: str) -> str:
    """Return the Redis key of the sorted set of all workers' last signs of life."""
    return f"{prefix}workers"


async def beat(client: redis.Redis, prefix: str, name: str, body: Mapping[str, Any]) -> None:
    """Write a worker's sign of life."""
    workers = workers_key(prefix)
    keys = [f"{prefix}{HEARTBEAT}{name}", workers, f"{workers}:joined"]
    await client.eval(_BEAT, len(keys), *keys, name, json.dumps(body), str(_LAST_WORDS_S))


async def leave(client: redis.Redis, prefix: str, name: str) -> None:
    """Say that a worker stops on purpose: its silence is no alarm."""
    workers = workers_key(prefix)
    keys = [f"{prefix}{HEARTBEAT}{name}", workers, f"{workers}:joined", f"{workers}:left"]
    await client.eval(_LEAVE, len(keys), *keys, name)


@dataclass(frozen=True, slots=True)
class Signs:
    """What the workers have shown of themselves; all times in ms, by the server's clock.

    Attributes
    ----------
    now_ms : int
    last_ms : dict of str to int
        Last sign of life of every worker that has not stopped on purpose.
    joined_ms : dict of str to int
        Since when it has been there.
    left : tuple of (int, str), optional
        When the last worker that stopped on purpose did so, and its name.
    """

    now_ms: int
    last_ms: dict[str, int] = field(default_factory=dict)
    joined_ms: dict[str, int] = field(default_factory=dict)
    left: tuple[int, str] | None = None


async def read_signs(client: redis.Redis, prefix: str) -> Signs:
    """Return the signs of life of all workers."""
    workers = workers_key(prefix)
    pipeline = client.pipeline(transaction=True)
    pipeline.time()
    pipeline.zrange(workers, 0, -1, withscores=True)
    pipeline.zrange(f"{workers}:joined", 0, -1, withscores=True)
    pipeline.get(f"{workers}:left")
    (seconds, microseconds), last, joined, left = await pipeline.execute()
    when, _, name = (left or b"").decode().partition(" ")
    return Signs(
        seconds * 1000 + microseconds // 1000,
        {worker.decode(): int(ms) for worker, ms in last},
        {worker.decode(): int(ms) for worker, ms in joined},
        (int(when), name) if when else None,
    )


async def read_statuses(
    client: redis.Redis, prefix: str, names: Collection[str]
) -> dict[str, WorkerStatus | None]:
    """Return what workers said last; None for one that said nothing that can be read."""
    said: list[Any] = await client.mget([f"{prefix}{HEARTBEAT}{name}" for name in names]) if names else []
    return {name: _status(body) for name, body in zip(names, said, strict=True)}


def _status(body: bytes | None) -> WorkerStatus | None:
    try:
        status = WorkerStatus.model_validate_json(body or b"")
    except ValidationError:
        return None
    return status if status.v == STATUS_VERSION else None


async def forget(client: redis.Redis, prefix: str, name: str) -> None:
    """Take a worker that died off the books."""
    workers = workers_key(prefix)
    pipeline = client.pipeline(transaction=True)
    pipeline.delete(f"{prefix}{HEARTBEAT}{name}")
    pipeline.zrem(workers, name)
    pipeline.zrem(f"{workers}:joined", name)
    await pipeline.execute()


async def silence_ms(client: redis.Redis, prefix: str) -> int | None:
    """Return for how long no worker has been heard of; None if none ever was, as far as one can tell."""
    signs = await read_signs(client, prefix)
    ages = [signs.now_ms - ms for ms in signs.last_ms.values()]
    return min((age for age in ages if age >= -STEP_MS), default=None)
