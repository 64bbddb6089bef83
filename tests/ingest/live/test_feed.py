"""From pieces to chunks: cuts, short disorder and repeats make no difference; nothing is lost silently."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.live.feed import BedFeed, Progress
from ingest.live.reassembly import PATIENCE_NS
from ingest.live.source import Piece
from models.backends import open_session
from models.bundle import load_bundle
from stream.contract import INVALID, SampleChunk, Validity
from stream.offline import run as judged

FS = 250.0
T0 = 1_700_000_000_000_000_000
MS = 1_000_000

Samples = npt.NDArray[np.int16]


def signal(n: int, leads: int = 2) -> Samples:
    return (np.arange(n * leads).reshape(n, leads) % 30_000).astype(np.int16)


def at(sample: float, fs: float = FS) -> int:
    """Return the device time of a sample."""
    return T0 + round(sample * 1e9 / fs)


def piece(samples: Samples, start: int, *, late_ms: float = 5, **fields: Any) -> Piece:
    """Return the piece that begins with a sample; counted unless `n0` is None, and without a time."""
    fs = fields.get("fs", FS)
    end = at(start + len(samples), fs)
    usual: dict[str, Any] = {
        "bed": "b",
        "device": "d",
        "fs": fs,
        "leads": ("II", "V1"),
        "gain": (200.0, 200.0),
        "samples": samples,
        "arrived_ns": end + round(late_ms * MS),
        "n0": start,
    }
    return Piece(**usual | fields)


def cut(samples: Samples, lengths: Iterable[int], **fields: Any) -> list[Piece]:
    pieces, start = [], 0
    for length in lengths:
        if start < len(samples):
            pieces.append(piece(samples[start : start + length], start, **fields))
            start += length
    return pieces


def run(feed: BedFeed, pieces: Sequence[Piece], *, idle_ms: float = 300) -> list[SampleChunk]:
    """Feed pieces as they arrive, looking when something is due, and look once more at the end."""
    chunks: list[SampleChunk] = []
    for each in pieces:
        while (due := feed.due_ns()) is not None and due < each.arrived_ns:
            chunks += feed.take(due)
        feed.add(each)
        chunks += feed.take(each.arrived_ns)
    now = max(each.arrived_ns for each in pieces) + round(idle_ms * MS)
    while (due := feed.due_ns()) is not None and due <= now:
        chunks += feed.take(due)
    return chunks


def joined(chunks: Sequence[SampleChunk]) -> Samples:
    """Return the samples of one session, with what is missing as INVALID; check numbers on the way."""
    assert len({chunk.header.session for chunk in chunks}) == 1
    assert [chunk.header.seq for chunk in chunks] == list(range(len(chunks)))
    parts, end = [], 0
    for chunk in chunks:
        assert chunk.header.n0 >= end
        leads = chunk.samples.shape[1]
        parts += [np.full((chunk.header.n0 - end, leads), INVALID, np.int16), chunk.samples]
        end = chunk.end
    return np.concatenate(parts)


def timed(pieces: Sequence[Piece], jitter_ms: float = 0.0, seed: int = 0) -> list[Piece]:
    """Return the same pieces of a device that states times and counts nothing."""
    uneven = random.Random(seed)
    return [
        replace(each, n0=None, t_ns=at(each.n0 or 0, each.fs) + round(uneven.uniform(-1, 1) * jitter_ms * MS))
        for each in pieces
    ]


@given(
    lengths=st.lists(st.integers(1, 130), min_size=1, max_size=60),
    order=st.randoms(use_true_random=False),
    kept=st.sampled_from(["count", "time"]),
)
@settings(max_examples=150, deadline=None)
def test_neither_cut_nor_short_disorder_nor_repeats_change_what_is_published(
    lengths: list[int], order: random.Random, kept: str
) -> None:
    if kept == "time":
        # By time, shorter ones cannot be told apart.
        lengths = [length + 13 for length in lengths]
    samples = signal(min(1500, sum(lengths)))
    pieces = cut(samples, lengths)
    if kept == "time":
        pieces = timed(pieces)
    # Each may come up to 80 ms late, and may come again.
    late = [(each.arrived_ns + order.randrange(80) * MS, each) for each in pieces]
    late += [(arrived + order.randrange(300) * MS, each) for arrived, each in late if order.random() < 0.2]
    # The first defines where the session begins.
    late.sort(key=lambda row: (row[1] is not pieces[0], row[0]))
    feed = BedFeed("b", "d")

    chunks = run(feed, [replace(each, arrived_ns=arrived) for arrived, each in late], idle_ms=500)
    assert np.array_equal(joined(chunks), samples)
    for chunk in chunks:
        assert len(chunk.samples) <= 50
        assert abs(chunk.header.t0 - (at(chunk.header.n0) if kept == "time" else chunk.header.t0)) < MS


@pytest.mark.parametrize("length", [20, 30])
@pytest.mark.parametrize("kept", ["count", "time"])
def test_chunks_lie_on_a_grid_and_leave_no_later_than_patience_ends(kept: str, length: int) -> None:
    samples = signal(1000)
    pieces = cut(samples, [length] * 50)
    feed = BedFeed("b", "d")
    arrived = {}
    left = {}
    for each in pieces if kept == "count" else timed(pieces):
        while (due := feed.due_ns()) is not None and due < each.arrived_ns:
            left |= {chunk.header.n0: due for chunk in feed.take(due)}
        feed.add(each)
        arrived[len(arrived)] = each.arrived_ns
        left |= {chunk.header.n0: each.arrived_ns for chunk in feed.take(each.arrived_ns)}
    assert set(range(0, 1000, 50)) <= set(left)
    # Pieces of 80 ms fill a chunk before the patience with its first one ends, those of 120 ms do not.
    assert (len(left) == 20) == (length == 20)
    for n0, when in left.items():
        assert when - arrived[n0 // length] <= PATIENCE_NS


def test_a_hole_is_waited_for_and_then_is_a_gap_that_is_told_apart_from_lateness() -> None:
    samples = signal(500)
    pieces = cut(samples, [50] * 10)
    for lost in (timed(pieces), pieces):
        feed = BedFeed("b", "d")
        chunks = run(feed, [*lost[:3], *lost[4:]])
        assert [chunk.header.n0 for chunk in chunks] == [0, 50, 100, 200, 250, 300, 350, 400, 450]
        # It comes after all, when it is too late.
        feed.add(lost[3])
        assert feed.take(lost[9].arrived_ns + 10**9) == []
        assert feed.dropped == 50


@pytest.mark.parametrize("fs", [128.0, 250.0, 360.0, 500.0])
def test_stated_times_may_jitter_and_drift(fs: float) -> None:
    n = round(fs * 120)
    samples = signal(n)
    # 200 ppm too slow, which nobody corrects.
    length = round(fs * 0.1)
    pieces = timed(cut(samples, [length] * (n // length), fs=fs * (1 - 2e-4)), jitter_ms=15)

    chunks = run(BedFeed("b", "d"), [replace(each, fs=fs) for each in pieces])
    assert np.array_equal(joined(chunks), samples[: n // length * length])
    # Times go with the device's clock, not with the nominal rate.
    last = chunks[-1]
    assert abs(last.time_of(last.end) - at(last.end, fs * (1 - 2e-4))) < 20 * MS


def test_what_a_lead_is_flagged_as() -> None:
    samples = signal(100)
    ok, off, poor = Validity.OK, Validity.OFF, Validity.QUESTIONABLE
    pieces = cut(samples, [25] * 4)

    flags = [(ok, ok), (off, poor), None, (off, ok)]
    chunks = run(BedFeed("b", "d"), [replace(p, valid=f) for p, f in zip(pieces, flags, strict=True)])
    assert [chunk.header.valid for chunk in chunks] == [(ok, poor), (ok, ok)]
    data = joined(chunks)
    assert (data[25:50, 0] == INVALID).all()
    assert (data[75:, 0] == INVALID).all()
    untouched = np.ones(data.shape, bool)
    untouched[25:50, 0] = untouched[75:, 0] = False
    assert np.array_equal(data[untouched], samples[untouched])
    missing = np.full((50, 2), INVALID, np.int16)
    missing[:, 1] = 1
    assert run(BedFeed("b", "d"), [piece(missing, 0)])[0].header.valid == (off, ok)


@pytest.mark.parametrize(
    "change",
    [
        {"fs": 500.0},
        {"leads": ("II", "V2")},
        {"gain": (100.0, 200.0)},
        {"n0": None},
        {"n0": 250 * 3600},
    ],
)
def test_another_format_or_count_is_another_session(change: dict[str, Any]) -> None:
    samples = signal(110)
    feed = BedFeed("b", "d")
    chunks = run(feed, [piece(samples[:60], 0), piece(samples[60:], 60, **change)])
    sessions = [chunk.header.session for chunk in chunks]
    assert len(set(sessions)) == 2
    assert sum(len(chunk.samples) for chunk in chunks) == 110
    first = [chunk for chunk in chunks if chunk.header.session == sessions[0]]
    assert np.array_equal(joined(first), samples[:60])


def test_a_device_that_counts_anew_begins_a_session_once_it_has_nothing_old_to_say() -> None:
    samples = signal(2000)
    pieces = cut(samples, [50] * 40)

    # The device restarts after four seconds and a half.
    again = [replace(each, arrived_ns=each.arrived_ns + 4_500 * MS) for each in pieces[:20]]
    chunks = run(BedFeed("b", "d"), [*pieces[:20], *again])
    assert len({chunk.header.session for chunk in chunks}) == 2
    lost = sum(len(p.samples) for p in [*pieces[:20], *again]) - sum(len(chunk.samples) for chunk in chunks)
    assert lost == 550
    # With a time that is new, at once.
    told = [replace(each, t_ns=each.arrived_ns) for each in [*pieces[:20], *again]]
    chunks = run(BedFeed("b", "d"), told)
    assert len({chunk.header.session for chunk in chunks}) == 2
    assert sum(len(chunk.samples) for chunk in chunks) == 2000
    # One that repeats the last second does not.
    repeats = [replace(each, arrived_ns=pieces[19].arrived_ns + n) for n, each in enumerate(pieces[15:20])]
    assert len({chunk.header.session for chunk in run(BedFeed("b", "d"), [*pieces[:20], *repeats])}) == 1


def test_without_count_and_time_samples_follow_one_another_until_a_silence() -> None:
    samples = signal(1000)
    pieces = cut(samples, [50] * 20, n0=None)

    # A second late, then all that was held up at once: nothing was lost.
    held = [replace(each, arrived_ns=pieces[14].arrived_ns + n) for n, each in enumerate(pieces[10:15])]
    chunks = run(BedFeed("b", "d"), [*pieces[:10], *held, *pieces[15:]])
    assert np.array_equal(joined(chunks), samples)
    assert abs(chunks[-1].time_of(1000) - at(1000)) < 20 * MS
    # Five seconds of silence are a hole of about five seconds.
    after = [replace(each, arrived_ns=each.arrived_ns + 5_000 * MS) for each in pieces[10:]]
    chunks = run(BedFeed("b", "d"), [*pieces[:10], *after])
    assert len({chunk.header.session for chunk in chunks}) == 1
    hole = next(b.header.n0 - a.end for a, b in itertools.pairwise(chunks) if b.header.n0 > a.end)
    assert abs(hole - 5 * FS) < 30
    # No sample is from the future, whatever came in a heap at the beginning.
    heap = [replace(each, arrived_ns=T0 + n) for n, each in enumerate(pieces)]
    assert all(chunk.time_of(chunk.end) <= T0 + 1000 for chunk in run(BedFeed("b", "d"), heap)[1:])


@pytest.mark.parametrize(("actual", "stated"), [(500.0, 250.0), (125.0, 250.0), (256.0, 250.0)])
@pytest.mark.parametrize("kept", ["count", "time", "arrival"])
def test_a_wrong_rate_is_noticed(actual: float, stated: float, kept: str) -> None:

    n = round(actual * 90)
    pieces = cut(signal(n), [50] * (n // 50), fs=actual)
    if kept == "time":
        pieces = [replace(each, n0=None, t_ns=at(each.n0 or 0, actual)) for each in pieces]
    elif kept == "arrival":
        pieces = [replace(each, n0=None) for each in pieces]
    feed = BedFeed("b", "d")
    run(feed, [replace(each, fs=stated) for each in pieces])
    assert feed.wrong_rate is not None
    assert f"{stated:g} Hz is stated" in feed.wrong_rate
    told = float(feed.wrong_rate.split()[4])
    assert told == pytest.approx(actual, rel=0.02)


@pytest.mark.slow
def test_a_wrong_rate_is_told_once_by_the_adapter_or_else_by_the_worker() -> None:
    # Twice as fast as stated, for so long that both would have noticed.
    pieces = cut(signal(500 * 60), [50] * 600, fs=500.0)
    feed = BedFeed("b", "d", adapter="tcp:8040")
    chunks = run(feed, [replace(each, fs=250.0) for each in pieces])
    assert feed.wrong_rate is not None
    assert {chunk.header.source for chunk in chunks} == {"d (tcp:8040)"}
    session = open_session(load_bundle("cae-100hz"))
    assert "wrong-rate" not in {event.rule for event in judged(chunks, session).events}
    unlooked = [
        SampleChunk(chunk.header.model_copy(update={"source": ""}), chunk.samples) for chunk in chunks
    ]
    assert "wrong-rate" in {event.rule for event in judged(unlooked, session).events}


@pytest.mark.parametrize("kept", ["count", "time", "arrival"])
def test_a_right_rate_is_not_doubted(kept: str) -> None:
    uneven = random.Random(3)
    pieces = cut(signal(round(FS * 90)), [50] * 450)
    if kept == "time":
        pieces = timed(pieces, jitter_ms=10)
    elif kept == "arrival":
        pieces = [replace(each, n0=None) for each in pieces]
    late, arrived = [], 0
    for number, each in enumerate(pieces):
        # A bad network: half a second of jitter, and a stop of three seconds that ends in a heap.
        held = pieces[220].arrived_ns if 205 <= number < 220 else each.arrived_ns
        arrived = max(arrived, held + uneven.randrange(500) * MS)
        late.append(replace(each, arrived_ns=arrived))
        if uneven.random() < 0.05 and kept != "arrival":
            late.append(replace(each, arrived_ns=arrived))
    feed = BedFeed("b", "d")
    wrong = []
    for each in late:
        feed.add(each)
        feed.take(each.arrived_ns)
        wrong.append(feed.wrong_rate)
    assert set(wrong) == {None}


def test_a_session_goes_on_in_another_process_where_the_device_tells() -> None:

    samples = signal(1000)
    pieces = cut(samples, [50] * 20, n0=None)
    counted = [replace(each, n0=7_000 + 50 * number) for number, each in enumerate(pieces)]
    for told in (counted, timed(cut(samples, [50] * 20))):
        feed = BedFeed("b", "d")
        before = run(feed, told[:10])
        last = before[-1]
        assert feed.session is not None
        progress = Progress(feed.session, feed.counted_from, last.header, last.end)
        # It reads again what was published, and two pieces are gone.
        after = run(BedFeed("b", "d", progress), [*told[7:10], *told[12:]])
        data = joined([*before, *after])
        assert (data[500:600] == INVALID).all()
        data[500:600] = samples[500:600]
        assert np.array_equal(data, samples)
    # Nobody can tell what is missing; and a changed device has another session.
    for changed in (pieces[12:], [replace(each, gain=(1.0, 1.0)) for each in counted[12:]]):
        assert run(BedFeed("b", "d", progress), changed)[0].header.session != progress.session


def test_the_end_of_a_feed_is_said_and_what_follows_is_another() -> None:
    samples = signal(130)
    feed = BedFeed("b", "d")
    chunks = run(feed, [piece(samples[:80], 0), piece(samples[:0], 80, last=True)])
    assert [len(chunk.samples) for chunk in chunks] == [50, 30, 0]
    assert [chunk.header.last for chunk in chunks] == [False, False, True]
    assert feed.ended
    assert feed.end(at(90)) == []
    again = run(feed, [piece(samples[80:], 80)])
    assert again[0].header.session != chunks[0].header.session
    assert again[0].header.n0 == 0
    assert [chunk.header.last for chunk in feed.end(at(140))] == [True]


def test_a_device_that_sends_nothing_but_holes_is_not_waited_for_for_ever() -> None:
    # Faster than patience ends: every other sample, five thousand of them at once.
    feed, most, left = BedFeed("b", "d"), 0, 0
    for number in range(5_000):
        feed.add(piece(signal(1), 2 * number, arrived_ns=T0))
        left += len(feed.take(T0))
        most = max(most, number + 1 - left)
    assert most < 1000


@given(
    st.lists(
        st.tuples(
            st.integers(1, 40),
            st.one_of(st.none(), st.integers(0, 2**62 - 1), st.integers(0, 2000)),
            st.one_of(st.none(), st.integers(0, 2**62 - 1), st.integers(T0, T0 + 10**10)),
            st.integers(0, 400),
            st.booleans(),
        ),
        max_size=60,
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_a_device_counts_and_states_chunks_are_in_order(
    sent: list[tuple[int, int | None, int | None, int, bool]],
) -> None:
    feed, now, chunks, samples = BedFeed("b", "d"), T0, [], 0
    for n, n0, t_ns, pause_ms, last in sent:
        now += pause_ms * MS
        feed.add(piece(signal(n), 0, n0=n0, t_ns=t_ns, arrived_ns=now, last=last))
        samples += n
        chunks += feed.take(now)
    chunks += feed.end(now)
    assert sum(len(chunk.samples) for chunk in chunks) + feed.dropped == samples
    ends: dict[str, tuple[int, int]] = {}
    for chunk in chunks:
        header = chunk.header
        seq, end = ends.get(header.session, (-1, 0))
        assert header.seq == seq + 1
        assert header.n0 >= end
        assert SampleChunk.decode(chunk.encode()).header == header
        ends[header.session] = (header.seq, chunk.end)
