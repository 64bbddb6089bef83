"""What is recorded of one bed: from its chunks to segments, each sample once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from stream.contract import AlarmEvent, SampleChunk
from stream.recording.segment import Begin, End
from stream.recording.writer import SegmentWriter
from stream.reorder import InOrder

# A feed that is silent for so long has its segment ended, so that it can be compressed.
_SILENT_NS = 60_000_000_000
# What waits for a chunk that has not come waits no longer when nothing else comes either.
_WAIT_NS = 2_000_000_000
# Sessions before the current one whose chunks may still come, from a publisher that repeats itself.
_FORMER = 8
# Segments to which an alarm may still belong: a day of hours.
_RECENT = 24


@dataclass(frozen=True, slots=True)
class _Known:
    # A segment to which alarms can be added.
    begin: Begin
    record: Path


class Track:
    """The recording of one bed.

    Parameters
    ----------
    folder : pathlib.Path
        Of the bed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SegmentWriter | None = None
        # Those that have ended, and what comes after, wait for the next `sync`.
        self._ending: list[SegmentWriter] = []
        self._recent: deque[_Known] = deque(maxlen=_RECENT)
        # Where each session has been recorded to; the last one is the current one.
        self._recorded: dict[str, int] = {}
        # Of the current session, since it was first heard here.
        self._order: InOrder | None = None
        self._heard_ns = 0
        self._ended: list[tuple[Path, Begin, End]] = []

    def resume(self, record: Path, begin: Begin, end: End) -> None:
        """Take note of a segment that was there before, in the order in which they were recorded."""
        self._recent.append(_Known(begin, record))
        self._now_at(begin.session, begin.n0 + end.frames)

    def take(self, chunk: SampleChunk, now_ns: int) -> bool:
        """Record a chunk.

        False if it was recorded before, is of a session that another has replaced, or runs back although it
        says that it goes on: behind one that is taken for far ahead, all others would be late.
        """
        header = chunk.header
        if header.session not in self._recorded:
            self._flush()
            self._order = InOrder(header.seq + 1, chunk.end)
            return self._record(chunk, now_ns)
        if header.session != next(reversed(self._recorded)):
            return False
        if self._order is None:
            # By the recorder before, up to there.
            self._order = InOrder(0, self._recorded[header.session])
        if self._order.why_not(header.seq) is not None or self._order.runs_back(chunk):
            return False
        self._heard_ns = now_ns
        is_new = True
        for one in self._order.take(chunk):
            is_new &= self._record(one, now_ns)
        return is_new

    @property
    def is_waiting(self) -> bool:
        """Whether it has chunks that are not in any segment yet: something may still come before them."""
        return self._order is not None and self._order.is_waiting

    def _flush(self) -> None:
        if self._order is not None:
            for chunk in self._order.flush():
                self._record(chunk, self._heard_ns)

    def _record(self, chunk: SampleChunk, now_ns: int) -> bool:
        header = chunk.header
        recorded = self._recorded.get(header.session)
        begin = header.n0 if recorded is None else max(header.n0, recorded)
        is_new = begin < chunk.end
        if is_new:
            self._heard_ns = now_ns
            self._add(chunk, begin, now_ns)
        if header.last and self._writer is not None and self._writer.begin.session == header.session:
            self._end()
        return is_new or header.last

    def _add(self, chunk: SampleChunk, at: int, now_ns: int) -> None:
        header = chunk.header
        while at < chunk.end:
            t = chunk.time_of(at)
            if self._writer is not None and not self._writer.continues(header, at, t):
                self._end()
            if self._writer is None:
                begin = Begin(
                    bed=header.bed,
                    session=header.session,
                    n0=at,
                    t0=t,
                    fs=header.fs,
                    leads=header.leads,
                    gain=header.gain,
                    begun_ns=now_ns,
                )
                self._writer = SegmentWriter(self._folder, begin)
            until = min(chunk.end, self._writer.boundary)
            self._writer.append(at, t, chunk.samples[at - header.n0 : until - header.n0], header.valid)
            at = until
        self._now_at(header.session, at)

    def sync(self, now_ns: int, *, stop: bool = False) -> int:
        """Bring everything to the disk; return how many segments had been deleted under our hands.

        Parameters
        ----------
        now_ns : int
        stop : bool
            Whether this is the end of the recording.

        Raises
        ------
        OSError
            If something cannot be written. It may be repeated.
        """
        deleted = 0
        if stop or now_ns - self._heard_ns > _WAIT_NS:
            self._flush()
        if self._writer is not None and (stop or now_ns - self._heard_ns > _SILENT_NS):
            self._end()
        while self._ending:
            deleted += self._write(self._ending[0], self._heard_ns)
            self._ending.pop(0)
        if self._writer is not None:
            gone = self._write(self._writer, None)
            if gone:
                self._writer = None
            deleted += gone
        return deleted

    def segment_of(self, event: AlarmEvent) -> Path | None:
        """Return the segment in which an alarm transition is to be noted; None if its session is not here."""
        of_session = [known for known in self._recent if known.begin.session == event.session]
        if not of_session:
            return None
        # The one that was being written then; of what came before the recorder did, the first.
        before = [known for known in of_session if known.begin.n0 <= _sample_of(event, known.begin.fs)]
        return before[-1].record if before else of_session[0].record

    def take_ended(self) -> list[tuple[Path, Begin, End]]:
        """Return the segments that have ended since this was last called."""
        ended, self._ended = self._ended, []
        return ended

    @property
    def is_recording(self) -> bool:
        """Whether a segment is being written."""
        return self._writer is not None

    def _write(self, writer: SegmentWriter, ended_ns: int | None) -> int:
        is_new = writer.record is None
        try:
            writer.sync(ended_ns)
        except FileNotFoundError:
            if is_new:
                raise
            # Deleted: what came before is not wanted any more, what comes now begins a new segment.
            self._recent = deque((k for k in self._recent if k.record != writer.record), _RECENT)
            return 1
        assert writer.record is not None
        if is_new:
            self._recent.append(_Known(writer.begin, writer.record))
        if ended_ns is not None:
            self._ended.append((writer.record, writer.begin, End(writer.end - writer.begin.n0, ended_ns)))
        return 0

    def _end(self) -> None:
        if self._writer is not None:
            self._ending.append(self._writer)
            self._writer = None

    def _now_at(self, session: str, sample: int) -> None:
        self._recorded[session] = max(sample, self._recorded.pop(session, 0))
        while len(self._recorded) > _FORMER:
            del self._recorded[next(iter(self._recorded))]


def _sample_of(event: AlarmEvent, fs: float) -> int:
    # The sample, in the session, at which a transition happened.
    return event.onset + round((event.since - event.onset_t) * fs / 1e9)
