"""What a source does wrong: clocks that part, rates that are not those, leads that change, two at one bed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stream.contract import AlarmEvent, Presence, SampleChunk
from stream.engine import Engine, RefusedChunkError
from stream.skew import SkewMeter
from tests.stream.synthetic import T0, StandIn, ecg, every, feed, small_manifest

FS = 250.0
SECOND_NS = 1_000_000_000
SESSION = StandIn(small_manifest())


def chunks_of(seconds: float, session: str = "s", **fields: Any) -> list[SampleChunk]:
    n = round(seconds * FS)
    made = feed(ecg(seconds, FS), FS, every(0.2, FS, n), session=session)
    return [
        replace(c, header=c.header.model_copy(update={"pace": 1.0, "ingest_ns": c.time_of(c.end), **fields}))
        for c in made
    ]


def changed(chunk: SampleChunk, **fields: Any) -> SampleChunk:
    return replace(chunk, header=chunk.header.model_copy(update=fields))


def heard(chunks: list[SampleChunk]) -> list[AlarmEvent]:
    """Return what is said of the source."""
    engine, events = Engine(SESSION.manifest, SESSION.precision), []
    for chunk in chunks:
        try:
            accepted = engine.accept(chunk, chunk.header.ingest_ns)
            events += accepted.events
            for pending in accepted.windows:
                engine.conclude(pending, None)
        except RefusedChunkError as error:
            events += error.events
    return [e for e in events if e.rule in ("feed-refused", "bed-claimed", "wrong-rate", "clock-skew")]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"fs": 500.0}, "fs: changed within a session from 250 to 500 Hz"),
        ({"leads": ("I", "II", "V6")}, "leads: changed within a session from I II V1 to I II V6"),
    ],
)
def test_a_feed_that_changes_within_its_session_is_refused_aloud(fields: dict[str, Any], why: str) -> None:
    chunks = chunks_of(20)
    wrong = [changed(chunk, **fields) for chunk in chunks[40:60]]
    on, off = heard([*chunks[:40], *wrong, *chunks[60:]])
    assert (on.rule, on.priority, on.presence) == ("feed-refused", "medium", Presence.ON)
    assert why in on.message
    assert "session s:" in on.message
    assert on.onset == 2000
    # Two seconds after the first one that is as they were before.
    assert off.presence is Presence.OFF
    assert off.since - T0 == pytest.approx(14.2 * SECOND_NS, abs=0.2 * SECOND_NS)


def test_a_second_device_at_a_bed_is_told_until_it_stops() -> None:
    first, second = chunks_of(30, "first"), chunks_of(30, "second")
    # The second one begins at 5 s and is heard from then on; the first one goes on until 12 s.
    mixed = [(c.header.ingest_ns, n, c) for n, chunks in enumerate((first, second)) for c in chunks]
    sent = [
        chunk
        for at, device, chunk in sorted(mixed, key=lambda one: one[:2])
        if (at - T0 < 12 * SECOND_NS if device == 0 else at - T0 > 5 * SECOND_NS)
    ]
    on, off = heard(sent)
    assert (on.rule, on.priority, on.presence) == ("bed-claimed", "medium", Presence.ON)
    assert "session second is heard, session first sends, too" in on.message
    assert on.since - T0 == pytest.approx(6.2 * SECOND_NS, abs=0.4 * SECOND_NS)
    assert off.presence is Presence.OFF
    assert off.since - T0 == pytest.approx(17 * SECOND_NS, abs=0.4 * SECOND_NS)


def test_alarms_of_a_session_name_the_device_where_it_is_stated() -> None:
    first, second = (
        chunks_of(20, "first", source="A (tcp:8040)"),
        chunks_of(20, "second", source="B\x1b\n(ws)"),
    )
    wrong = [changed(chunk, leads=("I", "II", "V6")) for chunk in second[40:42]]
    refused, claimed = heard([first[0], *second[:40], *wrong, *first[40:42]])
    assert refused.rule == "feed-refused"
    assert refused.message.startswith("feed refused: session second from B (ws): leads: changed")
    assert claimed.rule == "bed-claimed"
    said = "session second from B (ws) is heard, session first from A (tcp:8040) sends, too"
    assert claimed.message == f"two devices claim the bed: {said}"


def test_what_a_publisher_sends_again_of_the_session_before_claims_nothing() -> None:
    first, second = chunks_of(5, "first"), chunks_of(10, "second")
    later = [changed(c, ingest_ns=c.header.ingest_ns + 5 * SECOND_NS) for c in second]
    assert heard([*first, *later[:30], *first[-10:], *later[30:]]) == []


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize(("rate", "told"), [(125.0, True), (275.0, True), (245.0, False), (250.0, False)])
def test_a_rate_that_is_not_the_stated_one_is_told(rate: float, told: bool, derived: bool) -> None:
    # Device time by its clock, or counted from its samples.
    def at(chunk: SampleChunk) -> SampleChunk:
        real = T0 + round(chunk.end / rate * 1e9)
        t0 = chunk.header.t0 if derived else T0 + round(chunk.header.n0 / rate * 1e9)
        return changed(chunk, ingest_ns=real, t0=t0)

    events = [event for event in heard([at(chunk) for chunk in chunks_of(70)]) if event.rule == "wrong-rate"]
    assert [event.presence for event in events] == [Presence.ON] * told
    for event in events:
        assert f"session s states 250 Hz, {rate:.0f} samples a second came" in event.message
        assert event.message.startswith(f"wrong rate of bed {event.bed}: ")


def test_a_device_that_pauses_has_no_wrong_rate() -> None:
    chunks = chunks_of(80)
    late = 15 * SECOND_NS
    paused = [
        changed(c, ingest_ns=c.header.ingest_ns + late, t0=c.header.t0 + late) if c.header.seq > 150 else c
        for c in chunks
    ]
    assert heard(paused) == []


@pytest.mark.parametrize(
    "clock",
    [lambda s: 200e-6 * s, lambda s: -3.0 * (s > 30), lambda s: 0.0],
    ids=["200 ppm fast", "set back by 3 s", "right"],
)
def test_the_skew_is_estimated_through_jitter(clock: Callable[[float], float]) -> None:
    meter = SkewMeter(FS)
    for number in range(1, 5 * 600):
        second = number * 0.2
        # Up to 100 ms late, now and then not.
        jitter = (number * 7919 % 100) / 1000
        meter.add(round((second + jitter) * 1e9), round((second + clock(second)) * 1e9), number * 50)
    # Until the last full ten seconds; the first ten are the reference.
    assert meter.skew_s == pytest.approx(-clock(590) + clock(5), abs=0.004)
    assert meter.wrong_rate is None
