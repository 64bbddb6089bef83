"""Signing in with a real browser: the page, the live page behind it, and a proxy before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from monitor.login.users import changing
from stream.embedded import EmbeddedServer
from tests.browser import needs_browser, open_page
from tests.monitor.login.people import OPERATOR, VIEWER, WRONG, sign_in, users_file
from tests.monitor.messages import alarm
from tests.monitor.proxy import Proxy
from tests.monitor.serving import Dashboard, FakeWard, dashboard

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page() as opened:
        yield opened


@pytest.fixture
def users(tmp_path: Path) -> Path:
    users_file(tmp_path / "users.json")
    return tmp_path / "users.json"


@pytest.fixture
def served(redis_server: EmbeddedServer, users: Path) -> Iterator[Dashboard]:
    with dashboard(redis_server.url, users=users) as running:
        yield running


@pytest.fixture
def ward(redis_server: EmbeddedServer) -> Iterator[FakeWard]:
    with FakeWard(redis_server.url, {"bed-1": ("I", "II"), "bed-2": ("II",)}).running() as running:
        yield running


def test_who_signs_in_is_where_they_wanted_to_be(page: Page, served: Dashboard, ward: FakeWard) -> None:
    page.goto(f"{served.url}?bed=bed-2&view=bed")
    expect(page.locator("#user")).to_be_focused()
    sign_in(page, OPERATOR, WRONG)
    expect(page.locator("#refused")).to_have_text("Name or password is wrong.")
    refused = page.locator("#refused")
    while "Too many" not in refused.inner_text():
        sign_in(page, OPERATOR, WRONG)
        expect(page.locator("button[type=submit]")).to_be_enabled()
    expect(refused).to_contain_text("Too many failed attempts: try again in")
    page.wait_for_timeout(1_000 * int(re.findall(r"(\d+) s", refused.inner_text())[0]))
    sign_in(page, OPERATOR)
    expect(page.locator("#name")).to_have_text("bed-2")
    expect(page.locator("#bar #user")).to_have_text(OPERATOR)
    page.click("#bar #user")
    expect(page.locator("#signed-in")).to_have_text("You are signed in as anna, operator.")
    expect(page.locator("#session-ends")).to_contain_text("The session ends at")
    page.click("#sign-out")
    expect(page.locator("#login")).to_be_visible()
    expect(page.locator("#refused")).to_be_hidden()
    page.reload()
    expect(page.locator("#login")).to_be_visible()


def test_a_page_whose_session_is_over_asks_to_sign_in_again(
    page: Page, served: Dashboard, ward: FakeWard, users: Path
) -> None:
    page.goto(f"{served.url}?view=bed")
    sign_in(page, OPERATOR)
    expect(page.locator("#name")).to_have_text("bed-1")
    # As after a new password: the page is cut off, and finds out.
    with changing(users) as file:
        file.users[OPERATOR] = file.users[OPERATOR].model_copy(update={"password": None})
    expect(page.locator("#refused")).to_have_text("Your session has ended. Sign in again.")
    sign_in(page, VIEWER)
    expect(page.locator("#bar #user")).to_contain_text(VIEWER)


def test_viewers_see_and_may_not(page: Page, served: Dashboard, ward: FakeWard) -> None:
    ward.raise_alarm(alarm("a", bed="bed-1"))
    page.goto(f"{served.url}?view=bed")
    sign_in(page, VIEWER)
    expect(page.locator("#bar #user")).to_have_text("wall 3 (viewer)")
    button = page.locator("#alarms button")
    expect(button).to_be_disabled()
    expect(button).to_have_attribute("title", "Operators only: you are signed in as a viewer.")
    page.keyboard.press("a")
    expect(page.locator(".entry")).to_have_count(1)
    expect(page.locator(".entry .do")).to_be_disabled()
    expect(page.locator(".pause .do")).to_be_disabled()
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator(".entry .wrong")).to_have_text("Operators only: you are signed in as a viewer.")


@pytest.mark.parametrize("strip", [False, True], ids=["prefix kept", "prefix taken away"])
def test_it_works_behind_a_proxy_under_a_prefix(
    page: Page, redis_server: EmbeddedServer, users: Path, ward: FakeWard, strip: bool
) -> None:
    with (
        Proxy(strip=strip) as before,
        dashboard(redis_server.url, users=users, names=[before.name], path="/bedside") as running,
    ):
        before.target = f"http://127.0.0.1:{running.port}"
        ward.raise_alarm(alarm("a", bed="bed-2"))
        page.goto(f"{before.url}?view=bed")
        sign_in(page, OPERATOR)
        expect(page.locator("#name")).to_have_text("bed-2")
        page.wait_for_function("() => window.bedside.counters.painted > 5")
        page.keyboard.press("a")
        expect(page.locator(".entry")).to_have_count(1)
        ward.raise_alarm(alarm("b", bed="bed-1"))
        expect(page.locator(".entry")).to_have_count(2)
        addresses = page.evaluate("() => performance.getEntriesByType('resource').map((e) => e.name)")
        assert addresses
        assert [address for address in addresses if not address.startswith(before.url)] == []
        page.context.clear_cookies()
        # Without the proxy, too: without the slash at the end, and without the prefix.
        for address in (running.url.rstrip("/"), f"http://127.0.0.1:{running.port}/?bed=bed-1"):
            page.goto(address)
            expect(page.locator("#login")).to_be_visible()
            assert page.url.startswith(running.url)
        sign_in(page, OPERATOR)
        expect(page.locator("#name")).to_have_text("bed-1")
