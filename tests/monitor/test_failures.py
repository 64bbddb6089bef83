"""What the page says in a real browser while a part of a real deployment fails, and after that."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from bench.ports import free_port
from bench.ward import Ward
from stream.children import spawn
from tests.browser import needs_browser, open_page

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

# A worker like any other, but that its model fails for as long as a file is there.
_FRAIL = """
import sys
from pathlib import Path
import bedside, stream.judging

works, broken = stream.judging.judge, Path(sys.argv.pop(1))

def judge(*args):
    if broken.exists():
        raise RuntimeError("out of memory")
    return works(*args)

stream.judging.judge = judge
sys.argv = ["bedside", "worker", *sys.argv[1:], "--metrics-port", "0"]
bedside.main()
"""
_SCORE = re.compile(r"^−?\d+\.\d$")
# The last sample that has been drawn.
_DRAWN = "() => window.bedside.parts.sweep.board?.stop ?? 0"
MINUTE_MS = 90_000


@contextmanager
def fed(ward: Ward, timeline: str = "sinus:80@0", prefix: str = "sim-") -> Iterator[subprocess.Popen[bytes]]:
    """Run a feed of one patient, by default of one who stays well."""
    command = [sys.executable, "-m", "bedside", "ingest", "simulate", "--timeline", timeline]
    feed = spawn([*command, "--prefix", prefix, "--redis", ward.url, "--metrics-port", "0"])
    try:
        yield feed
        assert feed.poll() is None
    finally:
        feed.kill()
        feed.wait()


@contextmanager
def bed_view(ward: Ward, port: int) -> Iterator[Page]:
    """Open the view of the only bed, and wait until it is scored."""
    asyncio.run(ward.ready())
    with fed(ward), open_page() as page:
        page.goto(f"http://127.0.0.1:{port}/?view=bed")
        expect(page.locator("#score")).to_have_text(_SCORE)
        yield page
        ward.check()


def goes_on(page: Page) -> None:
    """Wait until the page has drawn more than it has."""
    page.wait_for_function(f"(before) => ({_DRAWN})() > before", arg=page.evaluate(_DRAWN))


def test_a_model_that_fails_is_told_and_the_bed_is_scored_again(short_tmp: Path, artefacts: Path) -> None:
    port, broken = free_port(), short_tmp / "broken"
    with (
        Ward(short_tmp / "s", page_port=port, scorer=("-c", _FRAIL, str(broken))) as ward,
        bed_view(ward, port) as page,
    ):
        (worker,) = page.request.get(f"http://127.0.0.1:{port}/api/system").json()["workers"]
        runs_on = f"{worker['status']['backend']} {worker['status']['precision']}"
        expect(page.locator("#judged")).to_have_text(
            re.compile(rf"^cae-100hz · {runs_on} · scored in [\d.]+ m?s$")
        )
        page.screenshot(path=artefacts / "bed-judged.png")
        broken.touch()
        expect(page.locator("#alarms")).to_contain_text("model failed: out of memory")
        expect(page.locator("#score")).to_have_text("–")
        expect(page.locator("#judged")).to_have_text("cae-100hz")
        goes_on(page)
        page.screenshot(path=artefacts / "bed-model-failed.png")
        broken.unlink()
        expect(page.locator("#score")).to_have_text(_SCORE)
        expect(page.locator("#alarms")).not_to_contain_text("model failed")


# A minute is a minute.
@pytest.mark.timeout(400)
def test_a_redis_server_that_is_away_for_a_minute_is_told_and_all_goes_on(
    short_tmp: Path, artefacts: Path
) -> None:
    port = free_port()
    with Ward(short_tmp, page_port=port) as ward, bed_view(ward, port) as page:
        ward.server.stop()
        trouble = page.locator("#trouble")
        expect(trouble).to_contain_text("Connection to the server lost for 1 min", timeout=MINUTE_MS)
        page.screenshot(path=artefacts / "bed-server-away.png")
        ward.server.start()
        expect(trouble).to_be_hidden()
        goes_on(page)
        expect(page.locator("#score")).to_have_text(_SCORE)
