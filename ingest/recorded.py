"""What the recorder wrote, session by session: the same samples, in the same places, as the live feed had."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.source import MAX_LSB, IngestError, Recording, fitting_gain
from stream.contract import INVALID, MalformedMessageError, Validity, to_lsb
from stream.recording.segment import SIDE, Segment

# Of flags that differ within a stretch the worst counts; but off is a lead only that was off throughout.
_WORSE = (Validity.OK, Validity.QUESTIONABLE, Validity.SATURATED)


def is_recorded(folder: Path) -> bool:
    """Say whether a folder is a bed's, as the recorder writes it."""
    return folder.is_dir() and any(folder.glob(f"*{SIDE}"))


def open_sessions(folder: Path) -> list[RecordedSession]:
    """Open what was recorded of a bed.

    Parameters
    ----------
    folder : pathlib.Path
        Of the bed, not that of all beds.

    Returns
    -------
    list of RecordedSession
        In the order in which they were recorded; not empty. A session that changed its rate or leads on the
        way is more than one.

    Raises
    ------
    IngestError
        If there is nothing in it that can be read.
    """
    sessions: dict[tuple[str, float, tuple[str, ...]], list[Segment]] = {}
    segments = []
    for path in folder.glob(f"*{SIDE}"):
        try:
            segments.append(Segment.open(path.with_name(path.name.removesuffix(SIDE))))
        except (MalformedMessageError, OSError) as error:
            raise IngestError(path, f"cannot be read: {error}") from error
    for segment in sorted(segments, key=lambda one: (one.begin.begun_ns, one.begin.n0)):
        begin = segment.begin
        if segment.frames:
            sessions.setdefault((begin.session, begin.fs, begin.leads), []).append(segment)
    if not sessions:
        raise IngestError(folder, "nothing has been recorded in it yet")
    return [RecordedSession(segments) for segments in sessions.values()]


def open_stretch(folder: Path, t0: int, t1: int) -> tuple[RecordedSession, int, int]:
    """Open what was recorded of a bed from a device time on, up to another.

    Parameters
    ----------
    folder : pathlib.Path
        Of the bed.
    t0, t1 : int
        Device times, ns since the epoch.

    Returns
    -------
    session : RecordedSession
    start, stop : int
        The samples between, counted from its first one.

    Raises
    ------
    IngestError
        If nothing was recorded between them, or more than one session.
    """
    found = [
        (session, start, stop)
        for session in open_sessions(folder)
        for start, stop in [session.between(t0, t1)]
        if start < stop
    ]
    if not found:
        raise IngestError(folder, f"nothing was recorded from {_utc(t0)} to {_utc(t1)}")
    if len(found) > 1:
        begins = ", ".join(_utc(session.time_of(start)) for session, start, _ in found)
        raise IngestError(folder, f"{len(found)} sessions from {_utc(t0)} to {_utc(t1)}, beginning {begins}")
    return found[0]


def _utc(t: int) -> str:
    return f"{datetime.fromtimestamp(t // 1_000_000 / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


class RecordedSession(Recording):
    """One session of a bed, from the first sample that was recorded of it to the last one.

    Parameters
    ----------
    segments : sequence of Segment
        All of one session, rate and set of leads, in the order of their samples.

    Notes
    -----
    Samples, gains and flags are those of the live feed, at the same indices of the session, so that the same
    windows give the same scores. Where nothing came for more than ten seconds, nothing comes. A gain that
    changed on the way becomes one for all, as in a WFDB record.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = list(segments)
        self._starts = [segment.begin.n0 for segment in segments]
        begin = segments[0].begin
        gains = list(zip(*(segment.begin.gain for segment in segments), strict=True))
        super().__init__(
            name=begin.bed,
            fs=begin.fs,
            leads=begin.leads,
            # As of a WFDB record: the finest, at which what the coarsest can express still fits.
            gain=[fitting_gain(max(own), MAX_LSB / min(own)) for own in gains],
            n_samples=segments[-1].end - begin.n0,
        )
        self.first_index = begin.n0

    @property
    def record(self) -> Path:
        """The first of its segments, which is a WFDB record."""
        return self._segments[0].record

    @property
    def bed(self) -> str:
        """The bed that it was recorded from."""
        return self._segments[0].begin.bed

    @property
    def session(self) -> str:
        """The session that it was recorded from: offline, alarms are called as they were live."""
        return self._segments[0].begin.session

    @property
    def start_ns(self) -> int:
        """Device time of the first sample, ns since the epoch."""
        return self._segments[0].begin.t0

    def between(self, t0: int, t1: int) -> tuple[int, int]:
        """Return the samples from a device time on up to another: the first, and the one after the last."""
        assert self.first_index is not None
        parts = [segment.samples_between(t0, t1) for segment in self._segments]
        some = [(start, stop) for start, stop in parts if start < stop]
        if not some:
            return 0, 0
        return some[0][0] - self.first_index, some[-1][1] - self.first_index

    def time_of(self, sample: int) -> int:
        """Return the device time, ns, of a sample, counted from the first one."""
        assert self.first_index is not None
        index = sample + self.first_index
        segment = self._segments[max(0, bisect_right(self._starts, index) - 1)]
        return int(segment.times(index, index + 1)[0])

    def flags(self, start: int, stop: int, samples: npt.NDArray[np.int16]) -> tuple[Validity, ...] | None:
        """Return what the source said of the leads in a stretch; None: nothing came at all."""
        ok = (Validity.OK,) * len(self.leads)
        said: list[tuple[Validity, ...]] = []
        for segment, first, last in self._parts(start, stop):
            known = segment.flags_between(first, last)
            if not known or known[0][0] > first:
                said.append(ok)
            said += [flags for _, _, flags in known if flags is not None]
        if not said:
            return None
        return tuple(_worst([flags[column] for flags in said]) for column in range(len(self.leads)))

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        assert self.first_index is not None
        found = np.full((stop - start, len(self.leads)), INVALID, np.int16)
        for segment, first, last in self._parts(start, stop):
            try:
                samples = segment.read(first, last)
            except OSError as error:
                raise IngestError(segment.record, f"cannot be read: {error}") from error
            if segment.begin.gain != self.gain:
                millivolts = samples / np.array(segment.begin.gain)
                millivolts[samples == INVALID] = np.nan
                samples = to_lsb(millivolts * np.array(self.gain), 1.0)
            samples[segment.off(first, last)] = INVALID
            at = first - self.first_index - start
            found[at : at + len(samples)] = samples
        return found

    def _parts(self, start: int, stop: int) -> list[tuple[Segment, int, int]]:
        # Segments that hold a part of a stretch, which is counted from the first sample, with that part, in
        # samples of the session.
        assert self.first_index is not None
        first, last = start + self.first_index, stop + self.first_index
        at = max(0, bisect_right(self._starts, first) - 1)
        return [
            (segment, max(first, segment.begin.n0), min(last, segment.end))
            for segment in self._segments[at:]
            if segment.begin.n0 < last and segment.end > first
        ]


def _worst(flags: Sequence[Validity]) -> Validity:
    on = [flag for flag in flags if flag is not Validity.OFF]
    return max(on, key=_WORSE.index) if on else Validity.OFF
