"""How the page looks: narrow, usual and wide screens, without colours, without beds, after a long time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest
from playwright.sync_api import Page, expect

from stream.contract import AlarmKind, Priority
from stream.embedded import EmbeddedServer
from stream.leads import LEADS
from tests.browser import needs_browser, open_page, painted_sheet, wait
from tests.monitor.history.recorded import first_session
from tests.monitor.history.test_history import write
from tests.monitor.messages import alarm
from tests.monitor.serving import Dashboard, FakeWard, dashboard

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

DICOM = Path(str(pydicom.data.get_testdata_file("waveform_ecg.dcm")))
NAME = "recording_of_an_outpatient_with_a_rather_long_name"
# Elements of the bars and headers, by view: whole, beside each other, and on the screen.
HEADERS = {
    "ward": "#bar > *, #views > *",
    "bed": "#bar > *, #bed > header > :not(#judged), .alarm > *, #bed > .controls > *",
    "alarms": "#bar > *, .entry > *",
    "history": "#bar > *, #hist-head > :not(#hist-state), #hist-transport > *, #hist-main > .controls > *",
    "analyse": "#bar > *, #result > header > *, #downloads > *, #how > *, #how label > *",
    "system": "#bar > *, #sys-workers header > *",
}
# What is cut off, lies over another, or reaches beyond the screen.
WRONG = """
(selector) => {
  const shown = [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length > 0);
  const boxes = shown.map((e) => [e, e.getBoundingClientRect()]).filter(([, box]) => box.width > 1);
  const name = (e) => `${e.tagName}#${e.id} ${e.textContent.trim().slice(0, 30)}`;
  const wrong = [];
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the screen");
  boxes.forEach(([e, box], place) => {
    const own = ["SELECT", "DETAILS"].includes(e.tagName) || e.clientWidth === 0;
    if (!own && e.scrollWidth > e.clientWidth + 2) {
      wrong.push(`cut off: ${name(e)}`);
    }
    if (box.right > innerWidth + 1) wrong.push(`beyond the screen: ${name(e)}`);
    for (const [other, its] of boxes.slice(place + 1)) {
      if (e.contains(other) || other.contains(e)) continue;
      const wide = Math.min(box.right, its.right) - Math.max(box.left, its.left);
      const high = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
      if (wide > 2 && high > 2) wrong.push(`${name(e)} over ${name(other)}`);
    }
  });
  return wrong;
}
"""
CONTRAST = """
([ink, paper]) => {
  const styles = getComputedStyle(document.documentElement);
  const probe = document.body.appendChild(document.createElement("i"));
  const light = (name) => {
    probe.style.color = styles.getPropertyValue(`--${name}`);
    const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const [one, other] = [light(ink), light(paper)];
  probe.remove();
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}
"""

# What alarms say in lines of their own, where it is not shown as a sentence: with a capital.
SMALL = """
() => [...document.querySelectorAll(".message")].filter((one) => {
  const shown = getComputedStyle(one).display === "inline" ? "" : getComputedStyle(one, "::first-letter");
  return /^[a-z]/.test(one.textContent) && shown.textTransform !== "uppercase";
}).map((one) => one.textContent)
"""


@pytest.fixture
def served(redis_server: EmbeddedServer, tmp_path: Path) -> Iterator[Dashboard]:
    write(tmp_path / "bed-1", first_session()[:100])
    with dashboard(redis_server.url, recordings=tmp_path) as running:
        yield running


@pytest.fixture
def ward(redis_server: EmbeddedServer) -> Iterator[FakeWard]:
    beds = {"bed-1": tuple(LEADS), "bed-2": ("I", "II", "V2")}
    with FakeWard(redis_server.url, beds).running() as running:
        yield running


def dark(page: Page, wanted: bool) -> None:
    if (page.evaluate("() => document.documentElement.dataset.theme") == "dark") != wanted:
        page.click("#theme")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("width", "height"), [(1024, 768), (1440, 900), (2560, 1440)])
def test_nothing_is_cut_off_or_covered_on_any_screen(
    served: Dashboard, ward: FakeWard, artefacts: Path, width: int, height: int
) -> None:
    ward.raise_alarm(
        alarm("a", message="Ventricular flutter or fibrillation for 4 s", priority=Priority.HIGH)
    )
    ward.raise_alarm(alarm("b", message="unusual ECG in 17 of the last 24 windows"))
    with open_page(width, height) as page:
        # A screen as large is painted slowly without a graphics card.
        page.set_default_timeout(120_000)
        page.goto(f"{served.url}?view=bed&bed=bed-1")
        expect(page.locator(".alarm")).to_have_count(2)
        page.wait_for_function("() => window.bedside.counters.painted > 5")
        for view, selector in HEADERS.items():
            page.click(f"#views [data-view={view}]")
            if view == "history":
                wait(page, lambda: painted_sheet(page, "trace") > 0)
                expect(page.locator("#hist-state[data-state=done]")).to_be_visible(timeout=120_000)
            if view == "analyse":
                page.set_input_files(
                    "#files",
                    {"name": f"{NAME}.dcm", "mimeType": "", "buffer": DICOM.read_bytes()},
                )
                expect(page.locator("#result")).to_have_class("done", timeout=120_000)
                expect(page.locator("#subject")).to_have_text(NAME)
            for is_dark in (False, True):
                dark(page, is_dark)
                assert page.evaluate(WRONG, selector) == [], view
                theme = "dark" if is_dark else "light"
                page.screenshot(path=artefacts / f"{view}-{width}-{theme}.png")
            assert page.evaluate(SMALL) == [], view
        bar = page.locator("#bar").bounding_box()
        assert bar is not None
        assert bar["height"] < 60


def test_a_bed_that_is_not_there_is_told(served: Dashboard, ward: FakeWard) -> None:
    with open_page() as page:
        page.goto(f"{served.url}?view=bed&bed=bed-9")
        absent = page.locator("#absent")
        expect(absent).to_contain_text("There is no bed bed-9 now")
        expect(absent).to_contain_text("this is bed-1")
        page.click("[data-bed='bed-2']")
        expect(absent).to_be_hidden()
        expect(page.locator("#name")).to_have_text("bed-2")
        # As soon as it is there, it is shown.
        page.goto(f"{served.url}?view=bed&bed=bed-9")
        expect(absent).to_be_visible()
        ward.beds["bed-9"] = ("II",)
        expect(page.locator("#name")).to_have_text("bed-9")
        expect(absent).to_be_hidden()


@pytest.mark.parametrize("view", ["ward", "bed"])
def test_what_is_said_without_beds_stands_in_the_middle(served: Dashboard, view: str) -> None:
    with open_page() as page:
        page.goto(f"{served.url}?view={view}")
        expect(page.locator("#empty")).to_be_visible()
        box = page.locator("#empty").bounding_box()
        assert box is not None
        assert (box["x"], box["width"]) == (0, 1440)
        expect(page.locator(f"#view-{view} > *").first).to_be_hidden()


def test_priorities_are_told_without_colours(served: Dashboard, ward: FakeWard, artefacts: Path) -> None:
    signs = {}
    for kind, sign in ((AlarmKind.PHYSIOLOGICAL, "*"), (AlarmKind.TECHNICAL, "!")):
        for n, priority in ((3, Priority.HIGH), (2, Priority.MEDIUM), (1, Priority.LOW)):
            bed = f"{kind}-{priority}"
            signs[bed] = sign * n
            ward.beds[bed] = ("II",)
            ward.raise_alarm(alarm(bed, bed=bed, priority=priority, kind=kind, rule=bed))
    with open_page() as page:
        page.context.new_cdp_session(page).send(
            "Emulation.setEmulatedVisionDeficiency", {"type": "achromatopsia"}
        )
        page.goto(f"{served.url}?view=ward")
        for bed, sign in signs.items():
            expect(page.locator(f'#tiles [data-bed="{bed}"] .sign')).to_have_text(sign)
        page.screenshot(path=artefacts / "ward-without-colours.png")
        page.keyboard.press("a")
        for sign in signs.values():
            expect(page.locator("#view-alarms").get_by_text(sign, exact=True)).to_be_visible()
        page.screenshot(path=artefacts / "alarms-without-colours.png")


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_text_and_traces_stand_out_by_lightness(served: Dashboard, ward: FakeWard, is_dark: bool) -> None:
    # WCAG 2.2: 4.5 for text, 3 for what is drawn; measured signal and expectation also from each other.
    text = [("ink", "panel"), ("soft", "panel"), ("slate", "panel"), ("slate", "wall"), ("red", "panel")]
    text += [("good-ink", "good-tint"), ("red", "high-tint"), ("ink", "medium-tint"), ("words", "paper")]
    drawn = [("trace", "paper"), ("expected", "paper"), ("beat", "paper"), ("expected", "trace")]
    with open_page() as page:
        page.goto(served.url)
        expect(page.locator("#tiles .tile")).to_have_count(2)
        dark(page, is_dark)
        for pairs, least in ((text, 4.5), (drawn, 3.0 if not is_dark else 2.5)):
            found = {pair: round(page.evaluate(CONTRAST, pair), 2) for pair in pairs}
            assert {pair: ratio for pair, ratio in found.items() if ratio < least} == {}


def test_a_tab_does_not_grow(served: Dashboard, ward: FakeWard) -> None:
    with open_page() as page:
        page.goto(f"{served.url}?view=bed&bed=bed-1")
        page.wait_for_function("() => window.bedside.counters.painted > 5")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")

        def visit(rounds: int) -> dict[str, float]:
            for _ in range(rounds):
                for key in "wbahuy":
                    page.keyboard.press(key)
                    page.wait_for_timeout(150)
            page.keyboard.press("b")
            page.wait_for_timeout(1_000)
            session.send("HeapProfiler.collectGarbage")
            metrics = session.send("Performance.getMetrics")["metrics"]
            return {one["name"]: one["value"] for one in metrics}

        before, after = visit(10), visit(20)
        assert after["JSHeapUsedSize"] < 1.1 * before["JSHeapUsedSize"] + 2e6
        for what in ("Nodes", "JSEventListeners", "Documents"):
            assert after[what] < 1.1 * before[what] + 20, what
