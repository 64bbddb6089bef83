from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from stream.clock import SystemClock
from stream.contract import AlarmKind, Presence, Priority
from stream.embedded import EmbeddedServer
from stream.leads import LEADS
from tests.browser import needs_browser, open_page, text, wait
from tests.monitor.messages import S, alarm
from tests.monitor.serving import Dashboard, FakeWard, dashboard

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

# A page that is left behind may come back for 15 s.
GONE_S = 40

# The fewest points of a lead that are known of what the bed view draws.
_DRAWN = "(name) => window.bedside.parts.sweep?.board?.least(name) ?? 0"
# Frames with new samples while three seconds go by, per second.
_RATE = """
() => new Promise((done) => {
  const {painted} = window.bedside.counters, began = performance.now();
  const rate = () => (window.bedside.counters.painted - painted) / (performance.now() - began) * 1000;
  setTimeout(() => done(rate()), 3000);
})
"""
_SIGN = """
(sign) => {
  const {backgroundColor, backgroundImage} = getComputedStyle(sign);
  return {text: sign.textContent, ground: backgroundColor, stripes: backgroundImage};
}
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
    beds = {"bed-1": tuple(LEADS), "bed-2": ("II", "MCL"), "bed-10": ("I", "II", "III")}
    with FakeWard(redis_server.url, beds).running() as running:
        yield running


def rows(page: Page) -> list[str]:
    return [row.get_attribute("data-bed") or "" for row in page.locator(".row").all()]


def leads(page: Page) -> list[str]:
    return page.locator("#sweep .name b").all_inner_texts()


def sign(page: Page, bed: str) -> dict[str, str]:
    """Return what the sign of a bed in the list is, and its computed colours."""
    found: dict[str, str] = page.locator(f"#beds [data-bed='{bed}'] .sign").evaluate(_SIGN)
    return found


def drawn(page: Page, name: str) -> None:
    page.wait_for_function(f"(name) => ({_DRAWN})(name) > 1000", arg=name)


def test_a_page_without_a_feed_says_how_to_start_one(served: Dashboard, page: Page) -> None:
    page.goto(served.url)
    wait(page, lambda: "bedside replay" in text(page, "#empty"))
    assert "Not a medical device" in text(page, "footer")
    # Nothing happens, and yet the page hears from the server: it does not take it for gone.
    page.evaluate("() => { window.same = true; }")
    page.wait_for_timeout(6_000)
    assert page.evaluate("() => window.same") is True
    assert text(page, "#trouble") == ""


def test_a_bed_sweeps_with_what_the_model_expects(served: Dashboard, page: Page, ward: FakeWard) -> None:
    page.goto(f"{served.url}?view=bed")
    wait(page, lambda: rows(page) == ["bed-1", "bed-2", "bed-10"])
    wait(page, lambda: text(page, "#name") == "bed-1")
    drawn(page, "trace")
    assert leads(page) == list(LEADS)
    # The worker explains a bed because the page asks for it.
    drawn(page, "expected")
    assert ward.watched == {"bed-1"}
    # For three seconds on end; at once only where nothing else is on the machine.
    wait(page, lambda: page.evaluate(_RATE) >= 20)
    assert "to screen" in text(page, "#behind")
    assert float(text(page, "#score")) >= 0.5
    # Everything comes from this server.
    addresses = page.evaluate("() => performance.getEntriesByType('resource').map((e) => e.name)")
    assert addresses
    assert all(address.startswith(served.url) for address in addresses)


def test_another_bed_can_be_selected(served: Dashboard, page: Page, ward: FakeWard) -> None:
    page.goto(f"{served.url}?view=bed")
    wait(page, lambda: len(rows(page)) == 3)
    page.click("[data-bed='bed-2']")
    wait(page, lambda: text(page, "#name") == "bed-2")
    wait(page, lambda: leads(page) == ["II", "MCL"])
    wait(page, lambda: "bed-2" in ward.watched)
    # The address names the bed: a reload shows it again.
    page.reload()
    wait(page, lambda: text(page, "#name") == "bed-2")


def test_an_alarm_is_told_on_top_with_sign_and_text(page: Page, served: Dashboard, ward: FakeWard) -> None:
    page.goto(f"{served.url}?view=bed")
    wait(page, lambda: len(rows(page)) == 3)
    onset = SystemClock().now_ns() - 5 * S
    ward.raise_alarm(alarm("a", bed="bed-10", message="unusual ECG in 16 of 24 windows", onset_t=onset))
    wait(page, lambda: rows(page)[0] == "bed-10")
    row = text(page, "[data-bed='bed-10']")
    assert "**" in row
    assert "Unusual ECG in 16 of 24 windows" in row
    assert "since" in row
    technical = alarm(
        "t", bed="bed-10", message="lead off: II", kind=AlarmKind.TECHNICAL, priority=Priority.LOW
    )
    ward.raise_alarm(technical)
    page.click("[data-bed='bed-10']")
    wait(page, lambda: "Lead off: II" in text(page, "#alarms"))
    banner = text(page, "#alarms")
    assert "medium priority · physiological" in banner
    assert "low priority · technical" in banner
    assert page.title() == "(1) Bedside"
    for name in ("a", "t"):
        ward.raise_alarm(alarm(name, 1, bed="bed-10", presence=Presence.OFF))
    wait(page, lambda: text(page, "#alarms") == "")
    wait(page, lambda: rows(page) == ["bed-1", "bed-2", "bed-10"])


def test_signs_in_the_list_of_beds_have_the_colour_of_their_priority(
    served: Dashboard, page: Page, ward: FakeWard
) -> None:
    page.emulate_media(reduced_motion="reduce")
    ward.beds |= dict.fromkeys(("bed-3", "bed-4"), ("II",))
    page.goto(f"{served.url}?view=bed")
    wait(page, lambda: len(rows(page)) == 5)
    onset = SystemClock().now_ns() - 5 * S
    for bed, priority in (("bed-1", Priority.HIGH), ("bed-2", Priority.MEDIUM), ("bed-10", Priority.LOW)):
        ward.raise_alarm(alarm(bed, bed=bed, priority=priority, onset_t=onset))
    ward.raise_alarm(alarm("t", bed="bed-3", priority=Priority.HIGH, kind=AlarmKind.TECHNICAL, onset_t=onset))
    expect(page.locator("#beds .row.alarmed")).to_have_count(4)
    # Red, yellow and cyan, as IEC 60601-1-8 has them; of a technical alarm as stripes.
    assert sign(page, "bed-1") == {"text": "***", "ground": "rgb(200, 0, 30)", "stripes": "none"}
    assert sign(page, "bed-2") == {"text": "**", "ground": "rgb(255, 207, 0)", "stripes": "none"}
    assert sign(page, "bed-10") == {"text": "*", "ground": "rgb(28, 195, 227)", "stripes": "none"}
    striped = sign(page, "bed-3")
    assert (striped["text"], "rgb(255, 136, 150)" in striped["stripes"]) == ("!!!", True)
    assert sign(page, "bed-4")["ground"] == "rgb(238, 242, 246)"


def test_an_alarm_from_before_is_shown_and_a_name_is_never_markup(
    served: Dashboard, page: Page, redis_server: EmbeddedServer
) -> None:
    bed = "<img src=x onerror=alert(1)>"
    with FakeWard(redis_server.url, {bed: ("II",)}).running() as ward:
        ward.raise_alarm(alarm(bed=bed, message="<b>unusual</b>"))
        page.goto(f"{served.url}?view=bed")
        wait(page, lambda: "<b>unusual</b>" in text(page, "#alarms"))
        assert text(page, "#name") == bed
        assert page.locator("main img[src=x]").count() == 0


def test_a_closed_page_leaves_nothing_behind(served: Dashboard, ward: FakeWard) -> None:
    with open_page() as page:
        page.goto(f"{served.url}?view=bed")
        drawn(page, "trace")
        health = served.health()[1]
        assert (health["pages"], health["watched"]) == (1, 1)
    with open_page() as page:
        # Only for its clock.
        wait(page, lambda: served.health()[1]["pages"] == 0, GONE_S * 1000)
    assert served.health()[1]["watched"] == 0
    assert served.health()[1]["beds"] == 3


def test_a_lost_redis_server_is_told_and_comes_back(
    served: Dashboard, page: Page, redis_server: EmbeddedServer
) -> None:
    with FakeWard(redis_server.url, {"bed-1": ("II",)}).running():
        page.goto(f"{served.url}?view=bed")
        wait(page, lambda: text(page, "#name") == "bed-1")
        redis_server.stop()
        wait(page, lambda: "Connection to the server lost" in text(page, "#trouble"))
        redis_server.start()
        wait(page, lambda: text(page, "#trouble") == "")


def test_a_dashboard_that_stops_is_told_by_the_page(
    page: Page, redis_server: EmbeddedServer, ward: FakeWard
) -> None:
    with dashboard(redis_server.url) as running:
        page.goto(f"{running.url}?view=bed")
        wait(page, lambda: text(page, "#name") == "bed-1")
    wait(page, lambda: "The dashboard does not answer" in text(page, "#trouble"))
