"""Faults of device and connection: what becomes of the chunks of one bed on their way."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.faults.script import (
    AnyFault,
    Chance,
    ClockSkew,
    ClockStep,
    Delayed,
    Disconnect,
    Drop,
    Duplicate,
    FaultScript,
    Gap,
    Jitter,
    LeadSet,
    RateChange,
    Reorder,
    SecondDevice,
)
from ingest.faults.signal import FaultyRecording
from ingest.source import Recording
from stream.contract import INVALID, SampleChunk, to_lsb

# A session's name has at most 64 characters; a number of nine digits goes behind it.
_ROOM = 54

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BedFaults:
    """The faults of one bed's feed.

    Attributes
    ----------
    script : FaultScript
    bed : str
    seed : int
    tell : callable, optional
        Called with a line of text when a fault begins and ends.
    """

    script: FaultScript
    bed: str
    seed: int
    tell: Tell | None = None

    def on_signal(self, recording: Recording, start_s: float) -> Recording:
        """Return the recording with its faults, of a feed that begins at `start_s`."""
        return FaultyRecording(
            recording, self.script.of(self.bed), seed=self.seed, bed=self.bed, start_s=start_s
        )

    def line(self) -> Line:
        """Return what its chunks go through."""
        return Line(self.script.of(self.bed), seed=self.seed, bed=self.bed, tell=self.tell)


@dataclass(frozen=True, slots=True)
class _Placed:
    fault: AnyFault
    chance: Chance


class Line:
    """The way of one session's chunks from the device to the server.

    Parameters
    ----------
    faults : sequence of (int, Fault)
        Of the bed, each with its place in the script; those of the signal are only told of.
    seed : int
    bed : str
    tell : callable, optional
        Called with a line of text when a fault begins and ends.

    Attributes
    ----------
    counts : collections.Counter
        How many chunks were dropped, duplicated and so on, by fault.
    """

    def __init__(
        self, faults: list[tuple[int, AnyFault]], *, seed: int, bed: str, tell: Tell | None = None
    ) -> None:
        self._placed = [_Placed(fault, Chance(seed, bed, place)) for place, fault in faults]
        self._bed, self._tell = bed, tell
        # Which time it is of each fault that is going on.
        self._going_on: dict[int, int] = {}
        # By when they arrive, then in the order of sending.
        self._under_way: list[tuple[int, int, SampleChunk]] = []
        self._numbers = count()
        self._in_order_ns = 0
        self._sessions = 0
        self._away = False
        self._device = _Device(0)
        self._second: _Device | None = None
        self.counts: Counter[str] = Counter()

    def send(self, chunk: SampleChunk, due_ns: int, second: float) -> None:
        """Take the next chunk of the feed.

        Parameters
        ----------
        chunk : SampleChunk
            As it would arrive without faults.
        due_ns : int
            When it would, ns of device time since the feed began.
        second : float
            Of the feed, at its first sample.
        """
        active = self._look(second)
        sent = self._by_device(chunk, active, second)
        for device_chunk in sent:
            self._on_its_way(device_chunk, due_ns, active, chunk.header.seq)

    def last(self, chunk: SampleChunk) -> SampleChunk:
        """Return an empty last chunk as the device sends it whose session is under way."""
        return self._device.ended(chunk)

    @property
    def next_ns(self) -> int | None:
        """When the next one of them arrives, ns since the feed began; None: there is none."""
        return self._under_way[0][0] if self._under_way else None

    def receive(self) -> SampleChunk:
        """Return the next one that arrives."""
        return heapq.heappop(self._under_way)[2]

    def _look(self, second: float) -> list[tuple[_Placed, int]]:
        # What is going on: each fault, and which time it is.
        active = []
        for place, placed in enumerate(self._placed):
            fault = placed.fault
            number = fault.occurrence(second)
            if number is not None and not fault.by_chunk and not fault.happens(placed.chance, number):
                number = None
            if number is not None:
                active.append((placed, number))
            before = self._going_on.get(place)
            if number == before:
                continue
            if before is not None:
                del self._going_on[place]
                self._say(second, fault, "ends")
            if number is not None:
                self._going_on[place] = number
                self._say(second, fault, "begins")
        return active

    def _say(self, second: float, fault: AnyFault, what: str) -> None:
        if self._tell is not None:
            self._tell(f"{self._bed} at {second:g} s {what}: {fault.what}")

    def _by_device(
        self, chunk: SampleChunk, active: list[tuple[_Placed, int]], second: float
    ) -> list[SampleChunk]:
        faults = [placed.fault for placed, _ in active]
        was_away, self._away = self._away, any(isinstance(fault, Disconnect) for fault in faults)
        if was_away and not self._away:
            self._sessions += 1
            self._device = _Device(self._sessions)
        two = any(isinstance(fault, SecondDevice) for fault in faults)
        if two and self._second is None:
            self._sessions += 1
            self._second = _Device(self._sessions)
        elif not two:
            self._second = None
        rate = next((fault for fault in faults if isinstance(fault, RateChange)), None)
        leads = next((fault.leads for fault in faults if isinstance(fault, LeadSet)), None)
        sent = [self._device.made(chunk, rate, leads, self._clock_ns(second))]
        if self._second is not None:
            sent.append(self._second.made(chunk, None, None, 0))
        # It goes on counting what it does not send.
        empty = len(chunk.samples) and bool((chunk.samples == INVALID).all())
        gap = empty and any(isinstance(fault, Gap) for fault in faults)
        return [] if self._away or gap else sent

    def _clock_ns(self, second: float) -> int:
        offset_s = 0.0
        for placed in self._placed:
            fault = placed.fault
            if isinstance(fault, ClockSkew):
                offset_s += fault.ppm * 1e-6 * fault.active_s(second)
            elif isinstance(fault, ClockStep) and fault.occurrence(second) is not None:
                offset_s += fault.seconds
        return round(offset_s * 1e9)

    def _on_its_way(
        self, chunk: SampleChunk, due_ns: int, active: list[tuple[_Placed, int]], seq: int
    ) -> None:
        hit = [
            (placed.fault, placed.chance)
            for placed, _ in active
            if placed.fault.by_chunk and placed.fault.happens(placed.chance, seq)
        ]
        late_s = overtaken_s = 0.0
        again: list[float] = []
        lost = False
        for fault, chance in hit:
            if isinstance(fault, Drop):
                lost = True
            elif isinstance(fault, Delayed):
                late_s += fault.seconds
            elif isinstance(fault, Jitter):
                # Another number than the one that decides whether it happens.
                late_s += fault.seconds * chance.uniform(-1 - seq)
            elif isinstance(fault, Reorder):
                overtaken_s += fault.seconds
            elif isinstance(fault, Duplicate):
                again.append(fault.seconds)
            self.counts[fault.fault] += 1
        if lost:
            return
        # Those behind a late one wait for it.
        self._in_order_ns = max(self._in_order_ns, due_ns + round(late_s * 1e9))
        arrives = self._in_order_ns + round(overtaken_s * 1e9)
        for after_s in (0.0, *again):
            heapq.heappush(self._under_way, (arrives + round(after_s * 1e9), next(self._numbers), chunk))


class _Device:
    # Who sends: its session, and how far it has counted in it.

    def __init__(self, number: int) -> None:
        # Of its session, among those of the feed.
        self._number = number
        # First chunk of its session.
        self._first_seq: int | None = None
        # Sample after the last one, as recorded and as sent.
        self._recorded_end = 0
        self._sent_end = 0
        self._resampler: _Resampler | None = None

    def made(
        self,
        chunk: SampleChunk,
        rate: RateChange | None,
        leads: tuple[str, ...] | None,
        clock_ns: int,
    ) -> SampleChunk:
        header = chunk.header
        if self._first_seq is None:
            # A feed that begins in the middle of its numbers keeps them; a later session begins at 0.
            self._first_seq = header.seq if self._number else 0
            self._recorded_end, self._sent_end = header.n0, 0 if self._number else header.n0
        hole, samples = header.n0 - self._recorded_end, chunk.samples
        self._recorded_end = chunk.end
        fs = header.fs
        if rate is None:
            self._resampler = None
        else:
            if self._resampler is None:
                self._resampler = _Resampler(header.fs, rate.fs)
            samples = self._resampler.push(samples)
            hole = round(hole * rate.fs / header.fs)
            fs = rate.fs if rate.announced else header.fs
        n0 = self._sent_end + hole
        self._sent_end = n0 + len(samples)
        update: dict[str, Any] = {"n0": n0, "fs": fs, "t0": max(0, header.t0 + clock_ns)}
        if leads is not None:
            columns = [at for at, lead in enumerate(header.leads) if lead in leads]
            samples = samples[:, columns]
            update |= {
                field: tuple(getattr(header, field)[at] for at in columns)
                for field in ("leads", "gain", "valid")
            }
        changed = SampleChunk(header.model_copy(update=update), np.ascontiguousarray(samples))
        return self._named(changed)

    def ended(self, chunk: SampleChunk) -> SampleChunk:
        if self._first_seq is None:
            return chunk
        header = chunk.header.model_copy(update={"n0": self._sent_end})
        return self._named(SampleChunk(header, chunk.samples))

    def _named(self, chunk: SampleChunk) -> SampleChunk:
        header = chunk.header
        assert self._first_seq is not None
        session = f"{header.session[:_ROOM]}-{self._number}" if self._number else header.session
        update = {"session": session, "seq": header.seq - self._first_seq}
        return SampleChunk(header.model_copy(update=update), chunk.samples)


class _Resampler:
    # To another rate, linearly, one sample of the old rate late, so that nothing is needed from the future.

    def __init__(self, fs_in: float, fs_out: float) -> None:
        self._ratio = fs_out / fs_in
        self._taken = self._given = 0
        self._before: npt.NDArray[np.float64] | None = None

    def push(self, samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        if not len(samples):
            return samples
        values = np.where(samples == INVALID, np.nan, samples)
        before = values[:1] if self._before is None else self._before
        known = np.concatenate([before, values])
        stop = math.ceil((self._taken + len(samples)) * self._ratio)
        at = np.arange(self._given, stop) / self._ratio - self._taken
        grid = np.arange(len(known))
        new = np.stack([np.interp(at, grid, lead) for lead in known.T], axis=1)
        self._taken, self._given, self._before = self._taken + len(samples), stop, known[-1:]
        return to_lsb(new, 1.0)
