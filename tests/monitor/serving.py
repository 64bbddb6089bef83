"""A dashboard in a process of its own, and a ward that feeds it, for the tests of this folder."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import AlarmEvent, Command, Explanation
from tests.monitor.messages import S, chunk, explanation, finding, vitals

_PROGRAM = """
import sys
from monitor.server import serve
serve(sys.argv[1], port=0, on_ready=lambda url: print(url, flush=True))
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

    def health(self) -> tuple[int, dict[str, object]]:
        """Return status and body of ``/healthz``."""
        try:
            with urllib.request.urlopen(f"{self.url}healthz", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def dashboard(redis_url: str) -> Iterator[Dashboard]:
    """Run a dashboard; on leaving, it must stop cleanly."""
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, redis_url], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), "the dashboard did not start"
        yield Dashboard(url, process)
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
