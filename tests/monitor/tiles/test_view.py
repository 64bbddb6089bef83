from __future__ import annotations

import json

import numpy as np
import pytest

from monitor.bed.trace import MONITOR_BAND, Grid, Trace
from monitor.live.ward import Ward
from monitor.tiles.strips import STRIP_S, Strips, columns_for
from monitor.tiles.view import LEAF, WardState, WardView
from stream.contract import INVALID, Validity
from tests.monitor.messages import T0, S, beats, chunk, finding, vitals

FS = 500.0
CHUNK_NS = S // 5
GAP = 0.06


class Screen:
    """What a browser makes of a view's news; see `static/ward.js`."""

    def __init__(self, view: WardView) -> None:
        self._state = view.models["state"]
        assert isinstance(self._state, WardState)
        self.strips: dict[int, np.ndarray] = {}
        self.heads: dict[int, int] = {}
        self.packets = 0
        self._state.on_change("strips", lambda _attr, _old, new: self._take(new))

    @property
    def tiles(self) -> dict[str, dict[str, object]]:
        return {tile["bed"]: tile for tile in json.loads(self._state.tiles)["beds"]}

    @property
    def trends(self) -> dict[str, list[float | None]]:
        return dict(json.loads(self._state.trends))

    def _take(self, packet: bytes) -> None:
        self.packets += 1
        at = 0
        while at < len(packet):
            number, first, count, total = (int(n) for n in np.frombuffer(packet, "<u2", 4, at))
            points = np.frombuffer(packet, "<i2", count, at + 8)
            at += 8 + 2 * count
            strip = self.strips.setdefault(number, np.full(total, INVALID, np.int16))
            assert len(strip) == total
            strip[(first + np.arange(count)) % total] = points
            gap = int(np.ceil(GAP * total))
            strip[(first + count + np.arange(gap)) % total] = INVALID
            self.heads[number] = (first + count) % total

    def newest(self, bed: str) -> np.ndarray:
        """Return a bed's points in millivolts, oldest first, NaN where there is none."""
        number = self.tiles[bed]["strip"]
        assert isinstance(number, int)
        turned = np.roll(self.strips[number], -self.heads[number]).astype(float)
        return np.where(turned == INVALID, np.nan, turned / 1000)


def feed(ward: Ward, bed: str, seq: int, leads: tuple[str, ...] = ("I", "II"), **fields: object) -> None:
    ward.take_chunk(chunk(seq, bed=bed, leads=leads, **fields), T0 + (seq + 1) * CHUNK_NS)  # type: ignore[arg-type]


def shown(ward: Ward, pixels: float = 300.0) -> tuple[WardView, Screen]:
    view = WardView(ward, Strips(ward), lambda: list(ward.beds))
    state = view.models["state"]
    assert isinstance(state, WardState)
    state.pixels = pixels
    return view, Screen(view)


def expected(pixels: float, samples: int, column: int = 1) -> np.ndarray:
    """Return the points that a trace of the whole feed has."""
    grid = Grid(FS, STRIP_S, columns_for(pixels) / STRIP_S)
    trace = Trace(grid, 1, MONITOR_BAND, 0)
    trace.push(beats(0, samples, FS, 2)[:, [column]].astype(np.float32))
    return trace.read(trace.stop - grid.buckets, trace.stop)[:, 0]


@pytest.mark.parametrize("pixels", [100.0, 300.0, 1900.0])
def test_strips_show_what_the_bed_view_would(pixels: float) -> None:
    ward = Ward()
    view, screen = shown(ward, pixels)
    for seq in range(150):
        for bed in ("bed-1", "bed-2", "bed-3", "bed-4", "bed-5"):
            feed(ward, bed, seq)
        view.show(None, T0 + (seq + 1) * CHUNK_NS)
    # The newest points wait for their turn on the screen, for a second at most.
    drawn, wanted = screen.newest("bed-3"), expected(pixels, 150 * 100)
    for late in range(len(wanted) // 5):
        there = slice(len(drawn) // 2, None)
        if np.allclose(drawn[there], np.roll(wanted, late)[there], atol=2e-3):
            break
    else:
        pytest.fail("the strip is not that of the trace")
    gap = np.flatnonzero(np.isnan(drawn))
    assert gap[0] == 0
    assert len(gap) == pytest.approx(GAP * len(drawn), abs=2), "an empty part in front of the trace"
    assert len(drawn) <= 2 * max(pixels, 140), "no more than two points to a pixel"


def test_a_gap_in_the_samples_is_a_gap_in_the_strip() -> None:
    ward = Ward()
    view, screen = shown(ward)
    for seq in range(60):
        if not 40 <= seq < 45:
            feed(ward, "bed-1", seq)
        view.show(None, T0 + (seq + 1) * CHUNK_NS)
    absent = np.isnan(screen.newest("bed-1")).mean()
    assert absent == pytest.approx(GAP + 1.0 / STRIP_S, abs=0.02)


def test_a_page_that_comes_later_gets_the_past_and_all_strips_sweep_together() -> None:
    ward = Ward()
    for seq in range(60):
        feed(ward, "bed-1", seq)
        if seq >= 13:
            feed(ward, "bed-2", seq - 13, session="s2", t0=T0 + seq * CHUNK_NS)
    view, screen = shown(ward)
    view.show(None, T0 + 60 * CHUNK_NS)
    assert np.isfinite(screen.newest("bed-1")).mean() > 0.9
    heads = [screen.heads[tile["strip"]] for tile in screen.tiles.values()]  # type: ignore[index]
    assert abs(heads[0] - heads[1]) <= 4


def test_updates_of_many_beds_come_at_a_rate_that_can_be_drawn() -> None:
    ward = Ward()
    view, screen = shown(ward)
    for tick in range(500):
        now = T0 + tick * 40_000_000
        if tick % 5 == 0:
            for bed in range(16):
                feed(ward, f"bed-{bed}", tick // 5)
        view.show(None, now)
    assert 7.5 <= screen.packets / 20 <= 9


def test_another_lead_takes_the_place_of_one_that_is_off() -> None:
    ward = Ward()
    view, screen = shown(ward)
    for seq in range(80):
        off = {"II": Validity.OFF} if seq >= 40 else {}
        feed(ward, "bed-1", seq, valid=off)
        view.show(None, T0 + (seq + 1) * CHUNK_NS)
        if seq == 39:
            assert screen.tiles["bed-1"]["lead"] == "II"
    assert screen.tiles["bed-1"]["lead"] == "I"
    # The whole strip is of that lead, also what came before.
    assert np.isfinite(screen.newest("bed-1")).mean() > 0.9


def test_a_leaf_holds_64_beds_and_no_strip_of_another() -> None:
    ward = Ward()
    view, screen = shown(ward)
    for bed in range(LEAF + 3):
        feed(ward, f"bed-{bed}", 0)
    view.show(None, T0 + CHUNK_NS)
    assert list(screen.tiles) == [f"bed-{bed}" for bed in range(LEAF)]
    assert len(screen.strips) == LEAF
    state = view.models["state"]
    assert isinstance(state, WardState)
    state.leaf = 1
    view.show(None, T0 + CHUNK_NS)
    assert list(screen.tiles) == ["bed-64", "bed-65", "bed-66"]
    state.leaf = 9
    view.show(None, T0 + CHUNK_NS)
    assert list(screen.tiles) == ["bed-64", "bed-65", "bed-66"], "there are two leaves"


def test_strips_that_nobody_looks_at_are_let_go_of() -> None:
    ward = Ward()
    strips = Strips(ward)
    feed(ward, "bed-1", 0)
    assert strips.of(ward.beds["bed-1"], 128, T0) is not None
    assert strips.of(ward.beds["bed-1"], 256, T0) is not None
    strips.advance(T0)
    assert len(strips) == 2
    strips.of(ward.beds["bed-1"], 256, T0 + 9 * S)
    strips.advance(T0 + 12 * S)
    assert len(strips) == 1
    del ward.beds["bed-1"]
    strips.advance(T0 + 12 * S)
    assert len(strips) == 0


def test_a_bed_without_samples_has_a_tile_without_a_strip() -> None:
    ward = Ward()
    ward.take_finding(finding(0))
    ward.take_vitals(vitals(0))
    view, screen = shown(ward)
    view.show(None, T0 + 10 * S)
    assert screen.tiles == {"bed-1": {"bed": "bed-1"}}
    assert screen.packets == 0
    assert max(value for value in screen.trends["bed-1"] if value is not None) == -1.5


def test_a_view_that_was_left_begins_with_whole_strips() -> None:
    ward = Ward()
    view, screen = shown(ward)
    for seq in range(60):
        feed(ward, "bed-1", seq)
        view.show(None, T0 + (seq + 1) * CHUNK_NS)
    view.rest()
    screen.strips.clear()
    view.show(None, T0 + 60 * CHUNK_NS + 1)
    assert np.isfinite(screen.newest("bed-1")).mean() > 0.9
