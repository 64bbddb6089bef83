"""Who makes the snapshots of alarms, and when: the worker that holds the bed, beside its work.

An alarm that is raised is noted in the bed's state, so that whoever holds the bed later knows of it. Its
snapshot is made when the bed has been heard for ten seconds more, or its feed has ended or fallen silent: one
at a time, in a process of its own (`stream.snapshots.process`), so that no window waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from stream import metrics
from stream.alarms.conditions import UNSCORED_S
from stream.alarms.state import BedState, DueSnapshot, Moment
from stream.clock import Clock
from stream.contract import AlarmEvent, AlarmKind
from stream.snapshots.hindsight import span_of
from stream.snapshots.process import Answer, NotMadeError

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
_ATTEMPTS = 3


def note(state: BedState, event: AlarmEvent) -> None:
    """Note in a bed's state that an alarm was raised and gets a snapshot."""
    if event.kind is not AlarmKind.PHYSIOLOGICAL or event.number:
        return
    if any(due.raised.alarm == event.alarm for due in state.snapshots):
        return
    threshold = state.stay.threshold if state.confirmed else None
    due = DueSnapshot(
        raised=event, model=state.model or None, threshold=threshold, admitted_t=state.stay.admitted_t
    )
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
    """Has snapshots made when they are due.

    Parameters
    ----------
    make : callable
        Makes one and stores it: `stream.snapshots.process.SnapshotProcess.make`.
    beds : Beds
    clock : Clock
    """

    def __init__(self, make: Callable[[DueSnapshot], Awaitable[Answer]], beds: Beds, clock: Clock) -> None:
        self._make = make
        self._beds = beds
        self._clock = clock
        # Up to where a bed with a snapshot due was heard, and when that was first so.
        self._heard: dict[str, tuple[int | None, int]] = {}
        self._attempts: Counter[str] = Counter()

    async def keep_forever(self) -> None:
        """Have each snapshot made when it is due, one at a time."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for bed, due in self.due(self._clock.now_ns()):
                if await self._is_done(due):
                    self._attempts.pop(due.raised.alarm, None)
                    self._beds.made(bed, due.raised.alarm)

    async def _is_done(self, due: DueSnapshot) -> bool:
        alarm = due.raised.alarm
        about = {"bed": due.raised.bed, "session": due.raised.session, "alarm": alarm}
        try:
            with metrics.SNAPSHOT_TIME.time():
                answer = await self._make(due)
        except NotMadeError as error:
            self._attempts[alarm] += 1
            answer = Answer(outcome="again", why=str(error))
            if self._attempts[alarm] >= _ATTEMPTS:
                # It must not keep others from theirs.
                answer = Answer(outcome="failed", why=str(error))
        if answer.outcome == "again":
            log.warning("no snapshot of alarm %s yet: %s", alarm, answer.why, extra=about)
            return False
        if answer.outcome == "failed":
            log.error("no snapshot of alarm %s: %s", alarm, answer.why, extra=about)
        metrics.SNAPSHOTS.labels(answer.outcome).inc()
        return True

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


def _over(due: DueSnapshot, state: BedState, moment: Moment | None) -> bool:
    if state.ended or state.session != due.raised.session:
        return True
    return moment is not None and moment.sample >= span_of(due.raised, moment.fs).end
