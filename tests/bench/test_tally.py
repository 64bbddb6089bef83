"""The count of what comes out must notice what does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from bench.tally import Sent, Tally, percentiles_ms
from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from models.bundle import load_bundle
from models.manifest import WindowSpec
from stream.contract import Finding, SampleChunk, Stamps

MS = 1_000_000


class Nowhere:
    async def publish(self, chunks: Sequence[SampleChunk]) -> None:
        pass


@pytest.fixture(scope="module")
def spec() -> WindowSpec:
    return load_bundle("cae-100hz").manifest.window


def finding(window: int, *, bed: str = "b", session: str = "s") -> Finding:
    return Finding(
        bed=bed,
        session=session,
        model="m",
        window=window,
        start=0,
        end=1,
        t_start=0,
        t_end=1,
        score=0.0,
        threshold=1.0,
        percentile=50.0,
        lead_scores={},
        anomalous=False,
        stamps=Stamps(
            ingest_ns=0, dequeued_ns=1 * MS, ready_ns=3 * MS, inferred_ns=6 * MS, published_ns=10 * MS
        ),
    )


def sent_for(seconds: float) -> Sent:
    sent = Sent(Nowhere())
    chunks = chunks_of(PatientSimulator(1, duration_s=seconds), "b", "s")
    asyncio.run(sent.publish(list(chunks)))
    return sent


def test_every_window_that_is_due_and_missing_counts_as_lost(spec: WindowSpec) -> None:
    # 10 s of signal hold the windows that begin at 0, 0.5, 1 and 1.5 s; the one at 2 s is just complete, and
    # not demanded because the resampler may still look ahead.
    sent, tally = sent_for(10.0), Tally()
    assert tally.lost(sent, spec) == 4
    for window in (0, 1, 3):
        tally.take_finding(finding(window), 12 * MS)
    assert tally.lost(sent, spec) == 1
    assert asyncio.run(tally.lost_at_last(sent, spec, 0.01)) == 1
    tally.take_finding(finding(2), 12 * MS)
    assert asyncio.run(tally.lost_at_last(sent, spec, 0.01)) == 0


def test_findings_of_another_session_do_not_make_up_for_it(spec: WindowSpec) -> None:
    sent, tally = sent_for(10.0), Tally()
    for window in range(5):
        tally.take_finding(finding(window, session="other"), 12 * MS)
    assert tally.lost(sent, spec) == 4


def test_a_feed_shorter_than_a_window_owes_nothing(spec: WindowSpec) -> None:
    assert Tally().lost(sent_for(7.0), spec) == 0


def test_repeats_are_counted_apart() -> None:
    tally = Tally()
    tally.take_finding(finding(0), 12 * MS)
    tally.take_finding(finding(0), 99 * MS)
    assert (tally.findings, tally.repeated_findings) == (1, 1)
    assert tally.delays_ms == [12.0]


def test_percentiles_of_nothing_are_none() -> None:
    assert set(percentiles_ms([]).values()) == {None}
    assert percentiles_ms([1.0, 2.0, 3.0])["max"] == 3.0
