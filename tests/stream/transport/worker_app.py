"""The Faust app of the contract suite, run as a process: ``python -m tests.stream.transport.worker_app``.

Environment variable WORKER is a JSON object: broker, name, mode, conf, shuffle.

For each message of ``source`` it notes the value in table ``state`` and reports "name value" on ``seen``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from typing import Any

import faust
import redis

CONFIG = json.loads(os.environ["WORKER"])
# Short timeouts only keep the suite quick; a ward uses longer ones.
CONF = {
    "broker_session_timeout": 2.0,
    "broker_heartbeat_interval": 0.2,
    "broker_rebalance_timeout": 5.0,
    "broker_commit_interval": 0.25,
    "stream_wait_empty": False,
    "topic_partitions": 4,
    **CONFIG.get("conf", {}),
}
NAME = CONFIG["name"]

app = faust.App(
    "contract",
    broker=CONFIG["broker"],
    web_enabled=False,
    **CONF,
)
RAW = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
source = app.topic("source", **RAW)
seen = app.topic("seen", **RAW)
state = app.Table("state", key_type=bytes, value_type=bytes, use_partitioner=True)
# Plain Redis, so that what a worker says does not depend on what is tested.
diary = redis.Redis.from_url(CONFIG["diary"])


def write(entry: str, **values: Any) -> None:
    diary.rpush("diary", json.dumps({"worker": NAME, "entry": entry, **values}))


@state.on_recover
async def recovered() -> None:
    write("recovered", state={key.decode(): value.decode() for key, value in state.items()})


@app.on_rebalance_complete.connect
async def on_rebalance(app: faust.App, **_: Any) -> None:
    partitions = sorted(tp.partition for tp in app.consumer.assignment() if tp.topic == "source")
    write("assigned", partitions=partitions)


async def handle(key: bytes | None, value: bytes | None) -> None:
    if key is not None:
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
    await seen.send(key=key, value=f"{NAME} ".encode() + (value or b"null"))


async def count(stream: faust.Stream[bytes]) -> None:
    async for event in stream.events():
        await handle(event.key, event.value)


async def slow(stream: faust.Stream[bytes]) -> None:
    most = 0
    async for event in stream.events():
        held = stream.channel.queue.qsize() + len(app.consumer.unacked)
        if held > most:
            most = held
            write("held", messages=most)
        await asyncio.sleep(0.002)
        await handle(event.key, event.value)


waiting: list[faust.Event] = []


async def deferred(stream: faust.Stream[bytes]) -> None:
    async for event in stream.noack().events():
        waiting.append(event)  # noqa: PERF401 (the task below looks at it all the time)


async def acknowledge() -> None:
    # Outside of any stream, in batches, later, and in any order: as a batching scorer does.
    while True:
        await asyncio.sleep(0.03)
        if CONFIG.get("shuffle"):
            # Keep some back, so that acknowledgements arrive with gaps.
            random.shuffle(waiting)
            batch = [waiting.pop() for _ in range(len(waiting) * 2 // 3 or len(waiting))]
        else:
            batch = waiting[:]
            waiting.clear()
        for event in batch:
            await handle(event.key, event.value)
        for event in batch:
            event.ack()


async def hold(stream: faust.Stream[bytes]) -> None:
    # Reports, and never acknowledges.
    async for event in stream.noack().events():
        await handle(event.key, event.value)
        waiting.append(event)


MODES = {"count": count, "slow": slow, "deferred": deferred, "hold": hold}
app.agent(source, name="work")(MODES[CONFIG["mode"]])
if CONFIG["mode"] == "deferred":
    app.task(acknowledge)

if __name__ == "__main__":
    sys.exit(faust.Worker(app, loglevel="info").execute_from_commandline())
