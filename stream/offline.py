"""A whole feed through the engine, without broker or clock: `bedside analyze` and evaluation."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, count

import numpy as np
from pydantic import BaseModel, Field, computed_field

from models.session import Session
from stream.contract import AlarmEvent, Finding, Presence, SampleChunk, Vitals
from stream.engine import Engine, Pending
from stream.explain import maps_of
from stream.results import SecondRows, Seconds, WindowRows, Windows
from stream.statement import Statement, in_words
from stream.verdict import Verdict, judge

# Longer pieces save nothing more, and make progress come in jumps.
_JOINED_S = 10.0

OnWindow = Callable[[Pending, Verdict | None, Finding], None]


@dataclass(slots=True)
class Outcome:
    """Everything that came out of a feed, in order."""

    findings: list[Finding] = field(default_factory=list)
    events: list[AlarmEvent] = field(default_factory=list)
    vitals: list[Vitals] = field(default_factory=list)


def run(chunks: Iterable[SampleChunk], session: Session, *, on_window: OnWindow | None = None) -> Outcome:
    """Run chunks, of one bed or of many, through the engine as fast as the model allows.

    Device time takes the place of the clock: the result is a function of the samples alone, and the same as
    that of a worker that got them as a stream.

    Parameters
    ----------
    chunks : iterable of SampleChunk
        In the order of the feed.
    session : Session
    on_window : callable, optional
        Called for each window with its data, its verdict (None: not scored) and its finding, in order.

    Returns
    -------
    Outcome
    """
    outcome = Outcome()

    def concluded(pending: Pending, verdict: Verdict | None, finding: Finding) -> None:
        outcome.findings.append(finding)
        if on_window is not None:
            on_window(pending, verdict, finding)

    _drive(chunks, session, concluded, outcome.events.extend, outcome.vitals.extend)
    return outcome


def _drive(
    chunks: Iterable[SampleChunk],
    session: Session,
    on_window: OnWindow,
    on_events: Callable[[list[AlarmEvent]], None],
    on_vitals: Callable[[list[Vitals]], None],
) -> None:
    # What comes out is handed on and not kept: a day of it does not fit where the result does. The model has
    # a thread of its own: while it is at work the next windows are made.
    engine = Engine(session.manifest, session.precision)
    waiting: list[Pending] = []
    in_model: tuple[list[Pending], Future[list[Verdict | None]]] | None = None

    def conclude() -> None:
        nonlocal in_model
        judged, in_model = in_model, None
        if judged is None:
            return
        for pending, verdict in zip(judged[0], judged[1].result(), strict=True):
            concluded = engine.conclude(pending, verdict)
            if concluded is None:
                continue
            finding, events = concluded
            on_events(events)
            on_window(pending, verdict, finding)

    def hand_over(number: int) -> None:
        # Never more than the model takes at once: the last bits of a score depend on what shares its run.
        nonlocal in_model, waiting
        conclude()
        some, waiting = waiting[:number], waiting[number:]
        in_model = some, model.submit(judge, session, [pending.window for pending in some])

    with ThreadPoolExecutor(1, thread_name_prefix="model") as model:
        for chunk in chunks:
            bed = chunk.header.bed
            if engine.busy(bed) and engine.state(bed).session != chunk.header.session:
                # The old session's windows are judged before the new one ends it.
                hand_over(len(waiting))
                conclude()
            accepted = engine.accept(chunk, chunk.time_of(chunk.end))
            on_events(accepted.events)
            on_vitals(accepted.vitals)
            waiting += accepted.windows
            while len(waiting) >= session.manifest.max_batch:
                hand_over(session.manifest.max_batch)
        hand_over(len(waiting))
        conclude()


def joined(chunks: Iterable[SampleChunk]) -> Iterator[SampleChunk]:
    """Join chunks for an engine that has all of them: what it finds is the same, and it has less to do.

    Parameters
    ----------
    chunks : iterable of SampleChunk
        One session of one bed, in order.

    Yields
    ------
    SampleChunk
        Numbered anew. One ends where samples are missing, or the gain or what is said of a lead changes.
    """
    some: list[SampleChunk] = []
    seq = count()

    def taken() -> SampleChunk:
        header, last = some[0].header, some[-1].header
        whole = header.model_copy(update={"seq": next(seq), "ingest_ns": last.ingest_ns, "last": last.last})
        samples = np.concatenate([chunk.samples for chunk in some])
        some.clear()
        return SampleChunk(whole, samples)

    for chunk in chunks:
        if some:
            first, header = some[0].header, chunk.header
            follows = header.n0 == some[-1].end and (header.gain, header.valid) == (first.gain, first.valid)
            if not follows or header.n0 - first.n0 >= _JOINED_S * first.fs:
                yield taken()
        some.append(chunk)
    if some:
        yield taken()


class AlarmResult(BaseModel):
    """One alarm of a recording; `end_s` is None while it lasts."""

    alarm: str
    kind: str
    code: str
    priority: str
    message: str
    onset_s: float
    raised_s: float
    end_s: float | None
    score: float | None


class MapResult(BaseModel):
    """Whether something that the model says beside its reconstruction is shown."""

    shown: bool
    why_not: str | None = None


class Analysis(BaseModel):
    """What the pipeline says of one recording: the fields of ``bedside analyze --json``."""

    record: str
    model: str
    fs: float
    leads: tuple[str, ...]
    duration_s: float
    record_score: float | None
    """Mean of the window scores; None if no window could be scored."""
    percentile: float | None = None
    """Share of validation normals with a lower `record_score`, 0 to 100; None if the model does not know."""
    threshold: float
    """Screening threshold for `record_score`."""
    window_threshold: float
    anomalous: bool | None
    heart_rate_bpm: float | None = None
    """Median over the recording; None if it could never be told."""
    windows: Windows
    not_scored: dict[str, int]
    """Windows that could not be scored, by reason."""
    beats_s: list[float] = []
    """R peaks."""
    quality: dict[str, float] = {}
    """By lead: mean signal quality, 1 good, 0 useless."""
    seconds: Seconds = Field(default_factory=list)
    alarms: list[AlarmResult]
    explanations: dict[str, MapResult] = {}
    """Of ``spread``, ``temporal_attention`` and ``lead_attention`` those that the model has; an attention is
    shown only if the model's manifest calls it informative."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def statement(self) -> Statement:
        """All of this in words, the most urgent first."""
        return in_words(self)


def analyse(
    chunks: Iterable[SampleChunk],
    session: Session,
    *,
    record: str,
    on_window: OnWindow | None = None,
    begin: int = 0,
) -> Analysis:
    """Run one recording through the engine and sum it up.

    Parameters
    ----------
    chunks : iterable of SampleChunk
        One session of one bed.
    session : Session
    record : str
        Name for the result.
    on_window : callable, optional
        As for `run`.
    begin : int
        Sample of the session with which the recording begins, for the result. What comes before it lets
        filter and rhythm settle, and nothing is said of it; an alarm that lasts may have its onset there.

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError
        If there are no chunks.
    """
    chunks = iter(chunks)
    first = next(chunks, None)
    if first is None:
        raise ValueError(f"{record}: no samples")
    stop = first.end
    header, thresholds = first.header, session.manifest.thresholds[session.precision]
    fs, n0 = header.fs, max(begin, header.n0)
    maps: dict[str, str | None] | None = None
    windows = WindowRows([lead for lead in session.manifest.leads if lead in header.leads])
    events: list[AlarmEvent] = []
    not_scored: Counter[str] = Counter()
    summary = _Summary(n0, fs)

    def noted() -> Iterable[SampleChunk]:
        nonlocal stop
        for chunk in chain([first], chunks):
            stop = chunk.end
            yield chunk

    def heard(pending: Pending, verdict: Verdict | None, finding: Finding) -> None:
        nonlocal maps
        if maps is None and verdict is not None:
            maps = maps_of(session.manifest, verdict)
        if finding.score is not None and finding.start >= n0:
            windows.append(
                (finding.start - n0) / fs,
                (finding.end - n0) / fs,
                finding.score,
                finding.anomalous,
                finding.lead_scores,
            )
        if finding.reason is not None and finding.start >= n0:
            not_scored[finding.reason] += 1
        if on_window is not None:
            on_window(pending, verdict, finding)

    _drive(noted(), session, heard, events.extend, summary.add)
    record_score = float(np.mean(windows.scores)) if windows else None
    return Analysis(
        record=record,
        model=session.manifest.name,
        fs=fs,
        leads=header.leads,
        duration_s=(stop - n0) / fs,
        record_score=record_score,
        percentile=None if record_score is None else thresholds.record_percentile(record_score),
        threshold=thresholds.record,
        window_threshold=thresholds.window,
        anomalous=None if record_score is None else record_score > thresholds.record,
        windows=windows,
        not_scored=dict(not_scored),
        heart_rate_bpm=summary.median_rate,
        beats_s=[(beat - n0) / fs for beat in summary.beats],
        quality=summary.mean_quality,
        seconds=summary.seconds,
        alarms=_alarms(events, first, n0),
        explanations={
            name: MapResult(shown=why_not is None, why_not=why_not) for name, why_not in (maps or {}).items()
        },
    )


class _Summary:
    # What is kept of the vitals of each second from a sample on.

    def __init__(self, begin: int, fs: float) -> None:
        self._begin = begin
        self._fs = fs
        self.beats = array("q")
        self.seconds = SecondRows()
        self._rates = array("d")
        # By lead: sum and number.
        self._quality: dict[str, tuple[float, int]] = {}

    def add(self, vitals: Iterable[Vitals]) -> None:
        for second in vitals:
            self.beats.extend(beat for beat in second.beats if beat >= self._begin)
            if second.start < self._begin:
                continue
            start_s, end_s = ((sample - self._begin) / self._fs for sample in (second.start, second.end))
            self.seconds.append(start_s, end_s, second.heart_rate, second.issues)
            if second.heart_rate is not None:
                self._rates.append(second.heart_rate)
            for lead, quality in second.quality.items():
                total, count = self._quality.get(lead, (0.0, 0))
                self._quality[lead] = total + quality, count + 1

    @property
    def median_rate(self) -> float | None:
        return round(float(np.median(self._rates)), 1) if self._rates else None

    @property
    def mean_quality(self) -> dict[str, float]:
        return {lead: round(total / count, 3) for lead, (total, count) in self._quality.items()}


def _alarms(events: list[AlarmEvent], first: SampleChunk, n0: int) -> list[AlarmResult]:
    begin_t = first.time_of(n0)
    # What latched and came back stands there twice: there is nobody here to acknowledge the first time.
    results: list[AlarmResult] = []
    lasting: dict[str, AlarmResult] = {}
    for event in events:
        at_s = (event.since - begin_t) / 1e9
        if event.presence is Presence.ON and event.alarm not in lasting:
            lasting[event.alarm] = AlarmResult(
                alarm=event.alarm,
                kind=event.kind,
                code=event.code,
                priority=event.priority,
                message=event.message,
                onset_s=(event.onset - n0) / first.header.fs,
                raised_s=at_s,
                end_s=None,
                score=event.score,
            )
            results.append(lasting[event.alarm])
        elif event.presence in (Presence.OFF, Presence.LATCHED) and event.alarm in lasting:
            lasting.pop(event.alarm).end_s = at_s
    return [alarm for alarm in results if alarm.end_s is None or alarm.end_s > 0]
