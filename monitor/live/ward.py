"""What a display knows of every bed: pure state, bounded in memory, fed with messages and a time.

It knows no broker and no page. `monitor.live.pump` feeds one ward per process; any number of pages read it.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TypeVar

from monitor.live.playout import Playout
from monitor.live.ring import SampleRing
from stream.alarms.conditions import UNSCORED_S
from stream.contract import (
    EVERY_BED,
    AlarmEvent,
    AlarmKind,
    Explanation,
    Finding,
    Presence,
    Priority,
    SampleChunk,
    Validity,
    Vitals,
    to_millivolts,
)

RING_S = 30.0
"""What a page shows of a bed that is selected, and some seconds for the filter to settle."""
# 30 s of 12 leads at 2 kHz are 720 000 values. A feed of more leads or a higher rate is kept shorter.
_RING_VALUES = 1_000_000
HISTORY_S = 600.0
"""Scores that are kept; the findings topic keeps as long."""
# Ten minutes at the longest rate of findings that a hop of 0.2 s would bring.
_HISTORY_POINTS = 3_000
# Half a minute at the usual two windows a second: what a sweep shows.
_EXPLANATIONS = 64
# The same of vitals, one a second.
_SECONDS = 32
# A central station with far more beds than any ward; beyond it, new beds are left out and counted.
_BEDS = 1_024
# More conditions than the rule set knows. Should an old alarm have lost its end, newer ones push it out.
_ALARMS_A_BED = 32
# Repeats follow within one redelivery, half a second of a ward; this many events are hours of it.
_EVENTS_REMEMBERED = 10_000
# Sessions that a bed has left behind: late messages of theirs are known as late.
_FORMER = 4
# One chunk may contradict its session by a fault of its sender. After three in a row it is more likely that
# the page began, when it was started, with such a one.
_STRANGERS = 3
SILENT_S = 2.0
"""A feed that has said nothing for longer counts as lost (the required technical alarm's limit)."""
FORGET_S = 600.0
"""A silent bed without an open alarm leaves the list when Redis has forgotten its samples, too."""

# A worker says something of every bed twice a second, also that it cannot score it.
_WORKER_SILENT_S = 5.0

_T = TypeVar("_T")

URGENCY = {Priority.HIGH: 3, Priority.MEDIUM: 2, Priority.LOW: 1, Priority.INFO: 0}
"""Alarm priorities, the higher the more urgent."""


@dataclass(frozen=True, slots=True)
class ScorePoint:
    """One finding, as the score chart needs it.

    Attributes
    ----------
    t_start, t_end : int
        Device time of the window, ns.
    score : float
        NaN for a window that could not be scored.
    threshold : float
    anomalous : bool
    reason : str or None
        Why it could not be scored.
    """

    t_start: int
    t_end: int
    score: float
    threshold: float
    anomalous: bool
    reason: str | None


@dataclass(slots=True)
class Feed:
    """One session of one bed: its newest samples and its place in time."""

    session: str
    leads: tuple[str, ...]
    fs: float
    pace: float
    valid: tuple[Validity, ...]
    ring: SampleRing
    playout: Playout
    first: int
    """First sample that was taken."""
    n_ref: int
    t_ref: int
    """Device time of sample `n_ref`."""
    next_seq: int
    heard_ns: int
    """When the newest chunk arrived, by our clock."""
    ingest_ns: int
    chunk_s: float
    """Real time that the newest chunk lasts."""
    ended: bool = False
    missing: int = 0
    """Samples that never came."""
    missed_ns: int = 0
    """When that was last found, by our clock."""
    strangers: int = 0
    """Chunks in a row that contradict it."""

    def contradicts(self, chunk: SampleChunk) -> bool:
        """Say whether a chunk is none of this session, whatever it says: it has other leads, or no order."""
        header = chunk.header
        if (header.leads, header.fs) != (self.leads, self.fs):
            return True
        is_old = header.seq < self.next_seq
        return len(chunk.samples) > 0 and is_old != (chunk.end <= self.ring.stop)

    def sample_at(self, device_ns: int) -> float:
        """Return the place of a device time, in samples of the session."""
        return self.n_ref + (device_ns - self.t_ref) * self.fs / 1e9

    def device_time(self, now_ns: int) -> int:
        """Return the bed's device time now, as far as it can be told from the newest sample."""
        newest = self.t_ref + round((self.ring.stop - self.n_ref) * 1e9 / self.fs)
        return newest + round(max(0, now_ns - self.heard_ns) * (self.pace or 1.0))

    def silent_s(self, now_ns: int) -> float:
        """Return for how long a chunk has been due and not come, seconds."""
        return max(0.0, (now_ns - self.heard_ns) / 1e9 - self.chunk_s)

    def lag_s(self, now_ns: int) -> float:
        """Return how old the newest sample was on arrival, plus how long the next one is overdue, seconds."""
        return max(0.0, (self.heard_ns - self.ingest_ns) / 1e9) + self.silent_s(now_ns)


@dataclass(slots=True)
class Bed:
    """All that is known of one bed."""

    name: str
    feed: Feed | None = None
    former: deque[str] = field(default_factory=lambda: deque(maxlen=_FORMER))
    alarms: dict[str, AlarmEvent] = field(default_factory=dict)
    """Newest transition of every open alarm, by alarm."""
    named: dict[str, str] = field(default_factory=dict)
    """What each open alarm is about: later transitions say what became of it."""
    scores: deque[ScorePoint] = field(default_factory=lambda: deque(maxlen=_HISTORY_POINTS))
    finding: Finding | None = None
    """The newest one."""
    vitals: Vitals | None = None
    """The newest ones."""
    seconds: deque[Vitals] = field(default_factory=lambda: deque(maxlen=_SECONDS))
    """The vitals of the last half minute, in order."""
    findings: int = 0
    """Findings taken so far: a page sees by it that there is a new one."""
    explanations: deque[Explanation] = field(default_factory=lambda: deque(maxlen=_EXPLANATIONS))
    explained: int = 0
    """Explanations taken so far."""
    alarm_ns: int = 0
    """When the last alarm transition arrived."""

    def heart_rate(self, now_ns: int) -> float | None:
        """Return the heart rate, beats/min, of a feed that is heard; None where nobody can tell."""
        ours = self.vitals is not None and self.feed is not None and self.vitals.session == self.feed.session
        if self.vitals is None or self.feed is None or not ours or self.feed.silent_s(now_ns) > SILENT_S:
            return None
        return self.vitals.heart_rate

    def open_alarms(self) -> list[AlarmEvent]:
        """Return the open alarms, the most urgent first, then the oldest."""
        return sorted(
            self.alarms.values(),
            key=lambda event: (
                -URGENCY[event.priority],
                event.presence is Presence.ACKNOWLEDGED,
                event.kind is AlarmKind.TECHNICAL,
                event.onset_t,
            ),
        )

    def text_of(self, event: AlarmEvent) -> str:
        """Return what an open alarm is about."""
        return self.named.get(event.alarm, event.message)

    def device_time(self, now_ns: int) -> int:
        """Return the bed's device time now; without samples, ours stands in."""
        return self.feed.device_time(now_ns) if self.feed else now_ns

    def is_silent(self, now_ns: int) -> bool:
        """Say whether samples should come and do not."""
        return self.feed is None or (not self.feed.ended and self.feed.silent_s(now_ns) > SILENT_S)

    def unscored_s(self) -> float:
        """Return how much of the newest signal no worker has said anything about, in real seconds."""
        feed = self.feed
        if feed is None or not feed.pace:
            return 0.0
        heard_of = self._findings_of_feed()
        since = heard_of.end if heard_of else feed.first
        return max(0.0, (feed.ring.stop - since) / feed.fs / feed.pace)

    def is_unscored(self) -> bool:
        """Say whether findings of the bed are overdue: the page's own way to notice a dead worker.

        A bed's first window takes seconds to fill, so the first finding has as long as an alarm may take.
        """
        if self.feed is None or self.feed.ended:
            return False
        return self.unscored_s() > (_WORKER_SILENT_S if self._findings_of_feed() else UNSCORED_S)

    def _findings_of_feed(self) -> Finding | None:
        ours = (
            self.finding is not None and self.feed is not None and self.finding.session == self.feed.session
        )
        return self.finding if ours else None


class Ward:
    """Every bed that has been heard of."""

    def __init__(self) -> None:
        self.beds: dict[str, Bed] = {}
        self.everywhere: dict[str, AlarmEvent] = {}
        """Newest transition of the open alarms that are about the deployment, not about a bed."""
        self.revision = 0
        """Rises when the list of beds or an open alarm changes."""
        self.left_out = 0
        """Messages of beds beyond the limit."""
        self._seen: OrderedDict[str, None] = OrderedDict()
        # Number of the newest transition of each alarm, the ended ones too: an event that comes late does
        # not open again what has ended.
        self._transitions: OrderedDict[str, int] = OrderedDict()

    def take_chunk(self, chunk: SampleChunk, arrival_ns: int, *, live: bool = True) -> None:
        """Take samples.

        Parameters
        ----------
        chunk : SampleChunk
        arrival_ns : int
            By the display's clock.
        live : bool
            False for a chunk that is read from the past.
        """
        header = chunk.header
        bed = self._bed(header.bed)
        if bed is None:
            return
        feed = bed.feed
        if feed is None or feed.session != header.session:
            if header.session in bed.former:
                return
            feed = self._open(bed, chunk, arrival_ns)
        elif feed.contradicts(chunk):
            feed.strangers += 1
            if feed.strangers < _STRANGERS:
                return
            # Not these are strange, but the one that was seen first.
            feed = self._open(bed, chunk, arrival_ns)
        elif header.seq < feed.next_seq:
            return
        feed.strangers = 0
        feed.next_seq = header.seq + 1
        (millivolts,) = to_millivolts([chunk])
        hole = feed.ring.write(header.n0, millivolts)
        if hole:
            feed.missing += hole
            feed.missed_ns = arrival_ns
        feed.valid, feed.pace = header.valid, header.pace
        feed.n_ref, feed.t_ref = header.n0, header.t0
        feed.heard_ns, feed.ingest_ns = arrival_ns, header.ingest_ns
        feed.chunk_s = len(chunk.samples) / header.fs / header.pace if header.pace else 0.0
        feed.ended = feed.ended or header.last
        feed.playout.hear(arrival_ns, header.n0, chunk.end, live=live)

    def take_finding(self, finding: Finding) -> None:
        """Take what the model says of a window; repeats and late ones are left out."""
        bed = self._bed(finding.bed)
        if bed is None:
            return
        last = bed.finding
        if last is not None and last.session == finding.session:
            if finding.window <= last.window:
                return
        elif finding.session in bed.former:
            return
        if bed.scores and finding.t_end <= bed.scores[-1].t_end:
            # A recording that begins again takes its device time back: the chart begins again, too.
            bed.scores.clear()
        bed.finding = finding
        bed.findings += 1
        score = math.nan if finding.score is None else finding.score
        bed.scores.append(
            ScorePoint(
                finding.t_start, finding.t_end, score, finding.threshold, finding.anomalous, finding.reason
            )
        )
        while bed.scores[-1].t_end - bed.scores[0].t_end > HISTORY_S * 1e9:
            bed.scores.popleft()

    def take_vitals(self, vitals: Vitals) -> None:
        """Take the vitals of a second; repeats and late ones are left out."""
        bed = self._bed(vitals.bed)
        if bed is None or vitals.session in bed.former:
            return
        last = bed.vitals
        if last is None or last.session != vitals.session or vitals.end > last.end:
            if last is not None and last.session != vitals.session:
                bed.seconds.clear()
            bed.vitals = vitals
            bed.seconds.append(vitals)

    def take_alarm(self, event: AlarmEvent, arrival_ns: int = 0) -> None:
        """Take a transition of an alarm; repeats and overtaken ones are left out."""
        if event.event in self._seen:
            return
        _remember(self._seen, event.event, None)
        if event.number <= self._transitions.get(event.alarm, -1):
            return
        _remember(self._transitions, event.alarm, event.number)
        ended = event.presence is Presence.OFF
        if event.bed == EVERY_BED:
            self.everywhere.pop(event.alarm, None)
            if not ended:
                self.everywhere[event.alarm] = event
            self.revision += 1
            return
        bed = self.beds.get(event.bed) if ended else self._bed(event.bed)
        if bed is None:
            return
        if ended or event.session in bed.former:
            bed.alarms.pop(event.alarm, None)
        else:
            bed.alarms[event.alarm] = event
            while len(bed.alarms) > _ALARMS_A_BED:
                del bed.alarms[next(iter(bed.alarms))]
            if event.presence is Presence.ON and not event.escalation:
                bed.named[event.alarm] = event.message
        bed.named = {alarm: text for alarm, text in bed.named.items() if alarm in bed.alarms}
        bed.alarm_ns = arrival_ns
        self.revision += 1

    def take_explanation(self, explanation: Explanation) -> None:
        """Take the arrays of a window, if they belong to a feed that is being heard."""
        header = explanation.header
        bed = self.beds.get(header.bed)
        feed = bed.feed if bed else None
        if bed is None or feed is None or feed.session != header.session:
            return
        if header.fs <= 0 or feed.sample_at(header.t_start) > feed.ring.stop:
            return
        bed.explanations.append(explanation)
        bed.explained += 1

    def forget_silent(self, now_ns: int) -> None:
        """Drop beds that have been silent for long and have no open alarm."""
        gone = [
            bed.name
            for bed in self.beds.values()
            if not bed.alarms
            and (bed.feed is None or (now_ns - bed.feed.heard_ns) / 1e9 > FORGET_S)
            and (now_ns - bed.alarm_ns) / 1e9 > FORGET_S
        ]
        for name in gone:
            del self.beds[name]
        if gone:
            self.revision += 1

    def _bed(self, name: str) -> Bed | None:
        bed = self.beds.get(name)
        if bed is None:
            if len(self.beds) >= _BEDS:
                self.left_out += 1
                return None
            bed = self.beds[name] = Bed(name)
            self.revision += 1
        return bed

    def _open(self, bed: Bed, chunk: SampleChunk, arrival_ns: int) -> Feed:
        header = chunk.header
        if bed.feed is not None and bed.feed.session != header.session:
            bed.former.append(bed.feed.session)
        # The worker ends the alarms of a feed that another one follows; should it have died before, nobody
        # would ever end them. On start, alarms are read before samples: those of a later feed stay.
        bed.alarms = {
            name: event
            for name, event in bed.alarms.items()
            if event.session == header.session or event.ingest_ns > header.ingest_ns
        }
        bed.explanations.clear()
        rows = max(1, int(min(RING_S * header.fs, _RING_VALUES / len(header.leads))))
        bed.feed = Feed(
            session=header.session,
            leads=header.leads,
            fs=header.fs,
            pace=header.pace,
            valid=header.valid,
            ring=SampleRing(rows, len(header.leads), header.n0),
            playout=Playout(header.fs, header.pace),
            first=header.n0,
            n_ref=header.n0,
            t_ref=header.t0,
            next_seq=header.seq,
            heard_ns=arrival_ns,
            ingest_ns=header.ingest_ns,
            chunk_s=0.0,
        )
        self.revision += 1
        return bed.feed


def _remember(memory: OrderedDict[str, _T], key: str, value: _T) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _EVENTS_REMEMBERED:
        memory.popitem(last=False)
