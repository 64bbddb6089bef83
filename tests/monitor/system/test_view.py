"""The system view in a real browser: no worker, two workers, and one that is killed."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from bench.ports import free_port
from bench.ward import Ward
from stream.children import spawn
from stream.clock import SystemClock
from stream.embedded import EmbeddedServer
from tests.browser import needs_browser, open_page
from tests.monitor.serving import dashboard

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

_SPENT = re.compile(r"^[\d.]+( s)? / [\d.]+( s)?$")


def test_without_a_worker_it_says_how_to_start_one_and_without_redis_that_it_is_away(
    redis_server: EmbeddedServer, artefacts: Path
) -> None:
    with dashboard(redis_server.url) as served, open_page() as page:
        page.goto(served.url)
        page.get_by_role("button", name="System").click()
        expect(page.locator("#sys-none")).to_be_visible()
        expect(page.locator("#sys-none")).to_contain_text("Start one with bedside worker")
        expect(page.locator("#sys-workers table")).to_be_hidden()
        expect(page.locator("#sys-partitions li")).to_have_count(16)
        expect(page.locator("#sys-problems li")).to_have_count(0)
        expect(page.locator("#sys-redis")).to_contain_text("refuses to write (noeviction)")
        page.screenshot(path=artefacts / "system-none.png")
        redis_server.stop()
        expect(page.locator("#sys-stale")).to_contain_text(
            "The Redis server does not answer. What you see is as of"
        )
        page.screenshot(path=artefacts / "system-lost.png")
        redis_server.start()
        expect(page.locator("#sys-stale")).to_be_hidden()
        assert "view=system" in page.url


def test_a_worker_that_is_killed_stands_out_within_five_seconds(short_tmp: Path, artefacts: Path) -> None:
    port = free_port()
    with Ward(short_tmp, workers=2, page_port=port) as ward:
        asyncio.run(ward.ready())
        feed = [sys.executable, "-m", "bedside", "ingest", "simulate", "--beds", "8", "--redis", ward.url]
        simulator = spawn([*feed, "--metrics-port", "0"])
        try:
            with open_page() as page:
                page.goto(f"http://127.0.0.1:{port}/?view=system")
                rows = page.locator("#sys-rows tr")
                expect(rows).to_have_count(2)
                for place in range(2):
                    expect(rows.nth(place)).to_contain_text("works")
                    # Median and 99th percentile of six stages.
                    expect(rows.nth(place).locator(".sys-latency")).to_have_text([_SPENT] * 6)
                expect(page.locator("#sys-count")).to_contain_text("2 workers · 8 beds")
                page.screenshot(path=artefacts / "system-two.png")
                victim = ward.children.pop("worker-2")
                clock = SystemClock()
                victim.kill()
                killed_ns = clock.now_ns()
                gone = page.locator("#sys-rows tr.sys-alarm")
                expect(gone).to_have_count(1)
                # The promise itself, so for once a time is asserted.
                assert clock.now_ns() - killed_ns < 5_000_000_000
                # The worst comes first, in words and with a sign.
                expect(rows.first).to_contain_text("silent for")
                expect(rows.first.locator("b")).to_have_text("!!!")
                assert str(rows.first.get_attribute("data-worker")).endswith(f"-{victim.pid}")
                expect(rows.nth(1)).to_contain_text("works")
                expect(page.locator("#sys-count")).to_contain_text("1 worker, 1 silent")
                page.screenshot(path=artefacts / "system-killed.png")
                # Its beds move to the other one.
                expect(page.locator("#sys-count")).to_contain_text("8 beds")
                expect(page.locator("#sys-partitions")).not_to_contain_text("nobody")
                ward.start_worker("third")
                expect(rows).to_have_count(2)
                expect(gone).to_have_count(0)
        finally:
            simulator.kill()
            simulator.wait()
