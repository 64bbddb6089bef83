from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from stream.clock import SystemClock
from stream.contract import AlarmKind, Presence, Priority
from stream.embedded import EmbeddedServer
from stream.leads import LEADS
from tests.browser import needs_browser, open_page, wait
from tests.monitor.messages import S, alarm
from tests.monitor.serving import Dashboard, FakeWard, dashboard

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

ALL = tuple(LEADS)
# Tiles, and whatever in them hides what does not fit: nothing may.
_CLIPPED = """
() => [...document.querySelectorAll(".tile, .tile .bed, .tile .say")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
  .map((e) => `${e.className}: ${e.textContent}`)
"""
_BOXES = """
() => [...document.querySelectorAll(".tile")].map((e) => {
  const {left, top, right, bottom} = e.getBoundingClientRect();
  return [left, top, right, bottom];
})
"""
# The share of the view that its tiles cover.
_COVERED = """
() => {
  const area = (e) => { const {width, height} = e.getBoundingClientRect(); return width * height; };
  return [...document.querySelectorAll(".tile")].reduce((sum, e) => sum + area(e), 0)
    / area(document.getElementById("view-ward"));
}
"""
_STRIPS = """
() => (Bokeh.documents[0]?.get_model_by_name("strip-points").data.ys ?? [])
  .filter((line) => Array.from(line).filter(Number.isFinite).length > 0.4 * line.length).length
"""
_RATE = """
() => new Promise((done) => {
  const {patches} = window.bedside.counters, began = performance.now();
  setTimeout(() => {
    done((window.bedside.counters.patches - patches) / (performance.now() - began) * 1000);
  }, 3000);
})
"""
_FLASH = """
(bed) => {
  const sign = document.querySelector(`#tiles [data-bed="${bed}"] .sign`);
  const {animationName, animationDuration} = getComputedStyle(sign);
  return animationName === "none" ? "none" : `${animationName} ${animationDuration}`;
}
"""
# By beds on a screen of 1920 x 1080: the least sizes of rate and sign, CSS pixels, and the diagonal in inches
# from which on the rate is readable from three metres; see docs/page.md.
AFAR = {16: (63, 31, 24), 36: (56, 27, 27), 64: (41, 20, 36)}
# A digit is readable from 250 times its height.
DIGIT_MM = 3000 / 250
# Font sizes, and the height of a digit in the font that this machine has.
_SIZES = """
(selector) => {
  const sizes = [], context = document.createElement("canvas").getContext("2d");
  let digit = Infinity;
  for (const e of document.querySelectorAll(selector)) {
    const {fontWeight, fontSize, fontFamily} = getComputedStyle(e);
    sizes.push(parseFloat(fontSize));
    context.font = `${fontWeight} ${fontSize} ${fontFamily}`;
    digit = Math.min(digit, context.measureText("7").actualBoundingBoxAscent);
  }
  return {least: Math.min(...sizes), digit};
}
"""
# The same with three digits in every tile, until the page writes the rates anew; no sooner than this returns.
_CLIPPED_BY_THREE = f"""
() => {{
  for (const rate of document.querySelectorAll(".tile .rate")) rate.textContent = "288";
  return ({_CLIPPED})();
}}
"""


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page() as opened:
        yield opened


@pytest.fixture
def served(redis_server: EmbeddedServer) -> Iterator[Dashboard]:
    with dashboard(redis_server.url) as running:
        yield running


@pytest.fixture
def ward(redis_server: EmbeddedServer) -> Iterator[FakeWard]:
    beds = {"bed-1": ALL, "bed-2": ("V1", "MCL"), "bed-10": ("I", "II", "III")}
    with FakeWard(redis_server.url, beds).running() as running:
        yield running


def beds(page: Page) -> list[str]:
    return [tile.get_attribute("data-bed") or "" for tile in page.locator("#tiles .tile").all()]


def tile(page: Page, bed: str) -> str:
    return f'#tiles [data-bed="{bed}"]'


def test_tiles_fill_the_screen_with_one_bed_and_with_64(
    served: Dashboard, page: Page, redis_server: EmbeddedServer, artefacts: Path
) -> None:
    ward = FakeWard(redis_server.url, {})
    onset = SystemClock().now_ns()
    with ward.running():
        page.goto(served.url)
        for count in (1, 2, 4, 9, 16, 36, 64):
            for number in range(len(ward.beds) + 1, count + 1):
                ward.beds[f"ICU-{number:02d}"] = ALL
            if count == 2:
                text = "Ventricular tachycardia, 12 beats at 180/min; not acknowledged for 30 s"
                rule = "ventricular-tachycardia"
                ward.raise_alarm(
                    alarm("a", bed="ICU-02", message=text, rule=rule, priority=Priority.HIGH, onset_t=onset)
                )
                ward.raise_alarm(alarm("b", bed="ICU-02", kind=AlarmKind.TECHNICAL, onset_t=onset))
            if count == 4:
                text, rule = "unusual ECG in 17 of the last 24 windows", "extreme-tachycardia"
                seen = alarm("c", bed="ICU-04", message=text, rule=rule, onset_t=onset)
                ward.raise_alarm(seen.model_copy(update={"presence": Presence.LATCHED}))
            expect(page.locator("#tiles .tile")).to_have_count(count)
            page.wait_for_function(f"() => ({_STRIPS})() === {count}")
            for width, height in ((1440, 900), (1920, 1080)):
                page.set_viewport_size({"width": width, "height": height})
                page.wait_for_function(f"() => ({_COVERED})() > 0.85")
                assert page.evaluate("document.documentElement.scrollHeight") <= height
                assert page.evaluate(_CLIPPED) == [], f"{count} beds at {width} x {height}"
                boxes = page.evaluate(_BOXES)
                assert all(
                    left >= 0 and right <= width and bottom <= height for left, _, right, bottom in boxes
                )
                page.screenshot(path=artefacts / f"ward-{count}-{width}.png")
            if count == 16:
                # To be read from three metres.
                for part in (".bed", ".rate"):
                    sizes = page.locator(f"#tiles {part}").evaluate_all(
                        "(all) => all.map((e) => parseFloat(getComputedStyle(e).fontSize))"
                    )
                    assert min(sizes) >= 40
            if count in AFAR:
                assert page.evaluate(_CLIPPED_BY_THREE) == [], f"{count} beds with three digits"
                large, small, inches = AFAR[count]
                rate, sign = (page.evaluate(_SIZES, f"#tiles {part}") for part in (".rate", ".sign"))
                assert rate["least"] >= large
                assert sign["least"] >= small
                assert rate["digit"] * inches * 25.4 / math.hypot(1920, 1080) >= DIGIT_MM
        assert beds(page)[:2] == ["ICU-02", "ICU-04"]
        # For three seconds on end; at once only where nothing else is on the machine.
        wait(page, lambda: page.evaluate(_RATE) >= 5)
        # One more: a second page, and as large tiles on it.
        ward.beds["ICU-65"] = ALL
        expect(page.locator("#leaf")).to_have_text("Page 1 of 2")
        page.keyboard.press("PageDown")
        expect(page.locator("#leaf")).to_have_text("Page 2 of 2")
        expect(page.locator("#tiles .tile")).to_have_count(1)
        assert page.evaluate(_COVERED) < 0.05


def test_alarms_stand_first_flash_by_priority_and_rest_when_acknowledged(
    served: Dashboard, page: Page, ward: FakeWard
) -> None:
    page.goto(served.url)
    expect(page.locator("#tiles .tile")).to_have_count(3)
    assert beds(page) == ["bed-1", "bed-2", "bed-10"]
    expect(page.locator(f"{tile(page, 'bed-1')} .rate")).to_have_text("75")
    expect(page.locator(f"{tile(page, 'bed-1')} .lead")).to_have_text("II")
    expect(page.locator(f"{tile(page, 'bed-2')} .lead")).to_have_text("V1")
    expect(page.locator(f"{tile(page, 'bed-1')} .quality")).to_have_text("good signal")
    onset = SystemClock().now_ns() - 5 * S
    ward.raise_alarm(alarm("m", bed="bed-2", onset_t=onset))
    high = alarm("h", bed="bed-10", priority=Priority.HIGH, message="No heart beat for 4 s", rule="asystole")
    ward.raise_alarm(high.model_copy(update={"onset_t": onset}))
    ward.raise_alarm(alarm("l", bed="bed-10", priority=Priority.LOW, message="lead off", onset_t=onset))
    ward.raise_alarm(alarm("t", bed="bed-1", priority=Priority.LOW, kind=AlarmKind.TECHNICAL, onset_t=onset))
    expect(page.locator(tile(page, "bed-10"))).to_have_class("tile calm alarmed high")
    page.wait_for_function("() => document.querySelectorAll('.tile.alarmed').length === 3")
    assert beds(page) == ["bed-10", "bed-2", "bed-1"]
    words = page.locator(tile(page, "bed-10")).inner_text()
    assert "***" in words
    assert "No heart beat for 4 s".replace(" s", "\u00a0s") in words
    assert "+1 *" in words
    assert "since" in words
    assert page.evaluate(_FLASH, "bed-10") == "flash-high 0.55s"
    assert page.evaluate(_FLASH, "bed-2") == "flash-medium 1.66s"
    assert page.evaluate(_FLASH, "bed-1") == "none"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(_FLASH, "bed-10") == "none"
    page.emulate_media(reduced_motion="no-preference")
    ward.raise_alarm(
        high.model_copy(update={"event": "h-1", "presence": Presence.ACKNOWLEDGED, "who": "anna"})
    )
    expect(page.locator(f"{tile(page, 'bed-10')} .say")).to_contain_text("acknowledged by anna")
    assert page.evaluate(_FLASH, "bed-10") == "none"
    # The low alarm of a lead is the next; the bed keeps its place for a while.
    assert beds(page) == ["bed-10", "bed-2", "bed-1"]


def test_a_ward_is_operated_from_the_keyboard(served: Dashboard, page: Page, ward: FakeWard) -> None:
    page.goto(served.url)
    expect(page.locator("#tiles .tile")).to_have_count(3)
    for key, focused in (("ArrowRight", "bed-1"), ("ArrowRight", "bed-2"), ("ArrowDown", "bed-2")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.bed") == focused
    page.keyboard.press("Enter")
    expect(page.locator("#view-bed")).to_be_visible()
    expect(page.locator("#name")).to_have_text("bed-2")
    assert "view=bed" in page.url
    page.keyboard.press("Escape")
    expect(page.locator("#view-ward")).to_be_visible()
    assert page.evaluate("document.activeElement.dataset.bed") == "bed-2"
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    expect(page.locator("#help")).to_contain_text("full screen")
    expect(page.locator("#help")).to_contain_text("move from tile to tile")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") != theme
    page.keyboard.press("f")
    page.wait_for_function("() => document.fullscreenElement !== null")


def test_alarms_are_heard_by_priority_until_somebody_answers(
    served: Dashboard, page: Page, ward: FakeWard
) -> None:
    page.goto(served.url)
    expect(page.locator("#tiles .tile")).to_have_count(3)
    expect(page.locator("#sound")).to_have_text("Sound off")
    ward.raise_alarm(alarm("m", bed="bed-2"))
    expect(page.locator(".tile.medium")).to_have_count(1)
    assert page.evaluate("window.bedside.sounds") == {"high": 0, "medium": 0, "low": 0}
    page.click("#sound")
    expect(page.locator("#sound")).to_have_text("Sound on")
    page.wait_for_function("() => window.bedside.sounds.medium === 1")
    ward.raise_alarm(alarm("h", bed="bed-1", priority=Priority.HIGH))
    page.wait_for_function("() => window.bedside.sounds.high === 1")
    # In every view, and again until somebody answers.
    page.keyboard.press("b")
    page.wait_for_function("() => window.bedside.sounds.high === 2")
    page.keyboard.press("s")
    expect(page.locator("#sound")).to_contain_text("Sound paused 1:5")
    page.reload()
    expect(page.locator("#count")).to_have_text("3 beds, 2 with alarm")
    expect(page.locator("#sound")).to_contain_text("Sound paused 1:")
    page.keyboard.press("s")
    expect(page.locator("#sound")).to_have_text("Sound off")
    page.keyboard.press("s")
    page.wait_for_function("() => window.bedside.sounds.high === 1")
    # The urgent one last: for a moment the other would be heard.
    for name, priority in (("m", Priority.MEDIUM), ("h", Priority.HIGH)):
        bed = "bed-1" if name == "h" else "bed-2"
        answered = alarm(name, 1, bed=bed, priority=priority, presence=Presence.ACKNOWLEDGED)
        ward.raise_alarm(answered)
    expect(page.locator("#count")).to_have_text("3 beds, 2 with alarm")
    ward.raise_alarm(alarm("l", bed="bed-10", priority=Priority.LOW))
    page.wait_for_function("() => window.bedside.sounds.low === 1")
    assert page.evaluate("window.bedside.sounds.medium") == 0


def test_bursts_are_told_apart_by_their_pulses(served: Dashboard, page: Page) -> None:
    page.goto(served.url)
    bursts = page.evaluate("window.bedside.bursts")
    assert {level: len(burst["pulses"]) for level, burst in bursts.items()} == {
        "high": 10,
        "medium": 3,
        "low": 2,
    }
    for burst in bursts.values():
        assert 150 <= burst["pitch"] <= 1000
        rests = [later - earlier - burst["length"] for earlier, later in pairwise(burst["pulses"])]
        assert min(rests) > 0.04
    high = bursts["high"]["pulses"]
    assert high[:5] == [at - high[5] for at in high[5:]]
    assert bursts["high"]["rest"] < bursts["medium"]["rest"] < bursts["low"]["rest"]


def test_a_page_that_has_lost_its_server_shows_that_it_is_old(
    served: Dashboard, page: Page, redis_server: EmbeddedServer
) -> None:
    with FakeWard(redis_server.url, {"bed-1": ALL}).running():
        page.goto(served.url)
        page.wait_for_function(f"() => ({_STRIPS})() === 1")
        redis_server.stop()
        expect(page.locator("#trouble")).to_contain_text("Connection to the server lost")
        expect(page.locator("#strips")).to_have_css("opacity", "0.35")
        page.click("#sound")
        page.wait_for_function("() => window.bedside.sounds.high === 1")
        redis_server.start()
        expect(page.locator("#trouble")).to_be_hidden()
