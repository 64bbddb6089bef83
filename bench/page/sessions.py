"""What a dashboard keeps of pages that were opened and closed again.

``python -m bench.page.sessions`` starts a server, four simulated beds and a dashboard, opens and closes a
thousand sessions as a browser does, without drawing them, and prints the dashboard's memory before and after.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import click
import psutil

from bench.machine import in_words, machine, versions
from stream.children import spawn
from stream.console import json_option, progress_bar, write_json
from stream.embedded import EmbeddedServer

# The first sessions load what all later ones use; memory counts from then on.
_WARM_UP = 50
# Together, as tabs of one ward's displays in the morning.
_AT_ONCE = 5
# A tab that is gone may come back within 15 s.
_LOOK_S = 0.5
# Beyond the acknowledgement: the page is being kept up to date.
_MESSAGES = 5


async def visit(http: aiohttp.ClientSession) -> None:
    """Open a page, take a few of its updates, and close it."""
    async with http.get("/") as answer:
        token = re.search(r'"token":"([^"]+)"', await answer.text())
    assert token is not None, "the page has no session"
    async with http.ws_connect("/ws", protocols=("bokeh", token[1])) as socket:
        for _ in range(_MESSAGES):
            await socket.receive()


async def sessions_left(http: aiohttp.ClientSession) -> int:
    """Return how many pages the dashboard still holds."""
    async with http.get("/healthz") as answer:
        return int((await answer.json())["pages"])


async def open_and_close(
    http: aiohttp.ClientSession, sessions: int, done: Callable[[float], None] | None = None
) -> None:
    """Open and close sessions, some at a time, and wait until the dashboard has let go of all."""
    for count in range(0, sessions, _AT_ONCE):
        await asyncio.gather(*(visit(http) for _ in range(min(_AT_ONCE, sessions - count))))
        if done is not None:
            done(count + _AT_ONCE)
    while await sessions_left(http):  # noqa: ASYNC110 - another process's sessions
        await asyncio.sleep(_LOOK_S)


@click.command()
@click.option("--sessions", type=click.IntRange(1), default=1_000, show_default=True)
@json_option
def main(sessions: int, json_path: str | None) -> None:
    """Open and close the live page, and print the dashboard's memory before and after."""
    with EmbeddedServer(Path(tempfile.mkdtemp(prefix="bs-"))) as server:
        bedside = [sys.executable, "-m", "bedside"]
        to = ["--redis", server.url]
        feed = spawn([*bedside, "ingest", "simulate", "--beds", "4", *to], stderr=subprocess.DEVNULL)
        dashboard = spawn([*bedside, "dashboard", "--port", "0", *to], stderr=subprocess.PIPE)
        try:
            assert dashboard.stderr is not None
            found = re.search(rb"http://\S+/", dashboard.stderr.readline())
            assert found is not None, "the dashboard did not start"
            result = asyncio.run(_measure(found[0].decode(), dashboard.pid, sessions))
        finally:
            for process in (dashboard, feed):
                process.terminate()
                process.wait()
    result |= {"benchmark": "page-sessions", "machine": machine(), "versions": versions()}
    if json_path:
        write_json(json.dumps(result, indent=1), json_path)
    click.echo(
        f"{sessions} sessions: {result['before_mb']:.1f} MB before, {result['after_mb']:.1f} MB after"
        f" ({result['growth_percent']:+.1f} %); {in_words()}",
        err=json_path == "-",
    )


async def _measure(url: str, pid: int, sessions: int) -> dict[str, Any]:
    process = psutil.Process(pid)
    async with aiohttp.ClientSession(url) as http:
        await open_and_close(http, _WARM_UP)
        before = process.memory_info().rss / 1e6
        with progress_bar("opening and closing", sessions) as done:
            await open_and_close(http, sessions, done)
        after = process.memory_info().rss / 1e6
    return {
        "sessions": sessions,
        "before_mb": round(before, 1),
        "after_mb": round(after, 1),
        "growth_percent": round(100 * (after / before - 1), 2),
    }


if __name__ == "__main__":
    main()
