"""A dashboard in a process of its own, and a ward that feeds it, for the tests of this folder."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import AlarmEvent, Command, Explanation
from stream.heartbeat import beat
from tests.monitor.messages import S, chunk, explanation, finding, vitals

# SIGUSR1 puts its clock forward by so many hours.
LEAP_H = 13
_PROGRAM = """
import json, signal, sys
from pathlib import Path
from monitor.reach import Reach
from monitor.server import serve
from stream.clock import SystemClock

class Leaping(SystemClock):
    ahead_ns = 0

    def now_ns(self):
        return super().now_ns() + self.ahead_ns

    def leap(self, *_):
        self.ahead_ns += int(sys.argv[3]) * 3600 * 10**9

clock = Leaping()
signal.signal(signal.SIGUSR1, clock.leap)
given = json.loads(sys.argv[2])
if users := given.pop("users", None):
    given["users"] = Path(users)
if tls := given.pop("tls", None):
    given["tls"] = tuple(map(Path, tls))
if recordings := given.pop("recordings", None):
    recordings = Path(recordings)
reach = Reach(port=0, **given)
say = lambda url: print(url, flush=True)
serve(sys.argv[1], reach=reach, recordings=recordings, on_ready=say, clock=clock)
"""


@dataclass
class Dashboard:
    """A running dashboard.

    Attributes
    ----------
    url : str
    process : subprocess.Popen
    """

    url: str
    process: subprocess.Popen[str]
    killed: bool = False

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 0

    def kill(self) -> None:
        """Kill it outright."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    def leap(self) -> None:
        """Put its clock forward by `LEAP_H` hours."""
        self.process.send_signal(signal.SIGUSR1)

    def health(self) -> tuple[int, dict[str, object]]:
        """Return status and body of ``/healthz``."""
        try:
            with urllib.request.urlopen(f"{self.url}healthz", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def dashboard(redis_url: str, **reach: Any) -> Iterator[Dashboard]:
    """Run a dashboard; on leaving, it must stop cleanly, unless it was killed.

    `reach` is as in `monitor.reach.Reach`, and may have the folder of ``recordings``.
    """
    command = [sys.executable, "-c", _PROGRAM, redis_url, json.dumps(reach, default=str), str(LEAP_H)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http"), "the dashboard did not start"
        running = Dashboard(url, process)
        yield running
        if not running.killed:
            process.terminate()
            assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass
class FakeWard:
    """Beds whose samples come in real time, with a worker that scores them and explains what is watched.

    Attributes
    ----------
    redis_url : str
    beds : dict of str to tuple of str
        Leads by bed; more may come while it runs.
    model : str
        That the findings name.
    maps : bool
        Whether the model expects a spread and has an attention of the leads.
    issues : dict of str to tuple of str
        What is wrong with the signal of leads, from now on.
    mute : bool
        While it is true, samples are taken but none are sent.
    """

    redis_url: str
    beds: dict[str, tuple[str, ...]]
    model: str = "test-model"
    maps: bool = False
    issues: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mute: bool = False
    watched: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _alarms: list[AlarmEvent] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[FakeWard]:
        """Publish while the block runs."""
        thread = threading.Thread(target=lambda: asyncio.run(self._publish()), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(30)

    def raise_alarm(self, event: AlarmEvent) -> None:
        """Publish an alarm event with the next chunks."""
        self._alarms.append(event)

    async def _publish(self) -> None:
        clock = SystemClock()
        async with await Bus.connect(self.redis_url, clock=clock) as bus:
            listener = asyncio.create_task(self._listen(bus))
            began = clock.now_ns()
            seq = 0
            while not self._stop.is_set():
                if seq % 5 == 0:
                    await beat(bus.client, bus.prefix, "ward", {})
                now = clock.now_ns()
                start = began + seq * S // 5
                for bed, leads in [] if self.mute else list(self.beds.items()):
                    sent = chunk(seq, bed=bed, leads=leads, t0=start, ingest_ns=now)
                    await bus.publish("samples", bed.encode(), sent.encode())
                    if seq % 5 == 4:
                        quality = dict.fromkeys(leads, 1.0) | dict.fromkeys(self.issues, 0.3)
                        rated = vitals(seq // 5, bed=bed, quality=quality, issues=self.issues)
                        await bus.publish("vitals", bed.encode(), rated.encode())
                    if seq >= 2:
                        told = finding(seq, bed=bed, score=0.5 + seq % 3, t_end=start, model=self.model)
                        await bus.publish("findings", bed.encode(), told.encode())
                    # Twice a second, as workers do.
                    if bed in self.watched and seq % 5 in (0, 2):
                        expected = self._explanation(bed, leads, start - 8 * S)
                        await bus.publish("explanations", bed.encode(), expected.encode())
                while self._alarms:
                    event = self._alarms.pop(0)
                    await bus.publish("alarms", event.bed.encode(), event.encode())
                seq += 1
                await clock.sleep_until(began + seq * S // 5)
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    def _explanation(self, bed: str, leads: tuple[str, ...], t_start: int) -> Explanation:
        flat = np.full((len(leads), 800), 0.1)
        arrays = {"error": flat * 2}
        if self.maps:
            attention = np.linspace(0.5, 1.5, len(leads))[:, np.newaxis] / len(leads) * np.ones((1, 100))
            arrays |= {"spread": flat, "lead_attention": attention}
        return explanation(flat, leads=leads, bed=bed, t_start=t_start, arrays=arrays)

    async def _listen(self, bus: Bus) -> None:
        async for entry in bus.tail("commands", after="0"):
            self.watched.add(Command.decode(entry.value).bed)
