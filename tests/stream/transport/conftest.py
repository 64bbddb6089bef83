"""A deployment under test: a server, a topic of numbered messages, and real Faust workers as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from stream.children import spawn
from stream.embedded import EmbeddedServer
from stream.transport.layout import TopicConfig, group_key, partition_of, registry_key, stream_key

PREFIX = "t:"
PARTITIONS = 4
KEYS = [f"bed-{number}".encode() for number in range(10)]


def eventually(probe: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """Return what `probe` returns once that is true; fail after a while."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.02)


class WorkerProcess:
    def __init__(self, argv: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = spawn(argv, env=env, stdout=out, stderr=subprocess.STDOUT)

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop gracefully and check that it ended well."""
        self.process.terminate()
        assert self.process.wait(20) == 0, self.log.read_text()[-3000:]


class Deployment:
    """One app with topics ``source`` and ``seen`` on a server of its own."""

    def __init__(self, server: EmbeddedServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.workers: list[WorkerProcess] = []
        self.sent: list[bytes] = []
        self.redis = redis.Redis.from_url(server.url)
        self.declare("source", TopicConfig(PARTITIONS))
        self.declare("seen", TopicConfig(1))

    @property
    def broker(self) -> str:
        return f"{self.server.url}?prefix={PREFIX}"

    def declare(self, topic: str, config: TopicConfig) -> None:
        self.redis.hset(registry_key(PREFIX), topic, config.to_json())

    def send(self, count: int) -> None:
        """Add messages as any program would: key ``bed-n``, value a number that counts up."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for _ in range(count):
                key, value = KEYS[len(self.sent) % len(KEYS)], b"%d" % len(self.sent)
                stream = stream_key(PREFIX, "source", partition_of(key, PARTITIONS))
                pipeline.xadd(stream, {"t": 1, "k": key, "v": value})
                self.sent.append(value)
            pipeline.execute()

    def start(self, name: str, mode: str = "count", **options: Any) -> WorkerProcess:
        config = {"broker": self.broker, "diary": self.server.url, "name": name, "mode": mode, **options}
        worker = WorkerProcess(
            [sys.executable, "-m", "tests.stream.transport.worker_app"],
            {**os.environ, "WORKER": json.dumps(config)},
            self.directory / f"{name}.log",
        )
        self.workers.append(worker)
        return worker

    def seen(self) -> list[tuple[str, bytes, bytes]]:
        """Return what workers have reported: worker, key, value."""
        entries = self.redis.xrange(stream_key(PREFIX, "seen", 0))
        reports = []
        for _, fields in entries:
            name, value = fields[b"v"].split(b" ", 1)
            reports.append((name.decode(), fields.get(b"k", b""), value))
        return reports

    def wait_until_seen(self, count: int | None = None) -> None:
        """Wait for so many reports, or until all that was sent has been reported."""
        stream = stream_key(PREFIX, "seen", 0)
        if count is not None:
            eventually(lambda: self.redis.xlen(stream) >= count, f"{count} messages processed")
            return
        eventually(lambda: self.redis.xlen(stream) >= len(self.sent), "all messages processed")
        eventually(lambda: not self.missing(), "every message processed")

    def missing(self) -> set[bytes]:
        return set(self.sent) - {value for _, _, value in self.seen()}

    def redelivered(self) -> int:
        return len(self.seen()) - len({value for _, _, value in self.seen()})

    def assert_order(self) -> None:
        """Check that each worker saw each key's messages in the order sent, repeats aside."""
        by_key: defaultdict[tuple[str, bytes], list[int]] = defaultdict(list)
        known: set[tuple[str, bytes, bytes]] = set()
        for report in self.seen():
            if report not in known:
                by_key[report[:2]].append(int(report[2]))
            known.add(report)
        assert by_key
        for (name, key), numbers in by_key.items():
            assert numbers == sorted(numbers), (name, key)

    def diary(self, entry: str, worker: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.redis.lrange("diary", 0, -1)]
        return [line for line in lines if line["entry"] == entry and line["worker"] == worker]

    def wait_until_assigned(self, counts: dict[str, int]) -> None:
        """Wait until these workers own so many partitions of ``source`` each, and all of them together."""

        def owned() -> bool:
            latest = [self.diary("assigned", name)[-1:] for name in counts]
            if not all(latest):
                return False
            partitions = [entry[0]["partitions"] for entry in latest]
            together = sorted(number for own in partitions for number in own)
            return [len(own) for own in partitions] == list(counts.values()) and together == [
                *range(PARTITIONS)
            ]

        eventually(owned, f"partitions divided as {counts}")

    def committed(self) -> list[list[bytes]]:
        """Return the committed position of each group on each partition of ``source``."""
        streams = [stream_key(PREFIX, "source", partition) for partition in range(PARTITIONS)]
        return [[g["last-delivered-id"] for g in self.redis.xinfo_groups(stream)] for stream in streams]

    def wait_until_committed(self) -> None:
        """Wait until all that was sent is committed."""
        streams = [stream_key(PREFIX, "source", partition) for partition in range(PARTITIONS)]
        eventually(
            lambda: self.committed() == [[self.redis.xinfo_stream(s)["last-generated-id"]] for s in streams],
            "everything committed",
        )

    def changelog(self) -> list[tuple[bytes, bytes | None]]:
        """Return the entries of the table's changelog, key and value."""
        entries: Iterable[Any] = [
            entry
            for partition in range(PARTITIONS)
            for entry in self.redis.xrange(stream_key(PREFIX, "contract-state-changelog", partition))
        ]
        return [(fields[b"k"], fields.get(b"v")) for _, fields in entries]

    def members(self) -> int:
        return int(self.redis.zcard(group_key(PREFIX, "contract", "members")))

    def expected_state(self) -> dict[str, str]:
        """Return what the table holds once all that was sent has been processed."""
        return {KEYS[number % len(KEYS)].decode(): str(number) for number in range(len(self.sent))}

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.redis.close()


@pytest.fixture
def deployment(redis_server: EmbeddedServer, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(redis_server, tmp_path)
    yield deployment
    deployment.close()
