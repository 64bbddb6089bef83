"""Where the samples of a live feed belong: their numbers in the session, and their device time.

A protocol tells it in one of three ways, the first that it has: it counts samples, it states device times, or
it says nothing and samples follow one another as they arrive.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, deque
from collections.abc import Iterable
from enum import Enum, auto

from ingest.live.source import Piece

NS = 1_000_000_000

# What a stated time may be off and still mean "right behind the piece before": the jitter of a device's
# timer. What is lost of less than that shows once it adds up.
_TOLERANCE_NS = 50_000_000

# Pieces that are remembered: one that is sent twice is sent twice soon.
_REMEMBERED = 64

# Crystals of two devices differ by less than 100 ppm, bad ones by 200.
_DRIFT = 500e-6

# A stated time this far from where the count says: the device's clock has been set.
_CLOCK_SET_NS = 1_000_000_000

# As the worker has it: a feed that has been silent for so long is lost, and so is what it had to say.
_SILENT_NS = 2_000_000_000

# A device that repeats itself for so long without anything new has begun to count anew.
_RESTART_NS = 2_000_000_000

# Streams are kept for ten minutes: nothing of before a longer hole is of use to what comes behind it.
_LONGEST_HOLE_S = 600


class Kept(Enum):
    """By what a feed's samples are told apart."""

    COUNT = auto()
    DEVICE_TIME = auto()
    ARRIVAL = auto()


def kept_by(piece: Piece) -> Kept:
    """Return by what the feed that a piece belongs to tells its samples apart."""
    if piece.n0 is not None:
        return Kept.COUNT
    return Kept.ARRIVAL if piece.t_ns is None else Kept.DEVICE_TIME


def _identity(piece: Piece) -> tuple[int, int]:
    # A coarse clock gives two pieces the same time, but not the same samples.
    return piece.t_ns or 0, zlib.crc32(piece.samples.tobytes())


class Timeline:
    """Places the pieces of one session.

    Parameters
    ----------
    piece : Piece
        The first one: its first sample is sample 0.

    Attributes
    ----------
    fs : float
        Hz.
    kept : Kept
    front : int
        Index after the furthest sample that has been placed.
    repeated : bool
        Whether the piece that was placed last had come before, as its time and samples tell.
    """

    def __init__(self, piece: Piece) -> None:
        self.fs = piece.fs
        self.kept = kept_by(piece)
        self.front = len(piece.samples)
        self._counted_from = piece.n0 or 0
        start = piece.arrived_ns - self._length(len(piece.samples)) if piece.t_ns is None else piece.t_ns
        self._anchor = (0, max(0, start))
        self._arrived_ns = piece.arrived_ns
        self._nothing_new_since: int | None = None
        # Of stated times, where the last pieces are.
        self._placed: OrderedDict[tuple[int, int], int] = OrderedDict()
        self.repeated = False
        self._remember(piece, 0)

    @property
    def counted_from(self) -> int:
        """What the device counts as its sample number where the session's is 0."""
        return self._counted_from

    def resume(self, counted_from: int, index: int, t_ns: int) -> None:
        """Go on as a session that another process has begun.

        Parameters
        ----------
        counted_from : int
            As of that process.
        index, t_ns : int
            The sample after the last one that it published, and its device time.
        """
        self._counted_from, self.front, self._anchor = counted_from, index, (index, t_ns)

    def time_of(self, index: int) -> int:
        """Return the device time of a sample, ns since the epoch."""
        at, t_ns = self._anchor
        return max(0, t_ns + round((index - at) * NS / self.fs))

    def place(self, piece: Piece, published: int, edges: Iterable[int] = ()) -> int | None:
        """Return the index of a piece's first sample, or None if it begins another session.

        Parameters
        ----------
        piece : Piece
            At the rate of the session.
        published : int
            Index before which nothing is wanted any more.
        edges : iterable of int
            Where stretches that wait begin and end: a piece that fits between them does not overlap them by
            the rounding of its time.
        """
        n = len(piece.samples)
        known = self._placed.get(_identity(piece)) if self.kept is Kept.DEVICE_TIME else None
        self.repeated = known is not None
        if self.kept is Kept.COUNT:
            assert piece.n0 is not None
            index = piece.n0 - self._counted_from
        elif known is not None:
            index = known
        elif self.kept is Kept.DEVICE_TIME:
            index = self._by_time(piece, edges)
        else:
            index = self._by_arrival(piece)
        if index - self.front > _LONGEST_HOLE_S * self.fs or self._restarted(piece, index + n <= published):
            return None
        if index + n > published:
            self._keep_time(piece, index)
            self.front = max(self.front, index + n)
        self._arrived_ns = piece.arrived_ns
        self._remember(piece, index)
        return index

    def _remember(self, piece: Piece, index: int) -> None:
        if self.kept is Kept.DEVICE_TIME:
            self._placed[_identity(piece)] = index
            if len(self._placed) > _REMEMBERED:
                self._placed.popitem(last=False)

    def _by_time(self, piece: Piece, edges: Iterable[int]) -> int:
        assert piece.t_ns is not None
        off, n = piece.t_ns - self.time_of(self.front), len(piece.samples)
        if abs(off) <= _TOLERANCE_NS:
            return self.front
        index = self.front + round(off * self.fs / NS)
        within = _TOLERANCE_NS * self.fs / NS
        fits = [at for edge in edges for at in (edge, edge - n) if abs(at - index) <= within]
        return min(fits, key=lambda at: abs(at - index), default=index)

    def _by_arrival(self, piece: Piece) -> int:
        # One after the other, but for what a device that was silent has not sent.
        late = piece.arrived_ns - self.time_of(self.front + len(piece.samples))
        return self.front + round(late * self.fs / NS) if self._was_silent(piece, late) else self.front

    def _was_silent(self, piece: Piece, late_ns: int) -> bool:
        silent = piece.arrived_ns - self._arrived_ns - self._length(len(piece.samples))
        return min(silent, late_ns) > _SILENT_NS

    def _restarted(self, piece: Piece, nothing_new: bool) -> bool:
        if not nothing_new:
            self._nothing_new_since = None
            return False
        if self._nothing_new_since is None:
            self._nothing_new_since = piece.arrived_ns
        if piece.arrived_ns - self._nothing_new_since > _RESTART_NS:
            return True
        # One that counts from 0 again, at a time that is new, need not be waited for.
        return piece.n0 == 0 and piece.t_ns is not None and piece.t_ns > self.time_of(self.front)

    def _keep_time(self, piece: Piece, index: int) -> None:
        n = len(piece.samples)
        if piece.t_ns is not None:
            off = piece.t_ns - self.time_of(index)
            jumps = self.kept is Kept.COUNT and abs(off) > _CLOCK_SET_NS
        else:
            # Without a clock of its own, the time is that of arrival less the least delay: no sample is from
            # the future, and a delay is not a time.
            off = piece.arrived_ns - self.time_of(index + n)
            jumps = off < 0 or self._was_silent(piece, off)
        most = round(self._length(n) * _DRIFT)
        self._anchor = (index, self.time_of(index) + (off if jumps else max(-most, min(most, off))))

    def _length(self, samples: int) -> int:
        return round(samples * NS / self.fs)


class LeastDelay:
    """The least delay in each ten seconds: what a network and a queue add is above it.

    Attributes
    ----------
    full : collections.deque of (int, int)
        When, ns, and how much, ns, of the last minute's full tens of seconds.
    """

    # Six make a minute: enough to tell 250 Hz from 256 Hz.
    _BUCKET_NS = 10 * NS

    def __init__(self) -> None:
        self.full: deque[tuple[int, int]] = deque(maxlen=7)
        self._bucket: int | None = None
        self._least = (0, 0)

    def add(self, now_ns: int, delay_ns: int) -> None:
        """Take a delay."""
        bucket = now_ns // self._BUCKET_NS
        if bucket != self._bucket:
            if self._bucket is not None:
                self.full.append(self._least)
            self._bucket, self._least = bucket, (now_ns, delay_ns)
        elif delay_ns < self._least[1]:
            self._least = (now_ns, delay_ns)

    @property
    def least_ns(self) -> int | None:
        """The least of late, ns; None before the first."""
        if self._bucket is None:
            return None
        return self.full[-1][1] if self.full else self._least[1]


class RateMeter:
    """Whether samples come at the rate that is stated.

    Parameters
    ----------
    fs : float
        Stated, Hz.
    """

    # What a delay may change by: the jitter of a bad network, and the crystal of a bad device.
    _JITTER_NS = 500_000_000
    _OFF = 0.01

    def __init__(self, fs: float) -> None:
        self._fs = fs
        self._delay = LeastDelay()
        self._arrived_ns: int | None = None
        self._counted = 0

    def add(self, arrived_ns: int, samples: int) -> None:
        """Take the arrival of so many new samples."""
        if self._arrived_ns is not None and arrived_ns - self._arrived_ns > _SILENT_NS:
            # Whether they were lost or came never, nothing follows for the rate.
            self._delay, self._counted = LeastDelay(), 0
        self._arrived_ns = arrived_ns
        self._counted += samples
        self._delay.add(arrived_ns, arrived_ns - round(self._counted * NS / self._fs))

    @property
    def measured(self) -> float | None:
        """The rate at which they do come, Hz, if it is another one."""
        if len(self._delay.full) < 2:
            return None
        (then, before), (now, after) = self._delay.full[0], self._delay.full[-1]
        passed, change = now - then, after - before
        if passed <= 0 or abs(change) <= self._JITTER_NS + self._OFF * passed:
            return None
        return self._fs * (passed - change) / passed
