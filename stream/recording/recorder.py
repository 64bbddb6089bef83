"""The recorder: follows the samples and alarms of a deployment, and writes them into a folder.

It reads once a second what has come, writes it, waits until the disk has it, and notes how far it has come.
Whatever happens in between, the next recorder reads from there, and drops the samples that are on the disk.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from stream.bus import Bus
from stream.clock import Clock, SystemClock
from stream.contract import AlarmEvent, MalformedMessageError, SampleChunk
from stream.recording import files, metrics
from stream.recording.alarms import add_alarms
from stream.recording.names import folder_of
from stream.recording.repair import repair
from stream.recording.track import Track
from stream.recording.upkeep import Limits, Upkeep
from stream.topics import ALARMS, SAMPLES
from stream.transport.layout import stream_key

log = logging.getLogger(__name__)

POSITION = ".position.json"
"""How far the recorder has come: the last stream id by stream."""

_EVERY_S = 1.0
# Of each stream at once: 25 s of four beds.
_COUNT = 512
# Beds whose files are brought to the disk at once: a disk puts together what it is asked for at once.
_TOGETHER = 8
_TIDY_S = 60.0
# What came while it was asked to stop.
_LAST_READ_S = 2.0
# Two stream ids as pairs of numbers compare as they lie in the stream.
_Id = tuple[int, int]


class Recorder:
    """Records the beds of a deployment into a folder, of which it must hold the lock.

    Parameters
    ----------
    bus : Bus
    root : pathlib.Path
        Folder of all recordings.
    beds : collection of str
        Only these; empty for every bed.
    limits : Limits
    say : callable
        Receives what a person should read.
    clock : Clock, optional
    """

    def __init__(
        self,
        bus: Bus,
        root: Path,
        *,
        beds: Collection[str] = (),
        limits: Limits | None = None,
        say: Callable[[str], None],
        clock: Clock | None = None,
    ) -> None:
        self._bus = bus
        self._root = root
        self._beds = frozenset(beds)
        self._say = say
        self._clock = clock or SystemClock()
        self._upkeep = Upkeep(root, limits or Limits())
        self._upkeep_due = asyncio.Event()
        self._tracks: dict[str, Track] = {}
        self._stream_of: dict[str, str] = {}
        # Read to, and on the disk to.
        self._read: dict[str, str] = {}
        self._noted: dict[str, str] = {}
        self._alarms_stream = stream_key(bus.prefix, ALARMS, 0)
        # Read, but of samples that have not been.
        self._held: list[tuple[_Id, AlarmEvent | None]] = []
        self._events: list[AlarmEvent] = []
        self._newest_ingest_ns = 0
        self._away = False

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None] | None = None) -> None:
        """Record until `stop` is set, then end all segments.

        Parameters
        ----------
        stop : asyncio.Event
        on_ready : callable, optional
            Called when nothing that comes from now on is missed.

        Raises
        ------
        OSError
            If the folder cannot be used at the beginning. Later, a disk that is full or away is waited for.
        """
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.to_thread(self._resume)
        await self._find_place()
        upkeep = asyncio.ensure_future(self._keep_up(stop))
        if on_ready is not None:
            on_ready()
        try:
            while not stop.is_set():
                began = self._clock.now_ns()
                is_behind = self._take(await self._fetch(stopping))
                if not await self._sync(stopping):
                    break
                if not is_behind:
                    rest_s = _EVERY_S - (self._clock.now_ns() - began) / 1e9
                    await asyncio.wait({stopping, upkeep}, timeout=max(0.0, rest_s))
                if upkeep.done():
                    # It runs for ever: what made it fail is raised here.
                    upkeep.result()
            if not self._away:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_READ_S):
                        while self._take(await self._fetch(None)):
                            pass
            await self._sync(stopping, stop=True)
        finally:
            # Not cancelled: a thread is not, and two must not be at the same segment.
            stop.set()
            self._upkeep_due.set()
            await upkeep
        if self._upkeep.waiting:
            count = f"{self._upkeep.waiting} segment{'s' if self._upkeep.waiting > 1 else ''}"
            self._say(f"compressing {count}; what Ctrl-C leaves is compressed next time")
        while self._upkeep.waiting and await self._compress_next():
            pass

    # ---- where to begin ----------------------------------------------------------------------------------

    def _resume(self) -> None:
        for found in repair(self._root):
            track = self._track(found.begin.bed)
            track.resume(found.record, found.begin, found.end)
            if found.is_raw:
                self._upkeep.add([(found.record, found.begin, found.end)])

    async def _find_place(self) -> None:
        partitions = (await self._bus.declare(SAMPLES)).partitions
        await self._bus.declare(ALARMS)
        streams = [stream_key(self._bus.prefix, SAMPLES, number) for number in range(partitions)]
        before = self._position()
        # Another deployment may be recorded into the same folder at another time.
        self._noted = dict(before or {})
        for stream in [*streams, self._alarms_stream]:
            newest = await self._bus.last_id(stream)
            if before is None:
                at = newest
            else:
                # A stream that is new, or whose server has lost what we had seen: all that it has.
                at = before.get(stream, "0-0")
                at = at if _pair(at) <= _pair(newest) else "0-0"
            self._read[stream] = self._noted[stream] = at
        await asyncio.to_thread(self._note_position)

    def _position(self) -> dict[str, str] | None:
        # None where nothing has been recorded yet. One that cannot be read is that of the beginning: samples
        # that are on the disk are dropped.
        try:
            known = json.loads((self._root / POSITION).read_bytes())
            return {str(stream): "{}-{}".format(*_pair(at)) for stream, at in known.items()}
        except FileNotFoundError:
            return {} if self._tracks else None
        except (ValueError, AttributeError) as error:
            log.warning("%s cannot be read (%s): going on from what the server has", POSITION, error)
            return {}

    def _note_position(self) -> None:
        files.replace(self._root / POSITION, json.dumps(self._noted).encode(), durable=True)

    # ---- reading -----------------------------------------------------------------------------------------

    async def _fetch(self, stopping: asyncio.Future[Any] | None) -> Any:
        # What has come; nothing while the server is away, or when we are asked to stop meanwhile.
        streams: dict[Any, Any] = dict(self._read)
        reading = asyncio.ensure_future(self._bus.client.xread(streams, count=_COUNT))
        await asyncio.wait(
            {reading, *([] if stopping is None else [stopping])}, return_when="FIRST_COMPLETED"
        )
        if not reading.done():
            # No longer than a moment: redis-py loses a cancellation that comes while it connects.
            reading.cancel()
            await asyncio.wait({reading}, timeout=_EVERY_S)
            return []
        try:
            reply = reading.result()
        except (RedisError, OSError) as error:
            if not self._away:
                self._say(f"waiting for the server: {error}")
            self._away = True
            return []
        if self._away:
            self._say("the server answers again: recording goes on")
            self._away = False
        return reply

    def _take(self, reply: Any) -> bool:
        # Returns whether there is more.
        now_ns = self._clock.now_ns()
        # Up to here the samples of all beds have been read.
        caught_up_to = (2**64, 0)
        for raw, entries in reply or ():
            stream = raw.decode()
            self._read[stream] = entries[-1][0].decode()
            if stream == self._alarms_stream:
                self._held += [(_pair(entry_id), _event(fields)) for entry_id, fields in entries]
                continue
            if len(entries) == _COUNT:
                caught_up_to = min(caught_up_to, _pair(entries[-1][0]))
            for _, fields in entries:
                self._take_chunk(stream, fields, now_ns)
        # An alarm follows its samples in time, but not in what a reader gets first of a backlog.
        while self._held and self._held[0][0] <= caught_up_to:
            at, event = self._held.pop(0)
            self._noted[self._alarms_stream] = "{}-{}".format(*at)
            if event is not None and event.bed in self._tracks and self._wants(event.bed):
                self._events.append(event)
        return any(len(entries) == _COUNT for _, entries in reply or ())

    def _take_chunk(self, stream: str, fields: dict[bytes, bytes], now_ns: int) -> None:
        key = fields.get(b"k", b"")
        if self._beds and key and key.decode(errors="replace") not in self._beds:
            return
        try:
            chunk = SampleChunk.decode(fields.get(b"v", b""))
        except MalformedMessageError as error:
            # The worker keeps it as a dead letter.
            log.debug("%r: no sample chunk: %s", key, error)
            return
        header = chunk.header
        self._stream_of[header.bed] = stream
        if self._wants(header.bed) and self._track(header.bed).take(chunk, now_ns):
            metrics.CHUNKS.inc()
            self._newest_ingest_ns = max(self._newest_ingest_ns, header.ingest_ns)

    def _wants(self, bed: str) -> bool:
        return not self._beds or bed in self._beds

    def _track(self, bed: str) -> Track:
        if bed not in self._tracks:
            self._tracks[bed] = Track(self._root / folder_of(bed))
        return self._tracks[bed]

    # ---- writing -----------------------------------------------------------------------------------------

    async def _sync(self, stopping: asyncio.Future[Any], *, stop: bool = False) -> bool:
        # Brings what has been read to the disk; while that does not work nothing more is read, and the server
        # keeps it. False if we were asked to stop before it worked.
        trouble = ""
        while True:
            try:
                if await asyncio.to_thread(self._write, stop):
                    self._upkeep_due.set()
            except OSError as error:
                told = _in_words(error, self._root)
                if told != trouble:
                    self._say(f"{told}: recording waits; the server keeps what comes for a while")
                    # Perhaps there is something that may go.
                    self._upkeep_due.set()
                trouble = told
                metrics.WAITING.set(1)
                if stopping.done():
                    return False
                await asyncio.wait({stopping}, timeout=_EVERY_S)
                continue
            if trouble:
                self._say("recording goes on")
            metrics.WAITING.set(0)
            return True

    def _write(self, stop: bool) -> bool:
        # Returns whether a segment has ended.
        now_ns = self._clock.now_ns()
        with ThreadPoolExecutor(_TOGETHER) as pool:
            deleted = sum(pool.map(lambda track: track.sync(now_ns, stop=stop), self._tracks.values()))
        if deleted:
            log.info("%d segments were deleted while they were written", deleted)
        self._write_events()
        # What waits for a late chunk is not on the disk: a recorder that is killed now reads it again.
        waiting = {self._stream_of.get(bed) for bed, track in self._tracks.items() if track.is_waiting}
        for stream, at in self._read.items():
            if stream != self._alarms_stream and stream not in waiting:
                self._noted[stream] = at
        self._note_position()
        ended = [segment for track in self._tracks.values() for segment in track.take_ended()]
        self._upkeep.add(ended)
        if self._newest_ingest_ns:
            metrics.BEHIND.set((now_ns - self._newest_ingest_ns) / 1e9)
        metrics.BEDS.set(sum(track.is_recording for track in self._tracks.values()))
        return bool(ended)

    def _write_events(self) -> None:
        by_segment: defaultdict[Path, list[AlarmEvent]] = defaultdict(list)
        for event in self._events:
            record = self._tracks[event.bed].segment_of(event)
            if record is not None:
                by_segment[record].append(event)
        for record, events in by_segment.items():
            try:
                add_alarms(record, events)
            except FileNotFoundError:
                log.info("%s: deleted before its alarm was noted", record)
        self._events.clear()

    # ---- what else is to be done -------------------------------------------------------------------------

    async def _keep_up(self, stop: asyncio.Event) -> None:
        told = None
        while not stop.is_set():
            while self._upkeep.waiting and not stop.is_set() and await self._compress_next():
                pass
            trouble: str | None
            try:
                size, trouble = await asyncio.to_thread(self._upkeep.tidy, self._clock.now_ns())
                metrics.BYTES.set(size)
            except OSError as error:
                trouble = _in_words(error, self._root)
            if trouble and trouble != told:
                self._say(trouble)
            told = trouble
            with suppress(TimeoutError):
                async with asyncio.timeout(_TIDY_S):
                    await self._upkeep_due.wait()
            self._upkeep_due.clear()

    async def _compress_next(self) -> bool:
        # False if it has to be tried again later.
        try:
            why = await asyncio.to_thread(self._upkeep.compress_next)
        except OSError as error:
            log.warning("cannot compress yet: %s", error)
            return False
        if why:
            self._say(why)
        return True


def _event(fields: dict[bytes, bytes]) -> AlarmEvent | None:
    try:
        return AlarmEvent.decode(fields.get(b"v", b""))
    except MalformedMessageError as error:
        log.debug("no alarm event: %s", error)
        return None


def _pair(entry_id: bytes | str) -> _Id:
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


def _in_words(error: OSError, root: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room left in {root}"
    return f"cannot write in {root}: {error.strerror or error}"
