"""Fault scripts end to end: a real server, a real worker, and the technical alarms that come of them."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest

from bench.ward import Ward
from ingest.chunks import Feed
from ingest.faults.line import BedFaults
from ingest.faults.script import parse_script
from ingest.publisher import BusPublisher
from ingest.replay import replay
from ingest.simulator import PatientSimulator
from stream.contract import AlarmEvent, Finding, Presence
from stream.topics import ALARMS, FINDINGS

SECONDS = 40.0
# Not as fast as possible, which has no silence, and fast enough for a test.
SPEED = 16.0
START = 1_700_000_000_000_000_000
S = 1_000_000_000

FAULTS = {
    "clean": "{fault: drop, at: 1000}",
    # Behind the chunk that ends the session nothing is waited for.
    "late": "{fault: reorder, seconds: 0.5, probability: 0.3, at: 1, for: 36}, {fault: duplicate}",
    "off": "{fault: lead-off, leads: [V1], at: 15, for: 8}",
    "rail": "{fault: saturation, leads: [V1], at: 15, for: 8}",
    "noise": "{fault: noise, kind: muscle, snr_db: -12, at: 12, for: 20}",
    "gap": "{fault: gap, at: 15, for: 5}",
    "back": "{fault: disconnect, at: 15, for: 3}",
    "rate": "{fault: rate-change, fs: 200, at: 15, for: 1}",
    "leads": "{fault: lead-set, leads: [II], at: 15, for: 1}",
    "two": "{fault: second-device, at: 5}",
    "gone": "{fault: disconnect, at: 20}",
}
# Of the feed and its signal; whatever the model and a busy machine have to say.
RULES = {"feed-lost", "feed-refused", "bed-claimed", "wrong-rate", "clock-skew", "lead-off", "noise"}
COME_OF_IT = {
    "off": {"lead-off"},
    "rail": {"lead-off"},
    "noise": {"noise"},
    "gap": {"feed-lost"},
    "rate": {"feed-refused"},
    "leads": {"feed-refused"},
    "two": {"bed-claimed"},
    "gone": {"feed-lost"},
}
# Those that are heard to the end.
HEARD = FAULTS.keys() - {"two", "gone"}

Seen = tuple[list[AlarmEvent], list[Finding]]


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Play all beds at once; return the alarms and findings that came."""
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        return asyncio.run(play(Path(name)))


async def play(directory: Path) -> Seen:
    feeds = [
        Feed(
            bed,
            PatientSimulator(1, fs=250.0, duration_s=SECONDS),
            session=f"of-{bed}",
            base_time_ns=START,
            faults=BedFaults(parse_script(f"faults: [{faults}]".encode()), bed, seed=1),
        )
        for bed, faults in FAULTS.items()
    ]
    events: list[AlarmEvent] = []
    findings: list[Finding] = []
    with Ward(directory) as ward:
        await ward.ready()
        async with await ward.connect() as bus, asyncio.timeout(60):
            await replay(feeds, BusPublisher(bus), speed=SPEED)
            to_come = {*HEARD, "gone"}
            async for entry in bus.tail(ALARMS, FINDINGS, after="0"):
                if entry.topic == ALARMS:
                    events.append(event := AlarmEvent.decode(entry.value))
                    to_come -= {"gone"} if (event.bed, event.rule) == ("gone", "feed-lost") else set()
                else:
                    findings.append(finding := Finding.decode(entry.value))
                    to_come -= {finding.bed} if finding.t_end > START + (SECONDS - 1.5) * S else set()
                if not to_come:
                    break
        ward.check()
    return events, findings


def test_each_fault_has_its_technical_alarm_and_no_other(seen: Seen) -> None:
    told = defaultdict(set)
    for event in seen[0]:
        if event.presence is Presence.ON and event.rule in RULES:
            told[event.bed].add(event.rule)
    assert dict(told) == COME_OF_IT


def test_the_alarm_says_what_and_when(seen: Seen) -> None:
    on = {event.bed: event for event in seen[0] if event.rule in RULES and event.number == 0}
    assert on["off"].message == "lead V1 off"
    assert (on["off"].onset_t - START) / S == pytest.approx(15, abs=2.5)
    assert "session of-rate: fs: changed within a session from 250 to 200 Hz" in on["rate"].message
    assert "leads: changed within a session from I II " in on["leads"].message
    assert "session of-two-1 is heard, session of-two sends, too" in on["two"].message
    assert (on["gap"].onset_t - START) / S == pytest.approx(15, abs=0.3)


def test_chunks_out_of_order_change_no_finding(seen: Seen) -> None:
    scores = defaultdict(dict)
    for finding in seen[1]:
        scores[finding.bed][finding.window] = finding.score
    # A worker with too much to do leaves windows out.
    both = scores["clean"].keys() & scores["late"].keys()
    assert len(both) > 10
    for window in both:
        assert scores["late"][window] == pytest.approx(scores["clean"][window], rel=1e-5, abs=1e-6)


def test_who_was_disconnected_comes_back_as_another_session(seen: Seen) -> None:
    sessions = [finding.session for finding in seen[1] if finding.bed == "back"]
    assert list(dict.fromkeys(sessions)) == ["of-back", "of-back-1"]
