"""What every live feed offers to the rest of the program, whatever protocol its devices speak.

A `LiveSource` turns what devices send into `Piece` objects, and that is all: `ingest.live.intake` sorts them,
finds the holes, cuts chunks, names sessions, and says aloud what a person should know.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ingest.source import MAX_LSB, IngestError
from stream.contract import EVERY_BED, INVALID, Validity, is_name, to_lsb

if TYPE_CHECKING:
    import click

FLOAT_GAIN = 1000.0
"""LSB per millivolt of a source of floats unless it says otherwise: 1 uV, and +-32 mV of range."""

# A protocol that sends more at once is a file transfer: a minute of 64 leads at 1000 Hz are 8 MB.
_LONGEST_S = 60.0

# Five minutes of 12 leads at 500 Hz: what a device may leave with us while the Redis server is away.
DEVICE_BYTES = 4 * 2**20
SOURCE_BYTES = 256 * 2**20
"""64 such devices."""
# What a piece takes beside its samples, so that many small ones are not free.
_PIECE_BYTES = 512

# Reasons are for people: a device that sends rubbish fills neither memory nor screen.
_MOST_TROUBLES = 256
_LONGEST_WHY = 300

# Millivolts in one of each unit, as devices spell them (the micro sign has two code points).
_UNITS = {"mv": 1.0, "uv": 1e-3, "\u00b5v": 1e-3, "\u03bcv": 1e-3, "nv": 1e-6, "v": 1000.0}


def millivolts_in(unit: str) -> float:
    """Return how many millivolts one of a unit is.

    Parameters
    ----------
    unit : str
        V, mV, uV (or with a micro sign) or nV, in any case.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    try:
        return _UNITS[unit.strip().lower()]
    except KeyError:
        raise ValueError(f"unknown unit {unit[:32]!r}: V, mV, uV or nV are known") from None


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What a device sent in one go, as it came: any length, any order, perhaps again.

    Attributes
    ----------
    bed : str
        Whom it is about, as the device says.
    device : str
        Which device it came from, in words that help a person to find it; stable over its reconnections, for
        it says who holds a bed.
    fs : float
        Sampling frequency that the device states, Hz.
    leads : tuple of str
        As the device names them; the intake makes them canonical.
    gain : tuple of float
        LSB per millivolt, per lead.
    samples : numpy.ndarray of int16, shape (n, leads)
        In LSB, baseline subtracted; `stream.contract.INVALID` marks a missing sample.
    arrived_ns : int
        When the last byte of it was here, ns since the epoch, by the clock of this machine.
    t_ns : int, optional
        Device time of the first sample, ns since the epoch, UTC, right to 50 ms. None if the protocol has
        none, or a coarser one: then the arrival counts.
    n0 : int, optional
        Number of the first sample since the device began to count, where the protocol counts samples. Holes
        and repeats are then exact. Else `t_ns` tells of those that are longer than 50 ms, and without either
        a feed has no holes but those of a silence of two seconds.
    valid : tuple of Validity, optional
        What the device says of each lead; None: nothing.
    last : bool
        Whether the device ends the feed of the bed on purpose; `samples` may then be empty.

    Raises
    ------
    IngestError
        If the fields do not fit or cannot be sent on: hand its text to `LiveSource.refuse`.
    """

    bed: str
    device: str
    fs: float
    leads: tuple[str, ...]
    gain: tuple[float, ...]
    samples: npt.NDArray[np.int16]
    arrived_ns: int
    t_ns: int | None = None
    n0: int | None = None
    valid: tuple[Validity, ...] | None = None
    last: bool = False

    def __post_init__(self) -> None:
        why = self._wrong()
        if why is not None:
            raise IngestError(self.device, why)

    def _wrong(self) -> str | None:
        if not is_name(self.device):
            return "the name of the device: 1 to 64 printable characters"
        # A bed by the name of all beds would be taken for the deployment.
        if not is_name(self.bed) or self.bed == EVERY_BED:
            return f"{self.bed[:80]!r} cannot name a bed: 1 to 64 printable characters, and not {EVERY_BED}"
        if not (math.isfinite(self.fs) and 0 < self.fs <= 100_000):
            return f"a sampling frequency of {self.fs} Hz cannot be"
        if not 1 <= len(self.leads) <= 64:
            return f"{len(self.leads)} leads; 1 to 64 can be sent"
        if not all(is_name(lead) for lead in self.leads):
            return "a lead without a printable name of 1 to 64 characters"
        if len(self.gain) != len(self.leads) or not all(math.isfinite(g) and g >= 1e-6 for g in self.gain):
            return f"gains {list(self.gain)[:64]} do not fit {len(self.leads)} leads"
        if self.valid is not None and len(self.valid) != len(self.leads):
            return f"{len(self.valid)} validity flags for {len(self.leads)} leads"
        if self.samples.ndim != 2 or self.samples.shape[1] != len(self.leads):
            return f"samples of shape {self.samples.shape} for {len(self.leads)} leads"
        if self.samples.dtype != np.int16:
            return f"samples of type {self.samples.dtype} where int16 is expected"
        if not len(self.samples) and not self.last:
            return "no samples"
        if len(self.samples) > max(1.0, _LONGEST_S * self.fs):
            return f"{len(self.samples) / self.fs:.0f} s in one piece; at most {_LONGEST_S:.0f} s can be"
        if self.t_ns is not None and not 0 <= self.t_ns < 2**62:
            return "a device time before 1970 or too far ahead"
        if self.n0 is not None and not 0 <= self.n0 < 2**62:
            return f"a sample number of {self.n0}"
        return None

    @classmethod
    def of_floats(
        cls,
        values: npt.ArrayLike,
        unit: str,
        *,
        device: str,
        leads: Sequence[str],
        valid: Sequence[Validity] | None = None,
        gain: float = FLOAT_GAIN,
        **fields: Any,
    ) -> Piece:
        """Return a piece of physical values.

        Parameters
        ----------
        values : array_like of float, shape (n, leads)
            What is not finite is missing. What exceeds the range saturates, and its lead is flagged so.
        unit : str
            V, mV, uV or nV.
        device, leads, valid, **fields
            As the attributes.
        gain : float
            LSB per millivolt at which it travels.

        Raises
        ------
        IngestError
            If the unit is unknown, or something does not fit.
        """
        try:
            millivolts = np.asarray(values, dtype=np.float64) * millivolts_in(unit)
        except (TypeError, ValueError, OverflowError) as error:
            raise IngestError(device, error) from error
        if millivolts.ndim != 2 or millivolts.shape[1] != len(leads):
            raise IngestError(device, f"values of shape {millivolts.shape} for {len(leads)} leads")
        samples = to_lsb(millivolts, gain)
        saturated = ((samples == MAX_LSB) | (samples == INVALID + 1)).any(axis=0)
        if saturated.any():
            flags = valid or (Validity.OK,) * len(leads)
            valid = [
                Validity.SATURATED if too_large and flag is Validity.OK else flag
                for flag, too_large in zip(flags, saturated, strict=True)
            ]
        return cls(
            device=device,
            leads=tuple(leads),
            gain=(float(gain),) * len(leads),
            samples=samples,
            valid=None if valid is None else tuple(valid),
            **fields,
        )

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, roughly."""
        return self.samples.nbytes + _PIECE_BYTES


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a person should be told of a device: becomes a technical alarm that names it.

    Attributes
    ----------
    device : str
        As `Piece.device`; where no message could be read, who sent it: an address, a topic.
    why : str
        One line: what is wrong, and what would help.
    bed : str, optional
        Whom it is about, where that is known.
    """

    device: str
    why: str
    bed: str | None = None


class LiveSource(ABC):
    """A live feed: devices of one protocol at one address.

    Lifecycle: made, `start`, any number of `take` and `troubles`, `stop`. `take` is called whenever `arrived`
    is set, and at `due_ns`; it returns at once. All calls are made in one event loop; a library with threads
    of its own hands over with ``loop.call_soon_threadsafe(source.put, piece)``.

    A subclass implements `start` and `stop`, calls `put` with each piece that has come, and `refuse` with
    what it could not read. It never lets the fault of one device end the feed of another, and bounds what it
    buffers of a message that has not come to its end; what has been `put` is bounded here. A connection that
    is lost is its own affair: it tries again, waiting longer each time, and says so with `refuse`.

    A source that can go back (a queue, a log) overrides `position` and heeds it in `start`: what is read
    again is dropped by its sample numbers or device times.

    Parameters
    ----------
    name : str
        Of this feed, stable over restarts, such as ``"tcp:8040"``: under it the position is kept.

    Attributes
    ----------
    name : str
    arrived : asyncio.Event
        Set while something waits to be taken.

    Examples
    --------
    Devices that send datagrams of JSON such as ``{"bed": "icu-1", "n0": 0, "mv": [0.1, 0.2]}``, lead II at
    250 Hz:

    >>> class Datagrams(LiveSource, asyncio.DatagramProtocol):
    ...     command_help = "Datagrams of JSON, lead II at 250 Hz."
    ...     command_options = (click.Option(["--port"], type=int, default=8043, show_default=True),)
    ...
    ...     def __init__(self, port, clock=None):
    ...         super().__init__(f"datagrams:{port}")
    ...         self.port, self.clock = port, clock or SystemClock()
    ...
    ...     async def start(self, position=None):
    ...         loop = asyncio.get_running_loop()
    ...         self.transport, _ = await loop.create_datagram_endpoint(
    ...             lambda: self, local_addr=("127.0.0.1", self.port)
    ...         )
    ...
    ...     async def stop(self):
    ...         self.transport.close()
    ...         await asyncio.sleep(0)  # the event loop closes the socket in its next turn
    ...
    ...     def datagram_received(self, data, address):
    ...         device = address[0]
    ...         try:
    ...             message = json.loads(data)
    ...             piece = Piece.of_floats(
    ...                 np.reshape(message["mv"], (-1, 1)),
    ...                 "mV",
    ...                 bed=message["bed"],
    ...                 device=device,
    ...                 fs=250.0,
    ...                 leads=["II"],
    ...                 n0=message["n0"],
    ...                 arrived_ns=self.clock.now_ns(),
    ...             )
    ...         except (ValueError, KeyError, TypeError) as error:
    ...             self.refuse(device, f"no message of ours: {error!r}")
    ...         else:
    ...             self.put(piece)
    """

    command_help: ClassVar[str] = ""
    """What `bedside ingest NAME --help` says: a paragraph, and examples behind a line with ``\\b``."""
    command_options: ClassVar[Sequence[click.Parameter]] = ()
    """Options of `bedside ingest NAME`; their values are the keyword arguments of the constructor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrived = asyncio.Event()
        self._waiting: dict[str, deque[Piece]] = {}
        self._sizes: dict[str, int] = {}
        self._size = 0
        self._troubles: dict[tuple[str, str | None], Trouble] = {}

    @property
    def where(self) -> str:
        """Where devices reach it, or it reaches them, in words; for a person who has just started it."""
        return self.name

    @abstractmethod
    async def start(self, position: Any = None) -> None:
        """Begin to listen, or to connect; return when the feed is there or is being tried for.

        Parameters
        ----------
        position : JSON value, optional
            What `position` said in an earlier life; None: begin with what comes now.

        Raises
        ------
        IngestError
            If it cannot: the address is in use, a file of keys cannot be read, a library is missing.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Close everything, so that another can start at the same address; what has come can still be taken.

        Harmless if repeated, or before `start`.
        """

    def take(self) -> list[Piece]:
        """Return what has come since the last call, of each device in its order; never wait.

        A source that is polled overrides this, and `due_ns`.
        """
        pieces = [piece for waiting in self._waiting.values() for piece in waiting]
        self._waiting.clear()
        self._sizes.clear()
        self._size = 0
        if not self._troubles:
            self.arrived.clear()
        return pieces

    def due_ns(self) -> int | None:
        """Return when there will next be something to take, by this machine's clock; None: `arrived` says."""
        return None

    def position(self) -> Any:
        """Return where this source stands after the last `take`, JSON that `start` takes; None: nowhere."""
        return None

    def troubles(self) -> list[Trouble]:
        """Return what people should be told since the last call: the newest of each device and bed."""
        troubles = list(self._troubles.values())
        self._troubles.clear()
        if not self._waiting:
            self.arrived.clear()
        return troubles

    def put(self, piece: Piece) -> None:
        """Add a piece to what can be taken.

        While nobody takes them, the oldest of the device are dropped: beyond `DEVICE_BYTES` of its own, and
        beyond `SOURCE_BYTES` of all.
        """
        device = piece.device
        waiting = self._waiting.setdefault(device, deque())
        waiting.append(piece)
        self._count(device, piece.size)
        dropped = False
        while waiting and (self._sizes[device] > DEVICE_BYTES or self._size > SOURCE_BYTES):
            self._count(device, -waiting.popleft().size)
            dropped = True
        if dropped:
            self.refuse(device, "more came than could be passed on: the oldest was dropped", piece.bed)
        self.arrived.set()

    def _count(self, device: str, size: int) -> None:
        self._sizes[device] = self._sizes.get(device, 0) + size
        self._size += size

    def refuse(self, device: str, why: object, bed: str | None = None) -> None:
        """Say that something of a device was not taken, or that a device cannot be reached.

        Parameters
        ----------
        device : str
        why : object
            Its text becomes one line.
        bed : str, optional
        """
        device = "".join(c for c in device if c.isprintable())[:64] or "unknown"
        # An `IngestError` names the device, and so will the alarm.
        text = " ".join(str(why).split()).removeprefix(f"{device}: ")[:_LONGEST_WHY]
        if len(self._troubles) < _MOST_TROUBLES or (device, bed) in self._troubles:
            self._troubles[device, bed] = Trouble(device, text, bed)
        self.arrived.set()
