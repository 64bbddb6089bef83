from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from stream.clock import SystemClock
from stream.contract import AlarmKind, Presence, Priority
from stream.embedded import EmbeddedServer
from stream.leads import LEADS
from tests.monitor.messages import S, alarm
from tests.monitor.serving import Dashboard, FakeWard, dashboard

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="needs chromium and chromedriver on PATH"),
]

WAIT_S = 30
# A page that is left behind may come back for 15 s.
GONE_S = 40

# Finite values of a column of one of the page's sources.
_DRAWN = """
const source = Bokeh.documents[0]?.get_model_by_name(arguments[0]);
if (!source) return [];
return source.data.ys.map((line) => Array.from(line).filter(Number.isFinite).length);
"""
# Updates while three seconds go by, per second.
_RATE = """
const done = arguments[arguments.length - 1];
const {patches} = window.bedside.counters, began = performance.now();
const rate = () => (window.bedside.counters.patches - patches) / (performance.now() - began) * 1000;
setTimeout(() => done(rate()), 3000);
"""


def start_browser(profile: Path) -> Chrome:
    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1440,900",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=Service(DRIVER))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    driver = start_browser(tmp_path)
    yield driver
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    driver.quit()
    # Some tests stop what the page talks to.
    cut_off = ("ERR_CONNECTION", "ebSocket", "websocket", "not connected")
    assert [message for message in errors if not any(words in message for words in cut_off)] == []


@pytest.fixture
def served(redis_server: EmbeddedServer) -> Iterator[Dashboard]:
    with dashboard(redis_server.url) as running:
        yield running


@pytest.fixture
def ward(redis_server: EmbeddedServer) -> Iterator[FakeWard]:
    beds = {"bed-1": tuple(LEADS), "bed-2": ("II", "MCL"), "bed-10": ("I", "II", "III")}
    with FakeWard(redis_server.url, beds).running() as running:
        yield running


def text(browser: Chrome, selector: str) -> str:
    return " ".join(found.text for found in browser.find_elements(By.CSS_SELECTOR, selector))


def rows(browser: Chrome) -> list[str]:
    return [row.get_attribute("data-bed") or "" for row in browser.find_elements(By.CSS_SELECTOR, ".row")]


def wait(browser: Chrome, timeout_s: float = WAIT_S) -> WebDriverWait[Chrome]:
    return WebDriverWait(browser, timeout_s, poll_frequency=0.1)


def test_a_page_without_a_feed_says_how_to_start_one(served: Dashboard, browser: Chrome) -> None:
    browser.get(served.url)
    wait(browser).until(lambda b: "bedside replay" in text(b, "#empty"))
    assert "Not a medical device" in text(browser, "footer")


def test_a_bed_sweeps_with_what_the_model_expects(served: Dashboard, browser: Chrome, ward: FakeWard) -> None:
    browser.get(served.url)
    wait(browser).until(lambda b: rows(b) == ["bed-1", "bed-2", "bed-10"])
    wait(browser).until(lambda b: text(b, "#name") == "bed-1")
    wait(browser).until(lambda b: min(b.execute_script(_DRAWN, "trace"), default=0) > 1000)
    assert len(browser.execute_script(_DRAWN, "trace")) == 12
    # The worker explains a bed because the page asks for it.
    wait(browser).until(lambda b: min(b.execute_script(_DRAWN, "expected"), default=0) > 1000)
    assert ward.watched == {"bed-1"}
    assert browser.execute_async_script(_RATE) >= 20
    assert "to screen" in text(browser, "#behind")
    assert float(text(browser, "#score")) >= 0.5
    # Everything comes from this server.
    addresses = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert addresses
    assert all(address.startswith(served.url) for address in addresses)


def test_another_bed_can_be_selected(served: Dashboard, browser: Chrome, ward: FakeWard) -> None:
    browser.get(served.url)
    wait(browser).until(lambda b: len(rows(b)) == 3)
    browser.find_element(By.CSS_SELECTOR, "[data-bed='bed-2']").click()
    wait(browser).until(lambda b: text(b, "#name") == "bed-2")
    wait(browser).until(lambda b: len(b.execute_script(_DRAWN, "trace")) == 2)
    names = "return Bokeh.documents[0].get_model_by_name('names').data.text"
    wait(browser).until(lambda b: list(b.execute_script(names)) == ["II", "MCL"])
    wait(browser).until(lambda _: "bed-2" in ward.watched)
    # The address names the bed: a reload shows it again.
    browser.refresh()
    wait(browser).until(lambda b: text(b, "#name") == "bed-2")


def test_an_alarm_is_told_on_top_with_sign_and_text(
    browser: Chrome, served: Dashboard, ward: FakeWard
) -> None:
    browser.get(served.url)
    wait(browser).until(lambda b: len(rows(b)) == 3)
    onset = SystemClock().now_ns() - 5 * S
    ward.raise_alarm(alarm("a", bed="bed-10", message="unusual ECG in 16 of 24 windows", onset_t=onset))
    wait(browser).until(lambda b: rows(b)[0] == "bed-10")
    row = text(browser, "[data-bed='bed-10']")
    assert "**" in row
    assert "unusual ECG in 16 of 24 windows" in row
    assert "since" in row
    technical = alarm(
        "t", bed="bed-10", message="lead off: II", kind=AlarmKind.TECHNICAL, priority=Priority.LOW
    )
    ward.raise_alarm(technical)
    browser.find_element(By.CSS_SELECTOR, "[data-bed='bed-10']").click()
    wait(browser).until(lambda b: "lead off: II" in text(b, "#alarms"))
    banner = text(browser, "#alarms")
    assert "medium priority · physiological" in banner
    assert "low priority · technical" in banner
    assert browser.title == "(1) Bedside"
    for name in ("a", "t"):
        ward.raise_alarm(alarm(name, 1, bed="bed-10", presence=Presence.OFF))
    wait(browser).until(lambda b: text(b, "#alarms") == "")
    wait(browser).until(lambda b: rows(b) == ["bed-1", "bed-2", "bed-10"])


def test_an_alarm_from_before_is_shown_and_a_name_is_never_markup(
    served: Dashboard, browser: Chrome, redis_server: EmbeddedServer
) -> None:
    bed = "<img src=x onerror=alert(1)>"
    with FakeWard(redis_server.url, {bed: ("II",)}).running() as ward:
        ward.raise_alarm(alarm(bed=bed, message="<b>unusual</b>"))
        browser.get(served.url)
        wait(browser).until(lambda b: "<b>unusual</b>" in text(b, "#alarms"))
        assert text(browser, "#name") == bed
        assert not browser.find_elements(By.CSS_SELECTOR, "#room img[src=x]")


def test_controls_draw_the_leads_anew(served: Dashboard, browser: Chrome, ward: FakeWard) -> None:
    browser.get(f"{served.url}?bed=bed-10")
    wait(browser).until(lambda b: "20 mm/mV" in text(b, "#paper"))
    browser.find_element(By.CSS_SELECTOR, "#size option[value='10']").click()
    wait(browser).until(lambda b: "10 mm/mV" in text(b, "#paper"))
    browser.find_element(By.CSS_SELECTOR, "#band option[value='wide']").click()
    wait(browser).until(lambda b: min(b.execute_script(_DRAWN, "trace"), default=0) > 1000)


def test_a_closed_page_leaves_nothing_behind(tmp_path: Path, served: Dashboard, ward: FakeWard) -> None:
    driver = start_browser(tmp_path)
    try:
        driver.get(served.url)
        wait(driver).until(lambda b: min(b.execute_script(_DRAWN, "trace"), default=0) > 1000)
        health = served.health()[1]
        assert (health["pages"], health["watched"]) == (1, 1)
    finally:
        driver.quit()
    WebDriverWait(served, GONE_S).until(lambda s: s.health()[1]["pages"] == 0)
    assert served.health()[1]["watched"] == 0
    assert served.health()[1]["beds"] == 3


def test_a_lost_redis_server_is_told_and_comes_back(
    served: Dashboard, browser: Chrome, redis_server: EmbeddedServer
) -> None:
    with FakeWard(redis_server.url, {"bed-1": ("II",)}).running():
        browser.get(served.url)
        wait(browser).until(lambda b: text(b, "#name") == "bed-1")
        redis_server.stop()
        wait(browser).until(lambda b: "Connection to the server lost" in text(b, "#trouble"))
        redis_server.start()
        wait(browser).until(lambda b: text(b, "#trouble") == "")


def test_a_dashboard_that_stops_is_told_by_the_page(
    browser: Chrome, redis_server: EmbeddedServer, ward: FakeWard
) -> None:
    with dashboard(redis_server.url) as running:
        browser.get(running.url)
        wait(browser).until(lambda b: text(b, "#name") == "bed-1")
    wait(browser).until(lambda b: "The dashboard does not answer" in text(b, "#trouble"))
