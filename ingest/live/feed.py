"""What one device sends of one bed becomes sessions of sample chunks."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ingest.chunks import CHUNK_S
from ingest.live.reassembly import Reassembly, Run
from ingest.live.source import Piece
from ingest.live.timeline import Kept, LeastDelay, RateMeter, Timeline, kept_by
from stream.contract import ChunkHeader, SampleChunk, Validity
from stream.leads import canonical_leads


class _Format(NamedTuple):
    # What must not change within a session.
    fs: float
    leads: tuple[str, ...]
    gain: tuple[float, ...]
    kept: Kept

    @property
    def words(self) -> str:
        return f"{' '.join(self.leads)} at {self.fs:g} Hz"


# Exact: a rate of 360 Hz must not drift off its grid. Remembered: a device may begin sessions without end.
@lru_cache(maxsize=64)
def _samples_per_chunk(fs: float) -> Fraction:
    return Fraction(str(fs)) * Fraction(str(CHUNK_S))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session had come when another process left it.

    Attributes
    ----------
    session : str
    counted_from : int
        See `ingest.live.timeline.Timeline.counted_from`.
    chunk : ChunkHeader
        Of the last chunk that it published.
    end : int
        Index after the last sample.
    """

    session: str
    counted_from: int
    chunk: ChunkHeader
    end: int

    @property
    def t_ns(self) -> int:
        """Device time of the sample after the last one."""
        return self.chunk.t0 + round((self.end - self.chunk.n0) * 1e9 / self.chunk.fs)


class _Session:
    # One session: where its samples belong, those that wait, and what they say of the device.

    def __init__(self, bed: str, source: str, form: _Format, piece: Piece, progress: Progress | None) -> None:
        self.bed, self.source, self.form = bed, source, form
        self.name, self.seq, self.ended = uuid.uuid4().hex, 0, False
        self.timeline = Timeline(piece)
        self.rate, self.clock = RateMeter(form.fs), LeastDelay()
        start, self.first = 0, 0
        if progress is not None and self._goes_on(progress):
            timeline = Timeline(piece)
            timeline.resume(progress.counted_from, progress.end, progress.t_ns)
            place = timeline.place(piece, progress.end)
            if place is not None:
                self.timeline, self.name, self.seq = timeline, progress.session, progress.chunk.seq + 1
                start, self.first = progress.end, place
        self.waiting = Reassembly(start, self._chunk_end)
        self._per_chunk = _samples_per_chunk(form.fs)
        self._measured_to = self.first

    def _goes_on(self, progress: Progress) -> bool:
        # Where nothing but the arrival tells, nobody knows what was lost in between.
        chunk, form = progress.chunk, self.form
        same = (chunk.fs, chunk.leads, chunk.gain) == (form.fs, form.leads, form.gain)
        return same and form.kept is not Kept.ARRIVAL and not chunk.last

    def place(self, piece: Piece) -> int | None:
        return self.timeline.place(piece, self.waiting.published, self.waiting.edges)

    def add(self, piece: Piece, index: int) -> int:
        # Returns how many samples there were already.
        n = len(piece.samples)
        # A piece of before, or that comes again, says nothing of the rate, and its time is an old one.
        if index + n > self.waiting.published and not self.timeline.repeated:
            by_time = self.form.kept is Kept.DEVICE_TIME
            self.rate.add(piece.arrived_ns, n if by_time else max(0, index + n - self._measured_to))
            self._measured_to = max(self._measured_to, index + n)
            if piece.t_ns is not None:
                end = piece.t_ns + round(n * 1e9 / piece.fs)
                self.clock.add(piece.arrived_ns, piece.arrived_ns - end)
        return self.waiting.add(index, piece.samples, piece.valid, piece.arrived_ns)

    def take(self, now_ns: int, *, everything: bool = False) -> list[SampleChunk]:
        return [self._chunk(run) for run in self.waiting.take(now_ns, everything=everything)]

    def end(self, now_ns: int) -> list[SampleChunk]:
        chunks = self.take(now_ns, everything=True)
        leads = len(self.form.leads)
        nothing = np.empty((0, leads), np.int16)
        run = Run(self.waiting.published, nothing, (Validity.OK,) * leads, now_ns)
        chunks.append(self._chunk(run, last=True))
        self.ended = True
        return chunks

    def _chunk_end(self, index: int) -> int:
        # On a grid from the beginning of the session, so that what beds send stands at the same points.
        if self._per_chunk < 1:
            return index + 1
        number = index // self._per_chunk
        while (end := round(number * self._per_chunk)) <= index:
            number += 1
        return end

    def _chunk(self, run: Run, *, last: bool = False) -> SampleChunk:
        header = ChunkHeader(
            bed=self.bed,
            session=self.name,
            seq=self.seq,
            t0=self.timeline.time_of(run.start),
            ingest_ns=max(0, run.arrived_ns),
            n0=run.start,
            fs=self.form.fs,
            leads=self.form.leads,
            gain=self.form.gain,
            valid=run.valid,
            last=last,
            source=self.source,
        )
        self.seq += 1
        return SampleChunk(header, run.samples)


class BedFeed:
    """One device's feed of one bed.

    A device that changes its rate, leads or gain, or begins to count anew, begins a new session; so does one
    that was away for more than ten minutes, or comes back after it had ended its feed.

    Parameters
    ----------
    bed, device : str
    progress : Progress, optional
        Of the session that goes on if the device does.
    adapter : str, optional
        By which the device comes in.

    Attributes
    ----------
    heard_ns : int
        When the last piece arrived.
    dropped : int
        Samples that came again or too late; whoever counts them sets it back.
    change : str or None
        What the device sends otherwise than before, in words; whoever tells it sets it back.
    """

    def __init__(self, bed: str, device: str, progress: Progress | None = None, adapter: str = "") -> None:
        self.bed, self.device = bed, device
        self._source = (f"{device} ({adapter})" if adapter else device)[:256]
        self.change: str | None = None
        self.heard_ns = 0
        self.dropped = 0
        self._progress = progress
        self._session: _Session | None = None
        self._ready: list[SampleChunk] = []
        self._named: tuple[str, ...] = ()
        self._leads: tuple[str, ...] = ()

    @property
    def session(self) -> str | None:
        """The session under way, None before the first piece."""
        return None if self._session is None else self._session.name

    @property
    def ended(self) -> bool:
        """Whether the device has ended its feed."""
        return self._session is not None and self._session.ended

    @property
    def counted_from(self) -> int:
        """What another process needs to go on with the session; see `Progress`."""
        return 0 if self._session is None else self._session.timeline.counted_from

    @property
    def description(self) -> str:
        """What is being fed, in words."""
        return " ".join(self._leads) if self._session is None else self._session.form.words

    @property
    def wrong_rate(self) -> str | None:
        """What is wrong with the rate at which samples come, in words; None: nothing."""
        session = self._session
        if session is None or (measured := session.rate.measured) is None:
            return None
        return f"samples come at about {measured:.0f} Hz, and {session.form.fs:g} Hz is stated"

    @property
    def behind_ns(self) -> int | None:
        """By how much the device's clock is behind ours, ns (or the network slow); None if it has none."""
        return None if self._session is None else self._session.clock.least_ns

    def add(self, piece: Piece) -> None:
        """Take a piece of the bed and device."""
        self.heard_ns = max(self.heard_ns, piece.arrived_ns)
        if len(piece.samples):
            self._add_samples(piece)
        if piece.last and self._session is not None and not self._session.ended:
            self._ready += self._session.end(piece.arrived_ns)

    def take(self, now_ns: int) -> list[SampleChunk]:
        """Return the chunks that are full, or whose samples have waited for long enough."""
        if self._session is not None:
            self._ready += self._session.take(now_ns)
        ready, self._ready = self._ready, []
        return ready

    def due_ns(self) -> int | None:
        """Return when there will be chunks at the latest; None: when the next piece comes."""
        return None if self._session is None else self._session.waiting.due_ns()

    def end(self, now_ns: int) -> list[SampleChunk]:
        """Return what is left, and an empty last chunk."""
        if self._session is not None and not self._session.ended:
            self._ready += self._session.end(now_ns)
        return self.take(now_ns)

    def _add_samples(self, piece: Piece) -> None:
        if piece.leads != self._named:
            self._named, self._leads = piece.leads, canonical_leads(piece.leads)
        form = _Format(piece.fs, self._leads, piece.gain, kept_by(piece))
        session, index = self._session, None
        if session is not None and session.form == form and not session.ended:
            index = session.place(piece)
        if session is None or index is None:
            if session is not None:
                self._ready += session.take(piece.arrived_ns, everything=True)
                if not session.ended and session.form[:3] != form[:3]:
                    # Words that are equal: another gain.
                    before = session.form.words if session.form.words != form.words else "another gain"
                    self.change = f"{form.words} in the place of {before}"
            session = _Session(self.bed, self._source, form, piece, self._progress)
            index, self._session, self._progress = session.first, session, None
        self.dropped += session.add(piece, index)
