"""A real browser for tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from stream.clock import SystemClock

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_MS = 30_000
# What a model says of the past is found by a process apart, in two minutes at most (monitor/history/room.py).
ANALYSED_MS = 120_000
expect.set_options(timeout=WAIT_MS)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")

# What a page whose server has gone says, and may.
_CUT_OFF = (
    "ERR_CONNECTION",
    "ERR_INCOMPLETE_CHUNKED",
    "ebSocket",
    "websocket",
    "not connected",
    "Disconnected",
    "status of 503",
)
# What a browser writes of an answer that is a refusal; whether it was meant to be one, the test sees.
_REFUSED = "the server responded with a status of 4"


@contextmanager
def open_page(width: int = 1440, height: int = 900, *, expected: tuple[str, ...] = ()) -> Iterator[Page]:
    """Open an empty page; on leaving, the browser must have had nothing to complain of but the `expected`."""
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on(
                "console", lambda message: errors.append(message.text) if message.type == "error" else None
            )
            yield page
        finally:
            browser.close()
    allowed = (*_CUT_OFF, _REFUSED, *expected)
    complaints = [error for error in errors if not any(words in error for words in allowed)]
    assert not complaints, complaints


def text(page: Page, selector: str) -> str:
    """Return the text of all elements that are found."""
    return " ".join(page.locator(selector).all_inner_texts())


def wait(page: Page, condition: Callable[[], object], timeout_ms: int = WAIT_MS) -> None:
    """Ask ten times a second; what a page shows has no event that a test could await."""
    clock = SystemClock()
    end_ns = clock.now_ns() + timeout_ms * 1_000_000
    while not condition():
        assert clock.now_ns() < end_ns, "the page does not show it"
        page.wait_for_timeout(100)


def analysed(page: Page) -> None:
    """Wait for what the model says of the history's sheet."""
    badge = page.locator("#hist-state:not([data-state=asked]):not([data-state=running])")
    expect(badge).to_have_text("analysed by cae-100hz", timeout=ANALYSED_MS)
    # What has been told may lengthen the legend, and the sheet that fits then is asked for anew.
    wait(page, lambda: painted_sheet(page, "expected") > 10_000)


def painted_sheet(page: Page, layer: str) -> int:
    """Return how many points, or shades, of a layer the sheet of the history has."""
    return int(
        page.evaluate(
            """(layer) => {
              const board = window.bedside?.parts.historySheet?.board ?? null;
              if (board === null) return 0;
              const none = layer === "trace" || layer === "expected" ? -32768 : 0;
              return board[layer].reduce((sum, ring) => sum + ring.reduce((n, v) => n + (v !== none), 0), 0);
            }""",
            layer,
        )
    )
