from __future__ import annotations

import asyncio

import aiohttp
import psutil
import pytest

from bench.page.sessions import open_and_close
from stream.embedded import EmbeddedServer
from stream.leads import LEADS
from tests.monitor.serving import FakeWard, dashboard

WARM_UP, SESSIONS = 20, 100
# The long form, of a thousand, is `python -m bench.page.sessions`.
GROWTH = 1.05


@pytest.mark.page
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_sessions_that_are_closed_leave_no_memory_behind(redis_server: EmbeddedServer) -> None:
    beds = {"bed-1": tuple(LEADS), "bed-2": ("II",)}
    with dashboard(redis_server.url) as running, FakeWard(redis_server.url, beds).running():
        process = psutil.Process(running.process.pid)

        async def grown() -> float:
            async with aiohttp.ClientSession(running.url) as http:
                await open_and_close(http, WARM_UP)
                before = process.memory_info().rss
                await open_and_close(http, SESSIONS)
                # A second after the last page was closed its memory is given back.
                for _ in range(50):
                    grown = process.memory_info().rss / before
                    if grown <= GROWTH:
                        break
                    await asyncio.sleep(0.1)
                return grown

        assert asyncio.run(grown()) <= GROWTH
