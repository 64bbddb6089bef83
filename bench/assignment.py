"""How a large group of workers shares out its beds, while workers come and go: nothing is scored here.

Every worker is a real coordinator of the transport with Faust's own assignor, on a real server; only what
would read and score is left out. All of them run in one process: rebalances take longer than they do on
machines of their own, and longer by how much is not known.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
import faust
from faust.types import TP

from bench.machine import machine, versions
from stream.bus import Bus
from stream.embedded import EmbeddedServer
from stream.topics import BEDS_TABLE, COMMANDS, SAMPLES, TOPICS, WORKER_GROUP
from stream.transport.client import connect
from stream.transport.consumer import Consumer
from stream.transport.coordinator import Coordinator
from stream.transport.group import Membership
from stream.transport.layout import TopicConfig, partition_of
from stream.transport.transport import Transport

_CHANGELOG = f"{WORKER_GROUP}-{BEDS_TABLE}-changelog"
# A member's own calls stall behind those of a hundred others in this process: none may be thrown out for it.
_SESSION_S = 60.0
_SETTLE_S = 120.0


class Member:
    """One worker of the group: what its coordinator needs of a consumer.

    Parameters
    ----------
    number : int
        Name of the worker.
    url : str
        Of the server, with the prefix as a query.
    partitions, standbys : int
    on_taken : callable
        Called when it was given partitions.
    """

    def __init__(
        self, number: int, url: str, partitions: int, standbys: int, on_taken: Callable[[], None]
    ) -> None:
        self.number = number
        self._on_taken = on_taken
        self.held: set[TP] = set()
        self.app = faust.App(
            WORKER_GROUP,
            broker=url,
            store="memory://",
            web_enabled=False,
            topic_partitions=partitions,
            table_standby_replicas=standbys,
            broker_session_timeout=_SESSION_S,
            broker_heartbeat_interval=1.0,
            # Faust tells members apart by it.
            canonical_url=f"http://worker-{number}",
            datadir=tempfile.gettempdir(),
        )
        self.app.Table(BEDS_TABLE, partitions=partitions, use_partitioner=True)
        self.transport = cast(Transport, self.app.transport)
        endpoint = self.transport.endpoint
        self.control = connect(endpoint)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.beacon: Any = None
        membership = Membership(
            self.control,
            prefix=endpoint.prefix,
            group=WORKER_GROUP,
            member=f"worker-{number}-{time.monotonic_ns()}",
            session_timeout_s=_SESSION_S,
        )
        self.coordinator = Coordinator(cast(Consumer, self), membership)

    async def join(self) -> None:
        """Begin to take part."""
        await self.coordinator.start()
        self.coordinator.subscribe([SAMPLES, COMMANDS, _CHANGELOG])

    async def leave(self) -> None:
        """Leave the group as a worker does that stops on purpose."""
        self.held = set()
        await self.coordinator.stop()
        await self.control.aclose()

    async def give_up_partitions(self) -> None:
        """Stop holding what was held; called by the coordinator."""

    async def take_partitions(self, partitions: set[TP], generation: int) -> None:
        """Hold partitions; called by the coordinator."""
        self.held = partitions
        self._on_taken()

    def of(self, topic: str) -> set[int]:
        """Return the partitions of a topic that it holds."""
        return {tp.partition for tp in self.held if tp.topic == topic}


class Group:
    """A group of workers and the beds that they share.

    Parameters
    ----------
    url : str
    beds, partitions, standbys : int
    """

    def __init__(self, url: str, *, beds: int, partitions: int, standbys: int) -> None:
        self._url, self._partitions, self._standbys = url, partitions, standbys
        names = (f"bed-{number}".encode() for number in range(beds))
        self._beds_of = Counter(partition_of(name, partitions) for name in names)
        self.members: dict[int, Member] = {}
        self._taken = asyncio.Event()
        self._numbers = iter(range(1_000_000))
        # By partition, before the last change: who held it, and who had its beds' state.
        self._owners: dict[int, int] = {}
        self._prepared: dict[int, set[int]] = {}

    async def change(self, what: str, *, join: int = 0, leave: Sequence[int] = ()) -> dict[str, Any]:
        """Let workers join and leave, all at once, and return what came of it when all is shared out."""
        began = time.monotonic()
        leaving = [self.members.pop(number) for number in leave]
        for _ in range(join):
            number = next(self._numbers)
            self.members[number] = Member(
                number, self._url, self._partitions, self._standbys, self._taken.set
            )
        await asyncio.gather(
            *(member.leave() for member in leaving),
            *(member.join() for member in self.members.values() if not member.coordinator.started),
        )
        async with asyncio.timeout(_SETTLE_S):
            while not self._settled():
                self._taken.clear()
                await self._taken.wait()
        took_s = time.monotonic() - began
        return {"what": what, "workers": len(self.members), "rebalance_s": round(took_s, 2)} | self._compare()

    def _settled(self) -> bool:
        held = Counter(partition for member in self.members.values() for partition in member.of(SAMPLES))
        generations = {member.coordinator._held for member in self.members.values()}
        return len(generations) == 1 and held == Counter(range(self._partitions))

    def _compare(self) -> dict[str, Any]:
        owners = {p: member.number for member in self.members.values() for p in member.of(SAMPLES)}
        assert all(member.of(COMMANDS) == member.of(SAMPLES) for member in self.members.values())
        moved = [p for p, owner in owners.items() if self._owners.get(p, owner) != owner]
        forced = [p for p in moved if self._owners[p] not in self.members]
        ready = [p for p in moved if owners[p] in self._prepared.get(p, ())]
        load = Counter(dict.fromkeys(self.members, 0))
        for partition, owner in owners.items():
            load[owner] += self._beds_of[partition]
        counts = Counter(dict.fromkeys(self.members, 0)) + Counter(owners.values())
        self._owners = owners
        self._prepared = {
            partition: {m.number for m in self.members.values() if partition in m.of(_CHANGELOG)}
            for partition in owners
        }
        beds = sorted(load.values())
        return {
            "partitions_per_worker": [min(counts[n] for n in self.members), max(counts.values())],
            "idle_workers": sum(not counts[n] for n in self.members),
            "beds_per_worker": {"min": beds[0], "median": statistics.median(beds), "max": beds[-1]},
            "beds_moved": sum(self._beds_of[p] for p in moved),
            "beds_moved_of_workers_that_left": sum(self._beds_of[p] for p in forced),
            "beds_moved_to_a_standby": sum(self._beds_of[p] for p in ready),
        }


async def simulate(
    url: str,
    *,
    beds: int,
    workers: int,
    partitions: int,
    standbys: int,
    on_step: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Let a group form and change, and return what each step came to.

    Parameters
    ----------
    url : str
        An empty Redis server.
    beds, workers, partitions, standbys : int
    on_step : callable, optional
        Called after each step.

    Returns
    -------
    list of dict
    """
    prefix = f"p{partitions}-s{standbys}:"
    async with await Bus.connect(url, prefix=prefix) as bus:
        for topic in (SAMPLES, COMMANDS):
            await bus.declare(topic, replace(TOPICS[topic], partitions=partitions))
        await bus.declare(_CHANGELOG, TopicConfig(partitions, compact=True))
    group = Group(f"{url}?prefix={prefix}", beds=beds, partitions=partitions, standbys=standbys)
    steps = []

    async def step(what: str, *, join: int = 0, leave: int = 0) -> None:
        steps.append(await group.change(what, join=join, leave=list(group.members)[:leave]))
        on_step()

    fifth = max(1, workers // 5)
    await step("all start together", join=workers)
    await step("one stops", leave=1)
    await step("another comes for it", join=1)
    await step("two are replaced at once", join=2, leave=2)
    await step("a fifth stops (a rack, a room)", leave=fifth)
    await step("they come back", join=fifth)
    await step("a fifth more", join=fifth)
    for member in list(group.members.values()):
        await member.leave()
    return steps


# Fewer than there are workers leave some idle; multiples of their number spread evenly.
PARTITIONS = (128, 256, 500, 1000)


@click.command()
@click.option("--beds", default=10_000, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=100, show_default=True, type=click.IntRange(2))
@click.option("--partitions", multiple=True, type=click.IntRange(1), help="[default: 128 256 500 1000]")
@click.option("--standbys", default=1, show_default=True, type=click.IntRange(0, 3))
@click.option("--json", "path", default="bench/results/assignment.json", show_default=True, metavar="FILE")
def main(beds: int, workers: int, partitions: tuple[int, ...], standbys: int, path: str) -> None:
    """Simulate how workers share out beds, with churn; see the module."""
    runs = []
    wanted = [(number, standbys) for number in partitions or PARTITIONS]
    if not partitions:
        wanted.append((PARTITIONS[2], 0))
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, EmbeddedServer(Path(folder) / "s") as server:
        for number, copies in wanted:
            click.echo(f"{number} partitions, {copies} standbys", err=True)
            steps = asyncio.run(
                simulate(server.url, beds=beds, workers=workers, partitions=number, standbys=copies)
            )
            runs.append({"partitions": number, "standbys": copies, "steps": steps})
            for one in steps:
                click.echo(f"  {one}", err=True)
    result = {"beds": beds, "workers": workers, "runs": runs, "machine": machine(), "versions": versions()}
    Path(path).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
