"""The demonstration: everything on one machine, started by one command, stopped by Ctrl-C."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pydicom.data import get_testdata_file

from bench.tally import Sent, Tally, percentiles_ms
from bench.ward import Ward, WardError
from ingest.chunks import Feed
from ingest.dicom_files import DicomRecording
from ingest.publisher import BusPublisher
from ingest.recordings import open_recording
from ingest.replay import replay
from ingest.simulator import PatientSimulator
from models.bundle import load_bundle
from models.manifest import WindowSpec
from stream.contract import AlarmEvent

# Who lies in the simulated beds, over and over: two in sinus rhythm, one who falls ill after 20 s.
_PATIENTS = ((11, ""), (12, ""), (13, "sinus:80@0 vt:180@20"))
_BEDS = 4
# How long the findings of the last chunks may take to arrive before they count as lost.
_LAST_FINDINGS_S = 10.0
_CHECK_S = 0.5


class DemoError(RuntimeError):
    """The demonstration cannot run; the text says why, in one line."""


def demo_feeds(
    paths: Sequence[str] = (),
    beds: int | None = None,
    *,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
) -> list[Feed]:
    """Return who lies in which bed.

    Parameters
    ----------
    paths : sequence of str
        Recordings, one per bed, looped. Without any, the 12-lead recording that comes with pydicom and
        simulated patients, one in three of whom falls ill.
    beds : int, optional
        How many; default 4, or one for each recording, which are repeated if there are more beds.
    fs : float, optional
        Sampling frequency, Hz, of recordings that do not state it.
    leads : sequence of str, optional
        Names of the leads of such recordings, unless they are the twelve standard ones in their order.

    Returns
    -------
    list of Feed
    """
    if paths:
        # Opened once for each bed: a recording serves one reader at a time.
        return [
            Feed(f"bed-{number + 1}", open_recording(path, fs=fs, leads=leads), loop=True)
            for number, path in enumerate(islice(cycle(paths), beds or len(paths)))
        ]
    path = get_testdata_file("waveform_ecg.dcm", download=False)
    feeds = [Feed("bed-1", DicomRecording(Path(str(path))), loop=True)]
    for number in range(1, beds or _BEDS):
        seed, timeline = _PATIENTS[(number - 1) % len(_PATIENTS)]
        feeds.append(Feed(f"bed-{number + 1}", PatientSimulator(seed + number, timeline)))
    return feeds


async def run_demo(
    feeds: Sequence[Feed],
    *,
    directory: Path | None,
    port: int,
    seconds: float | None,
    model: str,
    stop: asyncio.Event,
    recordings: Path | None = None,
    say: Callable[[str], None],
    on_alarm: Callable[[AlarmEvent], None],
) -> dict[str, Any]:
    """Start server, worker and live page, feed the beds and tell of alarms until stopped.

    Parameters
    ----------
    feeds : sequence of Feed
    directory : Path, optional
        Of the embedded server.
    port : int
        Of the live page.
    seconds : float, optional
        Stop after so long.
    model : str
        Bundle that scores.
    stop : asyncio.Event
    recordings : Path, optional
        Folder into which every bed is recorded.
    say : callable
        Receives what a person should read.
    on_alarm : callable
        Receives every alarm transition.

    Returns
    -------
    dict
        The fields of ``bedside demo --json``; ``lost`` counts windows that should have a finding.

    Raises
    ------
    DemoError
        If a part does not start or dies.
    """
    _check_free(port)
    window = load_bundle(model).manifest.window
    say("starting server, worker and live page …")
    try:
        options = ("--model", model)
        with Ward(directory, worker_options=options, page_port=port, recordings=recordings) as ward:
            starting = asyncio.ensure_future(ward.ready())
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                return {}
            await starting
            beds = ", ".join(f"{feed.bed} {feed.recording.name}" for feed in feeds[:8])
            say(f"live page   http://127.0.0.1:{port}")
            say(f"beds        {beds}{' …' if len(feeds) > 8 else ''}")
            if recordings is not None:
                say(f"recordings  {recordings} (bedside record list --out {recordings})")
            say("alarms      below, or in another terminal: bedside alerts --follow")
            say("Ctrl-C stops everything. Research software, not a medical device.")
            return await _feed(ward, feeds, window, seconds, stop, on_alarm)
    except WardError as error:
        raise DemoError(str(error)) from error


async def _feed(
    ward: Ward,
    feeds: Sequence[Feed],
    window: WindowSpec,
    seconds: float | None,
    stop: asyncio.Event,
    on_alarm: Callable[[AlarmEvent], None],
) -> dict[str, Any]:
    tally = Tally(on_alarm=on_alarm)
    async with await ward.connect() as bus:
        watching: list[asyncio.Future[None]] = [
            asyncio.ensure_future(tally.follow(bus)),
            asyncio.ensure_future(_watch(ward)),
            asyncio.ensure_future(_stop_after(seconds, stop)),
        ]
        sent = Sent(BusPublisher(bus))
        feeding = asyncio.ensure_future(replay(feeds, sent, stop_event=stop))
        try:
            either: list[asyncio.Future[Any]] = [feeding, *watching[:2]]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            for task in watching[:2]:
                if task.done():
                    await task
            report = await feeding
            lost = await tally.lost_at_last(sent, window, _LAST_FINDINGS_S)
        finally:
            tasks: list[asyncio.Future[Any]] = [feeding, *watching]
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError, WardError):
                    await task
    return {
        "beds": len(feeds),
        "chunks": report.chunks,
        "findings": tally.findings,
        "alarms": len(tally.raised),
        "lost": lost,
        "publish_to_finding_ms": percentiles_ms(tally.delays_ms),
    }


def _check_free(port: int) -> None:
    # The page would say so too, but only after everything has started.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} on 127.0.0.1 cannot be had ({error.strerror}): choose another with --port"
            ) from error


async def _watch(ward: Ward) -> None:
    while True:
        await asyncio.sleep(_CHECK_S)
        ward.check()


async def _stop_after(seconds: float | None, stop: asyncio.Event) -> None:
    if seconds is not None:
        await asyncio.sleep(seconds)
        stop.set()
