"""Counting what comes out of a running deployment, as a subscriber sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ingest.publisher import Publisher
from models.manifest import WindowSpec
from stream.bus import Bus
from stream.clock import Clock, SystemClock
from stream.contract import AlarmEvent, Finding, SampleChunk
from stream.topics import ALARMS, FINDINGS

# The resampler looks this many source samples ahead, so that the last ones make no window yet.
_LOOK_AHEAD = 3


def windows_due(samples: int, fs: float, spec: WindowSpec) -> int:
    """Return how many windows a feed must have brought about.

    Parameters
    ----------
    samples : int
        Sent so far, from the session's beginning.
    fs : float
        Hz.
    spec : WindowSpec
        Of the model that scores.
    """
    scored = (samples - _LOOK_AHEAD) / fs - spec.seconds
    return int(scored * spec.fs // spec.hop) + 1 if scored >= 0 else 0


class Sent:
    """A publisher that remembers what has gone out through another one.

    Attributes
    ----------
    ends : dict of (bed, session) to (int, float)
        Samples published so far, and the sampling frequency in Hz.
    chunks : int
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.ends: dict[tuple[str, str], tuple[int, float]] = {}
        self.chunks = 0

    async def publish(self, chunks: Sequence[SampleChunk]) -> None:
        await self._publisher.publish(chunks)
        self.chunks += len(chunks)
        for chunk in chunks:
            self.ends[chunk.header.bed, chunk.header.session] = (chunk.end, chunk.header.fs)


@dataclass(slots=True)
class Tally:
    """What a subscriber has received.

    Attributes
    ----------
    delays_ms : list of float
        From each chunk's ingest to the arrival here of the finding that it brought about.
    alarms : list of AlarmEvent
        Every transition, once.
    repeated_findings, repeated_events : int
        How many came again.
    """

    on_alarm: Callable[[AlarmEvent], None] | None = None
    delays_ms: list[float] = field(default_factory=list)
    alarms: list[AlarmEvent] = field(default_factory=list)
    repeated_findings: int = 0
    repeated_events: int = 0
    _windows: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    _events: set[str] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, bus: Bus, *, clock: Clock | None = None) -> None:
        """Receive findings and alarm events until cancelled, from now on."""
        clock = clock or SystemClock()
        async for entry in bus.tail(FINDINGS, ALARMS):
            if entry.topic == FINDINGS:
                self.take_finding(Finding.decode(entry.value), clock.now_ns())
            else:
                self.take_alarm(AlarmEvent.decode(entry.value))
            self._news.set()

    def take_finding(self, finding: Finding, now_ns: int) -> None:
        """Count a finding, unless it comes again."""
        windows = self._windows.setdefault((finding.bed, finding.session), set())
        if finding.window in windows:
            self.repeated_findings += 1
            return
        windows.add(finding.window)
        self.delays_ms.append((now_ns - finding.stamps.ingest_ns) / 1e6)

    def take_alarm(self, event: AlarmEvent) -> None:
        """Count an alarm event, unless it comes again."""
        if event.event in self._events:
            self.repeated_events += 1
            return
        self._events.add(event.event)
        self.alarms.append(event)
        if self.on_alarm is not None:
            self.on_alarm(event)

    @property
    def findings(self) -> int:
        """Findings received, without repeats."""
        return sum(len(windows) for windows in self._windows.values())

    @property
    def raised(self) -> list[AlarmEvent]:
        """The alarms raised so far."""
        return [event for event in self.alarms if not event.number]

    def lost(self, sent: Sent, spec: WindowSpec) -> int:
        """Return how many windows of what has been sent have no finding (yet).

        Parameters
        ----------
        sent : Sent
        spec : WindowSpec
            Of the model that scores.
        """
        lost = 0
        for feed, (samples, fs) in sent.ends.items():
            due = range(windows_due(samples, fs, spec))
            lost += len(set(due) - self._windows.get(feed, set()))
        return lost

    async def lost_at_last(self, sent: Sent, spec: WindowSpec, timeout_s: float) -> int:
        """Wait until nothing is missing, or for so long; return `lost`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.lost(sent, spec):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return self.lost(sent, spec)


def percentiles_ms(values: Sequence[float]) -> dict[str, float | None]:
    """Return the percentiles of latencies that people ask for, in ms; None where there are no values."""
    names = {"p50": 50, "p90": 90, "p99": 99, "p999": 99.9, "max": 100}
    if not values:
        return dict.fromkeys(names)
    found = np.percentile(values, list(names.values()))
    return {name: round(float(value), 2) for name, value in zip(names, found, strict=True)}
