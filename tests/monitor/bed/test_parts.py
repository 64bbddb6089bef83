"""What the bed view's scripts compute, each on its own, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from tests.browser import needs_browser, open_page

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

_STATIC = Path(__file__).parents[3] / "monitor" / "static"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_page() as opened:
        opened.evaluate("() => { window.bedside = {parts: {}}; }")
        for part in ("playout", "paper"):
            opened.add_script_tag(path=_STATIC / f"bed-{part}.js")
        yield opened


_LAY_OUT = """
(asked) => {
  const layout = window.bedside.parts.paper.layOut(asked);
  const places = Array.from({length: asked.n}, (_, place) => ({
    column: layout.column(place), left: layout.left(layout.column(place)), top: layout.top(place),
    baseline: layout.baseline(place),
  }));
  return {...layout, places};
}
"""


def laid_out(page: Page, n: int, **options: Any) -> dict[str, Any]:
    asked = {"width": 1080, "height": 520, "scale": 96 / 25.4, "speed": 25, "size": 0} | options
    layout: dict[str, Any] = page.evaluate(_LAY_OUT, asked | {"n": n})
    return layout


@pytest.mark.parametrize(
    ("n", "columns", "rows"), [(1, 1, 1), (2, 1, 2), (3, 1, 3), (6, 1, 6), (12, 2, 6), (15, 2, 8)]
)
def test_leads_share_the_paper(page: Page, n: int, columns: int, rows: int) -> None:
    layout = laid_out(page, n)
    assert (layout["columns"], layout["rows"]) == (columns, rows)
    width_mm = 1080 / layout["scale"]
    for place in layout["places"]:
        assert place["left"] > 0
        assert place["left"] + layout["across"] <= width_mm
        assert place["top"] < place["baseline"] < place["top"] + layout["pitch"]
    # Every column begins on a line of the large squares, so that its time can be read off.
    assert {place["left"] % 5 for place in layout["places"]} == {0}
    assert layout["high"] <= 520 / layout["scale"]


@pytest.mark.parametrize("speed", [12.5, 25, 50])
def test_speed_and_size_are_kept_whatever_does_not_fit(page: Page, speed: float) -> None:
    layout = laid_out(page, 12, speed=speed, size=40, width=700, height=300)
    assert layout["seconds"] * speed == pytest.approx(layout["across"])
    assert layout["size"] == 40
    # The paper is longer than the window, which scrolls.
    assert laid_out(page, 64, width=500)["high"] > 520 / layout["scale"]


def test_fewer_leads_are_drawn_higher(page: Page) -> None:
    assert [laid_out(page, n)["size"] for n in (12, 3, 1)] == [10, 20, 20]
    assert laid_out(page, 12, width=500, height=260)["size"] == 5


_PLAY = """
([rate, packets, until, tick]) => {
  const playout = new window.bedside.parts.Playout(rate);
  const waiting = [...packets];
  const seen = [];
  for (let now = packets[0][0]; now < until; now += tick) {
    while (waiting.length > 0 && waiting[0][0] <= now) playout.hear(...waiting.shift());
    seen.push([now, playout.position(now), playout.stop]);
  }
  return seen;
}
"""
CHUNK_MS = 200.0
# Buckets a second and in a chunk.
RATE, N = 125.0, 25


def played(
    page: Page, packets: list[tuple[float, float, int]], until: float, rate: float = RATE
) -> np.ndarray:
    """Return time, position and newest position of each frame; a packet is (arrived, sent, stop)."""
    frames: list[list[float]] = page.evaluate(_PLAY, [rate, packets, until, 1000 / 60])
    return np.array(frames)


def regular(count: int, late: Any = None, transit: Any = None) -> list[tuple[float, float, int]]:
    late = np.zeros(count) if late is None else late
    transit = np.zeros(count) if transit is None else transit
    sent = [(k + 1) * CHUNK_MS + late[k] for k in range(count)]
    # One connection: nothing overtakes.
    arrived = np.maximum.accumulate([at + 5 + transit[k] for k, at in enumerate(sent)])
    return [(float(arrived[k]), sent[k], (k + 1) * N) for k in range(count)]


def test_it_moves_evenly_although_samples_come_in_chunks(page: Page) -> None:
    frames = played(page, regular(40), 40 * CHUNK_MS)
    steps = np.diff(frames[120:, 1])
    assert steps.min() > 0.8 * RATE / 60
    assert steps.max() < 1.2 * RATE / 60
    # One chunk behind the newest, and no more.
    assert (frames[120:, 2] - frames[120:, 1]).max() <= N + 1


def test_it_never_goes_back_and_never_ahead_of_what_is_there(page: Page) -> None:
    random = np.random.default_rng(3)
    for seed in range(5):
        jitter = np.random.default_rng(seed).uniform(0, 80, 60)
        frames = played(page, regular(60, jitter, random.exponential(20, 60)), 60 * CHUNK_MS)
        assert (np.diff(frames[:, 1]) >= 0).all()
        assert (frames[:, 1] <= frames[:, 2]).all()


def test_rare_late_chunks_do_not_make_all_late(page: Page) -> None:
    late = np.where(np.arange(60) % 10 == 7, 60.0, 0.0)
    frames = played(page, regular(60, late), 60 * CHUNK_MS)
    waiting = (frames[300:, 2] - frames[300:, 1]) / RATE
    assert np.median(waiting) < 0.13


def test_a_backlog_is_left_behind(page: Page) -> None:
    # The browser was busy for four seconds: what has come meanwhile comes at once.
    packets = regular(60)
    packets = [
        (max(arrived, 8000.0) if sent >= 4000 else arrived, sent, stop) for arrived, sent, stop in packets
    ]
    frames = played(page, packets, 59 * CHUNK_MS)
    behind = (frames[:, 2] - frames[:, 1]) / RATE
    after = frames[:, 0] > 8100
    assert behind[after].max() < 0.35
    assert (np.diff(frames[:, 1]) >= 0).all()


def test_a_feed_without_pace_is_shown_at_its_newest(page: Page) -> None:
    assert played(page, [(0.0, 0.0, 5000), (1.0, 1.0, 9000)], 50.0, rate=0.0)[-1, 1] == 9000
