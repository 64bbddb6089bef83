"""How late the bed view is, and how often it draws: from a chunk's publication to its pixels.

``python -m bench.page.bed`` starts a server, a worker and a dashboard, opens the bed view in a headless
Chromium without a graphics card, and feeds it twelve leads at 500 Hz in chunks of 200 ms. Now and then a
lead steps up by 1.5 mV: a marker, at a random place in its chunk. The browser looks at the pixels of the
sheet where the step has to appear, in every frame.

A latency is the time from the publication of the chunk in which the marker lies, when it is handed to the
server's client, to the begin of the frame after the one in which its pixels were found: by then they are on
the screen. It contains the way through Redis, the dashboard and the browser, the filter's delay of 10 ms,
and the play-out, which draws a chunk while the next one is on its way: up to 200 ms, depending on the
marker's place in its chunk.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from playwright.async_api import Page, ViewportSize

from bench.machine import in_words, machine, versions
from bench.page.browser import cores, opened, usage_of
from bench.ports import free_port
from bench.ward import Ward
from ingest.chunks import CHUNK_S
from ingest.simulator import PatientSimulator
from stream.bus import Bus
from stream.clock import SystemClock
from stream.console import json_option, progress_bar, write_json
from stream.contract import ChunkHeader, SampleChunk, Validity, to_lsb
from stream.topics import SAMPLES

FS = 500.0
_BED, _LEAD = "bed-1", "I"
_PER_CHUNK = round(FS * CHUNK_S)
_CHUNK_NS = round(CHUNK_S * 1e9)
# The lead of the marker is made small: nothing but the marker reaches the pixels that are looked at.
_OWN, _STEP_MV, _STEP_S = 0.3, 1.5, 0.06
_LOOK_MV = (0.6, 1.2)
# Markers far enough apart for the filter to settle; their distances differ, so that they meet every phase.
_APART_S = (0.9, 1.5)
# Half a minute for page and model to have begun: the first windows are the slowest.
_WARM_UP_S = 15.0
_SIZE: ViewportSize = {"width": 1440, "height": 900}

# Looks at the pixels of markers (samples) that are due, in each frame; `found` are [sample, time] pairs.
_WATCH = """
([markers, lead, low, high]) => {
  const sweep = window.bedside.parts.sweep;
  const found = [];
  const waiting = [...markers];
  const drift = Date.now() - performance.timeOrigin - performance.now();
  const now = () => performance.timeOrigin + performance.now() + drift;
  let pending = [];
  const look = () => {
    for (const sample of pending) found.push([sample, now()]);
    pending = [];
    const {board, painter} = sweep;
    // The gap in front of the trace has wiped what was there a sweep ago.
    while (waiting.length > 0 && sweep.head * board.size > waiting[0] - 0.15 * board.rate * board.size) {
      const [top, base] = [high, low].map((mv) => sweep.where(lead, waiting[0], mv * 1000));
      const [x, y, tall] = [top.x, top.y, base.y - top.y].map((at) => Math.round(at * painter.dots));
      const {data} = painter.context.getImageData(x - 2, y, 5, tall);
      let dark = false;
      for (let at = 0; at < data.length; at += 4) dark ||= data[at] + data[at + 1] + data[at + 2] < 200;
      if (!dark) break;
      pending.push(waiting.shift());
    }
    window.requestAnimationFrame(look);
  };
  window.requestAnimationFrame(look);
  window.found = found;
}
"""
_COUNT = "() => ({...window.bedside.counters, at: performance.now()})"


def plan_markers(seconds: float, seed: int = 1) -> list[int]:
    """Return the samples at which markers stand."""
    random = np.random.default_rng(seed)
    at_s, markers = _WARM_UP_S, []
    while at_s < seconds + _WARM_UP_S:
        markers.append(round(at_s * FS))
        at_s += random.uniform(*_APART_S)
    return markers


class Feed:
    """A simulated patient whose lead I has markers, published in real time.

    Parameters
    ----------
    markers : list of int
    """

    def __init__(self, markers: list[int]) -> None:
        self._patient = PatientSimulator(11, fs=FS)
        self._markers = np.array(markers)
        self.published_ns: list[int] = []
        """When each chunk was handed to the server's client."""

    async def publish(self, bus: Bus, chunks: int) -> None:
        """Publish so many chunks, each when its last sample has been taken."""
        clock = SystemClock()
        began = clock.now_ns()
        for seq in range(chunks):
            await clock.sleep_until(began + (seq + 1) * _CHUNK_NS)
            now = clock.now_ns()
            data = self._chunk(seq, began, now).encode()
            self.published_ns.append(clock.now_ns())
            await bus.publish(SAMPLES, _BED.encode(), data)

    def _chunk(self, seq: int, began: int, now: int) -> SampleChunk:
        patient, first = self._patient, seq * _PER_CHUNK
        millivolts = patient.read(first, first + _PER_CHUNK) / np.array(patient.gain)
        column = patient.leads.index(_LEAD)
        since = np.arange(first, first + _PER_CHUNK)[:, np.newaxis] - self._markers
        stepped = ((since >= 0) & (since < _STEP_S * FS)).any(axis=1)
        millivolts[:, column] = _OWN * millivolts[:, column] + _STEP_MV * stepped
        header = ChunkHeader(
            bed=_BED,
            session=f"bench-{began}",
            seq=seq,
            t0=began + seq * _CHUNK_NS,
            ingest_ns=now,
            n0=first,
            fs=FS,
            leads=patient.leads,
            gain=(1000.0,) * len(patient.leads),
            valid=(Validity.OK,) * len(patient.leads),
        )
        return SampleChunk(header, to_lsb(millivolts))


async def measure(model: str, seconds: float, screenshot: Path | None = None) -> dict[str, Any]:
    """Return what a run of so many seconds showed.

    Parameters
    ----------
    model : str
        Bundle that scores.
    seconds : float
    screenshot : Path, optional
        Where to keep a picture of the page.
    """
    markers = plan_markers(seconds)
    feed = Feed(markers)
    chunks = round((_WARM_UP_S + seconds + 2) / CHUNK_S)
    directory = Path(tempfile.mkdtemp(prefix="bs-"))
    port = free_port()
    with Ward(directory, worker_options=("--model", model), page_port=port) as ward:
        await ward.ready()
        usage = usage_of(ward)
        async with await ward.connect() as bus, opened(port, f"view=bed&bed={_BED}", _SIZE) as page:
            feeding = asyncio.create_task(feed.publish(bus, chunks))
            await asyncio.sleep(_WARM_UP_S - 2)
            await page.evaluate(_WATCH, [markers, _LEAD, *_LOOK_MV])
            before = await page.evaluate(_COUNT)
            usage.sample()
            with progress_bar("watching", seconds) as done:
                for second in range(round(seconds)):
                    await asyncio.sleep(1)
                    done(second + 1)
            usage.sample()
            after = await page.evaluate(_COUNT)
            if screenshot is not None:
                await page.screenshot(path=screenshot)
            await feeding
            found = await _found(page)
    shutil.rmtree(directory, ignore_errors=True)
    took = (after["at"] - before["at"]) / 1000
    return {
        "model": model,
        "seconds": seconds,
        "painted_per_s": round((after["painted"] - before["painted"]) / took, 1),
        "frames_per_s": round((after["frames"] - before["frames"]) / took, 1),
        "used": usage.between(usage.at_s[0], usage.at_s[-1]),
        "markers": len(markers),
        **_latencies(feed, found),
    }


async def _found(page: Page) -> list[tuple[int, float]]:
    return [(int(sample), float(at)) for sample, at in await page.evaluate("() => window.found")]


def _latencies(feed: Feed, found: list[tuple[int, float]]) -> dict[str, Any]:
    samples = np.array([sample for sample, _ in found], dtype=np.intp)
    at_ms = np.array([at for _, at in found])
    chunk, place = np.divmod(samples, _PER_CHUNK)
    published_ms = np.array(feed.published_ns)[chunk] / 1e6
    latency = at_ms - published_ms
    # What is left without the play-out's own part: the marker's place in its chunk.
    rest = latency - place / FS * 1000
    return {
        "found": len(found),
        "publication_to_pixels_ms": _percentiles(latency),
        "without_place_in_chunk_ms": _percentiles(rest),
    }


def _percentiles(values: np.ndarray) -> dict[str, float]:
    return {
        f"p{p:g}": round(float(np.percentile(values, p)), 1) if len(values) else float("nan")
        for p in (5, 50, 95, 99, 100)
    }


@click.command()
@click.option("--seconds", type=click.FloatRange(5), default=300, show_default=True)
@click.option("--model", default="vae-bilstm-mha-100hz", show_default=True, help="The one with most to draw.")
@click.option("--screenshot", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def main(seconds: float, model: str, screenshot: Path | None, json_path: str | None) -> None:
    """Measure the bed view in a headless browser."""
    result = asyncio.run(measure(model, seconds, screenshot))
    result |= {"benchmark": "page-bed", "machine": machine(), "versions": versions()}
    if json_path:
        write_json(json.dumps(result, indent=1), json_path)
    latency, rest = result["publication_to_pixels_ms"], result["without_place_in_chunk_ms"]
    click.echo(
        f"publication to pixels: p50 {latency['p50']:g} ms, p95 {latency['p95']:g} ms,"
        f" p99 {latency['p99']:g} ms, n = {result['found']} of {result['markers']}\n"
        f"without the marker's place in its chunk: p50 {rest['p50']:g} ms, p95 {rest['p95']:g} ms\n"
        f"painted updates: {result['painted_per_s']:g} /s; of a core: {cores(result['used'])}\n{in_words()}",
        err=json_path == "-",
    )


if __name__ == "__main__":
    main()
