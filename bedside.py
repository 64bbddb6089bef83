"""Bedside: a streaming monitoring engine for bedside ECG feeds.

The command line (``bedside --help``) and the few functions that a program needs: `analyze` a recording,
subscribe to `alarms`, `load_model`. Everything is imported where it is used, so that ``--help`` and the light
commands start at once.

Research software, not a medical device; never the only source of alarms.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from stream.console import (
    RefusalError,
    check_writable,
    device_time,
    fs_option,
    json_option,
    leads_option,
    local_time,
    model_option,
    progress_bar,
    redis_option,
    server_url,
    write_json,
    writing,
)
from stream.logs import LogFormat, say, set_up
from stream.settings import Settings, unknown_variables

if TYPE_CHECKING:
    from ingest.source import Recording
    from models.session import Session
    from stream.bus import Bus
    from stream.contract import Audit, Finding
    from stream.engine import Pending
    from stream.offline import Analysis
    from stream.overlay import Overlay
    from stream.snapshots.store import Snapshot
    from stream.subscription.follow import Alarm
    from stream.verdict import Verdict

__all__ = [
    "acknowledge",
    "alarms",
    "analyze",
    "follow_alarms",
    "load_model",
    "main",
    "pause",
    "resume",
    "snapshot",
]


# ---- for programs ----------------------------------------------------------------------------------------


def load_model(name: str = "cae-100hz", *, backend: str = "onnxruntime", precision: str = "fp32") -> Session:
    """Load a model bundle and prove that it computes what was trained.

    Parameters
    ----------
    name : str
        A shipped bundle or the path of a bundle folder.
    backend, precision : str

    Returns
    -------
    models.session.Session

    Raises
    ------
    models.bundle.BundleError
        If there is no such bundle, or it is refused.
    """
    from models.backends import open_session
    from models.bundle import load_bundle

    return open_session(load_bundle(name), backend=backend, precision=precision)


def analyze(
    path: str | Path,
    *,
    model: str = "cae-100hz",
    fs: float | None = None,
    leads: Sequence[str] | None = None,
) -> Analysis:
    """Run one recording through the pipeline that also runs live.

    Parameters
    ----------
    path : str or Path
        A WFDB record, a ``.npy`` array (with `fs`) or a DICOM waveform.
    model : str
    fs : float, optional
        Sampling frequency, Hz, of a file that does not state it.
    leads : sequence of str, optional
        Names of the leads of such a file, unless they are the twelve standard ones in their order.

    Returns
    -------
    stream.offline.Analysis

    Examples
    --------
    >>> bedside.analyze("records500/00000/00001_hr").record_score  # doctest: +SKIP
    """
    from ingest.recordings import open_recording

    return _analyse(open_recording(path, fs=fs, leads=leads), load_model(model))


def alarms(url: str, **options: Any) -> AsyncIterator[Alarm]:
    """Subscribe to the alarms of a running deployment; see `stream.subscription.follow.alarms`.

    Parameters
    ----------
    url : str
        Its Redis server.
    **options
        ``since``, ``follow``, and filters ``bed``, ``kind``, ``priority``, ``rule``.

    Examples
    --------
    >>> async for event in bedside.alarms("redis://localhost", since="10m"):  # doctest: +SKIP
    ...     print(event.position, event.bed, event.presence, event.message)
    """
    from stream.subscription.follow import alarms as subscribe

    return subscribe(url, **{"prefix": Settings().prefix} | options)


def follow_alarms(url: str, **options: Any) -> Iterator[Alarm]:
    """Subscribe to alarms from a program without asyncio; see `alarms`.

    Examples
    --------
    >>> for event in bedside.follow_alarms("redis://localhost", bed="icu-1"):  # doctest: +SKIP
    ...     print(event.position, event.bed, event.presence, event.message)
    """
    from stream.subscription.follow import follow_alarms as subscribe

    return subscribe(url, **{"prefix": Settings().prefix} | options)


async def acknowledge(url: str, alarm: str | None = None, *, bed: str | None = None, who: str) -> Audit:
    """Acknowledge an alarm, or all open ones of a bed; see `stream.asking.acknowledge`.

    Returns
    -------
    stream.contract.Audit
        The worker's answer: ``done``, and if not, why in ``message``.

    Examples
    --------
    >>> answer = await bedside.acknowledge(  # doctest: +SKIP
    ...     "redis://localhost", event.alarm, who="nurse 7"
    ... )
    """
    from stream import asking

    async with await _connect(url) as bus:
        return await asking.acknowledge(bus, alarm, bed=bed, who=who)


async def pause(url: str, bed: str, seconds: float, *, who: str) -> Audit:
    """Pause a bed's alarms for so many seconds; see `stream.asking.pause`."""
    from stream import asking

    async with await _connect(url) as bus:
        return await asking.pause(bus, bed, seconds, who=who)


async def resume(url: str, bed: str, *, who: str) -> Audit:
    """End the pause of a bed's alarms; see `stream.asking.resume`."""
    from stream import asking

    async with await _connect(url) as bus:
        return await asking.resume(bus, bed, who=who)


async def snapshot(url: str, alarm: str) -> Snapshot | None:
    """Return the snapshot of an alarm: its samples and what the model says of them.

    Parameters
    ----------
    url : str
        The deployment's Redis server.
    alarm : str
        Id of the alarm: the ``snapshot`` of its events.

    Returns
    -------
    stream.snapshots.store.Snapshot or None
        None: it is not stored yet (that takes ten seconds), or no more.

    Examples
    --------
    >>> kept = await bedside.snapshot("redis://localhost", event.snapshot)  # doctest: +SKIP
    >>> kept.arrays["samples"] / kept.header.gain  # doctest: +SKIP
    """
    from stream.snapshots.store import SnapshotStore

    async with await _connect(url) as bus:
        return await SnapshotStore(bus).get(alarm)


async def _connect(url: str) -> Bus:
    from stream.bus import Bus

    return await Bus.connect(url, prefix=Settings().prefix)


# ---- the command line ------------------------------------------------------------------------------------

# Where each command lives: with the package whose work it does. In the order in which people meet them.
_COMMANDS = {
    "demo": "bench.commands:demo",
    "analyze": "bedside:_analyze_command",
    "replay": "ingest.commands:replay",
    "ingest": "ingest.commands:ingest",
    "worker": "stream.commands:worker",
    "dashboard": "monitor.commands:dashboard",
    "users": "monitor.login.commands:users",
    "alerts": "stream.subscription.commands:alerts",
    "bed": "stream.bed_commands:bed",
    "record": "stream.recording.commands:record",
    "watch": "stream.commands:watch",
    "topics": "stream.topic_commands:topics",
    "bridge": "stream.commands:bridge",
    "audit": "stream.audit.commands:audit",
    "models": "models.commands:models",
    "config": "stream.config_commands:config",
    "doctor": "bench.doctor_commands:doctor",
    "preprocess": "training.preprocess.commands:preprocess",
    "train": "training.commands:train",
    "export": "training.commands:export",
    "calibrate": "training.calibration.commands:calibrate",
    "evaluate": "training.evaluation.commands:evaluate",
    "bench": "bench.commands:bench",
}
# Commands that join another one; what takes several packages lives here.
_BELOW = {
    "alerts": (
        "bedside:_snapshot_command",
        "stream.snapshots.commands:snapshots",
        "stream.snapshots.commands:delete_snapshots",
    )
}


class _Commands(click.Group):
    # Imports a command when it is asked for, so that the light ones start at once.
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = _imported(_COMMANDS[cmd_name])
        if isinstance(command, click.Group):
            for place in _BELOW.get(cmd_name, ()):
                command.add_command(_imported(place))
        return command


def _imported(place: str) -> click.Command:
    module, _, name = place.partition(":")
    command: click.Command = getattr(import_module(module), name)
    return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="bedside")
@click.option("-v", "--verbose", is_flag=True, help="Say more about what happens (on standard error).")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Of what goes to standard error. [default: BEDSIDE_LOG_FORMAT, else text]",
)
def cli(verbose: bool, log_format: LogFormat | None) -> None:
    """Monitor bedside ECG feeds as they stream.

    Research software, not a medical device; never the only source of alarms.

    \b
    bedside demo                         four beds on this machine, with a live page
    bedside analyze RECORD               one recording through the same pipeline
    bedside worker & bedside dashboard & bedside replay RECORD --bed icu-1
    bedside alerts --follow --json       every alarm transition, one JSON object a line
    bedside -v --log-format json worker  its log as JSON, with bed and alarm
    """
    set_up(log_format or Settings().log_format, logging.INFO if verbose else logging.WARNING)
    for unknown in unknown_variables():
        say(str(unknown), level=logging.WARNING)


@click.command("analyze")
@click.argument("path")
@model_option
@fs_option
@leads_option
@json_option
@click.option(
    "--from",
    "begin",
    metavar="TIME",
    help="Of a recorded bed: from this device time on (ISO 8601; local time without a zone).",
)
@click.option("--until", metavar="TIME", help="And up to this one.")
@click.option("--png", metavar="FILE", help="Draw leads, reconstruction and score as a picture.")
@click.option("--pdf", metavar="FILE", help="The same for printing, true to scale.")
@click.option("--html", metavar="FILE", help="Write a page of its own, to pan and zoom.")
@click.option("--arrays", metavar="FILE", help="Write signal, reconstruction and errors as .npz.")
@click.option(
    "--annotations", metavar="EXT", help="Write alarms as WFDB annotations, RECORD.EXT in this folder."
)
def _analyze_command(
    path: str,
    model: str | None,
    fs: float | None,
    leads: tuple[str, ...] | None,
    json_path: str | None,
    begin: str | None,
    until: str | None,
    png: str | None,
    pdf: str | None,
    html: str | None,
    arrays: str | None,
    annotations: str | None,
) -> None:
    """Analyse one recording with the pipeline that also runs live.

    PATH is a WFDB record (with or without extension), a .npy array, a DICOM waveform, or the folder of a bed
    that `bedside record` wrote, of which --from and --until take a part.

    \b
    bedside analyze ptb-xl/records500/00000/00001_hr
    bedside analyze mitdb/207 --json -
    bedside analyze mitdb/207 --png 207.png --html 207.html --arrays 207.npz --annotations bed
    bedside analyze ecg.npy --fs 500
    bedside analyze holter.npy --fs 250 --leads II,V5
    bedside analyze recordings/icu-1 --from 2025-11-29T10:30 --until 2025-11-29T10:35 --pdf icu-1.pdf
    """
    from ingest.recordings import open_recording

    if (begin is None) != (until is None):
        raise click.UsageError("--from and --until go together")
    start, stop, name = 0, None, None
    if begin is None or until is None:
        recording = open_recording(path, fs=fs, leads=leads)
    else:
        from ingest.recorded import open_stretch

        stretch, start, stop = open_stretch(Path(path), device_time(begin), device_time(until))
        recording, name = stretch, f"{stretch.name}, {local_time(stretch.time_of(start))}"
    # What cannot be written is said before a long analysis, not after it.
    for file in (json_path, png, pdf, html, arrays):
        if file and file != "-":
            check_writable(file)
    if annotations is not None:
        from ingest.annotations import annotation_path, write_annotations

        annotation_path(name or recording.name, annotations)
    # Only now: they load scipy, a second or two.
    from stream.describe import described
    from stream.overlay import Overlay, TooLongError, save_arrays

    session = load_model(model or Settings().model)
    part = _Part(recording, start, stop, session, name)
    overlay = None
    if png or pdf or html or arrays:
        try:
            overlay = Overlay(
                session.manifest, recording.leads, recording.fs, part.duration_s, begin=part.begin
            )
        except TooLongError as error:
            raise RefusalError(f"{recording.name}: {error}") from error
    with progress_bar(f"analysing {recording.name}", part.duration_s) as done:
        analysis = _analyse(recording, session, part, on_second=done, overlay=overlay)
    if json_path:
        write_json(analysis.model_dump_json(), json_path)
    if json_path != "-":
        click.echo(described(analysis))
    written = [str(write_annotations(analysis, annotations))] if annotations is not None else []
    if overlay is not None:
        traces = overlay.traces()
        if arrays:
            with writing(arrays):
                save_arrays(arrays, traces, analysis, session.manifest)
        for picture, form in _pictures(png, pdf):
            if picture:
                from monitor.report.picture import write_picture

                with writing(picture):
                    write_picture(picture, analysis, traces, form)
        if html:
            from monitor.report.page import write_html

            with writing(html):
                write_html(html, analysis, traces)
        written += [file for file in (png, pdf, html, arrays) if file]
    if written:
        # Standard output may be the JSON.
        click.echo(f"  written: {', '.join(written)}", err=json_path == "-")


class _Part:
    # What is read of a recording, so that the samples from `start` on are judged as in the middle of a feed.
    def __init__(
        self, recording: Recording, start: int, stop: int | None, session: Session, name: str | None = None
    ) -> None:
        from stream.preprocess import SETTLING_S

        # A strip of a long recording has to say of when it is.
        self.name = name or recording.name
        fs = recording.fs
        first = max(0, start - math.ceil((session.manifest.window.seconds + SETTLING_S) * fs))
        self.start_s, self.stop_s = first / fs, None if stop is None else stop / fs
        self.duration_s = ((recording.n_samples or 0) if stop is None else stop) / fs - self.start_s
        self.begin = start + (recording.first_index or 0)


def _analyse(
    recording: Recording,
    session: Session,
    part: _Part | None = None,
    *,
    on_second: Callable[[float], None] | None = None,
    overlay: Overlay | None = None,
) -> Analysis:
    from ingest.chunks import CHUNK_RANGE_S, chunks_of
    from stream.offline import analyse, joined

    part = part or _Part(recording, 0, None, session)
    begin = part.start_s * recording.fs + (recording.first_index or 0)

    def on_window(pending: Pending, verdict: Verdict | None, finding: Finding) -> None:
        if overlay is not None:
            overlay.add(pending, verdict, finding)
        if on_second is not None:
            on_second((finding.end - begin) / recording.fs)

    # The longest chunks: what is found does not depend on them, and fewer cost less.
    chunks = joined(
        chunks_of(
            recording,
            recording.bed,
            recording.session,
            start=part.start_s,
            stop=part.stop_s,
            chunk_s=CHUNK_RANGE_S[1],
        )
    )
    return analyse(
        chunks if overlay is None else overlay.heard(chunks),
        session,
        record=part.name,
        on_window=on_window,
        begin=part.begin,
    )


def _pictures(png: str | None, pdf: str | None) -> Iterator[tuple[str | None, Literal["png", "pdf"]]]:
    yield png, "png"
    yield pdf, "pdf"


@click.command("snapshot")
@click.argument("alarm")
@click.option("--wfdb", metavar="FOLDER", help="Write a WFDB record with annotations.")
@click.option("--png", metavar="FILE", help="Draw one page as a picture.")
@click.option("--pdf", metavar="FILE", help="Draw it for printing, true to scale (A4).")
@json_option
@redis_option
@click.pass_obj
def _snapshot_command(
    outer: str | None,
    alarm: str,
    wfdb: str | None,
    png: str | None,
    pdf: str | None,
    json_path: str | None,
    redis: str | None,
) -> None:
    """Say what ALARM looked like, and write the samples around it and what the model says of them.

    ALARM is an id, as `bedside alerts --json` shows it. Its snapshot is stored ten seconds after the alarm
    was raised.

    \b
    bedside alerts snapshot 5f3a9c0e1b2d4f60 --pdf alarm.pdf
    bedside alerts snapshot 5f3a9c0e1b2d4f60 --wfdb records --json -
    """
    import asyncio

    from stream.describe import described_snapshot, snapshot_fields

    for file in (png, pdf, json_path):
        if file and file != "-":
            check_writable(file)
    found = asyncio.run(_find_snapshot(server_url(redis or outer), alarm))
    if json_path:
        write_json(snapshot_fields(found), json_path)
    if json_path != "-":
        click.echo(described_snapshot(found))
    written: list[str] = []
    if wfdb:
        from ingest.snapshot_files import write_snapshot

        written += map(str, write_snapshot(found, wfdb))
    for file, form in _pictures(png, pdf):
        if file:
            from monitor.report.strip import write_strip

            with writing(file):
                write_strip(file, found, form)
            written.append(file)
    if written:
        # Standard output may be the JSON.
        click.echo(f"  written: {', '.join(written)}", err=json_path == "-")


async def _find_snapshot(url: str, alarm: str) -> Snapshot:
    from stream.snapshots.store import SnapshotStore, missing_reason

    async with await _connect(url) as bus:
        found = await SnapshotStore(bus).get(alarm)
        if found is None:
            raise RefusalError(await missing_reason(bus, alarm))
        return found


def _known_errors() -> tuple[type[Exception], ...]:
    # Imported late: only a failed command needs them.
    from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
    from redis.exceptions import RedisError

    from ingest.source import IngestError
    from models.bundle import BundleError
    from stream.asking import AskError
    from stream.bus import BusUnavailableError
    from stream.embedded import EmbeddedServerError
    from stream.recording.lock import LockedError
    from stream.settings import BrokerError, SettingsError

    return (
        RefusalError,
        AskError,
        IngestError,
        BundleError,
        BusUnavailableError,
        EmbeddedServerError,
        LockedError,
        BrokerError,
        SettingsError,
        # A server that went away and stayed away.
        RedisError,
        KafkaError,
    )


def main() -> None:
    """Run the command line: exit code 0 done, 1 failed, 2 bad usage; what can be put right is one line."""
    try:
        cli.main(prog_name="bedside", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has gone, as in `bedside alerts | head`.
        sys.stderr.close()
        sys.exit(0)
    except _known_errors() as error:
        say(" ".join(str(error).split()), level=logging.ERROR)
        sys.exit(1)


if __name__ == "__main__":
    main()
