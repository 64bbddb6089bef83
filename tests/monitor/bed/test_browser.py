"""The bed view as a person uses it, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from monitor import colours
from stream.embedded import EmbeddedServer
from stream.leads import LEADS
from tests.browser import needs_browser, open_page, text, wait
from tests.monitor.serving import Dashboard, FakeWard, dashboard

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

PX_PER_MM = 96 / 25.4
LIMB, PRECORDIAL = list(LEADS[:6]), list(LEADS[6:])

# Pixels of the sheet that look like a colour.
_PIXELS = """
(wanted) => {
  const {canvas, context} = window.bedside.parts.sweep.painter;
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(wanted.slice(at, at + 2), 16));
  let n = 0;
  for (let at = 0; at < data.length; at += 4) {
    n += Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b) < 24;
  }
  return n;
}
"""
_WHERE = "([lead, sample, uv]) => window.bedside.parts.sweep.where(lead, sample, uv)"
_STYLE = "(name) => getComputedStyle(document.querySelector('#sweep')).getPropertyValue(`--${name}`).trim()"
# How many points of a lead are missing between its first one and its last one.
_HOLES = """
(lead) => {
  const {board} = window.bedside.parts.sweep;
  const ring = board.trace[board.leads.indexOf(lead)];
  let n = 0;
  for (let bucket = board.start; bucket < board.stop; bucket += 1) {
    const at = board.place(bucket) * board.points;
    for (let point = at; point < at + board.points; point += 1) n += ring[point] === -32768;
  }
  return n;
}
"""


@pytest.fixture
def ward(redis_server: EmbeddedServer) -> Iterator[FakeWard]:
    beds = {"bed-1": tuple(LEADS), "bed-2": ("I", "II", "III"), "bed-3": ("MCL",)}
    ward = FakeWard(redis_server.url, beds, model="vae-bilstm-mha-100hz", maps=True)
    with ward.running():
        yield ward


@pytest.fixture
def served(redis_server: EmbeddedServer) -> Iterator[Dashboard]:
    with dashboard(redis_server.url) as running:
        yield running


@pytest.fixture
def page(served: Dashboard, ward: FakeWard) -> Iterator[Page]:
    with open_page() as opened:
        opened.goto(f"{served.url}?view=bed&bed=bed-1")
        wait(opened, lambda: leads(opened) == list(LEADS))
        yield opened


def leads(page: Page) -> list[str]:
    return page.locator("#sweep .name b").all_inner_texts()


def sets(page: Page) -> list[str]:
    return page.locator("#bed [data-control=lead-sets] button").all_inner_texts()


def pixels(page: Page, colour: str) -> int:
    return int(page.evaluate(_PIXELS, page.evaluate(_STYLE, colour)))


def known(page: Page, name: str) -> None:
    page.wait_for_function("(name) => window.bedside.parts.sweep.board?.least(name) > 300", arg=name)


def toggle(page: Page, layer: str) -> None:
    page.click("#bed [data-control=layers] summary")
    page.click(f"#bed [data-control=layers] [name={layer}]")
    page.keyboard.press("Escape")


def test_leads_are_chosen_by_set_and_one_by_one_and_the_choice_is_kept(page: Page) -> None:
    assert sets(page) == ["All 12", "Limb", "Precordial", "II"]
    for name, expected in (("limb", LIMB), ("precordial", PRECORDIAL), ("rhythm", ["II"])):
        page.click(f"#bed [data-control=lead-sets] [data-set={name}]")
        wait(page, lambda wanted=expected: leads(page) == wanted)
    page.click("#bed [data-control=leads] summary")
    page.click("#bed [data-control=leads] label:has-text('V5')")
    wait(page, lambda: leads(page) == ["II", "V5"])
    assert "II V5" in text(page, "#bed [data-control=leads] summary")
    page.click("#bed [data-control=leads] label:text-is('II')")
    wait(page, lambda: leads(page) == ["V5"])
    # The last one stays: an empty sheet tells nothing.
    page.click("#bed [data-control=leads] label:has-text('V5')")
    assert leads(page) == ["V5"]
    page.keyboard.press("Escape")
    assert not page.locator("#bed [data-control=leads] .panel").is_visible()
    page.reload()
    wait(page, lambda: leads(page) == ["V5"])


def test_what_a_feed_has_not_is_not_offered(page: Page) -> None:
    page.click("#bed [data-control=lead-sets] [data-set=precordial]")
    page.click("[data-bed='bed-2']")
    wait(page, lambda: leads(page) == ["I", "II", "III"])
    assert sets(page) == ["All 3", "II"]
    page.click("[data-bed='bed-3']")
    wait(page, lambda: leads(page) == ["MCL"])
    assert not page.locator("#bed [data-control=lead-sets]").is_visible()
    assert not page.locator("#bed [data-control=leads]").is_visible()
    # What was chosen holds where it can.
    page.click("[data-bed='bed-1']")
    wait(page, lambda: leads(page) == PRECORDIAL)


def span(page: Page, scale: float) -> tuple[float, float]:
    """Return how many millimetres a second and a millivolt are, at so many pixels a millimetre."""
    at = [page.evaluate(_WHERE, ["II", sample, uv]) for sample, uv in ((0, 0), (500, 0), (0, 1000))]
    return (at[1]["x"] - at[0]["x"]) / scale, (at[0]["y"] - at[2]["y"]) / scale


def test_the_paper_has_true_scale_and_says_which(page: Page) -> None:
    assert text(page, "#bed [data-legend=paper]") == "25 mm/s · 10 mm/mV · true size, not calibrated"
    assert span(page, PX_PER_MM) == pytest.approx((25, 10), rel=0.01)
    page.select_option("#bed [data-control=speed]", "12.5")
    page.select_option("#bed [data-control=size]", "20")
    wait(page, lambda: text(page, "#bed [data-legend=paper]").startswith("12.5 mm/s · 20 mm/mV"))
    assert span(page, PX_PER_MM) == pytest.approx((12.5, 20), rel=0.01)
    page.select_option("#bed [data-control=speed]", "50")
    page.select_option("#bed [data-control=size]", "40")
    wait(page, lambda: text(page, "#bed [data-legend=paper]").startswith("50 mm/s · 40 mm/mV"))
    assert span(page, PX_PER_MM) == pytest.approx((50, 40), rel=0.01)
    # A window that is too small shows less time, not another speed.
    page.set_viewport_size({"width": 900, "height": 640})
    wait(page, lambda: page.locator("#sweep canvas").bounding_box()["width"] < 700)
    wait(page, lambda: span(page, PX_PER_MM) == pytest.approx((50, 40), rel=0.01))


def test_a_screen_can_be_calibrated_and_the_paper_fitted(page: Page) -> None:
    page.select_option("#bed [data-control=scale]", "calibrate")
    page.locator("#dots").fill("5")
    card = page.locator("#card").bounding_box()
    assert card is not None
    assert card["width"] == pytest.approx(85.6 * 5, abs=1)
    page.press("#dots", "Enter")
    wait(page, lambda: text(page, "#bed [data-legend=paper]") == "25 mm/s · 10 mm/mV · true size")
    assert span(page, 5) == pytest.approx((25, 10), rel=0.01)
    page.reload()
    wait(page, lambda: text(page, "#bed [data-legend=paper]") == "25 mm/s · 10 mm/mV · true size")
    page.select_option("#bed [data-control=scale]", "fit")
    wait(page, lambda: "reduced to" in text(page, "#bed [data-legend=paper]"))
    part = int(text(page, "#bed [data-legend=paper]").split()[-2]) / 100
    assert span(page, 5 * part)[0] == pytest.approx(25, rel=0.02)
    page.select_option("#bed [data-control=scale]", "calibrate")
    page.click("#calibration button[value=reset]")
    wait(page, lambda: text(page, "#bed [data-legend=paper]").endswith("true size, not calibrated"))


@pytest.mark.parametrize(
    ("layer", "colour"), [("expected", "expected"), ("error", "error-1"), ("attention", "attention-1")]
)
def test_what_the_model_says_is_drawn_and_can_be_left_out(page: Page, layer: str, colour: str) -> None:
    known(page, "expected")
    wait(page, lambda: pixels(page, colour) > 500)
    item = page.locator(f"#bed .legend [data-layer={layer}]")
    assert item.is_visible()
    toggle(page, layer)
    wait(page, lambda: pixels(page, colour) < 20)
    assert not item.is_visible()
    page.reload()
    wait(page, lambda: leads(page) == list(LEADS))
    known(page, "expected")
    page.wait_for_timeout(300)
    assert pixels(page, colour) < 20
    toggle(page, layer)
    wait(page, lambda: pixels(page, colour) > 500)


def test_a_map_that_says_nothing_is_told_and_not_drawn(page: Page) -> None:
    known(page, "expected")
    wait(page, lambda: "temporal attention: no information" in text(page, "#bed [data-legend=hidden]"))
    assert "error 0–4 SD" in text(page, "#bed .legend")
    assert "± 2 SD" in text(page, "#bed .legend").replace("\xa0", " ")
    assert page.locator(".names .foot").count() == 0


def test_a_poor_lead_is_grey_and_named(page: Page, ward: FakeWard) -> None:
    known(page, "trace")
    page.click("#bed [data-control=lead-sets] [data-set=precordial]")
    toggle(page, "beats")
    grey = pixels(page, "poor")
    ward.issues = {"V2": ("noise", "powerline"), "I": ("off",)}
    wait(page, lambda: text(page, ".name[data-lead=V2] span") == "noise, mains hum")
    assert text(page, ".name[data-lead=V1] span") == ""
    wait(page, lambda: pixels(page, "poor") > grey + 400)
    # Some pixels at the edges of black lines have the colour, too; more of them while more is drawn.
    shown = pixels(page, "poor")
    toggle(page, "quality")
    wait(page, lambda: pixels(page, "poor") < shown - 150)
    ward.issues = {}
    wait(page, lambda: text(page, ".name[data-lead=V2] span") == "")


def test_beats_are_marked(page: Page) -> None:
    known(page, "trace")
    wait(page, lambda: pixels(page, "beat") > 20)
    toggle(page, "beats")
    wait(page, lambda: pixels(page, "beat") == 0)


def test_a_gap_is_a_gap_and_silence_is_told(page: Page, ward: FakeWard) -> None:
    known(page, "trace")
    assert page.evaluate(_HOLES, "II") == 0
    ward.mute = True
    wait(page, lambda: "no signal for" in text(page, "#notice"))
    assert "behind live" in text(page, "#behind")
    assert "late" in (page.locator("#behind").get_attribute("class") or "")
    ward.mute = False
    wait(page, lambda: not page.locator("#notice").is_visible())
    wait(page, lambda: text(page, "#behind").startswith("live"))
    # Two seconds and more are 500 points.
    assert page.evaluate(_HOLES, "II") > 450
    assert "of signal lost" in text(page, "#missing")


def test_the_paper_and_the_chart_are_dark_in_the_dark(page: Page) -> None:
    page.keyboard.press("d")
    wait(page, lambda: pixels(page, "paper") > 10_000)
    assert page.evaluate(_STYLE, "paper") == "#10171f"
    wait(page, lambda: pixels(page, "trace") > 500)
    chart = "() => Bokeh.documents[0].get_model_by_name('bed-score').background_fill_color"
    wait(page, lambda: page.evaluate(chart) == "#151d27")
    page.keyboard.press("d")
    wait(page, lambda: page.evaluate(chart) == "#ffffff")
    wait(page, lambda: pixels(page, "paper") > 10_000)


def test_the_page_and_the_reports_have_the_same_colours(page: Page) -> None:
    names = {
        "paper": colours.PAPER,
        "minor": colours.MINOR,
        "major": colours.MAJOR,
        "trace": colours.INK,
        "expected": colours.EXPECTED,
        "words": colours.SLATE,
    }
    for ramp, stops in (("error", colours.ERROR), ("attention", colours.ATTENTION)):
        names |= {f"{ramp}-{at}": colour for at, colour in enumerate(stops)}
    assert {name: page.evaluate(_STYLE, name) for name in names} == names


def test_a_browser_that_was_busy_drops_to_live_and_says_how_late_it_is(page: Page) -> None:
    known(page, "trace")
    wait(page, lambda: text(page, "#behind").startswith("live"))
    # Nothing is taken or drawn for five seconds; then what the page says is read before it draws again.
    said = page.evaluate(
        """() => {
          const end = performance.now() + 5000;
          while (performance.now() < end);
          return window.bedside.parts.sweep.lag();
        }"""
    )
    assert said > 4
    wait(page, lambda: text(page, "#behind").startswith("live"), 3000)
    assert page.evaluate("() => window.bedside.parts.sweep.lag()") < 1


def test_a_slow_browser_stays_live(page: Page) -> None:
    known(page, "trace")
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.wait_for_timeout(6000)
    # It draws less often, and comes back to now whenever it has fallen behind.
    wait(page, lambda: page.evaluate("() => window.bedside.parts.sweep.lag()") < 1)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    wait(page, lambda: text(page, "#behind").startswith("live"))


def test_choices_of_another_release_do_no_harm(page: Page) -> None:
    odd: dict[str, Any] = {"set": "frank", "leads": None, "speed": 25, "size": 0, "band": "monitor"}
    page.evaluate("(text) => localStorage.setItem('bedside-bed', text)", json.dumps(odd))
    page.reload()
    wait(page, lambda: leads(page) == list(LEADS))
    page.evaluate("() => localStorage.setItem('bedside-bed', '{')")
    page.reload()
    wait(page, lambda: leads(page) == list(LEADS))
    page.select_option("#bed [data-control=band]", "wide")
    known(page, "trace")
