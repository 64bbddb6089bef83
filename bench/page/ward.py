"""How often the ward view draws, and what that costs: 64 beds on one screen.

``python -m bench.page.ward`` starts a server, a worker and a dashboard, opens the ward view in a headless
Chromium without a graphics card on a screen of 1920 by 1080, and sends 64 beds of twelve leads at 500 Hz.
In every frame the browser looks at the pixels of one row of tiles: an update of a tile is a frame in which
those of its strip are others than in the frame before.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from playwright.async_api import ViewportSize

from bench.load import CHUNK_NS, LoadPlan
from bench.machine import in_words, machine, versions
from bench.page.browser import cores, opened, usage_of
from bench.ports import free_port
from bench.ward import Ward
from stream.children import spawn
from stream.console import json_option, progress_bar, write_json

_SIZE: ViewportSize = {"width": 1920, "height": 1080}
# Worker, page and all strips have begun.
_WARM_UP_S = 20.0
# Each bed falls ill once in the run of the committed results.
_ILL_EVERY_S = 300.0

# Counts the frames in which the pixels of a strip changed, for the strips of the first row of tiles.
_WATCH = """
() => {
  const canvases = (root) => [...root.querySelectorAll("*")].flatMap((one) => [
    ...(one instanceof HTMLCanvasElement ? [one] : []), ...(one.shadowRoot ? canvases(one.shadowRoot) : []),
  ]);
  const waves = [...document.querySelectorAll("#tiles .wave")].map((wave) => wave.getBoundingClientRect());
  const row = waves.filter((box) => Math.abs(box.top - waves[0].top) < 2);
  const seen = {frames: 0, tiles: waves.length, changed: row.map(() => 0)};
  const looks = canvases(document.getElementById("strips")).map((canvas) => {
    const whole = canvas.getBoundingClientRect();
    const dots = canvas.width / whole.width;
    return row.map((box) => ({
      context: canvas.getContext("2d"), last: null,
      at: [box.left - whole.left, box.top - whole.top, box.width, box.height]
        .map((x) => Math.round(x * dots)),
    }));
  });
  const look = () => {
    seen.frames += 1;
    const changed = new Set();
    for (const strips of looks) {
      strips.forEach((strip, place) => {
        const now = new Uint32Array(strip.context.getImageData(...strip.at).data.buffer);
        if (strip.last !== null && now.some((dot, at) => dot !== strip.last[at])) changed.add(place);
        strip.last = now;
      });
    }
    for (const place of changed) seen.changed[place] += 1;
    window.requestAnimationFrame(look);
  };
  window.requestAnimationFrame(look);
  window.seen = seen;
}
"""
_SEEN = "() => ({...window.seen, changed: [...window.seen.changed], at: performance.now()})"


async def measure(beds: int, seconds: float, screenshot: Path | None = None) -> dict[str, Any]:
    """Return what a run of so many seconds showed.

    Parameters
    ----------
    beds : int
        Up to 64, as many as fit a screen.
    seconds : float
    screenshot : Path, optional
        Where to keep a picture of the page.
    """
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        folder, port = Path(name), free_port()
        with Ward(folder, page_port=port) as ward:
            await ward.ready()
            usage = usage_of(ward)
            async with await ward.connect() as bus:
                plan = LoadPlan(
                    url=ward.url,
                    prefix=bus.prefix,
                    beds=beds,
                    chunks=math.ceil((_WARM_UP_S + seconds) * 1e9 / CHUNK_NS),
                    seed=1,
                    ill_every_s=_ILL_EVERY_S,
                    paths=(),
                    accepted=str(folder / "accepted.npy"),
                )
            plan.write(folder / "plan.json")
            async with opened(port, "view=ward", _SIZE) as page:
                load = spawn(
                    [sys.executable, "-m", "bench.load", str(folder / "plan.json")], stdout=subprocess.PIPE
                )
                try:
                    assert load.stdout is not None
                    # The line that tells when the first sample was taken.
                    await asyncio.to_thread(load.stdout.readline)
                    await asyncio.sleep(_WARM_UP_S)
                    await page.evaluate(_WATCH)
                    before = await page.evaluate(_SEEN)
                    usage.sample()
                    with progress_bar("watching", seconds) as done:
                        for second in range(math.floor(seconds)):
                            await asyncio.sleep(1)
                            done(second + 1)
                    usage.sample()
                    after = await page.evaluate(_SEEN)
                    if screenshot is not None:
                        await page.screenshot(path=screenshot)
                finally:
                    load.kill()
                    load.wait()
    took = (after["at"] - before["at"]) / 1000
    updates = sorted(
        round((last - first) / took, 1)
        for first, last in zip(before["changed"], after["changed"], strict=True)
    )
    return {
        "beds": beds,
        "tiles": after["tiles"],
        "seconds": seconds,
        "updates_per_s": {"least": updates[0], "median": updates[len(updates) // 2], "tiles": len(updates)},
        "frames_per_s": round((after["frames"] - before["frames"]) / took, 1),
        "used": usage.between(usage.at_s[0], usage.at_s[-1]),
    }


@click.command()
@click.option("--beds", type=click.IntRange(1, 64), default=64, show_default=True)
@click.option("--seconds", type=click.FloatRange(5), default=120, show_default=True)
@click.option("--screenshot", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def main(beds: int, seconds: float, screenshot: Path | None, json_path: str | None) -> None:
    """Measure the ward view in a headless browser."""
    result = asyncio.run(measure(beds, seconds, screenshot))
    result |= {"benchmark": "page-ward", "machine": machine(), "versions": versions()}
    if json_path:
        write_json(json.dumps(result, indent=1), json_path)
    updates = result["updates_per_s"]
    click.echo(
        f"{result['tiles']} tiles: a strip is drawn {updates['median']:g} times a second,"
        f" at least {updates['least']:g} ({updates['tiles']} tiles looked at);"
        f" frames {result['frames_per_s']:g} /s\n"
        f"of a core: {cores(result['used'])}\n{in_words()}",
        err=json_path == "-",
    )


if __name__ == "__main__":
    main()
