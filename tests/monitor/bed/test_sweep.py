from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.bed.sweep import Sweep, lead_order
from monitor.bed.trace import MONITOR_BAND, Grid, Trace
from monitor.live.ward import Feed, Ward
from stream.contract import INVALID
from tests.monitor.messages import T0, S, chunk, explanation, vitals


def feed_of(ward: Ward) -> Feed:
    feed = ward.beds["bed-1"].feed
    assert feed is not None
    return feed


class Board:
    """What a browser keeps of packets: static/bed-board.js, with rings that never end."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.head = head
        self.rows: dict[str, np.ndarray] = {}
        self.stop = 0

    def put(self, name: str, start: int, values: np.ndarray, points: int) -> None:
        empty = 0 if values.dtype == np.uint8 else INVALID
        rows = self.rows.setdefault(name, np.full((len(values), 20_000), empty, values.dtype))
        rows[:, start * points : start * points + values.shape[1]] = values

    def take(self, packet: dict[str, Any]) -> None:
        points = self.head["points"]
        if "trace" in packet:
            assert packet["start"] == self.stop or not self.stop
            self.put("trace", packet["start"], packet["trace"], points)
            self.stop = packet["start"] + packet["trace"].shape[1] // points
        for name, each in (("expected", points), ("spread", points), ("error", 1), ("attention", 1)):
            if name in packet:
                self.put(name, packet["from"], packet[name], each)
                assert packet["from"] + packet[name].shape[1] // each <= self.stop


def fill(ward: Ward, chunks: range, **options: Any) -> None:
    for seq in chunks:
        ward.take_chunk(chunk(seq, **options), T0)


@settings(deadline=None, max_examples=30)
@given(
    steps=st.lists(st.integers(0, 12), min_size=1, max_size=12),
    fs=st.sampled_from((100.0, 128.0, 257.0, 500.0)),
)
def test_packets_add_up_to_the_feed(steps: list[int], fs: float) -> None:
    n = round(fs / 5)
    ward = Ward()
    fill(ward, range(3), fs=fs, n=n)
    feed = feed_of(ward)
    sweep = Sweep(feed, MONITOR_BAND)
    sweep.follow(feed)
    first = sweep.news()
    board = Board(first)
    board.take(first)
    seq = 3
    for step in steps:
        fill(ward, range(seq, seq + step), fs=fs, n=n)
        seq += step
        assert sweep.follow(feed)
        packet = sweep.news()
        assert bool(packet) == bool(step)
        board.take(packet)
    whole = Trace(Grid(fs, 60.0), 2, MONITOR_BAND, 0)
    whole.push(feed.ring.read(0, feed.ring.stop))
    assert board.stop == whole.stop
    points = whole.read(0, whole.stop).T
    drawn = board.rows["trace"][:, : points.shape[1]].astype(float)
    np.testing.assert_allclose(np.where(drawn == INVALID, np.nan, drawn / 1000), points, atol=0.0006)


def test_what_the_model_says_waits_for_the_trace_and_is_sent_once() -> None:
    ward = Ward()
    fill(ward, range(20))
    feed = feed_of(ward)
    sweep = Sweep(feed, MONITOR_BAND)
    sweep.follow(feed)
    board = Board(sweep.news())
    # A window of eight seconds, of which four are there.
    sweep.explain(explanation(np.full((2, 800), 0.5)), 0.0)
    first = sweep.news()
    assert first["from"] == 0
    assert sweep.news() == {}
    board.stop = 500
    fill(ward, range(20, 45))
    sweep.follow(feed)
    second = sweep.news()
    assert second["from"] == first["from"] + first["expected"].shape[1] // 2
    assert set(second["expected"].ravel()) == {500}
    assert second["error_unit"] == "mV"
    assert "spread" not in second
    assert "temporal" not in second


def test_a_model_that_expects_a_spread_has_its_error_in_standard_deviations() -> None:
    ward = Ward()
    fill(ward, range(45))
    feed = feed_of(ward)
    sweep = Sweep(feed, MONITOR_BAND)
    sweep.follow(feed)
    sweep.news()
    flat = np.ones((2, 800))
    attention = np.repeat([[0.2], [0.8]], 100, axis=1)
    sweep.explain(
        explanation(
            flat,
            arrays={
                "error": flat * [[0.1], [np.nan]],
                "spread": flat * 0.05,
                "lead_attention": attention,
                "temporal_attention": np.full(100, 0.01),
            },
        ),
        0.0,
    )
    packet = sweep.news()
    assert (packet["error_most"], packet["error_unit"]) == (4.0, "SD")
    # Two of four standard deviations are half of the shades; 0 where nothing is known.
    assert set(packet["error"][0]) == {128}
    assert set(packet["error"][1]) == {0}
    assert set(packet["spread"].ravel()) == {50}
    # An even share is the middle.
    assert set(packet["temporal"].ravel()) == {128}
    assert packet["attention"][0].max() < 128 < packet["attention"][1].min()


def test_poor_leads_and_beats_come_with_their_seconds_once_the_trace_is_there() -> None:
    ward = Ward()
    fill(ward, range(7))
    feed = feed_of(ward)
    sweep = Sweep(feed, MONITOR_BAND)
    sweep.follow(feed)
    said = [vitals(0, issues={"II": ("noise",)}), vitals(1)]
    sweep.rate(said)
    packet = sweep.news()
    assert packet["seconds"] == [[0, 125, [1]]]
    assert packet["beats"] == [100]
    fill(ward, range(7, 11))
    sweep.follow(feed)
    sweep.rate(said)
    packet = sweep.news()
    assert packet["seconds"] == [[125, 250, []]]
    sweep.rate([vitals(2, session="another")])
    assert sweep.news() == {}


def test_a_page_that_comes_later_sees_what_is_held_but_not_the_filter_settle() -> None:
    ward = Ward()
    # An electrode's offset of 20 mV: the first seconds of what is held would swing wildly.
    for seq in range(200):
        ward.take_chunk(chunk(seq, millivolts=np.full((100, 2), 20.0)), T0)
    feed = feed_of(ward)
    sweep = Sweep(feed, MONITOR_BAND)
    sweep.follow(feed)
    packet = sweep.news()
    seconds = packet["trace"].shape[1] / 250
    assert seconds == pytest.approx(26, abs=0.1)
    assert np.abs(packet["trace"]).max() < 20


def test_another_feed_or_too_long_an_absence_ends_a_sweep() -> None:
    ward = Ward()
    ward.take_chunk(chunk(0), T0)
    sweep = Sweep(feed_of(ward), MONITOR_BAND)
    assert sweep.follow(feed_of(ward))
    ward.take_chunk(chunk(500, n0=50_000), T0)
    assert not sweep.follow(feed_of(ward))
    ward.take_chunk(chunk(0, session="s2"), T0 + S)
    assert not sweep.follow(feed_of(ward))


def test_voltages_off_the_scale_stay_at_its_end() -> None:
    ward = Ward()
    jump = np.where(np.arange(100)[:, np.newaxis] < 50, -30.0, 30.0) * np.ones((1, 2))
    ward.take_chunk(chunk(0, millivolts=jump), T0)
    sweep = Sweep(feed_of(ward), MONITOR_BAND)
    sweep.follow(feed_of(ward))
    assert sweep.news()["trace"].max() == 32767


def test_leads_stand_in_the_usual_order_and_unknown_ones_follow() -> None:
    names = ("X", "V1", "aVR", "MLII", "I")
    assert [names[column] for column in lead_order(names)] == ["I", "aVR", "V1", "X", "MLII"]
