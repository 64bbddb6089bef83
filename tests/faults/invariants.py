"""What must be so whatever happened: looked up in what lies on the topics afterwards."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.session import Session
from stream import topics
from stream.alarms.conditions import ANOMALY
from stream.audit.log import AuditLog, verify
from stream.bus import Bus
from stream.contract import (
    INVALID,
    AlarmEvent,
    AlarmKind,
    Audit,
    Finding,
    MalformedMessageError,
    Presence,
    SampleChunk,
)
from stream.offline import Outcome, run
from stream.recording.segment import Segment
from stream.recording.store import Recordings

_Window = tuple[str, str, int]
# Of these the samples alone decide; the others tell of the way here, and depend on what happened.
_BY_SAMPLES = frozenset({"lead-off", "noise"})


@dataclass
class Evidence:
    """What lies on the topics of some beds, as it lies there: with repeats."""

    chunks: list[SampleChunk] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    events: list[AlarmEvent] = field(default_factory=list)
    audit: list[Audit] = field(default_factory=list)

    @property
    def thinned_out(self) -> set[str]:
        """Beds of which a worker said that it has no time for all of their windows."""
        return {event.bed for event in self.events if event.rule == "overload"}

    @property
    def windows(self) -> dict[_Window, Finding]:
        return {(one.bed, one.session, one.window): one for one in self.findings}


async def collect(bus: Bus, beds: Collection[str]) -> Evidence:
    """Read everything of some beds."""
    found = Evidence()
    async for entry in bus.kept(topics.SAMPLES):
        try:
            chunk = SampleChunk.decode(entry.value)
        except MalformedMessageError:
            continue
        if chunk.header.bed in beds:
            found.chunks.append(chunk)
    async for entry in bus.kept(topics.FINDINGS):
        finding = Finding.decode(entry.value)
        if finding.bed in beds:
            found.findings.append(finding)
    async for entry in bus.kept(topics.ALARMS):
        event = AlarmEvent.decode(entry.value)
        if event.bed in beds or event.bed == "*":
            found.events.append(event)
    async for _, audit in AuditLog(bus).entries():
        if isinstance(audit, Audit):
            found.audit.append(audit)
    return found


def expected_of(chunks: Sequence[SampleChunk], session: Session) -> Outcome:
    """Return what the same samples bring about without any fault."""
    outcome = Outcome()
    by_bed: defaultdict[str, list[SampleChunk]] = defaultdict(list)
    for chunk in chunks:
        by_bed[chunk.header.bed].append(chunk)
    for own in by_bed.values():
        one = run(_acceptable(own), session)
        outcome.findings += one.findings
        outcome.events += one.events
    return outcome


def _acceptable(chunks: Sequence[SampleChunk]) -> list[SampleChunk]:
    # Without what contradicts its own session, as poison does.
    first: dict[str, SampleChunk] = {}
    ends: dict[str, int] = {}
    good = []
    for chunk in chunks:
        header = chunk.header
        begin = first.setdefault(header.session, chunk).header
        if (header.leads, header.fs) != (begin.leads, begin.fs):
            continue
        if header.n0 < ends.get(header.session, 0) and header.seq > 100_000:
            continue
        ends[header.session] = max(ends.get(header.session, 0), chunk.end)
        good.append(chunk)
    return good


def violations(found: Evidence, expected: Outcome) -> list[str]:
    """Return what is not as it must be, in words; empty if all is well."""
    return [
        *_windows(found, expected),
        *_order(found),
        *_alarms(found, expected),
        *_audit(found),
    ]


def _windows(found: Evidence, expected: Outcome) -> list[str]:
    wanted = {(one.bed, one.session, one.window): one for one in expected.findings}
    got = found.windows
    wrong = []
    missing = [key for key in wanted.keys() - got.keys() if key[0] not in found.thinned_out]
    if missing:
        wrong.append(f"{len(missing)} windows neither scored nor marked, the first {min(missing)}")
    if extra := got.keys() - wanted.keys():
        wrong.append(f"{len(extra)} findings that no samples account for, the first {min(extra)}")
    for key in sorted(wanted.keys() & got.keys()):
        one, other = wanted[key], got[key]
        if one.reason != other.reason:
            wrong.append(f"window {key}: {other.reason!r} instead of {one.reason!r}")
        elif not math.isclose(one.score or 0.0, other.score or 0.0, rel_tol=1e-5, abs_tol=1e-5):
            wrong.append(f"window {key}: score {other.score} instead of {one.score}")
    verdicts: defaultdict[_Window, set[tuple[bool, str | None]]] = defaultdict(set)
    for finding in found.findings:
        key = (finding.bed, finding.session, finding.window)
        verdicts[key].add((finding.anomalous, finding.reason))
    wrong += [f"window {key}: two verdicts {told}" for key, told in verdicts.items() if len(told) > 1]
    return wrong


def _order(found: Evidence) -> list[str]:
    wrong = []
    newest: dict[tuple[str, str], int] = {}
    thinned_out = found.thinned_out
    seen: set[_Window] = set()
    for finding in found.findings:
        key = (finding.bed, finding.session)
        if (*key, finding.window) in seen:
            continue
        seen.add((*key, finding.window))
        # What one worker left out, another that was under way may still have scored.
        if finding.window < newest.get(key, -1) and finding.bed not in thinned_out:
            wrong.append(f"window {finding.window} of {key} came after {newest[key]}")
        newest[key] = finding.window
    return wrong


def _alarms(found: Evidence, expected: Outcome) -> list[str]:
    counts = Counter(event.event for event in found.events)
    wrong = [f"alarm event {event} is there {count} times" for event, count in counts.items() if count > 1]
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for event in found.events:
        numbers[event.alarm].append(event.number)
    named = {event.alarm: f"{event.rule} of {event.bed}" for event in found.events}
    for alarm, told in numbers.items():
        if sorted(set(told)) != sorted(told) or told != list(range(len(told))):
            wrong.append(f"alarm {alarm} ({named[alarm]}): transitions {told}")
    # Of a bed that is thinned out the score's alarm comes when enough of what is left is over its threshold.
    told_otherwise = {(bed, ANOMALY.rule) for bed in found.thinned_out}
    before, after = [
        _courses([event for event in events if (event.bed, event.rule) not in told_otherwise])
        for events in (expected.events, found.events)
    ]
    wrong += [f"alarm lost: {_words(expected.events, alarm)}" for alarm in before.keys() - after.keys()]
    wrong += [f"alarm too many: {_words(found.events, alarm)}" for alarm in after.keys() - before.keys()]
    wrong += [
        f"alarm {alarm} ({named[alarm]}): {after[alarm]} instead of {before[alarm]}"
        for alarm in before.keys() & after.keys()
        if before[alarm] != after[alarm]
    ]
    return wrong


def _courses(events: Sequence[AlarmEvent]) -> dict[str, tuple[str, ...]]:
    # What became of each alarm. Not that it was told again by the clock.
    courses: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for event in events:
        if event.kind is AlarmKind.TECHNICAL and event.rule not in _BY_SAMPLES:
            continue
        if courses[event.alarm][-1:] != (str(event.presence),):
            courses[event.alarm] += (str(event.presence),)
    return courses


def _words(events: Sequence[AlarmEvent], alarm: str) -> str:
    first = next(event for event in events if event.alarm == alarm)
    return f"{first.rule} of {first.bed}, session {first.session}, onset {first.onset} ({alarm})"


def _audit(found: Evidence) -> list[str]:
    wrong = [f"audit log: {problem}" for problem in verify(found.audit)]
    logged = Counter(entry.entry for entry in found.audit)
    # What watchers tell of workers they record as soon as they can, and not before they go on.
    wrong += [
        f"alarm event {event.event} is {logged[event.event]} times in the audit log"
        for event in found.events
        if event.bed != "*" and logged[event.event] != 1
    ]
    return wrong


def subscriber(heard: Path, found: Evidence) -> list[str]:
    """Compare what a subscriber was told with what lies on the topic: each once, in order."""
    wanted = [event.event for event in found.events]
    told = [
        line["event"]
        for line in map(json.loads, heard.read_text().splitlines())
        if line["event"] in set(wanted)
    ]
    if told == wanted:
        return []
    lost, twice = set(wanted) - set(told), [event for event, count in Counter(told).items() if count > 1]
    return [f"subscriber: {len(lost)} lost ({sorted(lost)[:3]}), {len(twice)} told twice ({twice[:3]})"]


def recorded(root: Path, found: Evidence) -> list[str]:
    """Compare what was recorded with the samples on the topic: all of them, as they came."""
    kept = Recordings(root)
    by_bed: defaultdict[str, list[SampleChunk]] = defaultdict(list)
    for chunk in found.chunks:
        by_bed[chunk.header.bed].append(chunk)
    wrong = []
    for bed, own in by_bed.items():
        segments = kept.segments(bed)
        good = _acceptable(own)
        missing = [chunk for chunk in good if not _is_recorded(segments, chunk)]
        if missing:
            first = missing[0].header
            wrong.append(
                f"recording of {bed}: {len(missing)} of {len(good)} chunks are not as they came, the first at"
                f" sample {first.n0} of session {first.session}"
            )
    return wrong


def _is_recorded(segments: Sequence[Segment], chunk: SampleChunk) -> bool:
    # An hour may end within it.
    n0, got = chunk.header.n0, np.full_like(chunk.samples, INVALID)
    for one in segments:
        begin, end = max(n0, one.begin.n0), min(chunk.end, one.end)
        if one.begin.session == chunk.header.session and begin < end:
            got[begin - n0 : end - n0] = one.read(begin, end)
    return bool(np.array_equal(got, chunk.samples))


def still_open(found: Evidence) -> list[str]:
    """Return alarms of beds that are not over although their feeds have ended on purpose."""
    last = {event.alarm: event for event in found.events if event.bed != "*"}
    return [
        f"alarm still open: {event.rule} of {event.bed}"
        for event in last.values()
        if event.presence is not Presence.OFF
    ]
