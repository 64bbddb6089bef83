"""The page over a link that is too slow for it, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from stream.embedded import EmbeddedServer
from stream.leads import LEADS
from tests.browser import needs_browser, open_page
from tests.monitor.link import Link
from tests.monitor.login.people import VIEWER, sign_in, users_file
from tests.monitor.serving import FakeWard, dashboard

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

# How far the page says that it is behind, at most, in so many milliseconds.
_MOST_BEHIND = """
(ms) => new Promise((done) => {
  let most = 0;
  const look = setInterval(() => {
    const lag = document.getElementById("lag");
    if (!lag.hidden) most = Math.max(most, parseInt(lag.textContent));
  }, 200);
  setTimeout(() => { clearInterval(look); done(most); }, ms);
})
"""


@pytest.mark.timeout(200)
def test_a_ward_over_a_slow_link_says_how_late_it_is_and_comes_back_to_live(
    redis_server: EmbeddedServer, tmp_path: Path, artefacts: Path
) -> None:
    users_file(tmp_path / "users.json")
    beds = {f"ICU-{number}": tuple(LEADS) for number in range(1, 10)}
    with (
        Link() as way,
        dashboard(redis_server.url, users=tmp_path / "users.json", names=[f"127.0.0.1:{way.port}"]) as served,
        FakeWard(redis_server.url, beds).running(),
        open_page() as page,
    ):
        way.target = served.port
        page.goto(f"http://127.0.0.1:{way.port}/")
        sign_in(page, VIEWER)
        page.wait_for_function("() => window.bedside?.counters.patches > 20")
        lag = page.locator("#lag")
        expect(lag).to_be_hidden()
        page.evaluate("() => { window.same = true; }")
        before = way.carried
        page.wait_for_timeout(3_000)
        way.bytes_per_s = (way.carried - before) / 3 / 2
        expect(lag).to_have_text(re.compile(r"^[3-9] s behind live$"))
        page.screenshot(path=artefacts / "ward-behind.png")
        # As much is left out as the link cannot carry: with all of it on the way it would be 20 s by the end.
        assert page.evaluate(_MOST_BEHIND, 40_000) < 12
        way.bytes_per_s = float("inf")
        patches = page.evaluate("() => window.bedside.counters.patches")
        page.wait_for_function("(before) => window.bedside.counters.patches > before + 20", arg=patches)
        expect(lag).to_be_hidden()
        expect(page.locator("#trouble")).to_be_hidden()
        assert page.evaluate("() => window.same"), "it never took the server for gone"
