"""Who makes the snapshots of alarms, and when: the worker that holds the bed, beside its work.

An alarm that is raised is noted in the bed's state, so that whoever holds the bed later knows of it. Its
snapshot is made when the bed has been heard for ten seconds more, or its feed has ended or fallen silent: one
at a time, in a thread and with a model session of its own, so that no window waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from models.manifest import Manifest
from models.session import Session
from stream import metrics
from stream.alarms.conditions import UNSCORED_S
from stream.alarms.state import BedState, DueSnapshot, Moment
from stream.bus import Bus, BusUnavailableError
from stream.clock import Clock
from stream.contract import AlarmEvent, AlarmKind, SampleChunk
from stream.hindsight import AFTER_S, make_snapshot, reach_of
from stream.refill import stretch
from stream.snapshots import Snapshot, SnapshotStore

if TYPE_CHECKING:
    from stream.scorer import Rows, Scorer

log = logging.getLogger(__name__)

_LOOK_S = 1.0
# A feed that has been silent for so long has lost what the snapshot still lacks: its bed is also told not to
# be scored then.
_SILENT_NS = round(UNSCORED_S * 1e9)
# A worker with too much to do makes none, unless the stream would soon have the samples no more: it keeps ten
# minutes.
_PUT_OFF_NS = 300_000_000_000
# More than that many in one bed are waiting because nobody has time: the oldest are given up.
_MOST_OF_A_BED = 32


def note(state: BedState, event: AlarmEvent) -> None:
    """Note in a bed's state that an alarm was raised and gets a snapshot."""
    if event.kind is not AlarmKind.PHYSIOLOGICAL or event.number:
        return
    if any(due.raised.alarm == event.alarm for due in state.snapshots):
        return
    threshold = state.stay.threshold if state.confirmed else None
    due = DueSnapshot(raised=event, threshold=threshold, admitted_t=state.stay.admitted_t)
    state.snapshots = [*state.snapshots, due][-_MOST_OF_A_BED:]


class Beds:
    """The beds of a worker, as far as their snapshots are concerned.

    Parameters
    ----------
    scorer : Scorer
    rows : Rows
    held : callable
        Returns the beds that have a row and are this worker's, heard by it or not.
    """

    def __init__(self, scorer: Scorer, rows: Rows, held: Callable[[], Iterable[str]]) -> None:
        self._scorer = scorer
        self._rows = rows
        self._held = held
        # Of beds not heard: their rows and what those say, so that none is read each second.
        self._read: dict[str, tuple[bytes, BedState]] = {}

    @property
    def overloaded(self) -> bool:
        """Whether the worker leaves out some of its work for lack of time."""
        return self._scorer.shedding.step > 0

    def look(self) -> Iterator[tuple[str, BedState, Moment | None]]:
        """Yield each bed, what is remembered of it, and up to where it was heard, if it was."""
        engine = self._scorer.engine
        for bed in engine.beds:
            yield bed, engine.state(bed), engine.moment(bed)
        # A bed may have fallen silent before its former worker did.
        silent = [bed for bed in self._held() if not engine.knows(bed)]
        self._read = {bed: read for bed in silent if (read := self._row(bed)) is not None}
        for bed, (_, state) in self._read.items():
            yield bed, state, None

    def _row(self, bed: str) -> tuple[bytes, BedState] | None:
        row = self._rows.get(bed)
        if row is None:
            return None
        read = self._read.get(bed)
        return read if read and read[0] is row else (row, BedState.model_validate_json(row))

    def made(self, bed: str, alarm: str) -> None:
        """Take an alarm off the snapshots that are due."""
        engine = self._scorer.engine
        if engine.knows(bed):
            _take_off(engine.state(bed), alarm)
            self._scorer.changed(bed)
        elif (read := self._row(bed)) is not None:
            state = read[1].model_copy()
            _take_off(state, alarm)
            self._rows.put(bed, state.model_dump_json().encode())


def _take_off(state: BedState, alarm: str) -> None:
    state.snapshots = [due for due in state.snapshots if due.raised.alarm != alarm]


class Keeper:
    """Makes snapshots and stores them.

    Parameters
    ----------
    connect : callable
        Opens a connection to the deployment; called in the thread that makes snapshots.
    open_session : callable
        Opens the model session for snapshots; called in that thread, when the first one is made.
    manifest : Manifest
        The model's.
    beds : Beds
    clock : Clock
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Bus]],
        open_session: Callable[[], Session],
        manifest: Manifest,
        beds: Beds,
        clock: Clock,
    ) -> None:
        self._connect = connect
        self._open_session = open_session
        self._manifest = manifest
        self._beds = beds
        self._clock = clock
        self._session: Session | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        # Up to where a bed with a snapshot due was heard, and when that was first so.
        self._heard: dict[str, tuple[int | None, int]] = {}

    async def keep_forever(self) -> None:
        """Make each snapshot when it is due."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            for bed, due in self.due(self._clock.now_ns()):
                try:
                    await loop.run_in_executor(self._executor, self._make, due)
                except (RedisError, BusUnavailableError) as error:
                    log.warning("no snapshot of alarm %s yet: %s", due.raised.alarm, error)
                    break
                except Exception:
                    # It must not end a worker that scores: this one is given up.
                    log.exception("no snapshot of alarm %s", due.raised.alarm)
                    metrics.SNAPSHOTS.labels("failed").inc()
                self._beds.made(bed, due.raised.alarm)

    def due(self, now_ns: int) -> list[tuple[str, DueSnapshot]]:
        """Return what is to be made now, with its bed.

        Parameters
        ----------
        now_ns : int
            What was heard by the call before tells how long a bed has been silent.
        """
        found: list[tuple[str, DueSnapshot]] = []
        heard: dict[str, tuple[int | None, int]] = {}
        for bed, state, moment in self._beds.look():
            if not state.snapshots:
                continue
            sample = None if moment is None else moment.sample
            before = self._heard.get(bed)
            heard[bed] = before if before is not None and before[0] == sample else (sample, now_ns)
            silent = now_ns - heard[bed][1] >= _SILENT_NS
            found += [(bed, due) for due in state.snapshots if silent or _over(due, state, moment)]
        self._heard = heard
        if self._beds.overloaded:
            return [(bed, due) for bed, due in found if now_ns - due.raised.ingest_ns > _PUT_OFF_NS]
        return found

    def _make(self, due: DueSnapshot) -> None:
        # In the thread for it, with an event loop of its own.
        asyncio.run(self._make_and_store(due))

    async def _make_and_store(self, due: DueSnapshot) -> None:
        raised, manifest = due.raised, self._manifest
        async with await self._connect() as bus:
            store = SnapshotStore(bus)
            if await store.has(raised.alarm):
                return
            with metrics.SNAPSHOT_TIME.time():
                chunks = await stretch(
                    bus, raised.bed, raised.session, lambda fs: reach_of(raised, fs, manifest)
                )
                if await store.put(self._snapshot(due, chunks)):
                    metrics.SNAPSHOTS.labels("stored").inc()

    def _snapshot(self, due: DueSnapshot, chunks: list[SampleChunk]) -> Snapshot:
        now_ns = self._clock.now_ns()
        try:
            if self._session is None:
                self._session = self._open_session()
            return make_snapshot(due, chunks, self._session, self._manifest, now_ns)
        except Exception:
            # Whatever is wrong with the model: the samples are worth keeping.
            log.exception("no explanation of alarm %s", due.raised.alarm)
            return make_snapshot(due, chunks, None, self._manifest, now_ns)


def _over(due: DueSnapshot, state: BedState, moment: Moment | None) -> bool:
    if state.ended or state.session != due.raised.session:
        return True
    return moment is not None and moment.t >= due.raised.since + AFTER_S * 1e9
