"""A look at the whole deployment: its workers, its Redis server, its streams, its alarms of the last hour.

Taken when somebody asks and shared by all who ask within half a second; nobody asks, nothing is read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monitor.live.workers import SILENT_S
from monitor.system.alarms import AlarmsOfLate, Raised
from stream.bus import open_client
from stream.clock import Clock
from stream.heartbeat import WorkerStatus, read_signs, read_statuses
from stream.topics import SAMPLES, TOPICS, WORKER_GROUP
from stream.transport.layout import TopicConfig, registry_key, stream_key

# Pages ask every second, each for itself.
_FRESH_NS = 500_000_000
_SOCKET_TIMEOUT_S = 2.0
# A connection that broke while nobody looked is opened again.
_RETRIES = 1

# KEYS: streams; ARGV: the consumer group. Of each stream: entries, the ids of the newest and of the oldest
# one, and of the last one that the group has dealt with. XINFO sends whole entries, which stay in the server.
_STREAMS = """
local found = {}
for place, key in ipairs(KEYS) do
  local about = {length = 0}
  local info = redis.pcall('XINFO', 'STREAM', key)
  if not info.err then
    for n = 1, #info, 2 do about[info[n]] = info[n + 1] end
  end
  local dealt = ''
  if not info.err and about.groups > 0 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      local named = {}
      for n = 1, #group, 2 do named[group[n]] = group[n + 1] end
      if named.name == ARGV[1] then dealt = named['last-delivered-id'] end
    end
  end
  local oldest = about['first-entry'] and about['first-entry'][1] or ''
  found[place] = {about.length, about['last-generated-id'] or '', oldest, dealt}
end
return found
"""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker that is on the books.

    Attributes
    ----------
    name : str
    since_ms : int
        When it came up.
    silent_s : float
        For how long it has not been heard of; all times are the server's.
    status : WorkerStatus, optional
        What it said last; None if that cannot be read.
    """

    name: str
    since_ms: int
    silent_s: float
    status: WorkerStatus | None

    @property
    def is_silent(self) -> bool:
        return self.silent_s > SILENT_S


@dataclass(frozen=True, slots=True)
class Stream:
    """One partition of a topic.

    Attributes
    ----------
    entries : int
    newest_s : float, optional
        Age of the newest entry; None without one.
    lag_s : float, optional
        How much older the last entry that the workers have dealt with is than the newest one. Up to three
        seconds are usual: they write down what they did at intervals. None if no worker ever read it.
    """

    entries: int
    newest_s: float | None
    lag_s: float | None


@dataclass(frozen=True, slots=True)
class Server:
    """The Redis server; memory in bytes.

    Attributes
    ----------
    version : str
    used : int
    limit : int
        0 for none.
    policy : str
        What it does at the limit: ``noeviction`` refuses to write, all others throw away.
    clients : int
    evicted : int
        Keys thrown away since its start.
    keeps : bool
        Whether it has an append-only file: without one, what happened last is gone when it stops.
    """

    version: str
    used: int
    limit: int
    policy: str
    clients: int
    evicted: int
    keeps: bool


@dataclass(frozen=True, slots=True)
class Look:
    """The deployment at one moment.

    Attributes
    ----------
    now_ms : int
        By the server's clock.
    server : Server
    workers : tuple of Worker
        By name.
    topics : dict of str to tuple of Stream
        Every topic's partitions.
    alarms : Counter of Raised
        Alarms raised within the last hour.
    """

    now_ms: int
    server: Server
    workers: tuple[Worker, ...] = ()
    topics: dict[str, tuple[Stream, ...]] = field(default_factory=dict)
    alarms: Counter[Raised] = field(default_factory=Counter)

    @property
    def samples(self) -> tuple[Stream, ...]:
        """The partitions that workers share."""
        return self.topics[SAMPLES]

    def holder(self, partition: int) -> str | None:
        """Return which worker that is heard of says that it holds a partition of the samples."""
        for worker in self.workers:
            if not worker.is_silent and worker.status is not None and partition in worker.status.partitions:
                return worker.name
        return None


class Survey:
    """Looks at a deployment.

    Parameters
    ----------
    url : str
        Server of the streams.
    prefix : str
        Start of every key of the deployment.
    clock : Clock
    """

    def __init__(self, url: str, prefix: str, clock: Clock) -> None:
        self._client = open_client(url, retries=_RETRIES, socket_timeout_s=_SOCKET_TIMEOUT_S)
        self._prefix = prefix
        self._clock = clock
        self._streams = self._client.register_script(_STREAMS)
        self._alarms = AlarmsOfLate(self._client, prefix)
        self._lock = asyncio.Lock()
        self._look: Look | None = None
        self._looked_ns = 0

    async def close(self) -> None:
        await self._client.aclose()

    async def look(self) -> Look:
        """Return the deployment as it was half a second ago at the most.

        Raises
        ------
        redis.exceptions.RedisError, OSError
            If the server does not answer.
        """
        async with self._lock:
            if self._look is None or self._clock.now_ns() - self._looked_ns >= _FRESH_NS:
                self._look = None
                self._look = await self._take()
                self._looked_ns = self._clock.now_ns()
            return self._look

    async def _take(self) -> Look:
        signs = await read_signs(self._client, self._prefix)
        statuses = await read_statuses(self._client, self._prefix, sorted(signs.last_ms))
        workers = []
        for name, status in statuses.items():
            # One that is started again under its name, as a container's first process is, says so itself.
            since_ms = status.started // 1_000_000 if status else signs.joined_ms.get(name, signs.now_ms)
            silent_s = max(0, signs.now_ms - signs.last_ms[name]) / 1000
            workers.append(Worker(name, since_ms, silent_s, status))
        return Look(
            signs.now_ms,
            await self._read_server(),
            tuple(workers),
            await self._read_topics(signs.now_ms),
            await self._alarms.count(signs.now_ms),
        )

    async def _read_server(self) -> Server:
        info: Mapping[str, Any] = await self._client.info()
        return Server(
            version=str(info.get("valkey_version") or info.get("redis_version", "")),
            used=int(info["used_memory"]),
            limit=int(info.get("maxmemory", 0)),
            policy=str(info.get("maxmemory_policy", "")),
            clients=int(info["connected_clients"]),
            evicted=int(info.get("evicted_keys", 0)),
            keeps=bool(info.get("aof_enabled", 0)),
        )

    async def _read_topics(self, now_ms: int) -> dict[str, tuple[Stream, ...]]:
        registered: dict[Any, Any] = await self._client.hgetall(registry_key(self._prefix))
        places = []
        for topic, usual in TOPICS.items():
            written = registered.get(topic.encode())
            config = TopicConfig.from_json(written) if written else usual
            places += [(topic, partition) for partition in range(config.partitions)]
        keys = [stream_key(self._prefix, topic, partition) for topic, partition in places]
        found: list[Any] = await self._streams(keys=keys, args=[WORKER_GROUP])
        topics: dict[str, tuple[Stream, ...]] = dict.fromkeys(TOPICS, ())
        for (topic, _), (entries, newest, oldest, dealt) in zip(places, found, strict=True):
            topics[topic] += (_stream(entries, newest, oldest, dealt, now_ms),)
        return topics


def _stream(entries: int, newest: bytes, oldest: bytes, dealt: bytes, now_ms: int) -> Stream:
    if not entries:
        return Stream(0, None, 0.0 if dealt else None)
    last_ms, dealt_with = _ms(newest), max(_id(dealt), _id(oldest)) if dealt else None
    lag_s = None
    if dealt_with is not None:
        lag_s = max(0, last_ms - dealt_with[0]) / 1000 if _id(newest) > dealt_with else 0.0
    return Stream(entries, max(0, now_ms - last_ms) / 1000, lag_s)


def _id(text: bytes) -> tuple[int, int]:
    ms, _, number = text.partition(b"-")
    return int(ms or 0), int(number or 0)


def _ms(text: bytes) -> int:
    return _id(text)[0]
