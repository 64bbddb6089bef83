"""The engine: sample chunks in, windows out; verdicts in, findings and alarm transitions out.

It knows no broker, no clock and no screen. Whoever drives it decides where chunks come from, when and in
what batches the model runs, and where findings go: the worker (`stream.worker`) and the analysis of files
(`stream.offline`) drive the same engine, and get the same findings whatever the chunking and batching.

The order of calls for a bed: `accept` each chunk as it comes; give every window it returns to the model;
`conclude` those windows in the order in which they came.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from pydantic import ValidationError

from models.manifest import Manifest
from stream.alarms.conditions import (
    CONDITIONS,
    CONFIRM_PATIENT,
    FEED_LOST_S,
    MODEL_FAILED,
    UNSCORED_S,
)
from stream.alarms.criteria import Criteria
from stream.alarms.evidence import judge_silence, judge_window
from stream.alarms.machine import end_all, pass_time
from stream.alarms.model_change import change_model
from stream.alarms.operator import Answer, Case, RefusedError, another_patient, obey
from stream.alarms.state import BedState, Moment
from stream.alarms.vitals import BY_WINDOW, judge_block
from stream.bed_settings import BedSettings, settings_of
from stream.contract import (
    AlarmEvent,
    Command,
    Finding,
    MalformedMessageError,
    SampleChunk,
    Stamps,
    Vitals,
    first_error,
    to_millivolts,
)
from stream.held_bed import HeldBed, claimed, heard, lost, refused, service
from stream.holding import Holding
from stream.reorder import InOrder
from stream.skew import SkewMeter
from stream.verdict import Verdict
from stream.vitals.bed import BedVitals, Block, advance_together
from stream.vitals.grid import FS
from stream.vitals.memory import Memory
from stream.vitals.rhythm import Limits
from stream.windows import BedWindow, Push, Window, push_together, windows_per_hop

# A publisher that retries can bring chunks of the session before the current one; three are more than
# one outage brings.
_FORMER_SESSIONS = 3
# Window scores that are kept of a bed, for a baseline: ten minutes.
_SCORES_S = 600.0
# A message of vitals is sent for each second, the blocks of them that end one.
_SECOND = FS
# Signal between two memories of a bed. A worker that takes it over hears that again, beside the filter's
# settling: no more than it has to for a window of 8 s.
_MEMORY = 6 * FS


class RefusedChunkError(MalformedMessageError):
    """A chunk that contradicts its session."""

    def __init__(self, why: str, events: list[AlarmEvent]) -> None:
        super().__init__(why)
        self.events = events
        """What is to be published of it."""


@dataclass(slots=True)
class Pending:
    """A window on its way through the model."""

    session: str
    opening: int
    """Which taking up of the bed it comes from: one that was given away and taken back has another."""
    window: Window
    moment: Moment
    """The window's end."""
    hops: int
    """How many windows it stands for: itself, and those before it that were shed."""
    first_new: int
    """First sample that no earlier window held."""
    t_start: int
    dequeued_ns: int
    # The rest by whoever drives the engine, if it keeps such times.
    ready_ns: int = 0
    begun_ns: int = 0
    inferred_ns: int = 0
    published_ns: int = 0


@dataclass(slots=True)
class Accepted:
    """What a chunk brought."""

    windows: list[Pending] = field(default_factory=list)
    events: list[AlarmEvent] = field(default_factory=list)
    vitals: list[Vitals] = field(default_factory=list)
    missing: int = 0
    """Samples that have been given up with this chunk: they should have come before it."""
    dropped: str | None = None
    """Why the chunk was left out, if it was: ``"repeat"``, ``"late"`` or ``"stale"``."""
    opened: bool = False
    """Whether it is the first one of its session that was heard here."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has no time for.

    Attributes
    ----------
    every : int
        Of the windows of a live feed only those with a number divisible by this are judged, each in place
        of those left out before it.
    unexplained : frozenset of str
        Beds that are being watched and get no explanations.
    """

    every: int = 1
    unexplained: frozenset[str] = frozenset()

    def message(self, bed: str, hops: int) -> str | None:
        """Return what to tell of a bed of which `hops` windows are judged at once; None for nothing."""
        if hops > 1:
            return f"worker overloaded: one of {hops} windows is scored"
        return "worker overloaded: no explanations" if bed in self.unexplained else None


UNLOADED = Load()


@dataclass(frozen=True, slots=True)
class _Arrival:
    chunk: SampleChunk
    bed: HeldBed
    accepted: Accepted


class Engine:
    """All beds of one worker.

    Parameters
    ----------
    manifest : Manifest
        The worker's own model's: leads, filter, window, thresholds and alarm rule are used. Other models that
        judge beds share all but thresholds and alarm rule.
    precision : str
        Which of the manifest's thresholds count.
    fallback : str, optional
        Why the model runs in another way than wanted; every bed tells it as a technical alarm.
    models : mapping of str to Criteria, optional
        By name, of all models that are loaded, the worker's own among them; looked at anew each time.
    hop_s : float, optional
        How often a bed is judged, s: as often as the model says, or so many times less. Rate and rhythm are
        watched twice a second all the same.

    Raises
    ------
    ValueError
        If the model's window is so long that a bed would be reported as not scored while it fills, or
        `hop_s` is none that it can have (`stream.windows.windows_per_hop`).
    """

    def __init__(
        self,
        manifest: Manifest,
        precision: str,
        *,
        fallback: str | None = None,
        models: Mapping[str, Criteria] | None = None,
        hop_s: float | None = None,
    ) -> None:
        if manifest.window.seconds >= UNSCORED_S:
            raise ValueError(
                f"model {manifest.name}: a window of {manifest.window.seconds:g} s;"
                f" it must be below {UNSCORED_S:g} s"
            )
        self.manifest = manifest
        self._every = 1 if hop_s is None else windows_per_hop(manifest.window, hop_s)
        self._own = Criteria.of(manifest, precision)
        self._models = {self._own.model: self._own} if models is None else models
        self._fallback = fallback
        self._beds: dict[str, HeldBed] = {}
        self._restored: dict[str, BedState] = {}
        self._memories: dict[str, Memory] = {}
        self._openings = count()

    @property
    def largest_skew_s(self) -> float:
        """How far the clock of any device has moved away from ours since its feed began, in seconds."""
        return max((abs(bed.skew.skew_s or 0.0) for bed in self._beds.values()), default=0.0)

    @property
    def beds(self) -> list[str]:
        """The beds whose feed has been heard."""
        return list(self._beds)

    def knows(self, bed: str) -> bool:
        """Say whether the bed's feed has been heard, so that its ring is filled or filling."""
        return bed in self._beds

    def busy(self, bed: str) -> bool:
        """Say whether windows of the bed are on their way through the model."""
        return bed in self._beds and self._beds[bed].pending > 0

    def state(self, bed: str) -> BedState:
        """Return what has to be kept of a bed for another worker to go on with it."""
        return self._beds[bed].state

    def model_of(self, bed: str) -> str:
        """Return the name of the model that judges a bed; empty for one whose feed has not been heard."""
        return self._beds[bed].state.model if bed in self._beds else ""

    def settings(self, bed: str, now_ns: int) -> BedSettings:
        """Return what is in force for a bed."""
        state = self._beds[bed].state
        limits = _limits(state).model_dump()
        return settings_of(bed, state, self._criteria(state), self._own.model, limits, now_ns)

    def moment(self, bed: str) -> Moment:
        """Return up to where a bed has been heard."""
        return self._beds[bed].moment

    def restore(self, bed: str, state: BedState, memory: Memory | None = None) -> None:
        """Go on with a bed where another worker stopped: call before its first chunk.

        Parameters
        ----------
        bed : str
        state : BedState
        memory : Memory, optional
            No newer than the state. With it, and chunks that reach back to its `Memory.since_s`, signal
            quality, beats and rhythm are judged as by the other worker; without, from the chunks alone.
        """
        self._restored[bed] = state.model_copy(deep=True)
        if memory is not None:
            self._memories[bed] = memory

    def memory(self, bed: str, *, now: bool = False) -> Memory | None:
        """Return what has been learnt of a bed; None if the last one that was returned is new enough.

        Parameters
        ----------
        bed : str
        now : bool
            However new that is.
        """
        one = self._beds[bed]
        stop, quality = one.vitals.stop, one.windows.remember()
        if stop is None or quality is None or not (now or abs(stop - one.remembered) >= _MEMORY):
            return None
        one.remembered = stop
        return Memory(one.state.session, stop, len(one.leads), {**quality, **one.vitals.remember()})

    def forget(self, bed: str) -> None:
        """Drop a bed: it is another worker's now."""
        self._beds.pop(bed, None)
        self._restored.pop(bed, None)
        self._memories.pop(bed, None)

    def accept(self, chunk: SampleChunk, dequeued_ns: int) -> Accepted:
        """Take the next chunk of a bed.

        Parameters
        ----------
        chunk : SampleChunk
        dequeued_ns : int
            When it was taken from the stream, ns, by the worker's clock.

        Returns
        -------
        Accepted
            `windows` wait for the model; `events` are to be published now.

        Raises
        ------
        MalformedMessageError
            If the chunk contradicts its own session (other leads or rate, samples that run back; a
            `RefusedChunkError` then, with events to be published) or its rate is too low for the model's
            filter. Nothing else has changed then.
        """
        (accepted,) = self.accept_many([chunk], dequeued_ns)
        if isinstance(accepted, MalformedMessageError):
            raise accepted
        return accepted

    def accept_many(
        self, chunks: Sequence[SampleChunk], dequeued_ns: int, load: Load = UNLOADED
    ) -> list[Accepted | MalformedMessageError]:
        """Take chunks of any beds, in order: what `accept` does with each, and faster.

        Parameters
        ----------
        chunks : sequence of SampleChunk
            None starts a new session of a bed that is `busy` or has an earlier chunk here.
        dequeued_ns : int
        load : Load
            What the worker has no time for.

        Returns
        -------
        list of (Accepted or MalformedMessageError)
            For each chunk; the error that `accept` would raise.
        """
        outcomes: list[Accepted | MalformedMessageError] = []
        arrivals: dict[str, _Arrival] = {}
        for chunk in chunks:
            if chunk.header.bed in arrivals:
                self._push(arrivals.values(), dequeued_ns, load)
                arrivals = {}
            accepted = Accepted()
            try:
                received = self._receive(chunk, dequeued_ns, accepted)
            except MalformedMessageError as error:
                outcomes.append(error)
                continue
            outcomes.append(accepted)
            bed, due = received or (None, [])
            for number, one in enumerate(due):
                if number:
                    self._push(arrivals.values(), dequeued_ns, load)
                    arrivals = {}
                assert bed is not None
                if not accepted.opened:
                    self._gap(bed, one, accepted)
                arrivals[chunk.header.bed] = _Arrival(one, bed, accepted)
        self._push(arrivals.values(), dequeued_ns, load)
        return outcomes

    def _receive(
        self, chunk: SampleChunk, dequeued_ns: int, accepted: Accepted
    ) -> tuple[HeldBed, list[SampleChunk]] | None:
        # The bed that waits for this chunk, and the chunks to be used now; None for one that is left out.
        header = chunk.header
        bed = self._beds.get(header.bed)
        if bed is not None and bed.state.session == header.session:
            accepted.dropped = bed.order.why_not(header.seq)
            changed = (bed.leads, bed.fs) != (header.leads, header.fs)
            if changed or (not accepted.dropped and bed.order.runs_back(chunk)):
                raise RefusedChunkError(*refused(bed, chunk))
            if accepted.dropped:
                return None
            due = bed.order.take(chunk)
        else:
            known = bed.state if bed is not None else self._restored.get(header.bed)
            if known is not None and header.session in known.former:
                accepted.dropped = "stale"
                if bed is not None:
                    accepted.events += claimed(bed, chunk)
                return None
            bed = self._open(chunk, known, dequeued_ns, accepted)
            due = [chunk]
        bed.pace, bed.heard_ns = header.pace, dequeued_ns
        return bed, due

    def _gap(self, bed: HeldBed, chunk: SampleChunk, accepted: Accepted) -> None:
        # What is missing before a chunk that is to be used now.
        header = chunk.header
        missing = max(0, header.n0 - bed.held.next_in)
        accepted.missing += missing
        if header.pace and missing > FEED_LOST_S * header.fs:
            # The clock had no time to tick in between: the same alarm as if it had.
            at = Moment(header.bed, header.n0, header.t0, header.fs, header.ingest_ns)
            accepted.events += lost(bed, at, bed.held.next_in)

    def _push(self, arrivals: Collection[_Arrival], dequeued_ns: int, load: Load) -> None:
        # Samples into the windows of their beds, one chunk of each.
        shed = [load.every if arrival.bed.pace else 1 for arrival in arrivals]
        every = [self._every * times for times in shed]
        stretches = [arrival.bed.held.add(arrival.chunk) for arrival in arrivals]
        due = [place for place, stretch in enumerate(stretches) if stretch is not None]
        beds = [arrival.bed for arrival in arrivals]
        full = [stretch for stretch in stretches if stretch is not None]
        pushed = push_together(
            [
                Push(beds[place].windows, stretch.header.n0, millivolts, every[place], stretch.header.valid)
                for place, stretch, millivolts in zip(due, full, to_millivolts(full), strict=True)
            ]
        )
        advanced = advance_together([beds[place].vitals for place in due])
        completed = dict(zip(due, zip(pushed, advanced, strict=True), strict=True))
        for place, (arrival, hops) in enumerate(zip(arrivals, every, strict=True)):
            windows, blocks = completed.get(place, ((), ()))
            chunk, bed, accepted = arrival.chunk, arrival.bed, arrival.accepted
            header, state = chunk.header, bed.state
            before = len(accepted.windows)
            for window in windows:
                if window.index < state.next_window:
                    continue
                end = Moment(header.bed, window.end, chunk.time_of(window.end), header.fs, header.ingest_ns)
                hop = min(hops, window.index - bed.newest) if bed.newest is not None else 1
                accepted.windows.append(
                    Pending(
                        session=header.session,
                        opening=bed.opening,
                        window=window,
                        moment=end,
                        hops=hop,
                        first_new=bed.windows.end_of(window.index - hop) if window.index else window.start,
                        t_start=end.time_of(window.start),
                        dequeued_ns=dequeued_ns,
                    )
                )
                bed.newest = window.index
            bed.pending += len(accepted.windows) - before
            bed.moment = Moment(header.bed, chunk.end, chunk.time_of(chunk.end), header.fs, header.ingest_ns)
            state.ended = header.last
            for block in blocks:
                self._judge_block(arrival, block)
            if header.pace == 1:
                # Only a feed in real time has two clocks to compare.
                bed.skew.add(header.ingest_ns, chunk.time_of(chunk.end), chunk.end)
            if place in completed or accepted.opened or state.open:
                # Where all is well and the chunk only waits for others, this may wait, too.
                overload = load.message(header.bed, shed[place])
                accepted.events += heard(bed, header.source, overload, self._fallback)
            accepted.events += self._end_of_feed(bed)

    def _judge_block(self, arrival: _Arrival, block: Block) -> None:
        chunk, bed, accepted = arrival.chunk, arrival.bed, arrival.accepted
        header, state = chunk.header, bed.state
        at = bed.windows.source_index
        bed.beats += [at(beat.index) for beat in block.beats]
        end = at(block.end)
        moment = Moment(header.bed, end, chunk.time_of(end), header.fs, header.ingest_ns)
        if end <= state.watched_to:
            # Read back after a restart: done already, up to the last whole second.
            if not block.end % _SECOND:
                bed.beats.clear()
            return
        state.watched_to = end
        accepted.events += judge_block(state, moment, block, bed.leads, at)
        if block.end % _SECOND:
            return
        quality = block.quality
        accepted.vitals.append(
            Vitals(
                bed=header.bed,
                session=header.session,
                start=at(block.end - _SECOND),
                end=end,
                t_end=moment.t,
                heart_rate=block.heart_rate,
                rr_irregularity=block.rr_irregularity,
                beats=tuple(bed.beats),
                quality=quality.index_of(bed.leads) if quality else {},
                issues=quality.issues_of(bed.leads) if quality else {},
                clock_skew_s=bed.skew.skew_s,
                ingest_ns=header.ingest_ns,
            )
        )
        bed.beats.clear()

    def conclude(
        self, pending: Pending, verdict: Verdict | None, failure: str | None = None
    ) -> tuple[Finding, list[AlarmEvent]] | None:
        """Take the model's verdict on a window.

        Parameters
        ----------
        pending : Pending
            As `accept` returned it; the windows of a bed in their order.
        verdict : Verdict or None
            Of the model that the bed's state names; None for a window that cannot be scored (it has a
            `reason`), or for which the model failed.
        failure : str, optional
            How the model failed.

        Returns
        -------
        (Finding, list of AlarmEvent) or None
            None if the bed has been given away (even if it has come back) or has started a new session
            meanwhile.
        """
        bed = self._beds.get(pending.moment.bed)
        if bed is None or bed.opening != pending.opening:
            return None
        bed.pending -= 1
        state, window, moment = bed.state, pending.window, pending.moment
        criteria, reason = self._criteria(state), window.reason
        if window.index < state.next_window:
            # Reaches back to the patient before: discharged while it was under way.
            verdict, reason = None, "another patient"
        if verdict is not None and not math.isfinite(verdict.score):
            verdict, reason = None, "the model gave no number"
        failed = failure is not None and reason is None
        if failed:
            verdict, reason = None, "model failed"
        state.next_window = max(state.next_window, window.index + 1)
        threshold = self._threshold(state)
        over = verdict is not None and verdict.score > threshold
        events = []
        if verdict is not None or failed:
            events += service(state, MODEL_FAILED, moment, f"model failed: {failure}" if failed else None)
        if verdict is not None:
            bed.scores[bed.scored % len(bed.scores)] = verdict.score
            bed.scored += 1
            events += judge_window(
                state,
                criteria.alarm,
                moment,
                window=window.index,
                hops=pending.hops,
                first_new=pending.first_new,
                over=over,
                score=verdict.score,
            )
        else:
            events += judge_silence(state, moment, reason or "")
        events += pass_time(state, moment, BY_WINDOW)
        finding = Finding(
            bed=moment.bed,
            session=pending.session,
            model=state.model,
            window=window.index,
            start=window.start,
            end=window.end,
            t_start=pending.t_start,
            t_end=moment.t,
            score=verdict.score if verdict else None,
            threshold=threshold,
            percentile=criteria.thresholds.percentile(verdict.score) if verdict else None,
            lead_scores=verdict.lead_scores if verdict else {},
            anomalous=over,
            reason=reason,
            stamps=Stamps(
                ingest_ns=moment.ingest_ns,
                dequeued_ns=pending.dequeued_ns,
                ready_ns=pending.ready_ns,
                begun_ns=pending.begun_ns,
                inferred_ns=pending.inferred_ns,
                published_ns=pending.published_ns,
            ),
        )
        return finding, events + self._end_of_feed(bed)

    def tick(self, now_ns: int) -> list[AlarmEvent]:
        """Look at the beds that have fallen silent.

        Parameters
        ----------
        now_ns : int
            By the clock that stamps `dequeued_ns`.

        Returns
        -------
        list of AlarmEvent
        """
        events: list[AlarmEvent] = []
        for bed in self._beds.values():
            silent_s = (now_ns - bed.heard_ns) / 1e9
            # Chunks come every 50 to 500 ms: only a feed silent for longer is measured by the clock, so
            # that the verdict does not depend on when in between the clock ticked.
            if bed.state.ended or bed.pace == 0 or silent_s <= FEED_LOST_S:
                continue
            # How far the feed would be by now.
            sample = bed.moment.sample + round(silent_s * bed.pace * bed.fs)
            moment = replace(bed.moment, sample=sample, t=bed.moment.time_of(sample))
            events += lost(bed, moment, bed.moment.sample)
            if not bed.pending:
                events += judge_silence(bed.state, moment, "no signal")
            events += pass_time(bed.state, moment, CONDITIONS.values())
        return events

    def obey(self, command: Command) -> Answer:
        """Do what an operator asks of a bed.

        Parameters
        ----------
        command : Command

        Returns
        -------
        Answer

        Raises
        ------
        RefusedError
            If it cannot be done; nothing has changed then.
        """
        bed = self._beds.get(command.bed)
        if bed is None:
            raise RefusedError(f"bed {command.bed} has not been heard")
        spec, scores = self.manifest.window, bed.scores[: bed.scored].tolist()
        case = Case(
            bed.state,
            bed.moment,
            scores,
            len(scores) * spec.hop / spec.fs,
            self._criteria(bed.state),
            self._own.model,
            self._models,
            _check_limits,
        )
        repeated, model = command.id in bed.state.obeyed, bed.state.model
        answer = obey(case, command)
        if bed.state.model != model:
            bed.scored = 0
        bed.vitals.set_limits(_limits(bed.state))
        if another_patient(command) and not repeated:
            # Nothing of one patient is held against the next.
            bed.scored = 0
            bed.state.history = []
            bed.state.scored_to = bed.moment.sample
            bed.state.next_window = bed.windows.first_from(bed.moment.sample)
        return answer

    def _criteria(self, state: BedState) -> Criteria:
        # Of a model that could not be loaded there is no score to judge.
        return self._models.get(state.model, self._own)

    def _threshold(self, state: BedState) -> float:
        own = state.stay.threshold if state.confirmed else None
        return self._criteria(state).thresholds.window if own is None else own

    def _open(
        self, chunk: SampleChunk, known: BedState | None, dequeued_ns: int, accepted: Accepted
    ) -> HeldBed:
        # Start on a session: anew, or where the state of another worker says.
        header, model = chunk.header, self.manifest
        continued = known is not None and known.session == header.session
        # What this worker has not seen of a session that goes on is a hole to it: the windows that reach
        # into it are reported as such, and a long stretch without a verdict does not pass in silence.
        start = known.begun if known is not None and continued else header.n0
        try:
            windows = BedWindow(header.leads, header.fs, model.leads, model.filter, model.window, start)
        except ValueError as error:
            raise MalformedMessageError(
                f"fs: the {model.filter.highpass_hz:g} Hz high-pass cannot run at {header.fs:g} Hz"
            ) from error
        moment = Moment(header.bed, header.n0, header.t0, header.fs, header.ingest_ns)
        if known is not None and continued:
            state = known
            accepted.events += self._choose(state, moment)
        else:
            former = []
            if known is not None:
                accepted.events += end_all(known, moment, "a new feed began")
                former = [*known.former, known.session][-_FORMER_SESSIONS:]
            state = BedState(session=header.session, begun=header.n0, scored_to=header.n0, former=former)
            if known is not None:
                state.stay, state.obeyed, state.ended_alarms = known.stay, known.obeyed, known.ended_alarms
                state.snapshots, state.model = known.snapshots, known.model
            # No alarm is open that it could end.
            self._choose(state, moment)
            if known is not None:
                asks = "another device: confirm that the patient is the same" if not state.confirmed else None
                accepted.events += service(state, CONFIRM_PATIENT, moment, asks)
        accepted.opened = True
        vitals = BedVitals(len(header.leads), _limits(state), windows.source_index)
        windows.listener = vitals
        memory = self._memories.pop(header.bed, None)
        if continued and memory is not None and _fits(memory, state, len(header.leads), windows):
            vitals.recall(memory.at, memory.arrays)
            windows.recall(memory.arrays)
        bed = HeldBed(
            state,
            windows,
            Holding(windows),
            vitals,
            header.leads,
            header.fs,
            header.pace,
            InOrder(header.seq + 1, chunk.end),
            moment,
            heard_ns=dequeued_ns,
            opening=next(self._openings),
            opened_ns=header.ingest_ns,
            source=header.source,
            skew=SkewMeter(header.fs),
            # Filled, so that a bed takes no more memory in the end than at the beginning.
            scores=np.full(round(_SCORES_S * model.window.fs / model.window.hop), np.nan),
        )
        self._beds[header.bed] = bed
        self._restored.pop(header.bed, None)
        return bed

    def _choose(self, state: BedState, moment: Moment) -> list[AlarmEvent]:
        # Who judges the bed here: what was chosen for it, else the worker's own, which may be another one
        # than that of the worker before.
        model = state.stay.model or self._own.model
        return change_model(state, moment, model, f"{model} judges from now on, the model of another worker")

    def _end_of_feed(self, bed: HeldBed) -> list[AlarmEvent]:
        # A feed that ended on purpose leaves no alarm behind, once its last windows have been judged.
        if not bed.state.ended or bed.pending:
            return []
        return end_all(bed.state, bed.moment, "the feed ended")


def _fits(memory: Memory, state: BedState, leads: int, windows: BedWindow) -> bool:
    # What lies between a state and a newer memory would be judged without either.
    known = windows.source_index(memory.at) <= state.watched_to
    return known and (memory.session, memory.leads) == (state.session, leads)


def _limits(state: BedState) -> Limits:
    # As by default behind a device of which nobody has said whose it is.
    return Limits.model_validate(state.stay.limits if state.confirmed else {})


def _check_limits(limits: Mapping[str, float]) -> None:
    try:
        Limits.model_validate(limits)
    except ValidationError as error:
        raise ValueError(first_error(error)) from error
