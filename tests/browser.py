"""A real browser for tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")

# What a page whose server has gone says, and may.
_CUT_OFF = ("ERR_CONNECTION", "ebSocket", "websocket", "not connected", "status of 503")
# What a browser writes of an answer that is a refusal; whether it was meant to be one, the test sees.
_REFUSED = "the server responded with a status of 4"


@contextmanager
def open_page(width: int = 1440, height: int = 900) -> Iterator[Page]:
    """Open an empty page; on leaving, the browser must have had nothing to complain of."""
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
    assert [error for error in errors if not any(words in error for words in (*_CUT_OFF, _REFUSED))] == []
