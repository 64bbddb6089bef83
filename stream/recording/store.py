"""Reading recordings: any moment of any bed, while it is being recorded or later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.contract import INVALID, AlarmEvent, MalformedMessageError
from stream.recording.names import bed_folders, folder_of
from stream.recording.segment import ALARMS, FLAC, HEADER, RAW, SIDE, Segment, Side, frames_of

# Two segments of a session go on without a break where time differs by no more: a device's clock drifts.
_STEP_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was recorded of a bed without a break.

    Attributes
    ----------
    bed, session : str
    fs : float
        Sampling frequency, Hz.
    leads : tuple of str
    n0 : int
        Index of the first sample in the session: alarms, beats and findings count so, too.
    t_ns : numpy.ndarray of int64, shape (n,)
        Device time of each sample, ns since the epoch, UTC.
    millivolts : numpy.ndarray of float32, shape (n, leads)
        NaN where nothing came (up to ten seconds of it; a longer gap ends the stretch), or its lead was off.
    """

    bed: str
    session: str
    fs: float
    leads: tuple[str, ...]
    n0: int
    t_ns: npt.NDArray[np.int64]
    millivolts: npt.NDArray[np.float32]

    @property
    def end(self) -> int:
        """Index in the session of the sample after the last one."""
        return self.n0 + len(self.t_ns)


class Recordings:
    """A folder of recordings.

    It may be asked from several threads, and while a recorder writes, compresses and deletes: what has
    gone meanwhile is left out.

    Parameters
    ----------
    root : path
        Folder of all recordings; it need not be there yet.

    Examples
    --------
    >>> recordings = Recordings("recordings")  # doctest: +SKIP
    >>> first, last = recordings.span("icu-1")  # doctest: +SKIP
    >>> for stretch in recordings.read("icu-1", last - 60 * 10**9, last):  # doctest: +SKIP
    ...     print(stretch.leads, stretch.millivolts.shape, stretch.t_ns[0])
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        # What lies beside a segment is read again only when it has grown.
        self._sides: dict[Path, tuple[tuple[int, int], Side]] = {}

    def beds(self) -> list[str]:
        """Return the beds of which something is recorded, by name."""
        try:
            return [bed for bed, folder in bed_folders(self.root) if any(folder.glob(f"*{SIDE}"))]
        except FileNotFoundError:
            return []

    def segments(self, bed: str) -> list[Segment]:
        """Return what is there of a bed, by device time of the first samples."""
        found = []
        for path in self._sides_of(bed):
            record = path.with_name(path.name.removesuffix(SIDE))
            try:
                side = self._side(path)
                segment = Segment(record, side, frames_of(record, side))
            except (FileNotFoundError, MalformedMessageError):
                # Deleted meanwhile, or damaged beyond use.
                continue
            if segment.frames:
                found.append(segment)
        return sorted(found, key=lambda one: (one.begin.t0, one.begin.begun_ns))

    def span(self, bed: str) -> tuple[int, int] | None:
        """Return the device times, ns, of a bed's first sample and of its end; None if it has none."""
        segments = self.segments(bed)
        if not segments:
            return None
        return segments[0].begin.t0, max(segment.t_end for segment in segments)

    def size(self, bed: str) -> int:
        """Return how many bytes the recordings of a bed take."""
        total = 0
        folder = self.root / folder_of(bed)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.suffix in (SIDE, RAW, FLAC, HEADER, ALARMS):
                try:
                    total += path.stat().st_size
                except FileNotFoundError:
                    continue
        return total

    def read(self, bed: str, t0: int, t1: int, leads: Sequence[str] | None = None) -> list[Stretch]:
        """Return what was recorded of a bed from a device time on, up to another.

        Only what is asked for is read and decompressed: a minute of an hour takes milliseconds.

        Parameters
        ----------
        bed : str
        t0, t1 : int
            Device times, ns since the epoch.
        leads : sequence of str, optional
            Only these, in this order; a stretch has those that its feed had. All of them unless given.

        Returns
        -------
        list of Stretch
            By time. They overlap where a device's clock was set back, or two feeds were told apart by their
            session only.

        Raises
        ------
        OSError
            If a file is damaged.
        """
        parts: list[Stretch] = []
        for segment in self.segments(bed):
            start, stop = segment.samples_between(t0, t1)
            names = segment.begin.leads
            columns = [names.index(lead) for lead in leads if lead in names] if leads else range(len(names))
            if start >= stop or not columns:
                continue
            try:
                samples = segment.read(start, stop, columns)
            except FileNotFoundError:
                continue
            begin = segment.begin
            gain = np.array([begin.gain[column] for column in columns], np.float32)
            millivolts = np.divide(samples, gain, dtype=np.float32)
            millivolts[(samples == INVALID) | segment.off(start, stop)[:, columns]] = np.nan
            parts.append(
                Stretch(
                    bed,
                    begin.session,
                    begin.fs,
                    tuple(names[column] for column in columns),
                    start,
                    segment.times(start, stop),
                    millivolts,
                )
            )
        return _joined(parts)

    def alarms(self, bed: str, t0: int, t1: int) -> list[AlarmEvent]:
        """Return the alarm transitions of a bed from a device time on, up to another, in their order.

        An alarm that was raised before is told by its transitions before `t0` alone.
        """
        events: dict[str, AlarmEvent] = {}
        for path in self._sides_of(bed):
            try:
                side = self._side(path)
            except (FileNotFoundError, MalformedMessageError):
                continue
            events |= {event.event: event for event in side.alarms if t0 <= event.since < t1}
        return sorted(events.values(), key=lambda event: (event.since, event.alarm, event.number))

    def _sides_of(self, bed: str) -> list[Path]:
        folder = self.root / folder_of(bed)
        return sorted(folder.glob(f"*{SIDE}")) if folder.is_dir() else []

    def _side(self, path: Path) -> Side:
        try:
            status = path.stat()
            known = self._sides.get(path)
            if known is None or known[0] != (status.st_size, status.st_mtime_ns):
                known = (status.st_size, status.st_mtime_ns), Side.parse(path.read_bytes())
                self._sides[path] = known
        except FileNotFoundError:
            self._sides.pop(path, None)
            raise
        return known[1]


def _joined(parts: Iterable[Stretch]) -> list[Stretch]:
    # Segments that go on without a break, as at the full hour, are one stretch.
    runs: list[list[Stretch]] = []
    for part in parts:
        if runs and _goes_on(runs[-1][-1], part):
            runs[-1].append(part)
        else:
            runs.append([part])
    return [
        run[0]
        if len(run) == 1
        else Stretch(
            run[0].bed,
            run[0].session,
            run[0].fs,
            run[0].leads,
            run[0].n0,
            np.concatenate([part.t_ns for part in run]),
            np.concatenate([part.millivolts for part in run]),
        )
        for run in runs
    ]


def _goes_on(before: Stretch, after: Stretch) -> bool:
    return (
        (before.session, before.fs, before.leads, before.end)
        == (after.session, after.fs, after.leads, after.n0)
    ) and abs(int(after.t_ns[0]) - int(before.t_ns[-1]) - round(1e9 / before.fs)) < _STEP_NS
