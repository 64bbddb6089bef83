"""A round: beds come, faults happen, the beds go, and everything is looked at."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from models.session import Session
from tests.faults import invariants
from tests.faults.faults import FAULTS, Course, Scene
from tests.faults.ward import FaultyWard
from tests.faults.watching import Observer

# One ventricular tachycardia, asystole and loose lead in so many device seconds, so many times.
_EPISODE_S = 60.0
_EPISODES = 12
# Before the first fault, between two, and after the last: time to be hit in, in real seconds.
_PAUSE_S = (0.5, 2.0)
# The first windows of a bed take so long, at the speed of the feeds.
_FLOWING_S = 30.0
# For what is still on its way when the feeds have ended.
_DRAINED_S = 30.0
# A process that has taken so much more than when the round began does not give it back.
_GROWTH_MB = 200.0


@dataclass
class Round:
    """What came of one round.

    Attributes
    ----------
    seed : int
    courses : list of Course
    chunks, findings, alarms : int
    thinned_out : int
        Beds of which a worker said that it has no time for all of their windows.
    rss_mb : dict of str to float
        Of the parts at its end.
    wrong : list of str
        Empty if every invariant holds.
    """

    seed: int
    courses: list[Course] = field(default_factory=list)
    chunks: int = 0
    findings: int = 0
    alarms: int = 0
    thinned_out: int = 0
    rss_mb: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ill_timeline(dice: random.Random) -> str:
    """Return a timeline with an alarm every few seconds of real time."""
    text = "sinus:80@0"
    for number in range(_EPISODES):
        at = number * _EPISODE_S + dice.uniform(8, 14)
        text += f" vt:180@{at:.1f} sinus:75@{at + 12:.1f}"
        text += f" asystole@{at + 26:.1f} sinus:70@{at + 34:.1f} leadoff:V1@{at + 20:.1f}+4"
    return text


async def run_round(
    ward: FaultyWard,
    session: Session,
    seed: int,
    kinds: Sequence[str],
    *,
    beds: int = 3,
    say: Callable[[str], None] = lambda text: None,
) -> Round:
    """Put a ward through faults, one after another.

    Parameters
    ----------
    ward : FaultyWard
        Ready.
    session : Session
        The model that its workers have, for what has to come out.
    seed : int
        Of the patients, the moments and the victims.
    kinds : sequence of str
        Keys of `FAULTS`, in order.
    beds : int
        Of each of the two feeds: one of patients who fall ill, one of patients who do not.
    say : callable
        Is told what happens.
    """
    dice = random.Random(seed)
    done = Round(seed)
    feeds = {
        f"ill-{seed}": (beds, ill_timeline(dice), dice.randrange(10**6)),
        f"well-{seed}": (beds, "sinus:72@0", dice.randrange(10**6)),
    }
    observer = Observer(ward.direct())
    watching = asyncio.ensure_future(observer.run())
    scene = Scene(ward, observer, feeds, dice)
    try:
        for name, given in feeds.items():
            ward.start_feed(name, *given)
        if await observer.flowing(scene.beds, 0, _FLOWING_S) is None:
            done.wrong.append("no findings before the first fault")
        before = rss_mb(ward)
        for kind in kinds:
            await asyncio.sleep(dice.uniform(*_PAUSE_S))
            if dice.random() < 0.5:
                # Half of them at the worst moment: a patient's alarm is on its way.
                await observer.next_raise(10.0)
            course = Course(kind)
            done.courses.append(course)
            await FAULTS[kind](scene, course)
            say(f"seed {seed}  {kind}: {in_words(course)}")
            _replace_the_dead(scene, done)
        for name in feeds:
            await ward.end_feed(name)
        await _look(ward, session, scene, done)
        done.rss_mb = rss_mb(ward)
        for name, after in done.rss_mb.items():
            if name in before and after > before[name] + _GROWTH_MB:
                done.wrong.append(f"{name} has grown from {before[name]:.0f} to {after:.0f} MB")
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await observer.bus.close()
    done.wrong += [f"{course.kind}: {text}" for course in done.courses for text in course.wrong]
    return done


async def _look(ward: FaultyWard, session: Session, scene: Scene, done: Round) -> None:
    until = time.monotonic() + _DRAINED_S
    expected = None
    while True:
        found = await invariants.collect(scene.observer.bus, scene.beds)
        if expected is None:
            # The feeds have ended: no more chunks come.
            expected = await asyncio.to_thread(invariants.expected_of, found.chunks, session)
        wrong = invariants.violations(found, expected) + invariants.still_open(found)
        wrong += invariants.subscriber(ward.heard, found)
        wrong += await asyncio.to_thread(invariants.recorded, ward.recordings, found)
        if not wrong or time.monotonic() > until:
            break
        await asyncio.sleep(0.5)
    done.wrong += wrong
    done.chunks, done.findings = len(found.chunks), len(found.findings)
    done.thinned_out = len(found.thinned_out)
    done.alarms = len({event.alarm for event in found.events})


def rss_mb(ward: FaultyWard) -> dict[str, float]:
    """Return the memory of every part of the ward."""
    pids = {name: process.pid for name, process in ward.children.items()}
    if ward.server.pid is not None:
        pids["server"] = ward.server.pid
    found = {}
    for name, pid in pids.items():
        with suppress(psutil.NoSuchProcess):
            found[name] = round(psutil.Process(pid).memory_info().rss / 2**20, 1)
    return found


def _replace_the_dead(scene: Scene, done: Round) -> None:
    ward = scene.ward
    for name, process in list(ward.children.items()):
        if process.poll() is None:
            continue
        told = f"the {name} died (exit code {process.returncode}): {ward.log(name)[-600:]}"
        done.courses[-1].wrong.append(told)
        del ward.children[name]
        if name.startswith("worker"):
            ward.another_worker()
        elif name.startswith("feed "):
            feed = name.removeprefix("feed ")
            ward.start_feed(feed, *scene.feeds[feed])


def in_words(course: Course) -> str:
    """Return how a fault went, as a line."""

    def seconds(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f} s"

    text = f"lasted {seconds(course.lasted_s)}, told {seconds(course.told_s)}, back {seconds(course.back_s)}"
    return text + "".join(f"; {wrong}" for wrong in course.wrong)
