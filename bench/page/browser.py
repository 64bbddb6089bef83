"""The browser and the processes that the page's benchmarks look at."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page, ViewportSize, async_playwright

from bench.usage import Usage
from bench.ward import Ward

# No graphics card: what a benchmark's machine has is not what a station has.
_LAUNCH = ("--no-sandbox", "--disable-gpu", "--disable-quic")


@asynccontextmanager
async def opened(port: int, query: str, size: ViewportSize) -> AsyncIterator[Page]:
    """Open the live page of this machine in a headless Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(_LAUNCH)
        )
        page = await browser.new_page(viewport=size)
        await page.goto(f"http://127.0.0.1:{port}/?{query}")
        yield page
        await browser.close()


def cores(used: dict[str, dict[str, float]]) -> str:
    """Return in words what processes used: see `Usage.between`."""
    return ", ".join(f"{name} {of['cpu_percent']:g} %" for name, of in used.items())


def usage_of(ward: Ward) -> Usage:
    """Return the usage of a ward's processes, the server among them."""
    pids = {name: child.pid for name, child in ward.children.items()}
    return Usage(pids if ward.server.pid is None else pids | {"server": ward.server.pid})
