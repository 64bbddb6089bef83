"""ECG streams of the Lab Streaming Layer."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from ingest.live.source import LiveSource, Piece, millivolts_in
from ingest.source import IngestError
from stream.clock import Clock, SystemClock

if TYPE_CHECKING:
    from pylsl import ContinuousResolver, StreamInfo, StreamInlet

log = logging.getLogger(__name__)

# How often streams are asked for samples: a third of the 20 ms within which one is to be on its way. To ask
# one takes 20 us.
_POLL_NS = 7_000_000
_POLLED_SAMPLES = 4096
# A look at what the resolver has heard costs next to nothing.
_LOOK_S = 0.25
# An outlet answers within milliseconds; the first estimate of its clock takes most of a second.
_PATIENCE_S = 10.0
# What liblsl keeps for us while we are held up, as long as the intake keeps what Redis does not take.
_KEPT_S = 60
# A stream that cannot be opened is tried again after so long, doubled each time up to the second figure;
# what is wrong with one is said again as often, for it goes on.
_AGAIN_S = (1.0, 10.0)
# After so long without a stream, that is worth a word.
_NOTHING_S = 10.0
# A stream that is no longer announced is gone: outlets answer the resolver twice a second.
_FORGOTTEN_S = 5.0
# Stamps of samples that jump by more than this are a hole; less is jitter of the device's stamps.
_HOLE_S = 0.05

# Units as people write them, and as powers of ten of a volt, which is how MNE-LSL does.
_UNITS = {
    "volt": "V",
    "volts": "V",
    "0": "V",
    "millivolt": "mV",
    "millivolts": "mV",
    "-3": "mV",
    "microvolt": "uV",
    "microvolts": "uV",
    "-6": "uV",
    "nanovolts": "nV",
    "-9": "nV",
}


@dataclass(slots=True)
class _Stream:
    # An outlet that is connected: one bed.
    inlet: StreamInlet
    bed: str
    device: str
    fs: float
    columns: npt.NDArray[np.intp]
    leads: tuple[str, ...]
    to_millivolts: npt.NDArray[np.float64]
    # What to add to liblsl's clock to get ours, ns.
    epoch_ns: int


class LSLSource(LiveSource):
    """Every LSL stream of type ECG on the network, or those of certain names.

    A stream is one bed, called as the stream. It is found whenever it comes up, and again after its outlet
    was restarted.

    Parameters
    ----------
    name : sequence of str
        Streams to take; unless given, all of type ECG.
    unit : str, optional
        Of streams that do not state theirs.
    clock : Clock, optional

    Raises
    ------
    ValueError
        If the unit is unknown.
    """

    command_help = """Take ECG streams of the Lab Streaming Layer, one bed each (bedside[lsl]).

    Streams are found on the network whenever they come up. Channels need labels that are leads, and a unit.

    \b
    bedside ingest lsl
    bedside ingest lsl --name icu-1 --name icu-2 --unit uV
    """
    command_options = (
        click.Option(
            ["--name"], multiple=True, metavar="TEXT", help="Name of a stream. [default: all of type ECG]"
        ),
        click.Option(["--unit"], metavar="UNIT", help="Of streams that state none: V, mV or uV."),
    )

    def __init__(
        self, name: tuple[str, ...] = (), unit: str | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__("lsl:" + ",".join(sorted(name)) if name else "lsl")
        if unit is not None:
            millivolts_in(unit)
        self._names = frozenset(name)
        self._unit = unit
        self._clock = clock or SystemClock()
        self._streams: dict[str, _Stream] = {}
        self._discovery: asyncio.Task[None] | None = None
        self._opening: dict[str, asyncio.Task[None]] = {}
        # Announced, but their outlets have ended.
        self._gone: set[str] = set()
        self._due_ns: int | None = None

    @property
    def where(self) -> str:
        return f"LSL streams {', '.join(sorted(self._names)) or 'of type ECG'}"

    async def start(self, position: Any = None) -> None:
        try:
            import pylsl
        except (ImportError, RuntimeError, OSError) as error:
            raise IngestError("lsl", f"needs pylsl: pip install 'bedside[lsl]' ({error})") from error
        self._discovery = asyncio.create_task(
            self._discover(pylsl.ContinuousResolver(forget_after=_FORGOTTEN_S))
        )

    async def stop(self) -> None:
        tasks = [*self._opening.values(), *([self._discovery] if self._discovery else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for uid in list(self._streams):
            self._poll(uid)
        # A connection closes when its inlet goes, which may take a moment.
        streams, self._streams = self._streams, {}
        await asyncio.to_thread(streams.clear)

    def due_ns(self) -> int | None:
        return self._due_ns

    def take(self) -> list[Piece]:
        for uid in list(self._streams):
            self._poll(uid)
        self._due_ns = self._clock.now_ns() + _POLL_NS if self._streams else None
        return super().take()

    async def _discover(self, resolver: ContinuousResolver) -> None:
        tell_at = self._clock.now_ns() + round(_NOTHING_S * 1e9)
        while True:
            announced = {info.uid(): info for info in resolver.results() if self._wanted(info)}
            # One that has gone is announced for a few seconds more; once it no longer is, it is forgotten.
            self._gone &= announced.keys()
            for uid in self._opening.keys() - announced.keys():
                self._opening[uid].cancel()
            for uid in announced.keys() - self._gone - self._streams.keys() - self._opening.keys():
                task = asyncio.create_task(self._open(announced[uid]))
                self._opening[uid] = task
                task.add_done_callback(lambda _, uid=uid: self._opening.pop(uid, None))  # type: ignore[misc]
            if announced:
                tell_at = 0
            elif tell_at and self._clock.now_ns() > tell_at:
                self.refuse("network", f"no {self.where} announced; waiting for one")
                tell_at = 0
            await asyncio.sleep(_LOOK_S)

    def _wanted(self, info: StreamInfo) -> bool:
        return info.name() in self._names if self._names else info.type().upper() in ("ECG", "EKG")

    async def _open(self, info: StreamInfo) -> None:
        bed, device = info.name(), _device(info)
        pause = _AGAIN_S[0]
        while True:
            try:
                stream = await asyncio.to_thread(_connected, info, device, self._unit, self._clock)
            except IngestError as error:
                # Until the outlet is another one.
                self.refuse(device, error, bed)
                await asyncio.sleep(_AGAIN_S[1])
            except (TimeoutError, RuntimeError, OSError) as error:
                self.refuse(device, f"is announced, but does not answer ({error}); trying again", bed)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _AGAIN_S[1])
            else:
                self._streams[info.uid()] = stream
                self.arrived.set()
                return

    def _poll(self, uid: str) -> None:
        stream = self._streams[uid]
        arrived_ns = self._clock.now_ns()
        try:
            correction = stream.inlet.time_correction(0.0)
            while True:
                values, stamps = stream.inlet.pull_chunk(0.0, max_samples=_POLLED_SAMPLES, as_numpy=True)
                if len(stamps):
                    self._take_samples(stream, values, stamps + correction, arrived_ns)
                if len(stamps) < _POLLED_SAMPLES:
                    return
        except (RuntimeError, TimeoutError) as error:
            # pylsl's LostError is a RuntimeError.
            log.info("%s: %s", stream.device, error)
            self._gone.add(uid)
            del self._streams[uid]
            self.refuse(stream.device, "the outlet has gone; waiting for it to come back", stream.bed)

    def _take_samples(
        self, stream: _Stream, values: npt.NDArray[Any], stamps: npt.NDArray[np.float64], arrived_ns: int
    ) -> None:
        millivolts = values[:, stream.columns] * stream.to_millivolts
        holes = np.flatnonzero(np.abs(np.diff(stamps) - 1 / stream.fs) > _HOLE_S) + 1
        for begin, end in pairwise([0, *holes.tolist(), len(stamps)]):
            try:
                piece = Piece.of_floats(
                    millivolts[begin:end],
                    "mV",
                    bed=stream.bed,
                    device=stream.device,
                    fs=stream.fs,
                    leads=stream.leads,
                    t_ns=stream.epoch_ns + round(stamps[begin] * 1e9),
                    arrived_ns=arrived_ns,
                )
            except (IngestError, OverflowError, ValueError) as error:
                self.refuse(stream.device, error, stream.bed)
            else:
                self.put(piece)


def _device(info: StreamInfo) -> str:
    # What outlives a restart: the id that the device gave itself, else the stream's name.
    at = f" at {info.hostname()}"[:32]
    own = "".join(c for c in info.source_id() or info.name() if c.isprintable())
    return f"LSL {own}"[: 64 - len(at)] + at


def _connected(info: StreamInfo, device: str, unit: str | None, clock: Clock) -> _Stream:
    # Opens a stream; waits for the network.
    import pylsl

    fs = info.nominal_srate()
    if fs <= 0:
        raise IngestError(device, "no nominal sampling rate; a stream of regular samples is needed")
    if info.channel_format() == pylsl.cf_string:
        raise IngestError(device, "channels of text; numbers are needed")
    inlet = pylsl.StreamInlet(info, max_buflen=_KEPT_S, recover=False)
    described = inlet.info(_PATIENCE_S)
    count = described.channel_count()
    kinds = [(kind or "").upper() for kind in described.get_channel_types() or [""] * count]
    columns = [at for at, kind in enumerate(kinds) if kind in ("ECG", "EKG")] or list(range(count))
    labels = described.get_channel_labels() or [None] * count
    units = described.get_channel_units() or [None] * count
    leads = [labels[at] or f"channel {at + 1}" for at in columns]
    try:
        scales = [millivolts_in(_unit(units[at]) or unit or "") for at in columns]
    except ValueError:
        stated = ", ".join(f"{lead}: {units[at] or 'none'}" for lead, at in zip(leads, columns, strict=True))
        raise IngestError(
            device,
            f"channels without a unit of volts ({stated}); --unit says that of streams that state none",
        ) from None
    inlet.open_stream(_PATIENCE_S)
    inlet.time_correction(_PATIENCE_S)
    return _Stream(
        inlet=inlet,
        bed=info.name(),
        device=device,
        fs=fs,
        columns=np.array(columns),
        leads=tuple(leads),
        to_millivolts=np.array(scales),
        epoch_ns=clock.now_ns() - round(pylsl.local_clock() * 1e9),
    )


def _unit(stated: str | None) -> str:
    text = (stated or "").strip()
    return _UNITS.get(text.lower(), text)
