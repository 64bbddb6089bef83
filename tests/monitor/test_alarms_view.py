"""The alarms panel in a real browser: with alarms made up, and once with a worker that raises them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from bench.ward import Ward
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority
from stream.embedded import EmbeddedServer
from tests.browser import needs_browser, open_page
from tests.monitor.login.people import OPERATOR, sign_in, users_file
from tests.monitor.messages import S, alarm
from tests.monitor.serving import Dashboard, FakeWard, dashboard
from tests.stream.test_worker import FALLS_ILL, feed, patient, publish

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

# Not the one that misses a worker.
ENTRY = ".group:not([data-bed='*']) .entry"
BEDS = {"bed-1": ("I", "II"), "bed-2": ("II",), "bed-10": ("II",)}


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page(expected=("504",)) as opened:
        yield opened


@pytest.fixture
def served(redis_server: EmbeddedServer) -> Iterator[Dashboard]:
    with dashboard(redis_server.url) as running:
        yield running


@pytest.fixture
def ward(redis_server: EmbeddedServer) -> Iterator[FakeWard]:
    with FakeWard(redis_server.url, BEDS).running() as running:
        yield running


def transition(
    name: str, number: int, presence: Presence, seconds: float = 0.0, **changes: object
) -> AlarmEvent:
    """Return a transition of an alarm that began a minute ago, so many seconds after its raise."""
    onset = SystemClock().now_ns() - 60 * S
    made = alarm(name, number, presence=presence, onset_t=onset, bed=str(changes.pop("bed", "bed-1")))
    return made.model_copy(update={"since": onset + round(seconds * S)} | changes)


def messages(page: Page, selector: str = f"{ENTRY} strong") -> list[str]:
    return page.locator(selector).all_inner_texts()


def three(ward: FakeWard) -> None:
    """Raise one alarm of each priority, in two beds."""
    ward.raise_alarm(transition("low", 0, Presence.ON, message="atrial fibrillation", priority=Priority.LOW))
    lost = {"message": "lead off: II", "kind": AlarmKind.TECHNICAL, "snapshot": None}
    ward.raise_alarm(transition("tech", 0, Presence.ON, bed="bed-10", **lost))
    ward.raise_alarm(
        transition("high", 0, Presence.ON, message="asystole", priority=Priority.HIGH, bed="bed-10")
    )


def test_open_alarms_come_by_bed_and_urgency_and_filters_hide_some(
    page: Page, served: Dashboard, ward: FakeWard
) -> None:
    page.goto(f"{served.url}?view=alarms")
    expect(page.locator("#no-alarm strong")).to_have_text("✓ No open alarm")
    expect(page.locator("#no-alarm p")).to_have_text("3 beds are watched.")
    three(ward)
    expect(page.locator(ENTRY)).to_have_count(3)
    assert messages(page, ".group:not([data-bed='*']) h3") == ["bed-10", "bed-1"]
    assert messages(page) == ["Asystole", "Lead off: II", "Atrial fibrillation"]
    assert messages(page, f"{ENTRY} .sign") == ["***", "!!", "*"]
    expect(page.locator(f"{ENTRY} .for").first).to_have_text(re.compile(r"1 min \d\d s"))
    assert messages(page, ".calm-beds .chip") == ["bed-2"]
    expect(page.locator("#open-count")).to_have_text(re.compile("[34]"))
    page.select_option("[data-filter=kind]", "technical")
    assert messages(page) == ["Lead off: II"]
    page.select_option("[data-filter=kind]", "")
    page.select_option("[data-filter=priority]", "medium")
    assert messages(page) == ["Asystole", "Lead off: II"]
    page.select_option("[data-filter=bed]", "bed-2")
    assert messages(page) == []
    expect(page.locator(".group .calm")).to_have_text("No open alarm.")
    page.click("#unfilter")
    expect(page.locator(ENTRY)).to_have_count(3)


def test_keys_choose_and_open_the_bed(page: Page, served: Dashboard, ward: FakeWard) -> None:
    page.goto(f"{served.url}?view=alarms")
    three(ward)
    expect(page.locator(ENTRY)).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    expect(page.locator(".entry.chosen strong")).to_have_text("lead off: II")
    expect(page.locator("#detail h3")).to_have_text("lead off: II")
    expect(page.locator("#detail figure")).to_have_text("Technical alarms have no snapshot.")
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text("bed-10")
    expect(page.locator("#view-alarms")).to_be_hidden()


def test_the_history_has_a_row_for_each_alarm(page: Page, served: Dashboard, ward: FakeWard) -> None:
    seen = {"who": "nurse 7", "message": "acknowledged by nurse 7", "priority": Priority.HIGH}
    for event in (
        transition("a", 0, Presence.ON, message="asystole", priority=Priority.HIGH),
        transition("a", 1, Presence.ACKNOWLEDGED, 12, **seen),
        transition("a", 2, Presence.OFF, 50, message="beats again", priority=Priority.HIGH),
        transition("b", 0, Presence.ON, bed="bed-2", message="extreme tachycardia"),
        transition("b", 1, Presence.LATCHED, 30, bed="bed-2", message="slower"),
        transition("b", 2, Presence.LATCHED, 40, bed="bed-2", escalation=1),
    ):
        ward.raise_alarm(event)
    page.goto(f"{served.url}?view=alarms")
    expect(page.locator(f"{ENTRY} .about")).to_have_text(
        "medium priority · physiological · condition over, latched until acknowledged"
        " · told again: not acknowledged in time"
    )
    page.click("[data-tab=history]")
    expect(page.locator(".past")).to_have_count(2)
    row = page.locator(".past", has_text="asystole")
    cells = row.locator("td").all_inner_texts()
    assert cells[:3] == ["***", "bed-1", "Asystole"]
    assert cells[4].startswith("nurse 7 ")
    assert cells[6] == "50 s"
    row.click()
    assert [text.partition("\n")[2] for text in page.locator(".steps li").all_inner_texts()] == [
        "raised: asystole",
        "acknowledged by nurse 7",
        "ended: beats again",
    ]
    expect(page.locator("#detail .do", has_text="Acknowledge")).to_have_count(0)
    page.select_option("[data-filter=state]", "ended")
    expect(page.locator(".past")).to_have_count(1)


def test_what_cannot_be_done_is_said_where_it_was_tried(
    page: Page, served: Dashboard, ward: FakeWard
) -> None:
    three(ward)
    page.goto(f"{served.url}?view=alarms")
    expect(page.locator(ENTRY)).to_have_count(3)
    # Nobody's name is known: it is asked for once, and not going on does nothing.
    entry = page.locator("[data-alarm=low].entry")
    entry.locator(".do").click()
    page.click("#who-cancel")
    expect(entry.locator(".do")).to_have_text("Acknowledge")
    entry.locator(".do").click()
    page.fill("#who-name", "nurse 7")
    page.keyboard.press("Enter")
    expect(entry.locator(".do")).to_have_text("Asking …")
    # There is no worker.
    expect(entry.locator(".wrong")).to_have_text("No worker answered for bed-1 within 5 s: nothing was done.")
    expect(page.locator("#bar #user")).to_have_text("nurse 7")
    page.locator("[data-bed=bed-10] .pause select").select_option("5")
    page.locator("[data-bed=bed-10] .pause .do").click()
    wrong = page.locator(".group[data-bed=bed-10] > .wrong")
    expect(wrong).to_have_text("No worker answered for bed-10 within 5 s: nothing was done.")


def test_an_alarm_of_a_worker_is_seen_acknowledged_and_written_down(
    page: Page, short_tmp: Path, tmp_path: Path
) -> None:
    users_file(tmp_path / "users.json")
    # Everything until the end of the feed, which would end the alarm.
    chunks = feed("icu 4", patient(3, FALLS_ILL, 40.0))[:-1]

    async def fill() -> None:
        async with await Bus.connect(ward.url) as bus:
            await publish(bus, chunks)

    with Ward(short_tmp) as ward:
        in_thread(ward.ready())
        in_thread(fill())
        with dashboard(ward.url, users=tmp_path / "users.json") as running:
            page.goto(f"{running.url}?view=alarms")
            sign_in(page, OPERATOR)
            entry = page.locator(".entry.high:not(.technical)").first
            entry.click()
            picture = page.locator(".snapshot img")
            expect(picture).to_be_visible(timeout=60_000)
            assert page.evaluate("() => document.querySelector('.snapshot img').naturalWidth") > 1_000
            with page.expect_download() as pdf:
                page.click(".snapshot >> text=Download PDF")
            assert Path(pdf.value.path()).read_bytes().startswith(b"%PDF")
            with page.expect_download() as zipped:
                page.click(".snapshot >> text=Download WFDB")
            assert Path(zipped.value.path()).read_bytes().startswith(b"PK")
            page.keyboard.press("x")
            # It had ended by the time, or goes on: either way it is seen.
            expect(page.locator(".steps")).to_contain_text(f"by {OPERATOR}")
            pause = page.locator("[data-bed='icu 4'] .pause")
            pause.locator("select").select_option("1")
            pause.locator(".do").click()
            resume = page.locator("[data-bed='icu 4'] .do", has_text="Resume alarms")
            resume.click()
            expect(resume).to_have_count(0)
            page.click("[data-tab=audit]")
            expect(page.locator("#chain")).to_have_class("holds", timeout=60_000)
            rows = page.locator("#tab-audit tbody tr")
            expect(rows.first).to_contain_text("End the pause of alarms")
            expect(rows.filter(has_text="Pause alarms for 1 min")).to_contain_text(OPERATOR)
            assert rows.filter(has_text=OPERATOR).count() >= 3
            in_thread(tamper(ward.url))
            chain = page.locator("#chain")
            while "broken" not in (chain.get_attribute("class") or ""):
                page.click("[data-tab=open]")
                page.click("[data-tab=audit]")
                expect(chain).not_to_have_class("checking", timeout=60_000)
            expect(page.locator("#chain")).to_contain_text("The log was tampered with: number 2 removed")


def in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run something asynchronous: this thread is the browser's."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def tamper(url: str) -> None:
    async with await Bus.connect(url) as bus:
        entries = [entry async for entry in bus.kept("audit")]
        await bus.client.xdel("bedside:audit:0", entries[2].id)
