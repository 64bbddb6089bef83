"""The commands ``replay`` and ``ingest``."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from ingest.live.commands import SourceCommands
from stream.console import (
    RefusalError,
    broker_option,
    fs_option,
    kafka_url,
    leads_option,
    metrics_option,
    progress_bar,
    redis_option,
    run_until_stopped,
    serve_metrics,
    server_url,
)
from stream.logs import say
from stream.settings import Settings, is_kafka

if TYPE_CHECKING:
    from ingest.chunks import Feed
    from ingest.publisher import Publisher
    from ingest.source import Recording


def _speed(_: click.Context, __: click.Parameter, value: str) -> float:
    from ingest.replay import parse_speed

    try:
        return parse_speed(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


speed_option = click.option(
    "--speed",
    default="1",
    show_default=True,
    callback=_speed,
    metavar="X",
    help="Times real time, or max: as fast as the worker follows.",
)


@click.command("replay")
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option(
    "--dataset",
    type=click.Choice(["mitdb", "ptbxl"]),
    help="A record of MIT-BIH or PTB-XL in place of a PATH, downloaded from PhysioNet unless it is there.",
)
@click.option("--record", metavar="NAME", help="Which one. [default: the first]")
@click.option(
    "--bed", "beds", multiple=True, metavar="ID", help="Bed of a PATH, in their order. [default: its name]"
)
@speed_option
@click.option("--start", default=0.0, metavar="S", help="Begin at this second of the recording.")
@click.option("--stop", type=float, metavar="S", help="End at this second of the recording.")
@click.option("--loop", is_flag=True, help="Begin again at the end, for ever; short recordings beat by beat.")
@click.option("--seconds", type=click.FloatRange(min=1), help="End a loop after so much signal.")
@click.option(
    "--beds",
    "copies",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="With --loop: so many beds from a PATH, each begins elsewhere in it.",
)
@click.option(
    "--device-time",
    type=click.Choice(["now", "recorded"]),
    default="now",
    show_default=True,
    help="What the device's clock says of the first sample.",
)
@click.option("--faults", metavar="FILE", help="Have a fault script happen to the feeds (docs/replay.md).")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    help="Decides what --faults and --beds leave to chance. [default: the script's, else 0]",
)
@fs_option
@leads_option
@broker_option
@redis_option
@metrics_option(9465)
def replay(
    paths: tuple[str, ...],
    dataset: str | None,
    record: str | None,
    beds: tuple[str, ...],
    speed: float,
    start: float,
    stop: float | None,
    loop: bool,
    seconds: float | None,
    copies: int,
    device_time: str,
    faults: str | None,
    seed: int | None,
    fs: float | None,
    leads: tuple[str, ...] | None,
    broker: str | None,
    redis: str | None,
    metrics_port: int | None,
) -> None:
    """Send recordings as live beds: WFDB records, .npy arrays, DICOM waveforms, what `bedside record` wrote.

    The folder of a recorded bed is sent as it came, session after session: the same samples in the same
    places.

    \b
    bedside replay mitdb/207 --bed icu-1
    bedside replay a.npy b.npy --fs 500 --loop
    bedside replay holter.npy --fs 250 --leads II,V5
    bedside replay long-record --speed max --start 3600 --stop 7200
    bedside replay mitdb/100 --loop --beds 64
    bedside replay mitdb/100 --faults docs/faults/bad-day.yaml --seed 7
    bedside replay recordings/icu-1 --bed icu-1-again
    bedside replay --dataset mitdb --record 207
    bedside replay mitdb/207 --broker kafka://kafka.example:9092
    """
    from ingest.chunks import Feed
    from ingest.recordings import open_recording, open_recordings

    if (dataset is None) == (not paths):
        raise click.UsageError("name a PATH to replay, or a --dataset")
    if record is not None and dataset is None:
        raise click.UsageError("--record goes with --dataset")
    if not loop and (copies > 1 or seconds is not None):
        raise click.UsageError("--beds and --seconds go with --loop")
    sources = 1 if dataset is not None else len(paths)
    if beds and len(beds) != sources:
        raise click.UsageError(f"{len(beds)} --bed for {sources} PATH: give one for each, or none")
    if dataset is not None:
        paths = (_downloaded(dataset, record),)
    opened = [open_recordings(path, fs=fs, leads=leads) for path in paths]
    names = beds or _distinct([sessions[0].bed for sessions in opened])
    feeds: list[Feed] = []
    for name, path, sessions in zip(names, paths, opened, strict=True):
        if len(sessions) > 1 and (loop or start or stop is not None):
            raise click.UsageError(
                f"{path} holds {len(sessions)} sessions: --start, --stop and --loop are for one recording"
            )
        feed = None
        for recording in reversed(sessions):
            feed = Feed(
                name,
                recording,
                start_s=start,
                stop_s=stop,
                loop=loop,
                lasts_s=seconds,
                base_time_ns=_recorded_time(recording, start) if device_time == "recorded" else None,
                following=feed,
            )
        assert feed is not None
        again = partial(open_recording, path, fs=fs, leads=leads)
        feeds += [feed] if copies == 1 else _copies(feed, copies, again, seed or 0)
    called = [feed.bed for feed in feeds]
    if len(set(called)) < len(called):
        raise click.UsageError("a bed stands twice: each PATH needs a bed of its own")
    if faults is not None:
        feeds = _with_faults(feeds, faults, seed)
    _send(feeds, speed, broker, redis, metrics_port)


def _downloaded(dataset: str, record: str | None) -> str:
    from ingest.datasets import fetch

    with progress_bar(f"downloading {dataset} {record or ''}".strip(), 1.0) as progress:
        return str(fetch(dataset, record, progress))


def _recorded_time(recording: Recording, start_s: float) -> int:
    if recording.start_ns == 0:
        raise RefusalError(f"{recording.name} does not say when it was recorded: leave out --device-time")
    return recording.start_ns + round(start_s * 1e9)


def _copies(feed: Feed, copies: int, again: Callable[[], Recording], seed: int) -> list[Feed]:
    # In parts of equal length, each begins somewhere in its own: at even distances a regular rhythm could
    # beat together. Each reads the file by itself, for no two may read one recording at the same time.
    import numpy as np

    ends = [end for end in (feed.recording.duration_s, feed.stop_s) if end is not None]
    part_s = (min(ends) - feed.start_s) / copies if ends else 0.0
    shares = np.random.default_rng(seed).random(copies)
    made = []
    for number in range(copies):
        offset_s = (number + shares[number]) * part_s if number else 0.0
        base = feed.base_time_ns
        made.append(
            replace(
                feed,
                bed=f"{feed.bed[:59]}-{number + 1}",
                recording=again() if number else feed.recording,
                offset_s=offset_s,
                session=uuid.uuid4().hex,
                base_time_ns=None if base is None else base + round(offset_s * 1e9),
            )
        )
    return made


def _with_faults(feeds: list[Feed], path: str, seed: int | None) -> list[Feed]:
    from ingest.faults.line import BedFaults
    from ingest.faults.script import read_script

    script = read_script(path)
    script.check_targets(path, {feed.bed: feed.recording.leads for feed in feeds})
    chosen = script.seed if seed is None else seed
    say(f"faults of {path}, seed {chosen}:")
    for fault in script.faults:
        whose = "all beds" if "*" in fault.beds else " ".join(fault.beds)
        say(f"  {fault.what} {fault.when}; {whose}")

    def faulty(feed: Feed) -> Feed:
        following = None if feed.following is None else faulty(feed.following)
        bed = BedFaults(script, feed.bed, chosen, say)
        return replace(feed, faults=bed, following=following)

    return [faulty(feed) for feed in feeds]


@click.group("ingest", cls=SourceCommands)
def ingest() -> None:
    """Live feeds: devices that send by one of these protocols, and simulated patients.

    \b
    bedside ingest tcp --port 8040
    bedside ingest simulate --beds 16
    """


@ingest.command("simulate")
@click.option("--beds", default=1, show_default=True, type=click.IntRange(1, 10_000))
@click.option(
    "--timeline", default="", metavar="TEXT", help="What happens when; see below. [default: sinus rhythm]"
)
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    help="Of the first bed's patient; the others follow.",
)
@click.option("--prefix", default="sim-", show_default=True, help="Beds are called PREFIX1, PREFIX2 …")
@click.option("--seconds", type=click.FloatRange(min=1), help="End after so much signal. [default: never]")
@speed_option
@broker_option
@redis_option
@metrics_option(9465)
def simulate(
    beds: int,
    timeline: str,
    seed: int,
    prefix: str,
    seconds: float | None,
    speed: float,
    broker: str | None,
    redis: str | None,
    metrics_port: int | None,
) -> None:
    """Send simulated 12-lead patients: for demonstrations and load, never for figures of quality.

    A timeline is a list of KIND[:VALUE]@SECOND[+DURATION], such as
    "sinus:72@0 vt:180@25 asystole@60 leadoff:V1@80+10".

    \b
    bedside ingest simulate --beds 16
    bedside ingest simulate --timeline "sinus:64@0 af@120 motion@200+15" --prefix icu-
    """
    from ingest.chunks import Feed
    from ingest.simulator import PatientSimulator

    feeds = [
        Feed(f"{prefix}{number + 1}", PatientSimulator(seed + number, timeline, duration_s=seconds))
        for number in range(beds)
    ]
    _send(feeds, speed, broker, redis, metrics_port)


def _distinct(names: list[str]) -> tuple[str, ...]:
    # Recordings of the same name become beds name, name-2, name-3.
    return tuple(
        name if names[:place].count(name) == 0 else f"{name}-{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    )


def _send(
    feeds: list[Feed], speed: float, broker: str | None, redis: str | None, metrics_port: int | None
) -> None:
    from ingest import replay as replaying

    kafka = kafka_url(broker)
    url = kafka or broker or server_url(redis)
    serve_metrics(metrics_port, 9465)
    # A thread that reads a file must not keep the schedule waiting: Python's own 5 ms are late.
    sys.setswitchinterval(_SWITCH_S)
    total = _chunks(feeds)
    what = feeds[0].bed if len(feeds) == 1 else f"{len(feeds)} beds"

    async def run(stop: asyncio.Event) -> None:
        async with _publisher(url, stop) as publisher:
            with progress_bar(f"sending {what}", total) as progress:

                def told(status: replaying.ReplayStatus) -> None:
                    progress(status.chunks)
                    if status.behind_s > _BEHIND_S:
                        say(f"{status.behind_s:.1f} s behind schedule")

                report = await replaying.replay(
                    feeds, publisher, speed=speed, stop_event=stop, on_status=told
                )
        say(f"sent {report.chunks} chunks; at most {report.max_behind_s * 1000:.0f} ms behind schedule")
        if report.faults:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(report.faults.items()))
            say(f"chunks that faults happened to: {counts}")
        if report.failed:
            raise RefusalError("; ".join(f"bed {bed}: {why}" for bed, why in report.failed.items()))

    run_until_stopped(run)


@asynccontextmanager
async def _publisher(url: str, stop: asyncio.Event) -> AsyncIterator[Publisher]:
    prefix = Settings().prefix
    if is_kafka(url):
        from ingest.kafka_publisher import kafka_publisher

        async with kafka_publisher(url, prefix, on_wait=say, stop_event=stop) as publisher:
            yield publisher
        return
    from ingest.publisher import BusPublisher
    from stream.bus import Bus

    async with await Bus.connect(url, prefix=prefix) as bus:
        yield BusPublisher(bus, on_wait=say, stop_event=stop)


def _chunks(feeds: list[Feed]) -> float | None:
    # How many chunks there are to send, None if there is no end.
    from ingest.chunks import CHUNK_S

    total = 0.0
    for feed in _with_following(feeds):
        if feed.loop and feed.lasts_s is not None:
            total += feed.lasts_s / CHUNK_S
            continue
        ends = [end for end in (feed.recording.duration_s, feed.stop_s) if end is not None]
        if feed.loop or not ends:
            return None
        total += max(0.0, min(ends) - feed.start_s) / CHUNK_S
    return total


def _with_following(feeds: list[Feed]) -> Iterator[Feed]:
    for feed in feeds:
        at: Feed | None = feed
        while at is not None:
            yield at
            at = at.following


_SWITCH_S = 0.0005
# A chunk is 0.2 s: a replay later than this is no longer real time for who looks on.
_BEHIND_S = 0.5
