"""Cutting a recording into the sample chunks that travel, the same for replay and for offline analysis."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ingest.source import IngestError, Recording
from stream.contract import ChunkHeader, SampleChunk, Validity, is_name

if TYPE_CHECKING:
    from ingest.faults.line import BedFaults

CHUNK_S = 0.2
"""Default length of a chunk: little against the 10 s in which an alarm is due, much against its header."""

CHUNK_RANGE_S = (0.05, 0.5)
"""Shorter chunks cost more than they carry; longer ones show as a delay."""

# What is read at once. Ten seconds of 12 leads at 1000 Hz are 240 kB, one disk access in fifty chunks.
_PIECE_S = 10.0
# So many pieces where nobody waits: each read of a WFDB record parses its header again, for milliseconds.
_AT_ONCE = 6.0

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Feed:
    """One bed's part of a replay.

    Attributes
    ----------
    bed : str
    recording : Recording
    start_s, stop_s : float
        The part of the recording to send, seconds; None for its end.
    loop : bool
        Whether to begin again at the end of the part, for ever.
    offset_s : float
        How far into the loop it begins, seconds.
    lasts_s : float, optional
        The end of a loop, seconds of signal; None for never.
    session : str
        Identifier of the continuous feed; a random one unless given.
    base_time_ns : int, optional
        Device time of the first sample sent; unless given, the time at which replay begins.
    following : Feed, optional
        Of the same bed: what comes, as another session, when this has ended.
    faults : BedFaults, optional
        What befalls it on its way; their time begins with the feed.
    """

    bed: str
    recording: Recording
    start_s: float = 0.0
    stop_s: float | None = None
    loop: bool = False
    offset_s: float = 0.0
    lasts_s: float | None = None
    session: str = field(default_factory=lambda: uuid.uuid4().hex)
    base_time_ns: int | None = None
    following: Feed | None = None
    faults: BedFaults | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The samples of one chunk, before they get a header."""

    seq: int
    samples: npt.NDArray[np.int16]
    valid: tuple[Validity, ...]
    last: bool


class Cutter:
    """Says where the chunks of a recording begin and end, and makes them.

    Boundaries follow from a chunk's number, never from the boundary before, so that a length which is
    no whole number of samples does not add up to a drift.

    Parameters
    ----------
    recording : Recording
    bed, session : str
    start_s, stop_s : float
        The part of the recording, seconds; None for its end.
    base_time_ns : int, optional
        Device time of the first sample of the part; unless given, what the recording says, counted
        from 1970 if it says nothing.
    chunk_s : float
        Length of a chunk, 0.05 to 0.5 s.
    pace : float
        As in `stream.contract.ChunkHeader`.

    Attributes
    ----------
    base_time_ns : int
        Device time of the first sample of the part. May be set until the first chunk is made.

    Raises
    ------
    IngestError
        If there is no such part of the recording, a chunk of it would be empty, or bed or session cannot be
        sent.
    ValueError
        If the length of a chunk cannot be.
    """

    def __init__(
        self,
        recording: Recording,
        bed: str,
        session: str,
        *,
        start_s: float = 0.0,
        stop_s: float | None = None,
        base_time_ns: int | None = None,
        chunk_s: float = CHUNK_S,
        pace: float = 0.0,
    ) -> None:
        low, high = CHUNK_RANGE_S
        if not low <= chunk_s <= high:
            raise ValueError(f"a chunk of {chunk_s} s: from {low} to {high} s is possible")
        if start_s < 0 or (stop_s is not None and stop_s <= start_s):
            to = "the end" if stop_s is None else f"{stop_s:g} s"
            raise IngestError(recording.name, f"from {start_s:g} s to {to} is no part of a recording")
        for what, name in (("bed", bed), ("session", session)):
            if not is_name(name):
                raise IngestError(
                    recording.name, f"{name!r} cannot name a {what}: 1 to 64 printable characters"
                )
        self.recording = recording
        # The decimal that was meant, not the binary fraction beside it: 0.2 s of 500 Hz are 100 samples.
        self._fs = Fraction(str(recording.fs))
        self._per_chunk = self._fs * Fraction(str(chunk_s))
        if self._per_chunk < 1:
            raise IngestError(recording.name, f"{recording.fs:g} Hz: less than one sample in {chunk_s:g} s")
        self._chunks_per_piece = max(1, round(_PIECE_S / chunk_s))
        self._first = round(start_s * recording.fs)
        ends = [] if recording.n_samples is None else [recording.n_samples]
        if stop_s is not None:
            ends.append(round(stop_s * recording.fs))
        self._end = min(ends, default=None)
        if self._end is not None and self._end <= self._first:
            raise IngestError(recording.name, f"nothing to send from {start_s:g} s on")
        if base_time_ns is None:
            base_time_ns = recording.start_ns + round(self._first * _NS / self._fs)
        self.base_time_ns = base_time_ns
        # What was recorded from a feed keeps its place on the grid of windows.
        self._n0 = 0 if recording.first_index is None else recording.first_index + self._first
        self._fields = {
            "bed": bed,
            "session": session,
            "fs": recording.fs,
            "leads": recording.leads,
            "gain": recording.gain,
            "pace": pace,
        }

    def first_sample(self, seq: int) -> int:
        """Return the first sample of chunk `seq`, counted from the beginning of the session."""
        return round(seq * self._per_chunk)

    def time_of(self, sample: int) -> int:
        """Return the device time, ns, of a sample counted from the beginning of the session."""
        return self.base_time_ns + round(sample * _NS / self._fs)

    def due_ns(self, cut: Cut) -> int:
        """Return the device time, ns, at which the last sample of a chunk has been acquired."""
        return self.time_of(self.first_sample(cut.seq) + len(cut.samples))

    def read(self, seq: int, share: float = 1.0) -> list[Cut]:
        """Read the chunks from `seq` on, about ten seconds of them, without those in which nothing came.

        Parameters
        ----------
        seq : int
        share : float
            Read this part of ten seconds, or so many times ten.

        Returns
        -------
        list of Cut
            Not empty. The last one of the part says so; there is nothing to read after it.

        Raises
        ------
        IngestError
            If the recording cannot be read.
        """
        cuts: list[Cut] = []
        while not cuts:
            until = seq + max(1, round(share * self._chunks_per_piece))
            cuts = self._read_piece(seq, until)
            seq = until
        return cuts

    def _read_piece(self, seq: int, until: int) -> list[Cut]:
        begin, stop = (self._first + self.first_sample(n) for n in (seq, until))
        if self._end is not None:
            stop = min(stop, self._end)
        samples = self.recording.read(begin, stop)
        # A source without a known end may still end.
        ends = stop == self._end or len(samples) < stop - begin
        cuts = []
        for number in range(seq, until):
            a, b = (self.first_sample(n) - self.first_sample(seq) for n in (number, number + 1))
            last = ends and b >= len(samples)
            own = samples[a:b]
            flags = self.recording.flags(begin + a, begin + a + len(own), own)
            if flags is not None:
                cuts.append(Cut(number, own, flags, last))
            elif last:
                cuts.append(self.nothing(number))
            if last:
                break
        return cuts

    def nothing(self, seq: int) -> Cut:
        """Return an empty last chunk, for a session that ends where nothing comes."""
        leads = len(self.recording.leads)
        return Cut(seq, np.empty((0, leads), np.int16), (Validity.OK,) * leads, last=True)

    def chunk(self, cut: Cut, ingest_ns: int) -> SampleChunk:
        """Return the chunk as it travels.

        Parameters
        ----------
        cut : Cut
        ingest_ns : int
            When it enters the system, ns since the epoch.
        """
        n0 = self.first_sample(cut.seq)
        header = ChunkHeader(
            seq=cut.seq,
            t0=self.time_of(n0),
            n0=self._n0 + n0,
            ingest_ns=ingest_ns,
            valid=cut.valid,
            last=cut.last,
            **self._fields,
        )
        return SampleChunk(header, cut.samples)


def chunks_of(
    recording: Recording,
    bed: str,
    session: str,
    *,
    start: float = 0.0,
    stop: float | None = None,
    chunk_s: float = CHUNK_S,
    base_time_ns: int | None = None,
) -> Iterator[SampleChunk]:
    """Cut a recording into chunks offline: at pace 0, in constant memory, the last one marked as such.

    Parameters
    ----------
    recording : Recording
    bed, session : str
    start, stop : float
        The part of the recording, seconds; None for its end.
    chunk_s : float
        Length of a chunk, 0.05 to 0.5 s.
    base_time_ns : int, optional
        Device time of the first sample of the part; unless given, what the recording says, counted
        from 1970 if it says nothing.

    Yields
    ------
    SampleChunk
        Which claims to be ingested when its last sample was acquired.

    Raises
    ------
    IngestError
        If the recording cannot be read.
    ValueError
        If the part or the length of a chunk cannot be.
    """
    cutter = Cutter(
        recording,
        bed,
        session,
        start_s=start,
        stop_s=stop,
        base_time_ns=base_time_ns,
        chunk_s=chunk_s,
    )
    seq, last = 0, False
    while not last:
        for cut in cutter.read(seq, _AT_ONCE):
            yield cutter.chunk(cut, cutter.due_ns(cut))
            seq, last = cut.seq + 1, cut.last
