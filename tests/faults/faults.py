"""The faults: what breaks, for how long, what must be told of it meanwhile and how soon all is well again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stream import topics
from stream.clock import SystemClock
from stream.contract import AlarmEvent, Presence, SampleChunk
from stream.heartbeat import read_signs, read_statuses
from stream.transport.layout import partition_of, stream_key
from tests.faults.ward import FaultyWard
from tests.faults.watching import Observer

# Longer than any of them may take; what takes longer is a violation, not a hang.
_PATIENCE_S = 60.0
_LOOK_S = 0.05


@dataclass
class Scene:
    """Where a fault happens.

    Attributes
    ----------
    ward : FaultyWard
    observer : Observer
    feeds : dict of str to tuple
        Arguments of `FaultyWard.start_feed`, by name.
    dice : random.Random
    """

    ward: FaultyWard
    observer: Observer
    feeds: dict[str, tuple[int, str, int]]
    dice: random.Random
    beds: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.beds = [bed for name in self.feeds for bed in self.beds_of(name)]

    def beds_of(self, feed: str) -> list[str]:
        return [f"{feed}-{number + 1}" for number in range(self.feeds[feed][0])]


@dataclass
class Course:
    """How a fault went; times in seconds, None for what did not come while it was waited for.

    Attributes
    ----------
    kind : str
    lasted_s : float
    told_s : float, optional
        From its beginning until somebody was told.
    back_s : float, optional
        Until findings came again on what every bed had sent: of a dead worker from its death, otherwise
        from the moment at which the cause was taken away.
    wrong : list of str
    """

    kind: str
    lasted_s: float = 0.0
    told_s: float | None = None
    back_s: float | None = None
    wrong: list[str] = field(default_factory=list)


Fault = Callable[[Scene, Course], Awaitable[None]]


def _raised(rule: str, *beds: str) -> Callable[[AlarmEvent], bool]:
    return lambda event: (
        event.rule == rule and event.presence is Presence.ON and (not beds or event.bed in beds)
    )


async def _until_back(scene: Scene, course: Course, since_s: float, *, beds: list[str] | None = None) -> None:
    since_ns = SystemClock().now_ns()
    at = await scene.observer.flowing(scene.beds if beds is None else beds, since_ns, _PATIENCE_S)
    course.back_s = None if at is None else at - since_s
    if at is None:
        course.wrong.append(f"no findings of every bed within {_PATIENCE_S:g} s")


async def _told(course: Course, since_s: float, told: Awaitable[float | None], what: str) -> None:
    course.told_s = await told
    if course.told_s is None:
        course.wrong.append(f"{what} was not told")


async def _polled(since_s: float, within_s: float, true: Callable[[], Awaitable[bool]]) -> float | None:
    while time.monotonic() < since_s + within_s:
        if await true():
            return time.monotonic() - since_s
        await asyncio.sleep(_LOOK_S)
    return None


# -- workers


async def kill_worker(scene: Scene, course: Course) -> None:
    """Kill a worker; the other one takes over, and somebody starts a new one once it is told."""
    ward = scene.ward
    began = time.monotonic()
    pid = ward.kill(scene.dice.choice(ward.living_workers()))
    back = asyncio.ensure_future(_until_back(scene, course, began))
    told = scene.observer.alarm(
        began, lambda e: _raised("worker-silent")(e) and e.session.endswith(f"-{pid}"), _PATIENCE_S
    )
    await _told(course, began, told, "a dead worker")
    await back
    course.lasted_s = time.monotonic() - began
    ward.another_worker()
    ended = await scene.observer.alarm(
        began,
        lambda e: e.rule == "worker-silent" and e.presence is Presence.OFF and e.session.endswith(f"-{pid}"),
        _PATIENCE_S,
    )
    if ended is None:
        course.wrong.append("the alarm of a dead worker does not end when another has come")


async def kill_both_workers(scene: Scene, course: Course) -> None:
    """Kill all workers at once, and start others when nobody is left to take over."""
    ward = scene.ward
    began = time.monotonic()
    for name in ward.living_workers():
        ward.kill(name)
    told = scene.observer.alarm(
        began, lambda e: _raised("worker-silent")(e) and e.session == "workers", _PATIENCE_S
    )
    await _told(course, began, told, "the loss of all workers")
    course.lasted_s = time.monotonic() - began
    over = time.monotonic()
    ward.another_worker()
    ward.another_worker()
    await _until_back(scene, course, over)


async def workers_come_and_go(scene: Scene, course: Course) -> None:
    """Let workers join and leave on purpose, one after another: each time all beds are dealt out anew."""
    ward = scene.ward
    began = time.monotonic()
    for _ in range(scene.dice.randint(2, 4)):
        before = set(ward.children)
        ward.another_worker()
        (name,) = set(ward.children) - before
        if await _polled(time.monotonic(), _PATIENCE_S, lambda n=name: _holds(scene, n)) is None:  # type: ignore[misc]
            course.wrong.append("a new worker is given nothing")
        process = ward.children.pop(name)
        process.send_signal(signal.SIGTERM)
        if await asyncio.to_thread(process.wait, _PATIENCE_S):
            course.wrong.append(f"a worker that is told to stop ends with exit code {process.returncode}")
    course.lasted_s = time.monotonic() - began
    await _until_back(scene, course, time.monotonic())


async def _holds(scene: Scene, name: str) -> bool:
    pid = scene.ward.children[name].pid
    bus = scene.observer.bus
    signs = await read_signs(bus.client, bus.prefix)
    statuses = await read_statuses(bus.client, bus.prefix, list(signs.last_ms))
    # Not by its beds: of a few beds none may lie on the partitions that it gets.
    return any(
        worker.endswith(f"-{pid}") and status is not None and bool(status.partitions)
        for worker, status in statuses.items()
    )


def _stop_worker(seconds: float) -> Fault:
    async def stop(scene: Scene, course: Course) -> None:
        ward, name = scene.ward, scene.dice.choice(scene.ward.living_workers())
        process = ward.children[name]
        began = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        if seconds > 5:
            told = scene.observer.alarm(
                began,
                lambda e: _raised("worker-silent")(e) and e.session.endswith(f"-{process.pid}"),
                seconds,
            )
            await _told(course, began, told, "a stopped worker")
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        process.send_signal(signal.SIGCONT)
        course.lasted_s = time.monotonic() - began
        await _until_back(scene, course, time.monotonic())

    return stop


# -- feeds


async def kill_feed(scene: Scene, course: Course) -> None:
    """Kill an ingest process and start it again: the same beds, another session."""
    ward, feed = scene.ward, scene.dice.choice(sorted(scene.feeds))
    beds = scene.beds_of(feed)
    began = time.monotonic()
    ward.kill(f"feed {feed}")
    for bed in beds:
        told = scene.observer.alarm(began, _raised("feed-lost", bed), _PATIENCE_S)
        await _told(course, began, told, f"the lost feed of {bed}")
    course.lasted_s = time.monotonic() - began
    over = time.monotonic()
    beds_count, timeline, seed = scene.feeds[feed]
    ward.start_feed(feed, beds_count, timeline, seed)
    await _until_back(scene, course, over)


def _stop_feed(seconds: float) -> Fault:
    async def stop(scene: Scene, course: Course) -> None:
        feed = scene.dice.choice(sorted(scene.feeds))
        process = scene.ward.children[f"feed {feed}"]
        began = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        for bed in scene.beds_of(feed):
            told = scene.observer.alarm(began, _raised("feed-lost", bed), seconds + 1)
            await _told(course, began, told, f"the silent feed of {bed}")
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        process.send_signal(signal.SIGCONT)
        course.lasted_s = time.monotonic() - began
        await _until_back(scene, course, time.monotonic())

    return stop


# -- the live page, the recorder, a subscriber


async def kill_page(scene: Scene, course: Course) -> None:
    """Kill the live page and start it again; who scores does not notice."""
    began = time.monotonic()
    scene.ward.kill("page")
    scene.ward.start_page()
    ready = await _polled(began, _PATIENCE_S, scene.ward.ready_page)
    if ready is None:
        course.wrong.append("the live page does not come back")
    course.lasted_s = time.monotonic() - began
    await _until_back(scene, course, began)


async def kill_recorder(scene: Scene, course: Course) -> None:
    """Kill the recorder and start it again."""
    began = time.monotonic()
    scene.ward.kill("recorder")
    await asyncio.sleep(scene.dice.uniform(0, 3))
    scene.ward.start_recorder()
    course.lasted_s = time.monotonic() - began
    await _until_back(scene, course, time.monotonic())


async def deaf_subscribers(scene: Scene, course: Course) -> None:
    """Follow the alarms and stop reading them, from the stream and over HTTP."""
    began = time.monotonic()
    process = scene.ward.children["subscriber"]
    process.send_signal(signal.SIGSTOP)
    with scene.ward.unread_stream():
        await _until_back(scene, course, began)
        await asyncio.sleep(scene.dice.uniform(3, 6))
        if not await scene.ward.ready_page():
            course.wrong.append("a subscriber that does not read keeps the live page from its work")
    process.send_signal(signal.SIGCONT)
    course.lasted_s = time.monotonic() - began


# -- the server


def _kill_server(down_s: tuple[float, float], *, kill: bool) -> Fault:
    async def restart(scene: Scene, course: Course) -> None:
        server, ward = scene.ward.server, scene.ward
        seconds = scene.dice.uniform(*down_s)
        began = time.monotonic()
        if kill:
            assert server.pid is not None
            with suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGKILL)
        server.stop()
        if seconds > 3:
            told = _polled(began, seconds, lambda: _not(ward.ready_page()))
            await _told(course, began, told, "the loss of the server")
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        server.start()
        course.lasted_s = time.monotonic() - began
        await _until_back(scene, course, time.monotonic())
        if await _polled(time.monotonic(), _PATIENCE_S, ward.ready_page) is None:
            course.wrong.append("the live page does not get ready again")

    return restart


def _stop_server(seconds: float) -> Fault:
    async def stop(scene: Scene, course: Course) -> None:
        pid = scene.ward.server.pid
        assert pid is not None
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        if seconds > 5:
            told = _polled(began, seconds, lambda: _not(scene.ward.ready_page()))
            await _told(course, began, told, "a server that hangs")
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        os.kill(pid, signal.SIGCONT)
        course.lasted_s = time.monotonic() - began
        await _until_back(scene, course, time.monotonic())

    return stop


async def full_memory(scene: Scene, course: Course) -> None:
    """Let the server take nothing more for lack of memory, for some seconds."""
    async with scene.ward.direct() as bus:
        began = time.monotonic()
        await bus.client.config_set("maxmemory-policy", "noeviction")
        await bus.client.config_set("maxmemory", 1_000_000)
        await _told(course, began, _polled(began, 10, lambda: _tells(scene)), "full memory")
        await asyncio.sleep(scene.dice.uniform(0, 3))
        await bus.client.config_set("maxmemory", 0)
        course.lasted_s = time.monotonic() - began
        await _until_back(scene, course, time.monotonic())


async def full_disk(scene: Scene, course: Course) -> None:
    """Let the server's disk be full, for some seconds."""
    ward = scene.ward
    began = time.monotonic()
    ward.limit_file_size(ward.file_size())
    await _told(course, began, _polled(began, 10, lambda: _tells(scene)), "a full disk")
    await asyncio.sleep(scene.dice.uniform(0, 3))
    ward.limit_file_size(-1)
    course.lasted_s = time.monotonic() - began
    await _until_back(scene, course, time.monotonic())


async def _tells(scene: Scene) -> bool:
    problems = await scene.ward.problems()
    return problems is None or any(problem["level"] == "alarm" for problem in problems)


async def _not(question: Awaitable[bool]) -> bool:
    return not await question


async def fail_over(scene: Scene, course: Course) -> None:
    """Let a replica take the place of the server."""
    began = time.monotonic()
    await scene.ward.fail_over()
    course.lasted_s = time.monotonic() - began
    await scene.observer.move(scene.ward.direct())
    await _until_back(scene, course, time.monotonic())
    if await _polled(time.monotonic(), _PATIENCE_S, scene.ward.ready_page) is None:
        course.wrong.append("the live page does not get ready again")


# -- the network


async def resets(scene: Scene, course: Course) -> None:
    """Break all connections, several times."""
    began = time.monotonic()
    for _ in range(scene.dice.randint(2, 6)):
        scene.ward.proxy.reset()
        await asyncio.sleep(scene.dice.uniform(0.0, 0.8))
    course.lasted_s = time.monotonic() - began
    await _until_back(scene, course, time.monotonic())


async def latency(scene: Scene, course: Course) -> None:
    """Make every message to and from the server late."""
    began = time.monotonic()
    scene.ward.proxy.delay_s = scene.dice.uniform(0.05, 0.4)
    await asyncio.sleep(scene.dice.uniform(3, 8))
    scene.ward.proxy.delay_s = 0.0
    course.lasted_s = time.monotonic() - began
    await _until_back(scene, course, time.monotonic())


# -- the clock


async def clock_step(scene: Scene, course: Course) -> None:
    """Set the clock of the machine forward or back by minutes, and later right again."""
    clock = scene.ward.clock
    began = time.monotonic()
    # Less than what the topics keep: what a clock that is set forward makes old is trimmed as any other.
    clock.set(scene.dice.choice([-1, 1]) * scene.dice.randint(60, 240))
    await _until_back(scene, course, began)
    await asyncio.sleep(scene.dice.uniform(1, 4))
    clock.set(0)
    course.lasted_s = time.monotonic() - began
    await _until_back(scene, course, time.monotonic())


# -- what comes in


async def poison(scene: Scene, course: Course) -> None:
    """Put what is no chunk, or contradicts its feed, among the chunks of living beds."""
    began = time.monotonic()
    async with scene.ward.direct() as bus:
        before = await bus.client.xlen(stream_key(bus.prefix, topics.DEAD_LETTERS, 0))
        count = 0
        for bed in scene.beds:
            partition = partition_of(bed.encode(), topics.TOPICS[topics.SAMPLES].partitions)
            key = stream_key(bus.prefix, topics.SAMPLES, partition)
            chunk = await _newest_of(bus, key, bed)
            fields: list[dict[Any, Any]] = [{"k": bed, **one} for one in _poisons(chunk, scene.dice)]
            for one in fields:
                await bus.client.xadd(key, one)
                count += 1
        await _until_back(scene, course, began)

        async def all_told() -> bool:
            return await bus.client.xlen(stream_key(bus.prefix, topics.DEAD_LETTERS, 0)) - before >= count

        if await _polled(time.monotonic(), _PATIENCE_S, all_told) is None:
            course.wrong.append("messages that nobody can read are not all kept as dead letters")
    course.lasted_s = time.monotonic() - began


async def _newest_of(bus: Any, key: str, bed: str) -> SampleChunk:
    for _, fields in await bus.client.xrevrange(key, count=500):
        if fields.get(b"k") == bed.encode():
            with suppress(ValueError):
                return SampleChunk.decode(fields[b"v"])
    raise AssertionError(f"nothing of {bed}")


def _poisons(chunk: SampleChunk, dice: random.Random) -> list[dict[str, bytes]]:
    encoded, header = chunk.encode(), chunk.header
    payload = encoded[encoded.index(b"\n") :]

    def with_header(**changes: Any) -> bytes:
        return header.model_copy(update=changes).encode() + payload

    ahead = header.seq + 1_000_000
    return [
        {"v": dice.randbytes(dice.randint(1, 4000))},
        {"v": encoded[:-3]},
        {"v": encoded[: dice.randint(0, 200)]},
        {"v": with_header(seq=ahead, leads=tuple(f"x{lead}" for lead in header.leads))},
        {"v": with_header(seq=ahead, fs=header.fs * 2)},
        {"v": with_header(seq=ahead, n0=0)},
        {"v": encoded.replace(b'"v":1', b'"v":7', 1)},
        {"other": b"fields"},
    ]


FAULTS: dict[str, Fault] = {
    "kill -9 worker": kill_worker,
    "kill -9 all workers": kill_both_workers,
    "workers come and go": workers_come_and_go,
    "stop worker 3 s": _stop_worker(3),
    "stop worker 10 s": _stop_worker(10),
    "stop worker 60 s": _stop_worker(60),
    "kill -9 ingest": kill_feed,
    "stop ingest 10 s": _stop_feed(10),
    "kill -9 monitor": kill_page,
    "kill -9 recorder": kill_recorder,
    "deaf subscribers": deaf_subscribers,
    "kill -9 Redis": _kill_server((0.0, 2.0), kill=True),
    "kill -9 Redis, away 8 s": _kill_server((6.0, 10.0), kill=True),
    "restart Redis": _kill_server((0.0, 0.5), kill=False),
    "stop Redis 3 s": _stop_server(3),
    "stop Redis 10 s": _stop_server(10),
    "failover to a replica": fail_over,
    "full memory": full_memory,
    "full disk": full_disk,
    "TCP resets": resets,
    "latency": latency,
    "clock step": clock_step,
    "poison": poison,
}
"""By name, as plans and reports have it."""
