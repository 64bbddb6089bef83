"""What an operator changes in the bed view, with a real worker that does it, and what a viewer may not."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Page, expect

from bench.ports import free_port
from bench.ward import Ward
from tests.browser import needs_browser, open_page, text
from tests.monitor.login.people import OPERATOR, VIEWER, sign_in, users_file
from tests.monitor.serving import dashboard
from tests.monitor.test_failures import fed

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

OWN, OTHER = "cae-100hz", "vae-bilstm-100hz"
NURSE = "nurse 7"
BARRED = "Operators only: you are signed in as a viewer."
# What hides what does not fit in it, and what stands beyond the dialog.
_CLIPPED = """
() => {
  const dialog = document.getElementById("judging");
  const {left, right} = dialog.getBoundingClientRect();
  return [...dialog.querySelectorAll("*")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && (box.left < left || box.right > right || e.scrollWidth > e.clientWidth + 1)
      && getComputedStyle(e).display !== "inline";
  }).map((e) => `${e.tagName} ${e.id}: ${e.textContent}`);
}
"""


class Served(NamedTuple):
    ward: Ward
    url: str


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Run a ward with one patient who stays well, and one whose heart stops."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, Ward(Path(folder), page_port=port) as ward:
        asyncio.run(ward.ready())
        with fed(ward, prefix="well-"), fed(ward, "sinus:80@0 asystole@15", "ill-"):
            yield Served(ward, f"http://127.0.0.1:{port}/")
        ward.check()


@pytest.fixture
def page(served: Served) -> Iterator[Page]:
    with open_page() as opened:
        yield opened


@pytest.fixture
def guarded(served: Served, tmp_path: Path) -> Iterator[str]:
    """Run a dashboard of the same ward with a login; return its address."""
    users_file(tmp_path / "users.json")
    with dashboard(served.ward.url, users=tmp_path / "users.json") as running:
        yield running.url


def open_judging(page: Page) -> None:
    """Open the dialog, and wait until it says what is in force."""
    expect(page.locator("#judged")).not_to_be_empty()
    page.click("#judge")
    expect(page.locator("#judging-body")).to_be_visible()


def move_threshold(page: Page, by: float) -> float:
    """Move the slider; return where it stands then."""
    slider = page.locator("#threshold")
    wanted = round(float(slider.input_value()) + by, 2)
    slider.fill(f"{wanted:.2f}")
    expect(page.locator("#threshold-wanted")).to_have_text(f"{wanted:.2f}")
    return wanted


def test_the_model_and_the_threshold_of_a_bed_are_changed_and_written_down(
    page: Page, served: Served, artefacts: Path
) -> None:
    page.goto(f"{served.url}?view=bed&bed=well-1")
    open_judging(page)
    expect(page.locator(f"#models [value='{OWN}']")).to_be_checked()
    expect(page.locator("#use-model")).to_be_disabled()
    page.click(f"#models label:has([value='{OTHER}'])")
    page.click("#use-model")
    # Nobody's name is known yet.
    page.fill("#who-name", NURSE)
    page.keyboard.press("Enter")
    told = page.locator("#judging-told")
    expect(told).to_contain_text(f"Done: {OTHER} judges from now on.")
    expect(page.locator("#judged")).to_contain_text(re.compile(rf"{OTHER} · .+ · scored in"))
    expect(page.locator(f"#models [value='{OTHER}']")).to_be_checked()

    set_, reset = page.locator("#set-threshold"), page.locator("#reset-threshold")
    origin, effect = page.locator("#threshold-origin"), page.locator("#threshold-effect")
    expect(origin).to_contain_text("the model's own")
    for button in (set_, reset):
        expect(button).to_be_disabled()
    expect(page.locator("#judging .warning")).to_contain_text("came from validation data")
    expect(page.locator("#judging-body")).to_contain_text("In standard deviations of normal windows")
    stored = float(page.locator("#threshold").input_value())
    move_threshold(page, -1)
    expect(effect).to_contain_text("more false alarms")
    wanted = move_threshold(page, 2)
    assert wanted == pytest.approx(stored + 1, abs=0.006)
    expect(effect).to_contain_text("more that is unusual goes unnoticed")
    assert page.evaluate(_CLIPPED) == []
    page.screenshot(path=artefacts / "judging-slider.png")
    set_.click()
    expect(told).to_have_text(f"Done: threshold {wanted:g}.")
    expect(origin).to_have_text(f"In force: {wanted:.2f}, set by {NURSE}.")
    expect(page.locator("#limit")).to_have_text(f"threshold {wanted:.1f}")
    expect(set_).to_be_disabled()
    page.screenshot(path=artefacts / "judging-set.png")
    reset.click()
    expect(origin).to_have_text(f"In force: {stored:.2f}, the model's own.")
    expect(page.locator("#limit")).to_have_text(f"threshold {stored:.1f}")
    expect(reset).to_be_disabled()

    # And back to the model that the worker has of its own.
    page.click(f"#models label:has([value='{OWN}'])")
    page.click("#use-model")
    expect(page.locator("#judged")).to_contain_text(re.compile(rf"{OWN} · .+ · scored in"))
    page.click("#judging-close")
    page.keyboard.press("a")
    page.click("[data-tab=audit]")
    rows = page.locator("#tab-audit tbody tr").filter(has_text="well-1").filter(has_text=NURSE)
    expect(rows.filter(has_text=f"Set the score's threshold to {wanted:g}")).to_contain_text(
        f"threshold {wanted:g}"
    )
    expect(rows.filter(has_text="Take back the score's threshold")).to_contain_text("as the model's")
    assert rows.filter(has_text="judges from now on").count() == 2
    page.screenshot(path=artefacts / "judging-audit.png")


def test_viewers_see_what_is_in_force_and_change_nothing(page: Page, guarded: str, artefacts: Path) -> None:
    page.goto(f"{guarded}?view=bed&bed=well-1")
    expect(page.locator("#user")).to_be_focused()
    page.screenshot(path=artefacts / "login.png")
    sign_in(page, VIEWER)
    open_judging(page)
    expect(page.locator("#judging-told")).to_have_text(BARRED)
    expect(page.locator("#threshold-origin")).to_contain_text("In force: ")
    controls = page.locator("#judging-body :is(input, button)")
    assert controls.count() >= 6
    for control in controls.all():
        expect(control).to_be_disabled()
    assert page.evaluate(_CLIPPED) == []
    page.screenshot(path=artefacts / "judging-viewer.png")
    page.click("#judging-close")
    expect(page.locator("#judging")).to_be_hidden()


def test_an_operator_acknowledges_on_the_banner_of_a_bed(page: Page, guarded: str, artefacts: Path) -> None:
    page.goto(f"{guarded}?view=bed&bed=ill-1")
    sign_in(page, OPERATOR)
    banner = page.locator("#alarms .alarm.high", has_text=re.compile("asystole|no heart beat", re.I))
    expect(banner.locator(".sign")).to_have_text("***")
    page.wait_for_function("() => window.bedside.parts.sweep.board?.least('trace') > 300")
    assert "acknowledged" not in text(page, "#alarms .alarm.high .kind")
    page.screenshot(path=artefacts / "banner.png")
    banner.locator("button").click()
    expect(banner.locator(".kind")).to_contain_text(f"acknowledged by {OPERATOR}")
    expect(banner).to_have_class(re.compile("acknowledged"))
    expect(banner.locator("button")).to_be_hidden()
    expect(page.locator("#alarm-wrong")).to_be_hidden()
    page.screenshot(path=artefacts / "banner-acknowledged.png")
